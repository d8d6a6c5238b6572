"""The executor and unit tests: programs in, texts and verdicts out."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.cases.row import Adapter
from gtpo_jax import tools
from gtpo_jax.tasks.verifiers import KindVerifier
from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import Problem, StreamTest, UnitTests

_MARK = re.compile(r"^\[.* truncated\]$", re.MULTILINE)


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapters of the areas `executor` and `unit_tests`."""
    # The whole output of a program, beside the one that is cut.
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
    """The text that the policy reads, or the sentence that only whole lines of it are shown."""
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
    """The verdict on `answer`, judged by the record of tests in `unit_tests`."""
    if not isinstance(given.get("unit_tests"), Mapping):
        return None
    tests: dict[str, Any] = dict(given["unit_tests"])
    for name in ("tests", "names"):
        if name in tests:
            tests[name] = tuple(tests[name])
    if "streams" in tests:
        tests["streams"] = tuple(StreamTest(**each) for each in tests["streams"])
    problem = Problem(id="1", question="?", answer="", unit_tests=UnitTests(**tests))
    return verifier(problem, given["answer"]).value
