"""The cost of what losses need, and of its absence: an update compared with another tree's.

git worktree add /tmp/before COMMIT
python -m benchmarks.needs --before /tmp/before --json figures.json

A method whose loss needs nothing more must cost what it did before losses could need anything. The
same update, of the same small Qwen2 on the same batch, is compiled and run by this tree and by the
one of `--before`, each in its own process, in turn; ratios are of medians over the rounds. Memory
and operations are those that the compiler counts, so they do not depend on the load of the machine.
Beside it: the same update with score centering, which needs the log-probs of candidates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import CORES, load, run_benchmark, take_turns
from benchmarks.peers import Worker
from launch import cli

ROOT = pathlib.Path(__file__).parents[1]
PLAIN, NEEDY = "without needs", "with candidates"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeedsArguments:
    """One update of a method that needs nothing more, compared with the code of another tree."""

    before: pathlib.Path | None = None
    """Tree of the repository to compare with. None: only the cost of needs is measured."""
    rounds: int = 7
    """Number of measuring rounds."""
    width: int = 128
    """Width of the model; it has 4 heads, and its MLP is four times as wide."""
    layers: int = 2
    """Layers of the model."""
    vocab_size: int = 8192
    """Rows of the model's embedding."""
    trajectories: int = 8
    """Trajectories per update."""
    context: int = 256
    """Tokens of a trajectory, and of a row."""
    rows: int = 4
    """Rows per micro-batch."""
    chunk: int = 64
    """Positions per row whose logits are in memory at once."""
    candidates: int = 32
    """Candidates per token of the method that needs them."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


@contextlib.contextmanager
def worker_in(tree: pathlib.Path, options: dict[str, Any]) -> Iterator[Worker]:
    """A worker that runs the code of a tree."""
    script = pathlib.Path(__file__).with_name("needs_worker.py")
    process = subprocess.Popen(
        # -P: the folder of the script, which is of this tree, is not searched.
        [sys.executable, "-P", "-W", "ignore", script, json.dumps(options)],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        yield Worker(process, f"the code of {tree} cannot make the update; is it this repository?")
        assert process.stdin is not None
        process.stdin.close()


def figures_of(
    facts: dict[str, dict[str, float]], taken: dict[str, list[dict[str, float]]]
) -> dict[str, Figure]:
    """Figures of what the compiler counts and of the answers of each round, by runner."""
    for name, answers in taken.items():
        for kind in ("wall", "cpu"):
            facts[name][kind] = statistics.median(answer[kind] for answer in answers)

    def compare(above: str, below: str, kind: str) -> float | None:
        if above not in facts or below not in facts:
            return None
        return facts[above][kind] / facts[below][kind]

    bars = {"wall": 1.1, "cpu": 1.05, "memory": 1.0, "operations": 1.0}
    names = {"wall": "wall time", "cpu": "CPU time", "memory": "memory", "operations": "operations"}
    figures = {
        f"update {PLAIN}, now / before, {names[kind]}": Figure(
            value=compare(PLAIN, "before", kind), unit="ratio", at_most=bar
        )
        for kind, bar in bars.items()
    } | {
        f"update, {NEEDY} / {PLAIN}, {name}": Figure(
            value=compare(NEEDY, PLAIN, kind), unit="ratio"
        )
        for kind, name in names.items()
    }
    norms = [[x["norm"] for x in taken[name]] for name in (PLAIN, "before") if name in taken]
    figures["largest difference of the gradient norms of the updates"] = Figure(
        value=max(abs(a - b) for a, b in zip(*norms, strict=True)) if len(norms) > 1 else None,
        unit="-",
        at_most=0.0,
    )
    return figures


def measure(arguments: NeedsArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    if arguments.before is not None and not (arguments.before / "gtpo_jax").is_dir():
        raise ValueError(f"--before {arguments.before} holds no gtpo_jax; name a tree of this one")
    before_load = load()
    sizes = dataclasses.asdict(arguments)
    options = {name: x for name, x in sizes.items() if name not in ("before", "rounds", "json")}
    needy = f"gtpo + score_centering count={arguments.candidates}"
    with contextlib.ExitStack() as stack:

        def start(tree: pathlib.Path, methods: dict[str, str]) -> Worker:
            return stack.enter_context(worker_in(tree, options | {"methods": methods}))

        now = start(ROOT, {PLAIN: "gtpo", NEEDY: needy})
        runners = {name: functools.partial(now.ask, name) for name in (PLAIN, NEEDY)}
        facts = {name: now.found[name] for name in (PLAIN, NEEDY)}
        if arguments.before is not None:
            then = start(arguments.before.resolve(), {PLAIN: "gtpo"})
            runners["before"] = functools.partial(then.ask, PLAIN)
            facts["before"] = then.found[PLAIN]
        taken = take_turns(runners, arguments.rounds)
    notes = [
        f"{CORES} processors, load {before_load} before; medians of {arguments.rounds} interleaved"
        " rounds",
        f"{arguments.layers} layers × {arguments.width}, vocabulary {arguments.vocab_size},"
        f" float32; {arguments.trajectories} rows of {arguments.context} tokens, {arguments.rows}"
        f" at a time, logits of {arguments.chunk} positions; {needy}",
    ]
    return figures_of(facts, taken), notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(NeedsArguments, measure, argv, "benchmarks.needs")


if __name__ == "__main__":
    cli.main(run)
