"""Lists the methods and modifiers that `--train.method` takes.

python -m launch.methods            # the table
python -m launch.methods gtpo kl    # the full text of some
python -m launch.methods --write    # docs/methods.md
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

from configs.methods import spell_value
from gtpo_jax import methods
from gtpo_jax.parts.facts import Fact
from launch import cli
from launch.run.display import CONSOLE, PLAIN

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "methods.md"

HEAD = """# Methods

`--train.method NAME option=value … + MODIFIER option=value …`, and those of your own as
`my.module:function` ([own.md](own.md)). In Python: `gtpo_jax.methods.NAME(option=value, …)`,
composed by `gtpo_jax.methods.chain`. [elsewhere.md](elsewhere.md) names systems of the field that
are not here, and why. This page is written by `python -m launch.methods --write`.
"""

FACTS = """Methods ask these of trajectories, besides outcome, turns and violations. A run that
lacks a fact of its method stops before it begins. `[M]` is a number of each trajectory, `[M, K]` of
each turn; such facts are kept in the [records](trajectory.md#7-credit) of trajectories.
"""

BAR = "\\|"
"""A vertical bar within a cell."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A method or a modifier, described by its docstring and its signature."""

    name: str
    kind: str
    summary: str  # first line, without the paper
    papers: tuple[str, ...]  # arXiv numbers
    equation: str  # the first formula after the first line
    options: str
    scores: tuple[str, ...]  # log-probs under further policies that the loss needs
    facts: tuple[Fact, ...]  # of trajectories
    file: str
    text: str  # the docstring

    @property
    def needs(self) -> str:
        """Names of scores and facts."""
        return ", ".join([*self.scores, *(fact.name for fact in self.facts)])


def rows() -> Iterator[Row]:
    """All methods, then all modifiers, by name."""
    for name, make in sorted(methods.METHODS.items()):
        yield _row(name, "method", make, make())
    plain = methods.gtpo()
    for name, make in sorted(methods.MODIFIERS.items()):
        parameters = inspect.signature(make).parameters.values()
        if any(parameter.default is parameter.empty for parameter in parameters):
            yield _row(name, "modifier", make, plain, plain)
        else:
            yield _row(name, "modifier", make, make()(plain), plain)


def _row(
    name: str,
    kind: str,
    make: Callable[..., Any],
    made: methods.Method,
    parent: methods.Method | None = None,
) -> Row:
    """The row of a method, or of a modifier that made `made` from `parent`."""
    known = (frozenset(), ()) if parent is None else (parent.loss.needs, parent.facts)
    text = inspect.getdoc(make) or ""
    first, _, rest = text.partition("\n")
    equation = re.search(r"`([^`]+)`", rest)
    options = [
        f"{option}={spell_value(parameter.default, make)}"
        if parameter.default is not parameter.empty
        else f"{option}=…"
        for option, parameter in inspect.signature(make).parameters.items()
    ]
    source = pathlib.Path(inspect.getsourcefile(make) or "")
    return Row(
        name=name,
        kind=kind,
        summary=re.sub(r"\s*\([^()]*arXiv[^()]*\)", "", first).rstrip("."),
        papers=tuple(re.findall(r"\d{4}\.\d{5}", text)),
        equation=" ".join(equation[1].split()) if equation else "",
        options=" ".join(options),
        scores=tuple(sorted(made.loss.needs - known[0])),
        facts=tuple(fact for fact in made.facts if fact not in known[1]),
        file=source.relative_to(pathlib.Path(methods.__file__).parents[2]).as_posix(),
        text=text,
    )


def provider(fact: Fact) -> str:
    """The source of a fact, in one clause."""
    if fact.gather is None:
        return fact.provider
    fields = ", ".join(f"`{field}`" for field in fact.fields)
    return f"records of problems with the fields {fields}" if fields else "every trajectory"


def facts_table(described: Sequence[Row]) -> list[str]:
    """Lines of Markdown: every fact that some row needs, by name, and who provides it."""
    needed: dict[str, tuple[Fact, list[str]]] = {}
    for row in described:
        for fact in row.facts:
            needed.setdefault(fact.name, (fact, []))[1].append(row.name)
    lines = ["## Facts", "", FACTS, "| name | meaning | provider | read by |", "|---|---|---|---|"]
    for name, (fact, readers) in sorted(needed.items()):
        cells = (f"`{name}`", fact.meaning, provider(fact), ", ".join(readers))
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return [*lines, ""]


def page() -> str:
    """The table as Markdown, followed by the docstring of each row."""
    lines = [HEAD]
    described = list(rows())
    for kind in ("method", "modifier"):
        chosen = [row for row in described if row.kind == kind]
        lines += [f"## {kind.capitalize()}s", "", "| name | summary | equation | paper | needs |"]
        lines += ["|---|---|---|---|---|"]
        for row in chosen:
            papers = ", ".join(f"[{p}](https://arxiv.org/abs/{p})" for p in row.papers)
            equation = row.equation.replace("|", BAR)
            cells = (f"[{row.name}](#{row.name})", row.summary, f"`{equation}`", papers, row.needs)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += facts_table(described)
    for row in described:
        spelled = f"{row.name} {row.options}".strip()
        lines += [f"### {row.name}", "", f"`{spelled}` · [{row.file}](../{row.file})", "", row.text]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def table() -> Table:
    """Names, options with their defaults, and summaries."""
    rendered = Table(title="--train.method METHOD option=value … + MODIFIER option=value …")
    for column in ("name", "options", ""):
        rendered.add_column(column)
    previous = "method"
    for row in rows():
        if row.kind != previous:
            rendered.add_section()
        previous = row.kind
        rendered.add_row(
            ("+ " if row.kind == "modifier" else "") + row.name, row.options, row.summary
        )
    return rendered


def run(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m launch.methods", description=__doc__)
    parser.add_argument("names", nargs="*", help="methods and modifiers to show whole")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} in docs/")
    arguments = parser.parse_args(argv)
    known = {row.name: row for row in rows()}
    for name in arguments.names:
        if name not in known:
            raise ValueError(f"there is no method {name!r}; there are {', '.join(known)}")
        row = known[name]
        CONSOLE.print(f"{name} {row.options}\n\n{row.text}\n", **PLAIN)
        for fact in row.facts:
            said = f"fact {fact.name}: {fact.meaning}; {provider(fact)}"
            CONSOLE.print(said, **PLAIN)
        CONSOLE.print(row.file, **PLAIN)
    if arguments.write:
        PAGE.write_text(page(), encoding="utf-8")
    elif not arguments.names:
        CONSOLE.print(table())


if __name__ == "__main__":
    cli.main(run)
