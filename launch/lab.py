"""The credit laboratory: audits methods against exact gradients, and compares them over many seeds.

python -m launch.lab worlds                                        # the worlds
python -m launch.lab audit gtpo discount=.9 --world chain needed=1 turns=3
python -m launch.lab suite --methods "gtpo" "rloo" --worlds chain verification
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pathlib
from collections.abc import Sequence

from rich.table import Table

from configs.methods import make_method, spell, split
from configs.worlds import make_policy, make_world
from gtpo_jax.lab import audit, page, pictures, suite
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.suite import Arm, Cell, Missing
from gtpo_jax.lab.worlds import WORLDS
from launch import cli
from launch.run import display

QUICK_METHODS = (
    "gtpo",
    "gtpo discount=1",
    "gtpo normalize=turn_index",
    "gtpo normalize=batch",
    "gtpo format_penalty=0",
    "grpo",
    "dr_grpo",
    "rloo",
    "reinforce_pp",
)
"""Methods of `make lab`."""

QUICK_WORLDS = ("chain", "verification", "recoverable", "resembling", "stopping", "lengths")
"""Worlds of `make lab`."""

DOCS = pathlib.Path(__file__).parents[1] / "docs"

HEAD = """# Results of the laboratory

Written by `python -m launch.lab suite --write`; [lab.md](lab.md) says what the numbers mean, and
[lab-hypotheses.md](lab-hypotheses.md) what was expected. Means over seeds with 95 % bootstrap
intervals; `solved@N` is the true success over the ten updates up to N. Ranks are those at the last
budget and at the end; methods whose intervals overlap may share one. `first turn` is the mean
advantage of first turns of successes of several turns.
"""

QUICK = ("suite", "--seeds", "64", "--updates", "100")
"""Arguments of `make lab`."""


def run(argv: Sequence[str]) -> None:
    arguments = make_parser().parse_args(argv)
    arguments.run(arguments)


def make_parser() -> argparse.ArgumentParser:
    """The commands of the laboratory."""
    parser = argparse.ArgumentParser(prog="python -m launch.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    worlds = commands.add_parser("worlds", help="list the worlds")
    worlds.set_defaults(run=lambda _: display.CONSOLE.print(worlds_table()))
    one = commands.add_parser("audit", help="a method's expected update beside the exact gradient")
    one.add_argument("method", nargs="+", help="the words of --train.method")
    one.add_argument("--world", nargs="+", required=True, help="a world and its options")
    one.add_argument("--policy", nargs="+", default=["table"], help="table, or recurrent width=…")
    one.add_argument("--size", type=int, default=4, help="episodes of a group")
    one.add_argument(
        "--samples", type=int, help="sample this many groups instead of enumerating all"
    )
    one.set_defaults(run=run_audit)
    many = commands.add_parser("suite", help="every method in every world, over many seeds")
    many.add_argument(
        "--methods", nargs="+", default=QUICK_METHODS, help="each one text: the words of a method"
    )
    many.add_argument("--worlds", nargs="+", default=QUICK_WORLDS, help="each one text")
    many.add_argument("--policy", nargs="+", default=["table"], help="table, or recurrent width=…")
    many.add_argument("--seeds", type=int, default=128, help="number of seeds, from 0")
    many.add_argument("--updates", type=int, default=150)
    many.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    many.add_argument("--budgets", type=int, nargs="+", default=[30, 60])
    many.add_argument(
        "--folder", type=pathlib.Path, default=pathlib.Path("runs/lab"), help="cells and pictures"
    )
    many.add_argument(
        "--write", action="store_true", help="write docs/lab-results.md and its pictures, too"
    )
    many.set_defaults(run=run_suite)
    return parser


def worlds_table() -> Table:
    """Names, options and questions of the worlds."""
    table = Table(title="--world NAME option=value …")
    for column in ("world", "options", "question"):
        table.add_column(column)
    for name, make in sorted(WORLDS.items()):
        options = " ".join(
            f"{option}={parameter.default}"
            for option, parameter in inspect.signature(make).parameters.items()
        )
        table.add_row(name, options, make().claim)
    return table


def run_audit(arguments: argparse.Namespace) -> None:
    """Prints the audit of a method in a world."""
    report = audit.audit(
        make_world(arguments.world),
        make_method(arguments.method),
        policy=make_policy(arguments.policy),
        size=arguments.size,
        samples=arguments.samples,
    )
    how = "all groups enumerated" if report.exact else f"sampled, error {report.error:.2g}"
    title = f"{spell(arguments.method)} in {spell(arguments.world)}, groups of {arguments.size}"
    table = Table(title=title, caption=f"{report.groups} groups, {how}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rows = {
        "expected success": report.success,
        "norm of the exact gradient": report.gradient_norm,
        "scale of the expected update": report.scale,
        "cosine with the exact gradient": report.cosine,
        "bias, relative to the gradient": report.bias,
        "variance": report.variance,
        "signal to noise": report.signal_to_noise,
        "mean advantage of first turns of successes": report.first_turn_of_right,
        "share of them that is negative": report.pushed_down,
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:.6g}")
    display.CONSOLE.print(table)


def run_suite(arguments: argparse.Namespace) -> None:
    """Runs or reads every cell, and writes tables and pictures."""
    methods = [Arm(name=text, value=make_method(split(text))) for text in arguments.methods]
    worlds = [Arm(name=text, value=make_world(split(text))) for text in arguments.worlds]
    settings = dataclasses.replace(
        Settings(), updates=arguments.updates, learning_rate=arguments.learning_rate
    )
    cells: list[Cell] = []
    missing: list[Missing] = []
    results = suite.run_suite(
        methods,
        worlds,
        seeds=range(arguments.seeds),
        settings=settings,
        folder=arguments.folder / "cells",
        budgets=[budget for budget in arguments.budgets if budget <= arguments.updates],
        policy=make_policy(arguments.policy),
    )
    with display.working("cells", len(methods) * len(worlds)) as tell:
        for count, result in enumerate(results, 1):
            if isinstance(result, Cell):
                cells.append(result)
            else:
                missing.append(result)
            tell(count)
    write_results(cells, missing, arguments.folder / "lab.md")
    if arguments.write:
        write_results(cells, missing, DOCS / "lab-results.md", head=HEAD)
    display.CONSOLE.print(f"{arguments.folder}/lab.md", **display.PLAIN)


def write_results(
    cells: Sequence[Cell], missing: Sequence[Missing], path: pathlib.Path, *, head: str = ""
) -> None:
    """Writes a page, and beside it pictures: a map, profiles and curves."""
    early = f"solved@{cells[0].budgets[-1]}" if cells and cells[0].budgets else "solved"
    name = path.stem.removesuffix("-results")
    drawn = {kind: path.with_name(f"{name}-{kind}.png") for kind in ("map", "profiles", "curves")}
    pictures.draw_map(cells, early, drawn["map"], title=f"success: {early}")
    pictures.draw_profiles(cells, early, drawn["profiles"])
    pictures.draw_curves(cells, drawn["curves"])
    text = [
        head,
        *(f"![{kind.capitalize()}]({picture.name})" for kind, picture in drawn.items()),
        page.average_table(cells),
        page.success_tables(cells),
        page.missing_table(missing),
    ]
    pieces = (piece.strip() for piece in text if piece)
    path.write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.main(run)
