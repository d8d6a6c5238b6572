"""Word problems from scratch: gains of GTPO over its own cold start, and of GRPO with the same
budget.

python -m benchmarks.word_problems --task.train-file train.jsonl --task.eval-file eval.jsonl

Files are JSON lines with `question`, `answer` and, for training, `expression`; the settings are
those of the preset `word-problems`. Each seed has its own parameters, demonstrations, cold start
and rollouts; GTPO and GRPO begin with the same cold start. The same command continues an
interrupted benchmark. Look at a run with `launch.report`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from statistics import mean
from typing import TypeVar

from rich.table import Table

from benchmarks.figures import Figure, publish
from configs.schema import RunConfig
from gtpo_jax.learner.checkpoint import has_checkpoint, newest_step
from gtpo_jax.results import gains
from gtpo_jax.results.evaluation import RIGHT, Evaluation, Outcome
from launch import cli, train_tokenizer
from launch.evaluate import Checkpoint, evaluate
from launch.run import display
from launch.run import evaluation_files as results_of
from launch.run.evaluator import Evaluator
from launch.run.network import CHECKPOINTS
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import run_training

T = TypeVar("T")

Policies = dict[str, dict[str, Evaluation]]
"""The sampled and greedy evaluations of cold start, GTPO and GRPO."""

COLD_START = "cold start"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProblemsArguments(cli.RunArguments):
    """Cold start, GTPO and GRPO on word problems, over several seeds."""

    run_dir: pathlib.Path = pathlib.Path("runs/word-problems")
    """Folder of the tokenizer and of the runs, two per seed."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of parameters, problems, demonstrations and sampling."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The results of one seed."""

    policies: Policies
    outcomes: dict[str, dict[str, list[Outcome]]]  # evaluations of each policy, sampled and greedy
    minutes: float | None  # seconds of cold start and GTPO; None if interrupted


def run_seed(config: RunConfig, folder: pathlib.Path) -> SeedResult:
    """Trains both methods from one cold start."""
    gtpo, grpo = folder / f"gtpo-{config.seed}", folder / f"grpo-{config.seed}"
    with Session(config, gtpo) as session:
        _phase(session, "sft", lambda resume: run_sft(session, resume=resume))
        _reinforce(session, gtpo)
        found = {COLD_START: _evaluate(session, "sft"), "GTPO": _evaluate(session, "train")}
    train = dataclasses.replace(config.train, method=("grpo",))
    with Session(dataclasses.replace(config, train=train), grpo) as session:
        session.save_tokenizer()
        _reinforce(session, gtpo)
        found["GRPO"] = _evaluate(session, "train")
    spent = [_seconds(gtpo / phase) for phase in ("sft", "train")]
    return SeedResult(
        policies={policy: evaluations for policy, (evaluations, _) in found.items()},
        outcomes={policy: outcomes for policy, (_, outcomes) in found.items()},
        minutes=None if None in spent else sum(filter(None, spent)) / 60,
    )


def _reinforce(session: Session, cold_start: pathlib.Path) -> None:
    evaluator = Evaluator(session)
    params = session.load_params(cold_start, "sft")
    _phase(session, "train", lambda resume: run_training(session, params, evaluator, resume=resume))


def _phase(session: Session, name: str, run: Callable[[bool], T]) -> T:
    """Runs a phase, or its remaining steps; records the seconds of one that was not interrupted."""
    folder = session.run_dir / name
    resume = has_checkpoint(folder / CHECKPOINTS)
    began = time.monotonic()
    result = run(resume)
    if not resume:
        cli.write_json(folder / "seconds.json", time.monotonic() - began)
    return result


def _seconds(folder: pathlib.Path) -> float | None:
    path = folder / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _evaluate(
    session: Session, phase: str
) -> tuple[dict[str, Evaluation], dict[str, list[Outcome]]]:
    """The evaluation of each mode, and its outcomes."""
    step = newest_step(session.run_dir / phase / CHECKPOINTS)
    assert step is not None
    checkpoint = Checkpoint(run_dir=session.run_dir, phase=phase, step=step)
    folder = session.run_dir / "evaluation" / f"{phase}-{step}"
    evaluations, _ = evaluate(session, checkpoint, folder)
    return evaluations, results_of.read_problems(folder).outcomes


def figures_of(results: Sequence[SeedResult]) -> dict[str, Figure]:
    """Means over the seeds, and the time of the slowest."""
    policies = list(results[0].policies)
    samples = results[0].policies["GTPO"]["sampled"].scores.samples

    def over_seeds(of: Callable[[dict[str, Evaluation]], float], policy: str) -> float:
        return mean(of(result.policies[policy]) for result in results)

    average = {policy: over_seeds(_average, policy) for policy in policies}
    figures = {
        f"{policy}, avg@{samples}": Figure(value=average[policy], unit="share")
        for policy in policies
    }
    for policy, bar in (("GTPO", 0.05), ("GRPO", None)):
        figures[f"gain of {policy}, avg@{samples}"] = Figure(
            value=average[policy] - average[COLD_START], unit="share", at_least=bar
        )
    for policy in policies:
        figures[f"{policy}, pass@{samples}"] = Figure(
            value=over_seeds(lambda e: e["sampled"].scores.pass_at[samples].value, policy),
            unit="share",
        )
        figures[f"{policy}, greedy"] = Figure(
            value=over_seeds(lambda e: e["greedy"].success, policy), unit="share"
        )
        figures[f"{policy}, format violations"] = Figure(
            value=over_seeds(lambda e: e["sampled"].violations, policy), unit="share"
        )
    minutes = [result.minutes for result in results if result.minutes is not None]
    figures["cold start and GTPO, slowest seed"] = Figure(
        value=max(minutes) if len(minutes) == len(results) else None, unit="minutes", at_most=40
    )
    return figures


def _average(evaluations: dict[str, Evaluation]) -> float:
    return evaluations["sampled"].scores.average.value


def table(seeds: Sequence[int], results: Sequence[SeedResult]) -> Table:
    """avg@k of each seed, with its interval."""
    rendered = Table(title="held-out problems, avg@k and its 95 % interval")
    rendered.add_column("seed", justify="right")
    for policy in results[0].policies:
        rendered.add_column(policy, justify="right")
    for seed, result in zip(seeds, results, strict=True):
        scores = [e["sampled"].scores.average for e in result.policies.values()]
        cells = [f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in scores]
        rendered.add_row(str(seed), *cells)
    return rendered


def failure_table(results: Sequence[SeedResult]) -> Table:
    """Shares of right samples and of each kind of failure, mean over the seeds."""
    policies = list(results[0].policies)
    rendered = Table(title="where the gain comes from: failures, mean over the seeds")
    rendered.add_column("")
    for policy in policies:
        rendered.add_column(policy, justify="right")
    shares = [
        {policy: gains.shares(modes["sampled"]) for policy, modes in result.outcomes.items()}
        for result in results
    ]
    for way in (RIGHT, *reversed(gains.FAILURES)):
        cells = [mean(found[policy][way] for found in shares) for policy in policies]
        rendered.add_row(way, *(f"{cell:.3f}" for cell in cells))
    return rendered


def part_table(results: Sequence[SeedResult]) -> Table:
    """The gain of each method by how the cold start solves a problem greedily, mean over seeds."""
    rendered = Table(title="where the gain comes from: problems, mean over the seeds")
    for column in ("problems", "share", "avg@k before", "after", "gain"):
        rendered.add_column(column, justify="left" if column == "problems" else "right")
    for policy in (policy for policy in results[0].policies if policy != COLD_START):
        compared = [_compare(result, policy) for result in results]
        for name, label in ((RIGHT, "solved greedily before"), (gains.WRONG, "not solved")):
            parts = [comparison.parts[name] for comparison in compared]
            share = mean(c.parts[name].problems / max(c.problems, 1) for c in compared)
            before, after = mean(part.before for part in parts), mean(part.after for part in parts)
            gain = mean(part.gain for part in parts)
            cells = [f"{share:.3f}", f"{before:.3f}", f"{after:.3f}", f"{gain:+.3f}"]
            rendered.add_row(f"{policy}, {label}", *cells)
    return rendered


def _compare(result: SeedResult, policy: str) -> gains.Comparison:
    """A comparison of a policy with its cold start."""
    before = result.outcomes[COLD_START]
    return gains.compare(before["greedy"], before["sampled"], result.outcomes[policy]["sampled"])


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(
        WordProblemsArguments, ["word-problems", *argv], program="benchmarks.word_problems"
    )
    config, folder = arguments.config, arguments.run_dir
    tokenizer = folder / "words.model"
    if not tokenizer.exists():
        train_tokenizer.make_tokenizer(config, tokenizer, vocab_size=config.model.vocab_size)
    config = dataclasses.replace(config, tokenizer=str(tokenizer))
    results = []
    for seed in arguments.seeds:
        display.CONSOLE.print(f"seed {seed}", style="bold")
        results.append(run_seed(dataclasses.replace(config, seed=seed), folder))
    for rendered in (table(arguments.seeds, results), failure_table(results), part_table(results)):
        display.CONSOLE.print(rendered)
    publish(figures_of(results), arguments.json)


if __name__ == "__main__":
    cli.main(run)
