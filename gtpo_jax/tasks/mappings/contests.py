"""Programming contests: unit tests compare a program's output, or call its function."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Sequence
from typing import Any

from gtpo_jax.tasks.mappings.fields import Record, is_missing, optional, shown, text
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem, StreamTest, UnitTests

# Starter code of these data sets has annotations like `List[int]`, and solutions use these modules.
SETUP = """\
from typing import *
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
"""
READS = (
    "Answer with a Python program, between <answer> and </answer>, that reads standard input and"
    " writes standard output."
)
COMPLETES = "Answer with a Python program, between <answer> and </answer>, that completes this one:"

_MOST_BYTES = 2**30  # maximum size of one problem's tests, decompressed


def livecodebench(record: Record) -> Entry:
    """LiveCodeBench, with public and private tests."""
    public = _tests(record.get("public_test_cases"), "public_test_cases")
    tests = public + _tests(record.get("private_test_cases"), "private_test_cases")
    if not tests:
        raise ValueError("`public_test_cases` and `private_test_cases` are empty")
    kinds = {test.get("testtype") for test in tests}
    if kinds == {"stdin"}:
        unit_tests = _streams([(test["input"], test["output"]) for test in tests])
    elif kinds == {"functional"}:
        metadata = _json(record.get("metadata") or "{}", "metadata")
        name = metadata.get("func_name") if isinstance(metadata, dict) else None
        pairs = [
            ([_value(line) for line in test["input"].split("\n")], _value(test["output"]))
            for test in tests
        ]
        unit_tests = _calls(name, pairs, "metadata")
    else:
        raise ValueError(f"`testtype` must be stdin or functional throughout, got {shown(kinds)}")
    return _entry(
        record,
        unit_tests,
        text(record, "question_content"),
        text(record, "question_id"),
        "platform",
    )


def apps(record: Record) -> Entry:
    """APPS, and TACO, which has the same schema."""
    tests = _json(record.get("input_output") or "{}", "input_output")
    inputs, outputs = (tests.get(key) for key in ("inputs", "outputs")) if tests else (None, None)
    if not inputs or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("`input_output` must have as many `outputs` as `inputs`, and at least one")
    if name := tests.get("fn_name"):
        values = [out[0] if isinstance(out, list) and len(out) == 1 else out for out in outputs]
        unit_tests = _calls(name, list(zip(inputs, values, strict=True)), "input_output")
    else:
        pairs = [(_joined(x), _joined(y)) for x, y in zip(inputs, outputs, strict=True)]
        unit_tests = _streams(pairs)
    identity = optional(record, "problem_id", "id")
    return _entry(record, unit_tests, text(record, "question"), identity, "difficulty")


def _entry(record: Record, tests: UnitTests, asked: str, identity: str, family: str) -> Entry:
    starter = optional(record, "starter_code")
    way = READS if tests.streams else COMPLETES if starter else f"Define {tests.names}."
    code = f"\n\n```python\n{starter}\n```" if starter and not tests.streams else ""
    return Entry(
        Problem(
            id=identity,
            question=f"{asked}\n\n{way}{code}",
            answer="",
            family=optional(record, family),
            verifier="unit_tests",
            unit_tests=tests,
        )
    )


def _streams(pairs: Sequence[tuple[str, str]]) -> UnitTests:
    return UnitTests(streams=tuple(StreamTest(stdin=x, stdout=y) for x, y in pairs))


def _calls(name: Any, pairs: Sequence[tuple[Any, Any]], field: str) -> UnitTests:
    """Tests that call a function, or a method of that name of a class `Solution`."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"`{field}` must name the function to call, got {shown(name)}")
    function = f"(Solution().{name} if 'Solution' in globals() else {name})"
    return UnitTests(
        tests=tuple(f"assert {function}(*{list(x)!r}) == {y!r}" for x, y in pairs),
        setup=SETUP,
        names=("Solution", name),
    )


def _tests(value: Any, field: str) -> list[dict[str, Any]]:
    """Tests given as a list, as JSON, or as JSON that is pickled, compressed and base64-encoded."""
    if is_missing(value) or value == "":
        return []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = _unpacked(value, field)
    tests = _json(value, field) if isinstance(value, str) else value
    texts = isinstance(tests, list) and all(
        isinstance(test, dict) and isinstance(test.get(key), str)
        for test in tests
        for key in ("input", "output")
    )
    if not texts:
        raise ValueError(f"`{field}` must be a list of tests with input and output")
    return tests


class _Texts(pickle.Unpickler):
    """Unpickles texts but no classes: an unrestricted pickle could run any code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module_name}.{global_name}")


def _unpacked(value: str, field: str) -> str:
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(value, validate=True), _MOST_BYTES)
        content = _Texts(io.BytesIO(data)).load()
    except (ValueError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        raise ValueError(f"`{field}` is neither JSON nor compressed JSON: {error}") from None
    if not isinstance(content, str):
        raise ValueError(f"`{field}` must be a text when unpacked, got {shown(content)}")
    return content


def _json(value: Any, field: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{field}` is not JSON: {error}") from None


def _value(line: str) -> Any:
    return _json(line, "input or output of a test")


def _joined(value: Any) -> str:
    """The lines of a stream as one text."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
