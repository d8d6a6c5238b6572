"""Program synthesis data sets: the answer is a program, judged by unit tests.

See `verifiers.unit_tests` for the form of tests and names.
"""

from __future__ import annotations

import ast
import warnings

from gtpo_jax.tasks.mappings.fields import Record, raw, shown, text, texts
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem, UnitTests


def humaneval(record: Record) -> Entry:
    """HumanEval: complete a function."""
    prompt, test = raw(record, "prompt"), raw(record, "test")
    name = text(record, "entry_point")
    tree = _parse(prompt, "prompt")
    context = [node for node in tree.body if getattr(node, "name", None) != name]
    if len(context) == len(tree.body):
        raise ValueError(f"`prompt` defines no function {shown(name)}, which is its `entry_point`")
    _parse(test, "test")
    problem = Problem(
        id=text(record, "task_id"),
        question="Complete this Python function. Answer with the whole program, between <answer>"
        " and </answer>.\n\n" + prompt.strip(),
        answer=prompt + raw(record, "canonical_solution"),
        family="humaneval",
        verifier="unit_tests",
        unit_tests=UnitTests(
            tests=(f"{test}\n\ncheck({name})",),
            # Some tests call a helper of the prompt, which the program must not replace.
            setup=ast.unparse(ast.Module(context, [])),
            names=(name,),
            prompt=prompt,
        ),
    )
    return Entry(problem)


def mbpp(record: Record) -> Entry:
    """MBPP, full or sanitized: a task in words, and tests that show the name of the function."""
    code, tests = raw(record, "code"), texts(record, "test_list")
    if not tests:
        raise ValueError("`test_list` is empty; any program would pass")
    names = _defined(_parse(code, "code"))
    used = {name for test in tests for name in _read(_parse(test, "test_list"))}
    called = tuple(name for name in names if name in used)
    if not called:
        raise ValueError("`test_list` calls nothing that `code` defines")
    if record.get("test_imports") is not None:
        setup = "\n".join(texts(record, "test_imports"))
    else:
        setup = raw(record, "test_setup_code") if record.get("test_setup_code") else ""
    _parse(setup, "test_setup_code or test_imports")
    listed = "\n".join(tests)
    problem = Problem(
        id=text(record, "task_id"),
        question=f"{text(record, 'text', 'prompt')}\n\nAnswer with a Python program, between"
        f" <answer> and </answer>, that passes these tests:\n\n{listed}",
        answer=code,
        family="mbpp",
        verifier="unit_tests",
        unit_tests=UnitTests(tests=tuple(tests), setup=setup, names=called),
    )
    return Entry(problem)


def _parse(code: str, field: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # invalid escapes like `"\\d"` in programs of these data sets
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"`{field}` is not Python: {error}") from None


def _defined(tree: ast.Module) -> list[str]:
    """Names of functions, classes and variables that a program defines at top level."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return list(dict.fromkeys(names))


def _read(tree: ast.Module) -> set[str]:
    """Names that a test uses."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
