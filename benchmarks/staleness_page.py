"""The page and the picture of `benchmarks.staleness`."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from benchmarks.staleness_settings import (
    CORRECTED,
    LEARNED,
    LONG,
    LOST,
    OLD,
    OTHERS,
    PLAIN,
    Tried,
    compared,
)
from gtpo_jax.lab import pictures, statistics
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.suite import Cell

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "lab-staleness.md", DOCS / "lab-staleness.png"

HEAD = """# Stale and quantized samplers

Written by `python -m benchmarks.staleness --write`, with {seeds} seeds of {updates} updates
([lab.md](lab.md)). The policy that samples is some steps old, as in asynchronous training, and has
normal noise on its logits, which stands for int8: an error of each weight, the same in all draws,
new for each version of the parameters or, where they hardly move, the same for the whole run.
Success is that of the policy that is trained, over the last ten updates, as a share of what the
plain method reaches when it samples itself; 95 % bootstrap intervals over seeds.

## The setting

Plain methods alone choose it, whose ratio is to the sampler: `{plain}`. Every world, learning rate
and noise of the table was tried with samplers {old} steps old. A setting is hard enough if each
plain method loses {lost:.0%} of its success there, by the whole interval, and reaches {learned} on
policy. The one with the lowest learning rate is taken, then the least noise, then noise of a
version before noise that stays, then the first world. {outcome}

| world | learning rate | noise | lasts | {heads} |
|---|---|---|---|{lines}|
"""

TABLE = """
## {title}

| method | {samplers} |
|---|{lines}|
"""

NOTES = """
`grpo + recompute` compares with the step's own policy and ignores that another one sampled;
`score_centering` without `count=2` knows all actions of the world, so it is exact.

![Share of the success on policy that methods keep](lab-staleness.png)
"""


def spell(settings: Settings) -> str:
    """The sampler and the rate of a setting."""
    return (
        f"learning rate {settings.learning_rate:g}, {settings.staleness} old,"
        f" noise {settings.noise:g} {lasts(settings)}"
    )


def lasts(settings: Settings) -> str:
    """How long the noise of a setting stays."""
    return "that stays" if settings.noise_lasts == LONG else "of a version"


def page(
    tried: Sequence[Tried],
    found: tuple[str, Settings] | None,
    cells: Sequence[Cell],
    *,
    seeds: int,
    updates: int,
) -> str:
    """The settings that were tried, the one that was chosen, and the shares that methods keep."""
    outcome = "None is hard enough."
    if found is not None:
        world, chosen = found
        outcome = f"That is `{world}` with {spell(chosen)}."
    text = HEAD.format(
        seeds=seeds,
        updates=updates,
        plain="` and `".join(PLAIN),
        old=OLD,
        lost=LOST,
        learned=LEARNED,
        outcome=outcome,
        heads=" | ".join(f"`{plain}` on policy | keeps" for plain in PLAIN),
        lines="---|" * (2 * len(PLAIN) - 1) + "---",
    )
    text += "\n".join(_tried_rows(tried)) + "\n"
    if found is None:
        return text
    names = list(compared(found[1]))
    parts = {
        "Exact samplers": names[:4],
        "Noisy samplers": names[4:8],
        "Harder samplers": names[8:],
    }
    for title, part in parts.items():
        lines = "---|" * (len(part) - 1) + "---"
        text += TABLE.format(title=title, samplers=" | ".join(part), lines=lines)
        text += "\n".join(_rows(cells, part)) + "\n"
    return text + NOTES


def _tried_rows(tried: Sequence[Tried]) -> list[str]:
    rows: dict[tuple[str, Settings], list[str]] = {}
    for one in tried:
        cells = rows.setdefault((one.world, one.settings), [])
        cells += [f"{one.on_policy:.3f}", str(one.kept)]
    return [
        f"| {world} | {settings.learning_rate:g} | {settings.noise:g} | {lasts(settings)} |"
        f" {' | '.join(values)} |"
        for (world, settings), values in rows.items()
    ]


def _rows(cells: Sequence[Cell], samplers: Sequence[str]) -> list[str]:
    """A row for each method, plain ones first in their family."""
    shares = {(cell.method, cell.world): kept(cell) for cell in cells}
    methods = dict.fromkeys(cell.method for cell in cells)
    order = [m for plain in PLAIN for m in (plain, *CORRECTED[plain], *OTHERS.get(plain, ()))]
    return [
        f"| `{method}` | {' | '.join(str(shares[method, name]) for name in samplers)} |"
        for method in order
        if method in methods
    ]


def kept(cell: Cell) -> statistics.Interval:
    """The share of its plain method's success on policy that a method keeps."""
    return statistics.ratio(cell.measures["success"], cell.measures["on_policy"])


def write(
    tried: Sequence[Tried],
    found: tuple[str, Settings] | None,
    cells: Sequence[Cell],
    *,
    seeds: int,
    updates: int,
) -> None:
    """Writes the page, and the picture if a setting was chosen."""
    PAGE.write_text(page(tried, found, cells, seeds=seeds, updates=updates), encoding="utf-8")
    if cells:
        # The map draws means: one number for each cell is enough.
        drawn = [
            Cell(
                method=cell.method,
                world=cell.world,
                updates=cell.updates,
                budgets=(),
                measures={"kept": [kept(cell).mean]},
                curve=[],
                seconds=0.0,
            )
            for cell in cells
        ]
        pictures.draw_map(drawn, "kept", PICTURE, title="share of the success on policy")
