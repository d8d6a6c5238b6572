"""Programming contests, on records of the form that their data sets publish (contents are ours)."""

from __future__ import annotations

import base64
import datetime
import json
import pickle
import zlib

import pytest

from gtpo_jax.tasks.mappings import MAPPINGS
from gtpo_jax.tools import PythonExecutor
from gtpo_jax.types import StreamTest, Verdict
from gtpo_jax.verifiers import KindVerifier


def packed(value):
    """Encodes tests like the private tests of LiveCodeBench."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def case(given, expected, kind="stdin"):
    return {"input": given, "output": expected, "testtype": kind}


STREAMS = {
    "question_id": "abc1",
    "question_content": "Read two numbers and write their sum.",
    "platform": "atcoder",
    "starter_code": "",
    "public_test_cases": json.dumps([case("1 2\n", "3\n")]),
    "private_test_cases": packed(json.dumps([case("5 6\n", "11\n"), case("-1 1\n", "0\n")])),
    "metadata": "{}",
}
FUNCTION = {
    **STREAMS,
    "starter_code": "class Solution:\n    def add(self, a: List[int], b: int) -> List[int]:\n",
    "public_test_cases": json.dumps([case("[1, 2]\n3", "[4, 5]", "functional")]),
    "private_test_cases": packed(json.dumps([case("[]\n3", "[]", "functional")])),
    "metadata": json.dumps({"func_name": "add"}),
}
APPS = {
    "problem_id": 7,
    "question": "Read two numbers and write their sum.",
    "input_output": json.dumps({"inputs": ["1 2\n", ["5 6"]], "outputs": ["3\n", ["11"]]}),
    "difficulty": "interview",
    "starter_code": "",
}
APPS_FUNCTION = {
    **APPS,
    "input_output": json.dumps(
        {"fn_name": "add", "inputs": [[[1, 2], 3], [[], 3]], "outputs": [[[4, 5]], [[]]]}
    ),
}

ADDS = "a, b = map(int, input().split())\nprint(a + b)"
METHOD = (
    "class Solution:\n    def add(self, a: List[int], b: int) -> List[int]:\n"
    "        return [x + b for x in a]"
)
FUNCTION_ALONE = "def add(a, b):\n    return [x + b for x in a]"


def problem(name, record):
    return MAPPINGS[name].convert(record).problem


def test_streams_are_read_from_both_lists():
    found = problem("livecodebench", STREAMS)
    assert (found.id, found.family, found.verifier) == ("abc1", "atcoder", "unit_tests")
    assert found.unit_tests.streams == (
        StreamTest(stdin="1 2\n", stdout="3\n"),
        StreamTest(stdin="5 6\n", stdout="11\n"),
        StreamTest(stdin="-1 1\n", stdout="0\n"),
    )
    assert "standard input" in found.question and "11" not in found.question


def test_starter_of_a_function_is_shown():
    found = problem("livecodebench", FUNCTION)
    assert found.question.endswith(f"```python\n{FUNCTION['starter_code'].strip()}\n```")
    assert len(found.unit_tests.tests) == 2 and not found.unit_tests.streams


def test_tests_may_come_as_a_list_or_not_at_all():
    record = {**STREAMS, "public_test_cases": [case("1 2", "3")], "private_test_cases": None}
    assert len(problem("livecodebench", record).unit_tests.streams) == 1


@pytest.mark.parametrize(
    ("name", "record", "right", "wrong"),
    [
        ("livecodebench", STREAMS, ADDS, "input(); print(3)"),
        ("livecodebench", FUNCTION, METHOD, METHOD.replace("x + b", "x - b")),
        ("livecodebench", FUNCTION, FUNCTION_ALONE, "def add(a, b):\n    return [4, 5]"),
        ("apps", APPS, ADDS, "input(); print(3)"),
        ("apps", APPS_FUNCTION, METHOD, METHOD.replace("x + b", "x - b")),
        ("apps", APPS_FUNCTION, FUNCTION_ALONE, ADDS),
    ],
)
def test_programs_are_judged_by_all_tests(name, record, right, wrong):
    found = problem(name, record)
    with PythonExecutor(max_running=1, preload=()) as tool, KindVerifier(tool=tool) as verifier:
        verifier.check(found)
        assert verifier(found, right) is Verdict.RIGHT
        assert verifier(found, f"```python\n{right}\n```") is Verdict.RIGHT
        assert verifier(found, wrong) is Verdict.WRONG


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        (
            "livecodebench",
            {**STREAMS, "public_test_cases": "[", "private_test_cases": ""},
            "not JSON",
        ),
        ("livecodebench", {**STREAMS, "private_test_cases": "??"}, "neither JSON nor compressed"),
        ("livecodebench", {**STREAMS, "private_test_cases": packed([1])}, "must be a text when"),
        (
            "livecodebench",
            {**STREAMS, "private_test_cases": packed(datetime.date(2026, 1, 1))},
            "compressed JSON: it holds datetime.date",
        ),
        (
            "livecodebench",
            {**STREAMS, "public_test_cases": "[]", "private_test_cases": "[]"},
            "`public_test_cases` and `private_test_cases` are empty",
        ),
        ("livecodebench", {**STREAMS, "public_test_cases": '[{"input": 1}]'}, "with input and"),
        (
            "livecodebench",
            {**STREAMS, "public_test_cases": json.dumps([case("1", "1", "functional")])},
            "`testtype` must be stdin or functional throughout",
        ),
        ("livecodebench", {**FUNCTION, "metadata": "{}"}, "`metadata` must name the function"),
        ("apps", {**APPS, "input_output": ""}, "as many `outputs` as `inputs`"),
        ("apps", {**APPS, "input_output": '{"inputs": ["1"], "outputs": []}'}, "as many `outputs`"),
        ("apps", {**APPS, "input_output": "{"}, "`input_output` is not JSON"),
        (
            "apps",
            {**APPS, "input_output": '{"fn_name": "a b", "inputs": [[1]], "outputs": [1]}'},
            "must name the function to call, got 'a b'",
        ),
    ],
)
def test_records_of_another_form_are_refused(name, record, reason):
    with pytest.raises(ValueError, match=reason):
        problem(name, record)
