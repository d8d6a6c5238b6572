"""The program that runs one unit test inside the tool. It is sent there as text.

Therefore it imports the standard library alone. The solution shares its process and can reach its
globals through a frame, so `judge` looks up everything that it uses after the solution has run
beforehand, and holds it in local variables or closures.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any


def judge(setup: str, solution: str, test: str, names: list[str] | None, key: str) -> None:
    """Runs `setup`, `solution` and `test`, writes the signed report and ends the process.

    The report is put together in no function of its own, for the solution could call one.
    """
    write, leave, getpid, process = os.write, os._exit, os.getpid, os.getpid()
    untrace, unprofile, suppress = sys.settrace, sys.setprofile, contextlib.suppress
    equal, explain = _make_equal(), _make_explain(test)
    namespace = _solution_module()
    own = set(namespace)
    original = dict(vars(builtins))
    outcome, message = "unknown", ""
    try:
        test_code = _compile_test(test)
        exec(compile(setup, "<setup>", "exec", dont_inherit=True), namespace)
        helpers = {name: value for name, value in namespace.items() if name not in own}
        outcome = "error"
        lines = solution.splitlines(True)
        linecache.cache["<solution>"] = len(solution), None, lines, "<solution>"
        exec(compile(solution, "<solution>", "exec", dont_inherit=True), namespace)
        untrace(None)
        unprofile(None)
        if names is None:
            hidden = {*original, *own, *helpers}
            names = [name for name in namespace if name not in hidden]
        seen = {**helpers, **{name: namespace[name] for name in names if name in namespace}}
        seen.update({"__name__": "__main__", "__builtins__": original, "@equal": equal})
        exec(test_code, seen)
        outcome = "passed"
    except BaseException as error:
        if getpid() == process:
            try:
                if outcome == "error" and isinstance(error, AssertionError):
                    outcome = "failed"
                elif outcome == "error" and isinstance(error, MemoryError):
                    outcome = "limit"
                message = explain(error)
            except BaseException:  # raised by the solution's own `__str__`, say
                message = type(error).__name__
    if getpid() != process:  # a fork, which must not tell its parent how it went
        leave(1)
    with suppress(BaseException):
        sys.stdout.flush()
    report = f"\n{key[::-1]} {outcome} {message}".rstrip()
    write(1, f"{report}\n".encode(errors="backslashreplace"))
    leave(0)


def _solution_module() -> dict[str, Any]:
    """The namespace of a new module `solution`, which can be imported under that name."""
    module = types.ModuleType("solution")
    module.__dict__["__builtins__"] = builtins
    sys.modules["solution"] = module
    return module.__dict__


def _compile_test(test: str) -> types.CodeType:
    tree = _EqualityInAsserts().visit(ast.parse(test, "<test>"))
    return compile(tree, "<test>", "exec", dont_inherit=True)


class _EqualityInAsserts(ast.NodeTransformer):
    """Turns `a == b` within an assert into `equal(a, b)`, under a name that no test has."""

    def __init__(self) -> None:
        self._depth = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if not self._depth or [type(op) for op in node.ops] != [ast.Eq]:
            return node
        function = ast.copy_location(ast.Name("@equal", ast.Load()), node)
        return ast.copy_location(ast.Call(function, [node.left, node.comparators[0]], []), node)


def _make_equal() -> Callable[[Any, Any], Any]:
    """An `==` that raises `AssertionError` for an object that is equal to everything."""
    scalars = (bool, int, float, complex, str, bytes, type(None))

    def other(value):
        """A value that no honest object equals if it equals `value`."""
        kind = type(value)
        if kind in (bool, int, float, complex):
            return 0.5 if value != 0.5 else 1.5
        if kind in (str, bytes, list, tuple):
            return value + {str: "x", bytes: b"x", list: [None], tuple: (None,)}[kind]
        if kind is dict:
            return {**value, object(): None}
        if kind in (set, frozenset):
            return value | {object()}
        return object()

    def claims(left, right):
        try:
            return bool(left == right)
        except Exception:
            return False

    def equals_everything(left, right):
        kind = type(left)
        if kind in scalars and type(right) in scalars:
            return False
        if kind is type(right) and kind in (list, tuple):
            return any(map(equals_everything, left, right))
        if kind is type(right) is dict:
            return any(equals_everything(left[k], right[k]) for k in left if k in right)
        return claims(left, other(right)) or claims(right, other(left))

    def equal(left, right):
        verdict = left == right
        try:
            claimed = bool(verdict)
        except Exception:  # an array
            return verdict
        if claimed and equals_everything(left, right):
            raise AssertionError("compared with an object that equals everything")
        return verdict

    return equal


def _make_explain(test: str) -> Callable[[BaseException], str]:
    """A function that writes the traceback of an exception to stderr and returns its message."""
    write, describe, render = os.write, traceback.format_exception_only, traceback.format_exception
    source, ours = linecache, globals()

    def explain(error):
        # Only from here on can the text of the test be found there.
        source.cache["<test>"] = len(test), None, test.splitlines(True), "<test>"
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is ours:
            trace = trace.tb_next
        write(2, "".join(render(error.with_traceback(trace))).encode(errors="replace"))
        # The place of a syntax error comes first and is indented; notes come last.
        lines = [line for line in describe(error) if not line.startswith("  ")]
        return " ".join("".join(lines).split())[:200]

    return explain
