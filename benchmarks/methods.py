"""Every relative in the world made for its claim, and for a few steps on a language model.

python -m benchmarks.methods --json figures.json

In the laboratory a method runs beside its parent and beside a copy with its advantages turned
around. On the model, `launch.train tiny --train.method NAME` runs for some steps from one cold
start, for every method whose facts the generated tasks give. Finished cells and runs are kept, so
the same command continues.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from benchmarks.claims import CLAIMS, Claim
from benchmarks.figures import Figure
from benchmarks.measure import run_benchmark
from configs.methods import make_method, split
from configs.worlds import make_world
from gtpo_jax import methods
from gtpo_jax.lab import suite
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.suite import Arm, Cell
from gtpo_jax.results.metrics import read_metrics
from gtpo_jax.types import Trajectory
from launch import cli, train
from launch.run import display


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodsArguments:
    """Claims in the laboratory, and short runs on a language model."""

    only: tuple[str, ...] = ()
    """Methods and modifiers to try; none: all."""
    seeds: int = 128
    updates: int = 150
    cold_start: pathlib.Path | None = None
    """Folder of a run of `tiny` with a cold start, for the runs on the model; None: none."""
    steps: int = 20
    """Steps of a run on the model."""
    prompts: int = 4
    """Problems of a step on the model."""
    folder: pathlib.Path = pathlib.Path("runs/methods")
    """Folder of cells and runs."""
    write: bool = False
    """Write docs/lab-claims.md too."""
    json: pathlib.Path | None = None
    """File for the figures."""


PAGE = pathlib.Path(__file__).parents[1] / "docs" / "lab-claims.md"

HEAD = """# Claims of the relatives

Written by `python -m benchmarks.methods --write`. Each method stands in a world that was made for
its claim, beside its parent and beside a copy with its advantages turned around: 128 seeds, 150
updates, 95 % bootstrap intervals ([lab.md](lab.md)). *Holds*: the interval lies beyond the
parent's. A claim that does not hold here may hold elsewhere: the worlds are small, and options are
the defaults. *Learns*: success ends above where it began. *Mirror*: success of the copy at the end.
`learned` is the success of the trained policy itself, where an older and noisy one samples. DisCO
has no mirror: its loss reads outcomes, which stay, and no advantages.

| method | parent | world | measure | method's | parent's | holds | learns | mirror |
|---|---|---|---|---|---|---|---|---|
"""

MODEL_HEAD = """
## On a language model

Runs of `launch.train tiny` from one cold start, a few steps each; success in the first and in the
last five steps.

| method | outcome |
|---|---|
"""


def economy(trajectory: Trajectory) -> float:
    """One over the number of turns."""
    return 1.0 / max(len(trajectory.turns), 1)


def aspects(trajectory: Trajectory) -> list[float]:
    """Success and economy."""
    return [float(trajectory.success), economy(trajectory)]


def shown(trajectory: Trajectory) -> list[float]:
    """For each turn 1 if the right answer was printed by then, else 0."""
    right = trajectory.problem.answer
    found = [any(right in r.stdout for r in turn.results) for turn in trajectory.turns]
    return [float(any(found[: k + 1])) for k in range(len(found))]


OPTIONS = {
    "craft_gui": "judge=benchmarks.methods:economy weight=0.1",
    "multi_objective": "scores=benchmarks.methods:aspects weights=[1.0,0.2]",
    "progress": "function=benchmarks.methods:shown weight=0.2",
    "ws_grpo": "prefer=benchmarks.methods:shown",
}
"""Functions of one's own for the modifiers that need one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A claim with its three cells."""

    claim: Claim
    own: Cell
    parent: Cell
    flipped: Cell

    @property
    def holds(self) -> bool:
        """The method's interval lies beyond the parent's."""
        own = self.own.interval(self.claim.measure)
        parent = self.parent.interval(self.claim.measure)
        return own.high < parent.low if self.claim.lower else own.low > parent.high

    @property
    def learns(self) -> bool:
        """Success rises, by more than chance."""
        return self.own.interval("learned").low > self.own.curve[0] + 0.02

    @property
    def flipped_does_not(self) -> bool:
        """Success of the copy that is turned around does not rise."""
        return self.flipped.interval("learned").mean <= self.flipped.curve[0] + 0.02


def results(arguments: MethodsArguments) -> Iterator[Result]:
    """The claims, tried one after the other."""

    chosen = [c for c in CLAIMS if not arguments.only or names(c.method) & {*arguments.only}]
    with display.working("claims", len(chosen)) as tell:
        for count, claim in enumerate(chosen, 1):
            world = Arm(name=claim.world, value=make_world(split(claim.world)))
            own, parent = (
                Arm(name=text, value=make_method(split(text)))
                for text in (claim.method, claim.parent)
            )
            settings = Settings(
                updates=arguments.updates,
                epochs=claim.epochs,
                staleness=claim.staleness,
                noise=claim.noise,
            )
            mirrored = dataclasses.replace(settings, sign=-1.0)
            yield Result(
                claim=claim,
                own=cell(own, world, settings, arguments),
                parent=cell(parent, world, settings, arguments),
                flipped=cell(own, world, mirrored, arguments),
            )
            tell(count)


def cell(method: Arm, world: Arm, settings: Settings, arguments: MethodsArguments) -> Cell:
    """The cell of a method in a world, read if it is there."""
    [found] = suite.run_suite(
        [method],
        [world],
        seeds=range(arguments.seeds),
        settings=settings,
        folder=arguments.folder / "cells",
        budgets=[budget for budget in (30, 60) if budget <= arguments.updates],
    )
    if not isinstance(found, Cell):
        raise ValueError(f"{world.name} lacks {', '.join(found.facts)} for {method.name}")
    return found


def names(text: str) -> set[str]:
    """The methods and modifiers that a spelling names."""
    pieces = re.split(r"\s\+\s", text)
    return {piece.split()[0] for piece in pieces}


def page(tried: Sequence[Result], outcomes: Mapping[str, str], before: str) -> str:
    """The results as Markdown. Without runs on the model, those of the page `before` stay."""
    rows = [f"| {' | '.join(words(result))} |" for result in tried]
    told = "".join(f"| `{method}` | {outcome} |\n" for method, outcome in outcomes.items())
    _, head, standing = before.partition(MODEL_HEAD)
    runs = MODEL_HEAD + told if told else head + standing
    return HEAD + "\n".join(rows) + "\n" + runs


def words(result: Result) -> list[str]:
    """The cells of the row of a claim."""
    claim = result.claim
    said = [f"`{claim.method}`", f"`{claim.parent}`", claim.place]
    said.append(f"{claim.measure}, lower" if claim.lower else claim.measure)
    said += [str(cell.interval(claim.measure)) for cell in (result.own, result.parent)]
    said += ["yes" if x else "no" for x in (result.holds, result.learns)]
    return [*said, f"{result.flipped.interval('learned').mean:.3f}"]


def model_runs(arguments: MethodsArguments) -> dict[str, str]:
    """Spelling → the outcome of its short run: a refusal, or finite with its last figures."""
    assert arguments.cold_start is not None
    outcomes: dict[str, str] = {}
    spellings = spelled(arguments)
    with display.working("runs", len(spellings)) as tell:
        for count, text in enumerate(spellings, 1):
            outcomes[text] = model_run(text, arguments)
            tell(count)
    return outcomes


def spelled(arguments: MethodsArguments) -> list[str]:
    """Every method, and every modifier after GRPO."""
    alone = sorted(methods.METHODS)
    after = [f"grpo + {name} {OPTIONS.get(name, '')}".strip() for name in sorted(methods.MODIFIERS)]
    chosen = arguments.only
    return [text for text in (*alone, *after) if not chosen or names(text) & {*chosen}]


def model_run(text: str, arguments: MethodsArguments) -> str:
    """One run; its outcome in a sentence, kept in its folder."""
    slug = "".join(c if c.isalnum() else "-" for c in text)
    folder = arguments.folder / "model" / slug
    kept = folder / "outcome.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    options = ["--cold-start", str(arguments.cold_start), "--run-dir", str(folder)]
    options += ["--train.steps", str(arguments.steps), "--train.eval-every", "0"]
    options += ["--train.prompts", str(arguments.prompts), "--train.gate", "0"]
    try:
        train.run([*options, "--train.method", *split(text)])
    except ValueError as error:
        outcome = f"refused: {str(error).splitlines()[0]}"
    else:
        outcome = _summary(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(outcome), encoding="utf-8")
    return outcome


def _summary(folder: pathlib.Path) -> str:
    records = read_metrics(folder / "train" / "metrics.jsonl")
    last = records[-1]
    finite = all(math.isfinite(v) for r in records for v in r.values() if isinstance(v, float))
    success = sum(record["rollout/success"] for record in records[-5:]) / 5
    first = sum(record["rollout/success"] for record in records[:5]) / 5
    word = "finite" if finite and success > 0.5 * first else "DIVERGED"
    return (
        f"{word}: success {first:.3f} → {success:.3f}, entropy"
        f" {last['rollout/entropy']:.3f}, advantage {last['credit/advantage_size']:.3f}"
    )


def measure(arguments: MethodsArguments) -> tuple[dict[str, Figure], list[str]]:
    tried = list(results(arguments))
    table = Table(title="claims")
    heads = ("method", "parent", "world", "measure", "method's", "parent's", "holds", "learns")
    for column in (*heads, "mirror"):
        table.add_column(column)
    for result in tried:
        table.add_row(*(word.strip("`") for word in words(result)))
    display.CONSOLE.print(table)
    count = max(len(tried), 1)
    figures = {
        "claims": Figure(value=len(tried), unit="methods in a world"),
        "claims_hold": Figure(value=sum(r.holds for r in tried) / count, unit="share"),
        "methods_learn": Figure(value=sum(r.learns for r in tried) / count, unit="share"),
        "flipped_do_not_learn": Figure(
            value=sum(r.flipped_does_not for r in tried) / count, unit="share", at_least=1.0
        ),
    }
    notes: list[str] = []
    outcomes = model_runs(arguments) if arguments.cold_start is not None else {}
    if outcomes:
        notes = [f"{text}: {outcome}" for text, outcome in outcomes.items()]
        diverged = sum(outcome.startswith("DIVERGED") for outcome in outcomes.values())
        refused = sum(outcome.startswith("refused") for outcome in outcomes.values())
        figures["model_runs"] = Figure(value=len(outcomes) - refused, unit="runs")
        figures["model_runs_diverged"] = Figure(value=diverged, unit="runs", at_most=0)
        figures["model_runs_refused"] = Figure(value=refused, unit="methods")
    if arguments.write:
        before = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page(tried, outcomes, before), encoding="utf-8")
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(MethodsArguments, measure, argv, "benchmarks.methods")


if __name__ == "__main__":
    cli.main(run)
