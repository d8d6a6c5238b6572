"""The executor and unit tests: programs in, texts and verdicts out."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.cases.row import Adapter
from gtpo_jax import tools
from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import Problem, StreamTest, UnitTests, Verdict
from gtpo_jax.verifiers import KindVerifier

_MARK = re.compile(r"^\[.* truncated\]$", re.MULTILINE)


SQUARE = Problem(
    id="1",
    question="Square a number.",
    answer="",
    unit_tests=UnitTests(
        tests=("assert square(3) == 9 and square(-2) == 4",),
        names=("square",),
        prompt='def square(x):\n    """Squares a number."""\n',
    ),
)
BODY = "    return x * x\n"
WHOLE = SQUARE.unit_tests.prompt + BODY if SQUARE.unit_tests else ""
FORMS = (
    f"Here it is:\n```python\n{WHOLE}```",
    f"```python\n{WHOLE}```\nIt squares.",
    f"```python\n{WHOLE}",
)
"""Prose and a fenced program, the reverse order, and an unclosed fence."""
PROGRAMS = (
    BODY,
    f"    return helper(x)\n\ndef helper(x):\n{BODY}",
    "square = lambda x: x * x",
    "def square(x):\n\treturn x * x",
    f"{WHOLE}\nprint(square(3))",
    f"{WHOLE}\nif __name__ == '__main__':\n    print(square(int(input())))",
    WHOLE,
    "    import sys\n    sys.exit(0)\n",
    "class Any:\n    __eq__ = lambda a, b: True\ndef square(x):\n    return Any()",
)
"""A body, a helper, a lambda, tabs, prints, a main guard, the repeated prompt; then an early exit
and an object equal to everything."""


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapters of the areas `executor` and `unit_tests`."""
    # The whole output of a program, and the output that is cut.
    wide = ToolLimits(output_bytes=ToolLimits().runaway_bytes)
    with (
        PythonExecutor(max_running=1) as executor,
        PythonExecutor(max_running=1, limits=wide) as uncut,
        KindVerifier("unit_tests", tool=executor) as verifier,
    ):
        yield {
            "executor": functools.partial(_observation, executor, uncut),
            "unit_tests": functools.partial(_verdict, verifier),
        }


def _observation(
    executor: PythonExecutor, uncut: PythonExecutor, given: Mapping[str, Any]
) -> str | None:
    """The text that the policy reads, or a sentence that only whole lines of it are shown."""
    if "program" not in given:
        return None
    shown = tools.render_tool_result(executor.submit(given["program"]).result())
    if not _MARK.search(shown):
        return shown
    whole = tools.render_tool_result(uncut.submit(given["program"]).result())
    head, tail = _MARK.split(shown, maxsplit=1)
    between = whole.startswith(head) and whole.endswith(tail)
    return "cut between lines" if between else f"cut within lines: {shown}"


def _verdict(verifier: KindVerifier, given: Mapping[str, Any]) -> str | None:
    """The verdict on `answer`, judged by the record of tests in `unit_tests`.

    Without such a record the case is a description: tests of streams, or answers in several forms.
    """
    if "problem" in given:
        streams = UnitTests(streams=(StreamTest(stdin="2\n", stdout="4\n"),))
        problem = Problem(id="1", question="?", answer="", unit_tests=streams)
        verdict = verifier(problem, "print(int(input()) ** 2)")
        return "a kind of test" if verdict is Verdict.RIGHT else verdict.value
    if not isinstance(given.get("unit_tests"), Mapping):
        described = FORMS if "answer" in given else PROGRAMS
        verdicts = ", ".join(verifier(SQUARE, answer).value for answer in described)
        return re.sub(r"^(right, right)(?:, right)+(?=, wrong)", r"\1 …", verdicts)
    tests: dict[str, Any] = dict(given["unit_tests"])
    for name in ("tests", "names"):
        if name in tests:
            tests[name] = tuple(tests[name])
    if "streams" in tests:
        tests["streams"] = tuple(StreamTest(**each) for each in tests["streams"])
    problem = Problem(id="1", question="?", answer="", unit_tests=UnitTests(**tests))
    return verifier(problem, given["answer"]).value
