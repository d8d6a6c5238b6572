"""One problem, solved with the tool before your eyes.

python -m launch.rollout tiny --run-dir runs/mine --prompt "What is 12 * 34?"
python -m launch.rollout chat --model Qwen2.5-1.5B-Instruct --prompt "What is 2**100 % 7?"
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

import jax
import numpy as np

from gtpo_jax import rollout, sampling
from gtpo_jax.dialogue import AnyDialogue, ParsedTurn
from gtpo_jax.report import terminal
from gtpo_jax.types import Params, Problem, Tool, ToolResult
from launch import cli, display, imported
from launch.network import Network
from launch.session import Session
from models import hf_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutArguments(cli.RunArguments):
    """One problem, solved turn by turn with the tool."""

    prompt: str = ""
    """The problem."""
    model: pathlib.Path | None = None
    """Folder of a Hugging Face checkpoint; without it, the newest checkpoint of the run."""
    temperature: float = 1.0
    """0 takes the likeliest tokens."""


class WatchedDialogue:
    """A dialogue that prints every turn when it has ended."""

    def __init__(self, dialogue: AnyDialogue):
        self._dialogue = dialogue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialogue, name)

    def parse(self, tokens: Sequence[int] | np.ndarray) -> ParsedTurn:
        parsed = self._dialogue.parse(tokens)
        display.CONSOLE.print(terminal.render_turn(parsed.text, parsed.violation))
        return parsed


class WatchedTool:
    """A tool that prints what its calls give."""

    def __init__(self, tool: Tool):
        self._tool = tool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    def submit(self, code: str, *, timeout: float | None = None) -> Future[ToolResult]:
        call = self._tool.submit(code, timeout=timeout)
        call.add_done_callback(self._show)
        return call

    def _show(self, call: Future[ToolResult]) -> None:
        if not call.cancelled() and call.exception() is None:
            display.CONSOLE.print(terminal.render_output(call.result()))


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(RolloutArguments, argv, program="launch.rollout")
    if not arguments.prompt:
        raise ValueError("--prompt is missing; give the problem to solve")
    # Every device has a row, though one is enough: rows are spread evenly.
    limits = dataclasses.replace(
        arguments.config.rollout, slots=jax.device_count(), parked=0, prefill_prompts=1
    )
    config = dataclasses.replace(arguments.config, rollout=limits)
    checkpoint = model = None
    if arguments.model is not None:
        checkpoint = hf_weights.open_checkpoint(arguments.model)
        model = imported.Imported(model=checkpoint.config, source=arguments.model)
    with Session(config, arguments.run_dir, model=model) as session:
        params = load(session, checkpoint)
        engine = session.engine(
            functools.partial(sampling.categorical, temperature=arguments.temperature)
            if arguments.temperature
            else sampling.greedy
        )
        engine.dialogue = cast(AnyDialogue, WatchedDialogue(engine.dialogue))
        engine.tool = WatchedTool(engine.tool)
        problem = Problem(id=arguments.prompt, question=arguments.prompt, answer="")
        display.CONSOLE.print(arguments.prompt, style="bold", markup=False)
        [trajectory], _ = engine.run(
            params,
            [rollout.Request(problem=problem, group=0, sample=0)],
            seed=config.seed,
            step=0,
        )
    display.CONSOLE.print(f"{trajectory.stop_reason}; answer: {trajectory.answer}", markup=False)
    if arguments.json is not None:
        turns = [{"text": turn.text, "violation": turn.violation} for turn in trajectory.turns]
        record = {"turns": turns, "answer": trajectory.answer, "stop": str(trajectory.stop_reason)}
        cli.write_json(arguments.json, record)


def load(session: Session, checkpoint: hf_weights.Checkpoint | None) -> Params:
    """The checkpoint's parameters, or the newest of the run."""
    if checkpoint is not None:
        network = Network(session.config.model, session.mesh)
        return session.network.adapted(
            hf_weights.load_params(
                checkpoint, shardings=network.shardings, dtype=network.config.param_dtype
            )
        )
    return session.load_newest()


if __name__ == "__main__":
    cli.main(run)
