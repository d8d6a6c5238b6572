"""Evaluates a checkpoint of a run on held-out problems: avg@k, pass@k, maj@k, and samples.

    python -m launch.evaluate tiny --run-dir runs/mine --phase train --evaluation.samples 8

Results are written to RUN/evaluation/PHASE-STEP. The same command continues an evaluation that was
interrupted or killed: only missing trajectories are rolled out.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence
from typing import Literal

from gtpo_jax.devices import processes
from gtpo_jax.learner.checkpoint import has_checkpoint, newest_step
from gtpo_jax.report import terminal
from gtpo_jax.results import evaluation
from gtpo_jax.results.evaluation import Evaluation
from gtpo_jax.types import Trajectory
from launch import cli
from launch.run import cluster, display, own, run_folder, signals
from launch.run import evaluation_files as results_of
from launch.run.evaluator import MODES, Evaluator
from launch.run.network import CHECKPOINTS
from launch.run.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments(cli.RunArguments):
    """Success on held-out problems, sampled and greedy."""

    phase: Literal["import", "sft", "train"] = "train"
    """Phase whose checkpoint is evaluated; a path given as `checkpoint` already says it."""
    checkpoint: str = ""
    """Step of the checkpoint, or its path RUN/PHASE/checkpoints/STEP. Empty: the newest of the
    phase."""
    name: str = ""
    """Folder of the results in RUN/evaluation. Empty: PHASE-STEP."""
    show: int = 3
    """Number of trajectories to print, each of a different problem, from those sampled in this
    call."""

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        path = pathlib.Path(own.option(argv, "checkpoint") or "")
        if path.absolute().parent.name == CHECKPOINTS:
            phase_dir = path.absolute().parents[1]
            return own.of_phase(phase_dir.parent, phase_dir.name)
        return own.of_phase(cls.folder(argv), own.option(argv, "phase") or cls.phase)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The checkpoint to evaluate."""

    run_dir: pathlib.Path
    phase: str
    step: int

    @property
    def path(self) -> pathlib.Path:
        return self.run_dir / self.phase / CHECKPOINTS / str(self.step)

    @property
    def command(self) -> str:
        """The command line that evaluates this checkpoint."""
        words = ["--run-dir", str(self.run_dir), "--phase", self.phase, "--checkpoint"]
        return f"python -m launch.evaluate {shlex.join([*words, str(self.step)])}"


def find_checkpoint(arguments: EvaluateArguments) -> Checkpoint:
    """The checkpoint that the arguments name; the same on all processes."""
    run_dir, phase, given = arguments.run_dir, arguments.phase, arguments.checkpoint
    if given and not given.isdecimal():
        path = pathlib.Path(given)
        if not (path.name.isdecimal() and path.absolute().parent.name == CHECKPOINTS):
            raise ValueError(
                f"--checkpoint must be a step, or a path like RUN/train/{CHECKPOINTS}/100, got"
                f" {given}"
            )
        phase_dir = path.absolute().parents[1]
        return Checkpoint(run_dir=phase_dir.parent, phase=phase_dir.name, step=int(path.name))
    step = int(given) if given else newest_step(run_dir / phase / CHECKPOINTS)
    step = processes.gather_objects(step)[0]
    if step is None:
        others = [p for p in run_folder.POLICIES if has_checkpoint(run_dir / p / CHECKPOINTS)]
        way_out = (
            f"give --phase {' or --phase '.join(others)}, which has one"
            if others
            else f"run `python -m launch.{phase}` first"
        )
        raise ValueError(f"no checkpoint in {run_dir / phase / CHECKPOINTS}; {way_out}")
    return Checkpoint(run_dir=run_dir, phase=phase, step=step)


def evaluate(
    session: Session, checkpoint: Checkpoint, folder: pathlib.Path, *, go_on: str = ""
) -> tuple[dict[str, Evaluation], list[Trajectory]]:
    """The evaluation of each mode, and the trajectories that this call sampled for it.

    Trajectories that the folder already has are not rolled out again. Only process 0 gets the
    evaluations. `go_on` is the command to run after an interrupt; by default it evaluates the same
    checkpoint.
    """
    params = session.load_params(checkpoint.run_dir, checkpoint.phase, checkpoint.step)
    evaluator = Evaluator(session)
    # A problem that is drawn twice would get the same trajectories twice.
    problems = list({problem.id: problem for problem in evaluator.problems}.values())
    repeated = len(evaluator.problems) - len(problems)
    if repeated:
        display.CONSOLE.print(f"{repeated} problems repeat others and are evaluated once")
    inside = checkpoint.path.is_relative_to(session.run_dir)
    place = checkpoint.path.relative_to(session.run_dir) if inside else checkpoint.path
    results = results_of.Results(
        folder,
        results_of.settings(session.config, place, params),
        session.dialogue.tokenizer,
    )
    requests = {mode: evaluator.requests(problems, evaluator.samples(mode)) for mode in MODES}
    sampled: list[Trajectory] = []
    for mode, asked in requests.items():
        missing = results.missing(mode, asked)
        done, right = len(asked) - len(missing), 0
        if done:
            display.CONSOLE.print(f"{mode}: {done:,} of {len(asked):,} trajectories exist already")
        with display.Display(mode, len(asked), done) as bar:
            new = 0
            for part in results_of.parts(missing, session.config.rollout.slots):
                trajectories = evaluator.run(params, mode, part, bar=bar)
                results.add(mode, checkpoint.step, trajectories)
                signals.saved(go_on or checkpoint.command)
                new += len(part)
                right += sum(trajectory.success for trajectory in trajectories)
                bar.update(done + new, {"success": right / new})
                if mode == "sampled":
                    sampled += trajectories
    if not cluster.is_first():
        return {}, sampled
    for mode in requests:
        results.join_parts(mode)
    results.write_problems(dict(requests))
    evaluations = {m: evaluation.summarize(results.of(m, asked)) for m, asked in requests.items()}
    summary = {mode: result.record() for mode, result in evaluations.items()}
    cli.write_json(
        folder / "summary.json", {"checkpoint": str(place), "repeated": repeated, **summary}
    )
    return evaluations, sampled


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(EvaluateArguments, argv, program="launch.evaluate")
    cluster.start(arguments.cluster, arguments.distributed)
    checkpoint = find_checkpoint(arguments)
    name = arguments.name or f"{checkpoint.phase}-{checkpoint.step}"
    folder = arguments.run_dir / "evaluation" / name
    saved = EvaluateArguments.begins_with(argv)
    go_on = f"python -m launch.evaluate {shlex.join(argv)}"
    with Session(arguments.config, arguments.run_dir) as session:
        own.tell_changes(saved, session.config)
        own.tell_unfinished(checkpoint.run_dir, checkpoint.phase, checkpoint.step)
        evaluations, sampled = evaluate(session, checkpoint, folder, go_on=go_on)
    if not cluster.is_first():
        return
    display.CONSOLE.print(terminal.render_evaluations(evaluations, title=name))
    firsts = [trajectory for trajectory in sampled if trajectory.sample == 0]
    for trajectory in firsts[: arguments.show]:
        display.CONSOLE.print(terminal.render_trajectory(trajectory))
    display.CONSOLE.print(f"results in {folder}", highlight=False, soft_wrap=True)
    if arguments.json is not None:
        cli.write_json(arguments.json, {m: e.record() for m, e in evaluations.items()})


if __name__ == "__main__":
    cli.main(run)
