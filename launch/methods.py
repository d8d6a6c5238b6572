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
from launch import cli
from launch.run.display import CONSOLE

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "methods.md"

HEAD = """# Methods

`--train.method NAME option=value … + MODIFIER option=value …`, and those of your own as
`my.module:function` ([own.md](own.md)). In Python: `gtpo_jax.methods.NAME(option=value, …)`,
composed by `gtpo_jax.methods.chain`. This page is written by `python -m launch.methods --write`.
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A method or a modifier, described by its docstring and its signature."""

    name: str
    kind: str
    summary: str  # first line, without the paper
    papers: tuple[str, ...]  # arXiv numbers
    equation: str  # the first formula after the first line
    options: str
    needs: str  # scores that the loss needs, and facts of trajectories
    file: str
    text: str  # the docstring


def rows() -> Iterator[Row]:
    """All methods, then all modifiers, by name."""
    for name, make in sorted(methods.METHODS.items()):
        yield _row(name, "method", make, ", ".join(_needs(make())))
    plain = methods.gtpo()
    for name, make in sorted(methods.MODIFIERS.items()):
        parameters = inspect.signature(make).parameters.values()
        if any(parameter.default is parameter.empty for parameter in parameters):
            yield _row(name, "modifier", make, "")
        else:
            added = [need for need in _needs(make()(plain)) if need not in _needs(plain)]
            yield _row(name, "modifier", make, ", ".join(added))


def _needs(method: methods.Method) -> list[str]:
    """Scores that the loss needs, and facts of trajectories that other parts need."""
    return sorted(method.loss.needs) + [fact.name for fact in method.facts]


def _row(name: str, kind: str, make: Callable[..., Any], needs: str) -> Row:
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
        needs=needs,
        file=source.relative_to(pathlib.Path(methods.__file__).parents[2]).as_posix(),
        text=text,
    )


def page() -> str:
    """The table as Markdown, followed by the docstring of each row."""
    lines = [HEAD]
    for kind in ("method", "modifier"):
        chosen = [row for row in rows() if row.kind == kind]
        lines += [f"## {kind.capitalize()}s", "", "| name | summary | equation | paper | needs |"]
        lines += ["|---|---|---|---|---|"]
        for row in chosen:
            papers = ", ".join(f"[{p}](https://arxiv.org/abs/{p})" for p in row.papers)
            equation = row.equation.replace("|", "\\|")
            cells = (f"[{row.name}](#{row.name})", row.summary, f"`{equation}`", papers, row.needs)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    for row in rows():
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
        CONSOLE.print(f"{name} {row.options}\n\n{row.text}\n\n{row.file}", highlight=False)
    if arguments.write:
        PAGE.write_text(page(), encoding="utf-8")
    elif not arguments.names:
        CONSOLE.print(table())


if __name__ == "__main__":
    cli.main(run)
