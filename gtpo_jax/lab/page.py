"""The results of the suite as Markdown: tables with intervals, ranks, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gtpo_jax.lab import statistics
from gtpo_jax.lab.suite import Cell, Missing


def average_table(cells: Sequence[Cell]) -> str:
    """Means over all worlds, seed by seed, of the methods that ran in every world."""
    worlds = list(dict.fromkeys(cell.world for cell in cells))
    budgets = [f"solved@{budget}" for budget in cells[0].budgets] if cells else []
    measures = [*budgets, "solved", "turns", "tokens", "collapsed"]
    by_method = {
        method: own
        for method in dict.fromkeys(cell.method for cell in cells)
        if len(own := [cell for cell in cells if cell.method == method]) == len(worlds)
    }
    if len(worlds) < 2 or not by_method:
        return ""
    means = {
        method: {
            measure: statistics.bootstrap(np.mean([cell.measures[measure] for cell in own], axis=0))
            for measure in measures
        }
        for method, own in by_method.items()
    }
    early = budgets[-1] if budgets else "solved"
    ranks = statistics.ranks({method: row[early] for method, row in means.items()})
    lines = [
        f"### All {len(worlds)} worlds",
        "",
        f"| method | {' | '.join(measures)} | rank |",
        f"|---|{'---|' * (len(measures) + 1)}",
    ]
    for method in sorted(means, key=lambda name: -means[name][early].mean):
        values = " | ".join(str(means[method][measure]) for measure in measures)
        lines.append(f"| `{method}` | {values} | {ranks[method]} |")
    return "\n".join([*lines, ""])


def success_tables(cells: Sequence[Cell]) -> str:
    """One table for each world: success at each budget and at the end, economy, stability, rank."""
    lines: list[str] = []
    for world in dict.fromkeys(cell.world for cell in cells):
        own = [cell for cell in cells if cell.world == world]
        budgets = [f"solved@{budget}" for budget in own[0].budgets]
        early = budgets[-1] if budgets else "solved"
        ranks = statistics.ranks({cell.method: cell.interval(early) for cell in own})
        ends = statistics.ranks({cell.method: cell.interval("solved") for cell in own})
        heads = [*(f"at {budget}" for budget in own[0].budgets), f"at {own[0].updates}"]
        lines += [
            f"### {world}",
            "",
            f"| method | {' | '.join(heads)} | rank | turns | tokens | collapsed | first turn |",
            f"|---|{'---|' * (len(heads) + 5)}",
        ]
        for cell in sorted(own, key=lambda cell: (ranks[cell.method], ends[cell.method])):
            success = [str(cell.interval(name)) for name in [*budgets, "solved"]]
            turns, tokens, fallen = (
                cell.interval(name).mean for name in ("turns", "tokens", "collapsed")
            )
            first = cell.interval("first_turn_of_right").mean
            lines.append(
                f"| `{cell.method}` | {' | '.join(success)} | {ranks[cell.method]},"
                f" {ends[cell.method]} | {turns:.2f} | {tokens:.2f} | {fallen:.2f} | {first:+.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def missing_table(missing: Sequence[Missing]) -> str:
    """The pairs that cannot run, by method."""
    if not missing:
        return ""
    lines = ["| method | lacks | in |", "|---|---|---|"]
    for method in dict.fromkeys(one.method for one in missing):
        own = [one for one in missing if one.method == method]
        facts = sorted({fact for one in own for fact in one.facts})
        worlds = ", ".join(one.world for one in own)
        lines.append(f"| `{method}` | {', '.join(facts)} | {worlds} |")
    return "\n".join(lines) + "\n"
