"""Expected answers of published files: each must equal itself in ten spellings, and no other.

python -m benchmarks.golds math.jsonl@solution college_math.jsonl gsm8k.jsonl --json figures.json

The answer is in the field that `@FIELD` names, or in the first of a few common fields: behind
`####`, in the last box, or the whole text. The verifier `math` judges each answer against itself in
ten spellings, against others of its file (alphabetical neighbors, which look alike, and some at
random) and against itself with a digit or a sign changed. A pair judged right is a false positive
if floating point says that its values differ (`golds_values`); pairs without known values are
printed for a person to look at. Answers that the verifier cannot read, such as sentences, are
counted and must still equal themselves.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
from collections.abc import Iterator, Sequence
from concurrent import futures

import tyro
from rich.table import Table

from benchmarks import golds_spellings, golds_values
from benchmarks.figures import Figure, publish
from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import KindVerifier
from launch import cli
from launch.run import display

_OTHER = "-\\frac{987654}{1234567}"  # the answer of no problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldsArguments:
    """Judges real expected answers against themselves in ten spellings, and against each other."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Files as `FILE` or `FILE@FIELD`, in the formats of `task.train_file`."""
    pairs: int = 6
    """Answers of its file that each is judged against: half of them neighbors, half random."""
    workers: int = 2
    """Number of judging processes."""
    seed: int = 0
    """Seed of the random pairs and the near misses."""
    examples: int = 10
    """Failures of each kind that are printed per file."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


@dataclasses.dataclass
class Counts:
    """Findings in one file."""

    golds: int = 0
    unreadable: int = 0
    spellings: int = 0
    unequal: list[str] = dataclasses.field(default_factory=list)
    pairs: int = 0
    right: int = 0  # pairs whose values confirm the verdict
    false: list[str] = dataclasses.field(default_factory=list)
    unconfirmed: list[str] = dataclasses.field(default_factory=list)


def others(golds: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Pairs of each answer with `count` others of its file, neighbors and random ones, and near
    misses.
    """
    ordered = sorted(golds, key=lambda gold: (gold.strip("$ "), gold))
    draws = random.Random(seed)
    for place, gold in enumerate(ordered):
        near = [ordered[at] for at in range(place + 1, min(place + 1 + count // 2, len(ordered)))]
        far = draws.sample(ordered, min(count - count // 2, len(ordered)))
        for other in dict.fromkeys([*near, *far, *golds_spellings.near_misses(gold, draws)]):
            if other != gold:
                yield gold, other


def examine(verifier: KindVerifier, source: str, arguments: GoldsArguments) -> Counts:
    """All verdicts on one file."""
    golds = list(golds_spellings.golds(source))
    counts = Counts(golds=len(golds))
    judged = {
        (gold, name): _submit(verifier, gold, text)
        for gold in golds
        for name, text in golds_spellings.spellings(gold).items()
    }
    probes = [_submit(verifier, gold, _OTHER) for gold in golds]
    pairs = {
        pair: _submit(verifier, *pair) for pair in others(golds, arguments.pairs, arguments.seed)
    }
    for (gold, name), verdict in judged.items():
        counts.spellings += 1
        if verdict.result() is not Verdict.RIGHT:
            written = golds_spellings.spellings(gold)[name]
            counts.unequal.append(f"{name}: {gold!r} and {written!r} are {verdict.result()}")
    counts.unreadable = sum(probe.result() is Verdict.UNVERIFIABLE for probe in probes)
    for (gold, other), verdict in pairs.items():
        counts.pairs += 1
        if verdict.result() is Verdict.RIGHT:
            _weigh(counts, gold, other)
    return counts


def _submit(verifier: KindVerifier, gold: str, given: str) -> futures.Future[Verdict]:
    return verifier.submit(Problem(id=gold, question="q", answer=gold, verifier="math"), given)


def _weigh(counts: Counts, gold: str, other: str) -> None:
    """Counts a pair that was judged right by what is known of its values."""
    equal = golds_values.evidence(gold, other)
    counts.right += equal is True
    if equal is not True:
        pairs = counts.unconfirmed if equal is None else counts.false
        pairs.append(f"{other!r} for {gold!r}")


def figures(all_counts: dict[str, Counts]) -> dict[str, Figure]:
    """Figures over all files."""
    total: collections.Counter[str] = collections.Counter()
    for counts in all_counts.values():
        for field in dataclasses.fields(counts):
            value = getattr(counts, field.name)
            total[field.name] += len(value) if isinstance(value, list) else value
    equal = 1 - total["unequal"] / total["spellings"] if total["spellings"] else None
    return {
        "golds": Figure(value=total["golds"], unit="answers", at_least=5000),
        "equal to themselves, in ten spellings": Figure(value=equal, unit="share", at_least=0.995),
        "different answers judged": Figure(value=total["pairs"], unit="pairs"),
        "called right, values differ": Figure(value=total["false"], unit="pairs", at_most=0),
        "called right, values agree": Figure(value=total["right"], unit="pairs"),
        "called right, no values": Figure(value=total["unconfirmed"], unit="pairs"),
        "golds that cannot be read": Figure(value=total["unreadable"], unit="answers"),
    }


def report(all_counts: dict[str, Counts], examples: int) -> None:
    """One line for each file, then the cases that a person should look at."""
    table = Table()
    columns = ("file", "golds", "unreadable", "unequal", "pairs", "right", "false", "no values")
    for column in columns:
        table.add_column(column, justify="left" if column == "file" else "right")
    for name, found in all_counts.items():
        numbers = (found.golds, found.unreadable, len(found.unequal), found.pairs, found.right)
        weighed = (len(found.false), len(found.unconfirmed))
        table.add_row(name, *(f"{number:,}" for number in (*numbers, *weighed)))
    display.CONSOLE.print(table)
    for name, found in all_counts.items():
        kinds = {"unequal": found.unequal, "values differ": found.false}
        for kind, lines in (kinds | {"no values": found.unconfirmed}).items():
            for line in lines[:examples]:
                display.CONSOLE.print(f"{name}, {kind}: {line}", markup=False, highlight=False)


def run(argv: Sequence[str]) -> None:
    arguments = tyro.cli(GoldsArguments, args=list(argv), prog="python -m benchmarks.golds")
    all_counts = {}
    with KindVerifier("math", workers=arguments.workers) as verifier:
        for source in arguments.files:
            label = pathlib.Path(source.partition("@")[0]).stem
            all_counts[label] = examine(verifier, source, arguments)
        stats = verifier.stats
    report(all_counts, arguments.examples)
    display.CONSOLE.print(f"{stats.timeouts} time-outs, {stats.crashes} crashes of workers")
    publish(figures(all_counts), arguments.json)


if __name__ == "__main__":
    cli.main(run)
