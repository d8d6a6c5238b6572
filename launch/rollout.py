"""Solves one problem with the tool, turn by turn, or many problems to save the successes.

python -m launch.rollout tiny --run-dir runs/mine --prompt "What is 12 * 34?"
python -m launch.rollout chat --model Qwen2.5-1.5B-Instruct --prompt "What is 2**100 % 7?"
python -m launch.rollout tiny --run-dir runs/mine --keep-successes own.jsonl --samples 4
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

import jax
import numpy as np

from gtpo_jax import rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.language.grammar import AnyDialogue, ParsedTurn
from gtpo_jax.report import terminal
from gtpo_jax.types import Params, Problem, Tool, ToolResult
from launch import cli
from launch.run import cluster, display, imported_model, own, rejection
from launch.run.network import Network
from launch.run.session import Session
from models.hf import weights as hf_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutArguments(cli.RunArguments):
    """Solves one problem turn by turn with the tool, or saves the successes among many."""

    WRITES = ("json", "keep_successes")

    prompt: str = ""
    """Problem to solve; its turns are printed."""
    keep_successes: pathlib.Path | None = None
    """Instead of `prompt`: file of demonstrations to write, made of right answers to training
    problems."""
    model: pathlib.Path | None = None
    """Folder of a Hugging Face checkpoint. None: the newest checkpoint of the run."""
    temperature: float = 1.0
    """Sampling temperature. 0 takes the most likely token."""
    first_problem: int = 0
    """Number of the first training problem (keep-successes)."""
    problems: int = 256
    """Number of training problems from there on (keep-successes)."""
    samples: int = 4
    """Trajectories per problem (keep-successes)."""
    most_per_problem: int = 1
    """Largest number of demonstrations saved per problem: those sampled first, without duplicate
    texts (keep-successes)."""
    keep_violations: bool = False
    """Also save right answers that follow badly formed turns (keep-successes)."""

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        handed_over = own.option(argv, "model") is not None
        return None if handed_over else own.newest(cls.folder(argv))

    def wanted(self) -> rejection.Wanted | None:
        """The trajectories to save, or None to watch one problem. Raises where options contradict
        each other.
        """
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if self.keep_successes is None:
            if not self.prompt:
                raise ValueError("--prompt is missing; give the problem to solve")
            for name in KEEPING:
                if getattr(self, name) != getattr(RolloutArguments, name):
                    option = name.replace("_", "-")
                    raise ValueError(f"--{option} needs --keep-successes; leave it out")
            return None
        if self.prompt:
            raise ValueError("--prompt watches one problem, --keep-successes many; give one")
        return rejection.Wanted(
            path=self.keep_successes,
            first=self.first_problem,
            problems=self.problems,
            samples=self.samples,
            most_per_problem=self.most_per_problem,
            violations=self.keep_violations,
            temperature=self.temperature,
        )


KEEPING = ("first_problem", "problems", "samples", "most_per_problem", "keep_violations")
"""Options of --keep-successes."""


class WatchedDialogue:
    """A dialogue that prints every turn once it has ended."""

    def __init__(self, dialogue: AnyDialogue):
        self._dialogue = dialogue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialogue, name)

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        parsed = self._dialogue.parse(tokens, before=before, unmarked=unmarked)
        display.CONSOLE.print(terminal.render_turn(parsed.text, parsed.violation))
        return parsed


class WatchedTool:
    """A tool that prints the results of its calls."""

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
    wanted = arguments.wanted()
    cluster.start(arguments.cluster, arguments.distributed)
    if wanted is None:
        watch(arguments)
    else:
        keep(arguments, wanted)


def keep(arguments: RolloutArguments, wanted: rejection.Wanted) -> None:
    """Writes the successes among many problems."""
    checkpoint, model = find_model(arguments)
    with Session(arguments.config, arguments.run_dir, model=model) as session:
        successes = rejection.keep_successes(session, load(session, checkpoint), wanted)
    display.CONSOLE.print(str(successes), highlight=False, soft_wrap=True)
    if arguments.json is not None:
        cli.write_json(arguments.json, successes.figures())
    if not successes.records:
        sys.stderr.write(f"error: nothing to keep, so {wanted.path} is not written\n")
        sys.exit(cli.EXIT_FAILED)
    display.CONSOLE.print(f"demonstrations in {wanted.path}", highlight=False, soft_wrap=True)


def watch(arguments: RolloutArguments) -> None:
    """Prints how one problem is solved."""
    if jax.process_count() > 1:
        raise ValueError("--prompt is watched in one process; several keep successes")
    # One row would do, but rows are spread evenly over the devices.
    limits = dataclasses.replace(
        arguments.config.rollout, slots=jax.device_count(), parked=0, prefill_prompts=1
    )
    config = dataclasses.replace(arguments.config, rollout=limits)
    checkpoint, model = find_model(arguments)
    with Session(config, arguments.run_dir, model=model) as session:
        params = load(session, checkpoint)
        engine = session.engine(
            functools.partial(sampling.categorical, temperature=arguments.temperature)
            if arguments.temperature
            else sampling.greedy
        )
        engine.dialogue = cast(AnyDialogue, WatchedDialogue(engine.dialogue))
        if isinstance(engine, rollout.RolloutEngine):
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


def find_model(
    arguments: RolloutArguments,
) -> tuple[hf_weights.Checkpoint | None, imported_model.Imported | None]:
    """The checkpoint named by --model, or None."""
    if arguments.model is None:
        return None, None
    checkpoint = hf_weights.open_checkpoint(arguments.model)
    return checkpoint, imported_model.Imported(model=checkpoint.config, source=arguments.model)


def load(session: Session, checkpoint: hf_weights.Checkpoint | None) -> Params:
    """Parameters of the given checkpoint, or of the newest checkpoint of the run."""
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
