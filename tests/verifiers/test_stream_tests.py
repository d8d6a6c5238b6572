"""Programs judged by what they write when they read an input."""

from __future__ import annotations

import decimal
from concurrent import futures

import hypothesis
import pytest
from hypothesis import strategies as st

from gtpo_jax.tools import PythonExecutor
from gtpo_jax.types import StreamTest
from gtpo_jax.verifiers import stream_tests
from gtpo_jax.verifiers.stream_tests import canonical, submit_stream_tests
from gtpo_jax.verifiers.unit_tests import TestStatus

TEST = StreamTest(stdin="3\n1 2 3\n", stdout="6\n2.50\n")


@pytest.fixture(scope="module")
def tool():
    with PythonExecutor(max_running=1, preload=()) as executor:
        yield executor


def judge(tool, program, test=TEST, **settings):
    [outcome] = submit_stream_tests(tool, program, [test], **settings).result()
    return outcome


@pytest.mark.parametrize(
    "program",
    [
        "input(); print(sum(map(int, input().split()))); print(2.5)",
        "import sys\nd = sys.stdin.read().split()\nprint(sum(map(int, d[1:])), '\\n2.5  \\n\\n')",
        "import sys\nd = sys.stdin.buffer.readlines()\nsys.stdout.buffer.write(b'6\\n2.5')",
        "import sys\nfor line in sys.stdin: last = line\nprint(len(last)); print(2.5)",
        "print(len(open(0).read()) - 2); print(2.5)",
        "import os\nos.read(0, 100)\nos.write(1, b'6\\n2.5\\n')",
        "print(6); print(2.5); raise SystemExit",
        "import os, sys\nprint(6); print(2.5)\nsys.stdout.flush()\nos._exit(0)",
        "def main():\n  print(6); print(2.5)\nif __name__ == '__main__': main()",
        "import threading\ndef f(): print(6); print(2.5)\nthreading.Thread(target=f).start()",
        "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
        "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\n"
        "print(6); print(2.5)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n  x: int\n"
        "print(A(6).x); print(2.5)",
        "import sys\nprint('warning', file=sys.stderr)\nprint(6); print(2.5)",
        "class Any:\n  __eq__ = lambda a, b: True\nprint(6)\nprint(2.5)",
    ],
)
def test_program_that_writes_what_is_expected_passes(tool, program):
    assert judge(tool, program).passed


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("print(7); print(2.5)", TestStatus.FAILED, "not the expected one"),
        ("print(6)", TestStatus.FAILED, "not the expected one"),
        ("print(6); print(2.5); print(1)", TestStatus.FAILED, "not the expected one"),
        ("", TestStatus.FAILED, "not the expected one"),
        ("print('wrote 0')", TestStatus.FAILED, "not the expected one"),
        ("import os; os._exit(0)", TestStatus.FAILED, "not the expected one"),
        ("print(6); print(2.5); 1 / 0", TestStatus.ERROR, "ZeroDivisionError: division by zero"),
        ("print(6); print(2.5); exit(1)", TestStatus.ERROR, "the program ended with 1"),
        ("print(6); print(2.5); import os; os._exit(3)", TestStatus.ERROR, "ended with 3"),
        ("input(); input(); input()", TestStatus.ERROR, "EOFError"),
        ("def f(:", TestStatus.ERROR, "SyntaxError"),
        ("import os, signal; os.kill(os.getpid(), 9)", TestStatus.ERROR, ""),
        ("while True: pass", TestStatus.TIMEOUT, "timeout"),
    ],
)
def test_program_that_does_not_says_why(tool, program, status, message):
    outcome = judge(tool, program, timeout=2.0)
    assert outcome.status is status and message in outcome.message


def test_long_output_is_compared_whole(tool):
    program = "for i in range(10**5): print(i)"
    lines = "\n".join(map(str, range(10**5)))
    assert judge(tool, program, StreamTest(stdin="", stdout=lines)).passed
    other = StreamTest(stdin="", stdout=lines.replace("50000", "50001"))
    assert judge(tool, program, other).status is TestStatus.FAILED


def test_input_of_any_text_arrives_unchanged(tool):
    text = "é\u2028\U0001f600 'quoted' \\ \x00 end"
    assert judge(tool, "print(input())", StreamTest(stdin=text, stdout=text)).passed


def test_expected_output_is_nowhere_in_the_call():
    codes = []

    class Recorder:
        def submit(self, code, *, timeout=None):
            codes.append(code)
            return futures.Future()

    submit_stream_tests(Recorder(), "print(1)", [StreamTest(stdin="an input", stdout="secret")])
    assert "an input" in codes[0] and "print(1)" in codes[0]
    assert "secret" not in codes[0] and stream_tests.digest("secret") not in codes[0]


def test_outcomes_come_in_the_order_of_the_tests(tool):
    tests = [StreamTest(stdin=str(n), stdout=str(n * n)) for n in (1, 2, 3)]
    outcomes = submit_stream_tests(tool, "print(int(input()) + 2)", tests).result()
    assert [outcome.passed for outcome in outcomes] == [False, True, False]


def test_no_tests_and_no_text_are_errors(tool):
    with pytest.raises(ValueError, match="tests is empty"):
        submit_stream_tests(tool, "", [])
    with pytest.raises(TypeError, match="solution must be a str"):
        submit_stream_tests(tool, b"", [TEST])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1 2\n", "1 2", True),
        ("1  2 \r\n\n", "1 2", True),
        ("2.50 1e3", "2.5 1000.0", True),
        ("-0.0", "0.0", True),
        ("+3", "3", True),
        ("3.0", "3", True),
        ("1e-7", "0.0000001", True),
        ("007", "7", False),
        ("0.1", "0.10000001", False),
        ("v 1.10", "v 1.1", False),
        ("a b", "a  b", False),
        ("a\n\nb", "a\nb", False),
        ("1e999999", "1e999998", False),
        ("nan", "0", False),
        ("YES", "yes", False),
    ],
)
def test_lines_are_compared_as_contests_do(one, other, same):
    assert (canonical(one) == canonical(other)) is same


@hypothesis.given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers(-60, 60)
)
def test_numbers_keep_their_values(value, power):
    with decimal.localcontext(prec=200):
        written = f"{value}e{power}"
        again = canonical(written)
        assert decimal.Decimal(again) == decimal.Decimal(written)
        assert decimal.Decimal(canonical(again)) == decimal.Decimal(written)
