"""Evaluates the newest checkpoint of a run on held-out problems.

python -m launch.evaluate tiny --run-dir runs/mine --phase train
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.report import terminal
from launch import cli, display, distributed
from launch.session import MODES, Evaluator, Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments(cli.RunArguments):
    """Success on held-out problems, sampled and greedy."""

    phase: Literal["import", "sft", "train"] = "train"
    """Whose checkpoint."""
    show: int = 3
    """Trajectories to print."""


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(EvaluateArguments, argv, program="launch.evaluate")
    distributed.start(arguments.cluster, arguments.distributed)
    with Session(arguments.config, arguments.run_dir) as session:
        params = session.load_params(arguments.run_dir, arguments.phase)
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
