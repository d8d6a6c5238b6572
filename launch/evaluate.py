"""Evaluates the newest checkpoint of a run on held-out problems.

python -m launch.evaluate tiny --run-dir runs/mine --phase train
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.checkpoint import CheckpointStore, has_checkpoint
from gtpo_jax.report import terminal
from gtpo_jax.types import Params
from launch import cli, display
from launch.session import Evaluator, Session

MODES = ("sampled", "greedy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments(cli.Arguments):
    """Success on held-out problems, sampled and greedy."""

    phase: Literal["sft", "train"] = "train"
    """Whose checkpoint."""
    show: int = 3
    """Trajectories to print."""


def load_params(session: Session, phase: str) -> Params:
    """Parameters of the newest checkpoint of a phase of the session's run."""
    folder = session.run_dir / phase / "checkpoints"
    if not has_checkpoint(folder):
        raise ValueError(f"no checkpoint in {folder}; run `python -m launch.{phase}` first")
    with CheckpointStore(folder) as store:
        return store.restore_params(session.init_params())


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(EvaluateArguments, argv, program="launch.evaluate")
    with Session(arguments.config, arguments.run_dir) as session:
        params = load_params(session, arguments.phase)
        evaluator = Evaluator(session)
        results = {mode: evaluator(params, mode) for mode in MODES}
    evaluations = {mode: result[0] for mode, result in results.items()}
    display.CONSOLE.print(terminal.render_results({arguments.phase: evaluations}))
    for trajectory in results["sampled"][1][: arguments.show]:
        display.CONSOLE.print(terminal.render_trajectory(trajectory))
    if arguments.json is not None:
        cli.write_json(arguments.json, {m: e.record() for m, e in evaluations.items()})


if __name__ == "__main__":
    cli.main(run)
