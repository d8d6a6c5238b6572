"""Docstrings begin with their subject, so that a reader need not guess what they speak of."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("gtpo_jax", "models", "configs", "launch", "benchmarks", "tests")

RIDDLE = re.compile(r"(What|Whatever|Whoever|Whether|Of|Those|That|By what|Where)\b")
"""Openings of a docstring that has no subject of its own."""


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The docstrings of a module, its classes and its functions, and the strings under fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                value = statement.value if isinstance(statement, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value


def riddles(root: pathlib.Path, package: str) -> list[str]:
    """One line for each docstring of a package under `root` that opens without a subject."""
    lines = []
    for path in sorted((root / package).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        for docstring in docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            text = str(docstring.value).strip()
            if RIDDLE.match(text):
                opening = text.splitlines()[0]
                lines.append(f"{name}:{docstring.lineno}: begin with the subject: {opening}")
    return lines


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_their_subject(package):
    assert not riddles(ROOT, package)


def test_riddle_is_found_in_every_place_of_a_docstring(tmp_path):
    (tmp_path / "launch_").mkdir()
    (tmp_path / "launch_" / "module.py").write_text(
        '"""What a module has."""\n'
        "SIZE = 3\n"
        '"""Of the size."""\n'
        "class Thing:\n"
        '    """Those of a thing."""\n'
        "    field: int\n"
        '    """That of a field."""\n'
        "    def method(self):\n"
        '        """Whether it holds."""\n'
        '        return "What is returned"\n'
        "def function():\n"
        '    """Offers what it has."""\n',
        encoding="utf-8",
    )
    found = [line.split(":")[1] for line in riddles(tmp_path, "launch_")]
    assert sorted(map(int, found)) == [1, 3, 5, 7, 9]
