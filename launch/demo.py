"""Runs everything on one machine: imitation, then GTPO, and shows what changed.

python -m launch.demo
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

from configs.methods import spell
from gtpo_jax.learner.checkpoint import has_checkpoint
from gtpo_jax.report import curve, terminal
from gtpo_jax.results import metrics
from gtpo_jax.results.evaluation import Evaluation
from gtpo_jax.types import Trajectory
from launch import cli
from launch.run import cluster, display, own, trajectory_files, versions
from launch.run.evaluator import Evaluator
from launch.run.gate import check_gate
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import run_training

EXIT_NOT_BETTER = 1
SHOWN = 3

Result = tuple[dict[str, Evaluation], list[Trajectory]]
"""Evaluations by mode, and the sampled trajectories."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoArguments(cli.RunArguments):
    """Cold start, GTPO and evaluation in one go."""

    run_dir: pathlib.Path = pathlib.Path("runs/demo")
    """Folder of the run; an earlier run in it is kept under another name."""
    resume: bool = False
    """Resume the demo that was interrupted."""
    require_gain: bool = False
    """End with status 1 unless reinforcement learning improved sampled success, as `make demo`
    requires."""

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        resumed = own.flag(argv, "resume")
        return own.newest(cls.folder(argv), goes_on=True) if resumed else None


def run_demo(arguments: DemoArguments) -> dict:
    """Runs both phases and returns the summary, which is also written to the run's folder."""
    run_dir, resume = arguments.run_dir, arguments.resume
    if not resume and run_dir.exists() and cluster.is_first():
        display.CONSOLE.print(f"the earlier run is kept in {_set_aside(run_dir)}")
    cluster.wait_for_all()
    go_on = cli.command("launch.demo", arguments, "--resume")
    seconds: dict[str, float] = {}
    method = spell(arguments.config.train.method)
    with Session(arguments.config, run_dir) as session:
        evaluator = Evaluator(session)
        began = time.monotonic()

        def lap(phase: str) -> None:
            seconds[phase] = round(time.monotonic() - began - sum(seconds.values()), 1)

        cold_start = run_sft(session, resume=resume, go_on=go_on)
        lap("cold_start")
        gate = check_gate(session, evaluator, cold_start, go_on)
        before = _evaluate(evaluator, cold_start)
        if cluster.is_first() and session.config.train.keep_every:
            # Beside the files of the steps, as step 0.
            folder = run_dir / "train" / trajectory_files.FOLDER
            trajectory_files.write(folder, session.dialogue.tokenizer, 0, before[1])
        lap("evaluate_cold_start")
        policy = run_training(
            session,
            cold_start,
            evaluator,
            resume=resume and has_checkpoint(run_dir / "train" / "checkpoints"),
            go_on=go_on,
        )
        lap(method)
        after = _evaluate(evaluator, policy)
        lap("evaluate_policy")

    records = metrics.read_metrics(run_dir / "train" / "metrics.jsonl")
    summary = {
        "cold_start": {mode: result.record() for mode, result in before[0].items()},
        method: {mode: result.record() for mode, result in after[0].items()},
        "gate": gate,
        "logprob_gap": max(record["rollout/logprob_gap"] for record in records),
        "gain": after[0]["sampled"].success - before[0]["sampled"].success,
        "seconds": seconds,
        "versions": versions.installed(),
    }
    if cluster.is_first():
        cli.write_json(run_dir / "summary.json", summary)
        picture = run_dir / "curve.png"
        sampled = before[0]["sampled"]
        start = {"success": sampled.success, "violations": sampled.violations}
        curve.plot_learning_curve(records, picture, cold_start=start)
        _show(before, after, arguments, seconds, picture)
    return summary


def _set_aside(run_dir: pathlib.Path) -> pathlib.Path:
    """Renames the folder of an earlier run and returns its new name."""
    number = 1
    while (kept := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(kept)
    return kept


def _evaluate(evaluator: Evaluator, params) -> Result:
    sampled, trajectories = evaluator.final(params, "sampled")
    greedy, _ = evaluator.final(params, "greedy")
    return {"sampled": sampled, "greedy": greedy}, trajectories


def _show(
    before: Result,
    after: Result,
    arguments: DemoArguments,
    seconds: dict[str, float],
    picture: pathlib.Path,
) -> None:
    console = display.CONSOLE
    # The most telling problems: those whose outcome improved.
    changed = [i for i in range(len(before[1])) if after[1][i].success > before[1][i].success]
    for index in _families_first(changed, after[1])[:SHOWN]:
        console.print(terminal.render_trajectory(before[1][index], title="cold start"))
        console.print(terminal.render_trajectory(after[1][index], title="after reinforcement"))
    name = spell(arguments.config.train.method)
    console.print(terminal.render_results({"cold start": before[0], name: after[0]}))
    console.print("  ".join(f"{phase} {value:.0f} s" for phase, value in seconds.items()))
    console.print(f"run {arguments.run_dir}   curve {picture}")


def _families_first(indices: list[int], trajectories: list[Trajectory]) -> list[int]:
    """The first index of each problem family, then the others."""
    first: dict[str, int] = {}
    for index in indices:
        first.setdefault(trajectories[index].problem.family, index)
    return sorted(indices, key=lambda index: index not in first.values())


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(DemoArguments, argv, program="launch.demo")
    cluster.start(arguments.cluster, arguments.distributed)
    summary = run_demo(arguments)
    if arguments.json is not None:
        cli.write_json(arguments.json, summary)
    if arguments.require_gain and summary["gain"] <= 0:
        sys.stderr.write(
            "error: reinforcement did not improve on the cold start: sampled success changed by"
            f" {summary['gain']:+.3f}, and --require-gain asks for more than 0\n"
        )
        sys.exit(EXIT_NOT_BETTER)


if __name__ == "__main__":
    cli.main(run)
