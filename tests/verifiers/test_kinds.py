"""Programs as answers, and the verifier that knows all kinds."""

import dataclasses
import importlib.util
import textwrap
import threading
from concurrent import futures

import pytest

from configs.parts import make_verifier
from configs.presets import TINY
from configs.schema import VerifierConfig
from gtpo_jax import verifiers
from gtpo_jax.tools import ExecutorBusy, PythonExecutor
from gtpo_jax.types import Problem, ToolResult, ToolStatus, UnitTests, Verdict
from gtpo_jax.verifiers import KindVerifier
from tests.tiny import DIALOGUE

PROMPT = '''from typing import List


def helper(x):
    return x + 1


def increased(xs: List[int]) -> List[int]:
    """ Each element plus 1.
    >>> increased([1])
    [2]
    """
'''
TESTS = UnitTests(
    tests=("assert increased([1, 2]) == [2, 3]", "assert increased([]) == []"),
    names=("increased",),
    prompt=PROMPT,
)
WHOLE = "def increased(xs: List[int]) -> List[int]:\n    return [helper(x) for x in xs]"


def programming(tests: UnitTests | None = TESTS):
    return Problem(id="p", question="q", answer="", verifier="unit_tests", unit_tests=tests)


@pytest.fixture(scope="module")
def programs():
    with PythonExecutor(max_running=2, preload=()) as tool, KindVerifier(tool=tool) as verifier:
        yield verifier


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ("    return [x + 1 for x in xs]", "right"),
        ("return [x + 1 for x in xs]", "right"),  # without the spaces around it
        ("ys = []\n    for x in xs:\n        ys.append(x + 1)\n    return ys", "right"),
        (PROMPT + "    return [x + 1 for x in xs]", "right"),
        (WHOLE, "right"),  # needs an import and a helper of the prompt
        (f"```python\n{WHOLE}\n```", "right"),
        (f"\n````py\n{WHOLE}\n````\n", "right"),
        (
            "from __future__ import annotations\ndef increased(xs): return [x + 1 for x in xs]",
            "right",
        ),
        ("increased = lambda xs: [x + 1 for x in xs]", "right"),
        ("    return xs", "wrong"),
        ("return [2, 3] if xs else []", "right"),  # what the tests do not see
        ("return [2, 3]", "wrong"),  # the second test does
        ("def other(xs): return xs", "wrong"),
        ("import sys; sys.exit(0)", "wrong"),
        ("I would return xs", "wrong"),
        # Said in other words: the last block that defines it, else the last of Python.
        (f"Here it is:\n```python\n{WHOLE}\n```", "right"),
        (f"```python\n{WHOLE}\n```\nIt adds 1 to each.", "right"),
        (f"Here it is:\n```python\n{WHOLE}", "right"),  # not closed
        (f"~~~~Python3\n{WHOLE}\n~~~~", "right"),
        (f"1. So:\n\n   ```py\n{textwrap.indent(WHOLE, '   ')}\n   ```", "right"),
        (f"```python\n{WHOLE}\n```\nTry it:\n```python\nprint(increased([1]))\n```", "right"),
        (f"No:\n```python\ndef increased(xs): pass\n```\nBut:\n```\n{WHOLE}\n```", "right"),
        (f"```python\n{WHOLE}\n```\nNo:\n```python\ndef increased(xs): pass\n```", "wrong"),
        ("So:\n```python\n    return [x + 1 for x in xs]\n```\n```\n[2]\n```", "right"),
        (f'{WHOLE}\n\n\ndef more():\n    """\n    ```python\n    x\n    ```\n    """', "right"),
        (f"Here it is:\n{WHOLE}", "wrong"),  # which part is the program, nothing says
        # Indented otherwise than the prompt goes on.
        (textwrap.indent(WHOLE, "    "), "right"),
        ("    ys = []\n    for x in xs:\n        ys.append(x + 1)\n    return ys", "right"),
        ("ys = []\nfor x in xs:\n    ys.append(x + 1)\nreturn ys", "right"),
        ("if not xs:\n    return []\nelse:\n    return [x + 1 for x in xs]", "right"),
        ("if True:\n    return [x + 1 for x in xs]", "right"),
        ("if True:  # so\n        return [x + 1 for x in xs]", "right"),
        ("return more(xs)\n\ndef more(xs):\n    return [x + 1 for x in xs]", "right"),
        ("    increased = [x + 1 for x in xs]\n    return increased", "right"),
        ("((" * 50_000, "wrong"),
        (" \n", "no_answer"),
    ],
)
def test_program(programs, given, verdict):
    assert programs(programming(), given) == verdict


def test_program_that_the_tests_cannot_judge(programs):
    broken = dataclasses.replace(TESTS, tests=("assert (",))
    assert programs(programming(broken), WHOLE) is Verdict.UNVERIFIABLE
    with pytest.raises(ValueError, match="not Python: 'assert \\('"):
        programs.check(programming(broken))


def test_tool_that_fails_makes_a_program_unverifiable():
    class Tool:
        def submit(self, code, *, timeout=None):
            future = futures.Future()
            future.set_result(ToolResult(status=ToolStatus.INFRA_ERROR))
            return future

    with KindVerifier(tool=Tool()) as verifier:
        assert verifier(programming(), WHOLE) is Verdict.UNVERIFIABLE
        assert verifier.stats.verdicts == {Verdict.UNVERIFIABLE: 1}


def test_busy_tool_does_not_hold_up_who_submits():
    free = threading.Event()

    class Tool:
        def submit(self, code, *, timeout=None):
            if not free.is_set():
                raise ExecutorBusy("full")
            future = futures.Future()
            future.set_result(ToolResult(status=ToolStatus.INFRA_ERROR))
            return future

    with KindVerifier(tool=Tool()) as verifier:
        verdict = verifier.submit(programming(), WHOLE)
        assert not verdict.done()
        free.set()
        assert verdict.result(timeout=10) is Verdict.UNVERIFIABLE


def test_program_survives_the_dialogue():
    program = "def f(x):\n    if x:\n        return '</code>'\n    return 1"
    assert DIALOGUE.parse(DIALOGUE.answer("", program)).answer == program


def test_problems_name_their_kind():
    with KindVerifier("exact") as verifier:
        texts = Problem(id="t", question="q", answer="4")
        numbers = Problem(id="n", question="q", answer="4", verifier="numeric")
        letters = Problem(id="l", question="q", answer="B", verifier="choice")
        assert verifier(texts, "4.0") is Verdict.WRONG
        assert verifier(numbers, "4.0") is Verdict.RIGHT
        assert verifier(letters, "(b)") is Verdict.RIGHT
        assert verifier(letters, None) is Verdict.NO_ANSWER
        assert verifier.stats.verdicts == {
            Verdict.WRONG: 1,
            Verdict.RIGHT: 2,
            Verdict.NO_ANSWER: 1,
        }
        assert verifier.stats.timeouts == verifier.stats.crashes == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verifier": "maths"}, "problem 'p' names the verifier 'maths'; there are numeric, exact"),
        ({"verifier": "unit_tests"}, "was given no tool"),
        ({"verifier": "choice", "answer": "four"}, "'four', which is no letter of its choices"),
        ({"verifier": "choice", "answer": "C", "choices": ("1", "2")}, "no letter of its choices"),
        ({"answer": " "}, "no answer to compare with, as the verifier numeric does"),
    ],
)
def test_problem_that_cannot_be_judged_is_an_error_before_work(change, message):
    problem = dataclasses.replace(Problem(id="p", question="q", answer="4"), **change)
    with KindVerifier() as verifier, pytest.raises(ValueError, match=message):
        verifiers.check_problem(verifier, problem)


def test_program_without_tests_is_an_error_before_work(programs):
    with pytest.raises(ValueError, match="has no unit_tests"):
        programs.check(programming(None))
    with pytest.raises(ValueError, match="has no test among"):
        programs.check(programming(UnitTests(tests=())))


def test_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="the verifier of the run names the verifier 'maths'"):
        KindVerifier("maths")


def test_package_that_is_missing_is_an_error_before_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    problem = Problem(id="p", question="q", answer="4")
    with (
        KindVerifier("math") as verifier,
        pytest.raises(ValueError, match=r"pip install -e '.\[tasks"),
    ):
        verifier.check(problem)


def test_config_of_a_run_makes_its_verifier():
    config = VerifierConfig(kind="exact", tolerance=0.5, seconds=2.0, workers=3)
    with make_verifier(config, None) as verifier:
        assert (verifier.kind, verifier.tolerance) == ("exact", 0.5)
        assert (verifier.seconds, verifier.workers) == (2.0, 3)


@pytest.mark.parametrize(
    "options", [{"tolerance": -1e-9}, {"tolerance": 1.0}, {"seconds": 0.0}, {"workers": 0}]
)
def test_config_that_makes_no_sense_is_an_error(options):
    [name] = options
    with pytest.raises(ValueError, match=f"verifier.{name} must be"):
        dataclasses.replace(TINY, verifier=VerifierConfig(**options))


def test_plain_function_is_a_verifier():
    def judge(problem, answer):
        return Verdict.RIGHT if answer == "!" else Verdict.WRONG

    problem = Problem(id="p", question="q", answer="", verifier="anything")
    verifiers.check_problem(judge, problem)
    assert verifiers.submit(judge, problem, "!").result() is Verdict.RIGHT
