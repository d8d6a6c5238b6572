"""Writes api.md: the public names of `gtpo_jax`, each with the first sentence of its docstring.

python docs/write_api.py
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# API

`import gtpo_jax as gx`; rooms are imported when they are first asked for: `gx.methods.gtpo()`.
This page is written by `python docs/write_api.py` from the docstrings.
"""
PRIVATE = ("tools/sandbox", "verifiers/judges", "report/assets")
"""Folders of programs that run in processes of their own."""


def first_sentence(node: ast.AST) -> str:
    """The first paragraph of a docstring, in one line."""
    text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
    return re.sub(r"\s+", " ", text.split("\n\n")[0]).rstrip(":")


def public(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names of the functions and classes of a module, with what they take, and their sentences."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, first_sentence(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            taken = [argument.arg for argument in node.args.args]
            if node.args.kwonlyargs:
                taken += ["*", *(argument.arg for argument in node.args.kwonlyargs)]
            yield f"{node.name}({', '.join(taken)})", first_sentence(node)


def page() -> str:
    """The page as Markdown: a section for each room, a part of it for each module."""
    lines = [HEAD]
    library = ROOT / "gtpo_jax"
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if any(place.as_posix().startswith(folder) for folder in PRIVATE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(("gtpo_jax", *place.with_suffix("").parts))
        if path.name == "__init__.py":
            if len(place.parts) == 2:
                lines += [f"## {place.parts[0]}", "", first_sentence(tree), ""]
            continue
        names = list(public(tree))
        if names:
            level = "##" if len(place.parts) == 1 else "###"
            lines += [f"{level} {module}", "", first_sentence(tree), ""]
            lines += [f"- `{name}`: {said}" if said else f"- `{name}`" for name, said in names]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
