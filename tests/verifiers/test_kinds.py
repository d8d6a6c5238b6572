"""Texts, numbers, choices and programs as answers, and the verifier that knows all kinds."""

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
from gtpo_jax.verifiers import KindVerifier, exact, numeric_or_exact
from gtpo_jax.verifiers.choice import choice
from gtpo_jax.verifiers.judges import leaves
from tests.tiny import DIALOGUE


def verdict(expected, given):
    return numeric_or_exact(Problem(id="p", question="q", answer=expected), given)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("4", "4"),
        ("4", " 4\n"),
        ("4", "4.0"),
        ("4", "+4"),
        ("4", "04"),
        ("-4", "-4."),
        ("0.5", ".5"),
        ("1234567", "1,234,567"),
        ("1,234.5", "1234.50"),
        ("1500", "1.5e3"),
        ("0.333333333", "0.3333333333"),
        ("0", "-0"),
        ("blue", " blue "),
        ("3 pens", "3 pens"),
        ("9" * 70, "9" * 70),
        ("9" * 70, "9" * 70 + ".0"),
        ("1" + "0" * 30, "1e30"),
        ("3/4", "0.75"),
        ("3/4", "6/8"),
        ("-3/4", "-.75"),
        ("1000000000000", "1000000000000.0000001"),
        ("0", "1e-17"),
    ],
)
def test_equal_text_or_number_is_right(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("4", "5"),
        ("4", "4 pens"),
        ("4", "4%"),
        ("4", "4 4"),
        ("4", "4 or 5"),
        ("4", "the answer is 4"),
        ("4", "2+2"),
        ("4", "--4"),
        ("0.333", "0.334"),
        ("0.3333", "1/3"),
        ("12", "1,2"),  # a pair of numbers
        ("1234", "12,34"),
        ("1000", ",1000"),
        ("4", "nan"),
        ("4", "inf"),
        ("4", "."),
        ("4", "e"),
        ("4", "0x4"),
        ("4", "4_0"),
        ("40", "4_0"),
        ("1e999", "2e999"),
        ("1", "1" + "0" * 80),
        ("blue", "Blue"),
        ("blue", "4"),
        ("4", "Time limit exceeded."),
        ("0.75", "3/4"),  # a division that is not carried out, where no fraction is expected
        ("12", "84/7"),
        ("3/4", "0.7"),
        ("3/4", "3/0"),
        ("1000001", "1000000"),  # however small the relative error
        ("9" * 70, "9" * 69 + "8"),
        ("1234567", "1234567.4"),
        ("16386.16", "16386.17"),  # another last digit, within the tolerance
        ("16386.160", "16386.17"),
        ("100000.5", "100000.6"),
        ("0", "0.000001"),
        ("٤", "4"),  # digits of other scripts are no numbers here
    ],
)
def test_anything_else_is_wrong(expected, given):
    assert verdict(expected, given) is Verdict.WRONG


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("18", "\\boxed{\\$18}"),
        ("18", "\\$18"),
        ("18", "$\\$18$"),
        ("18", "$18"),
        ("18", "$18$"),
        ("18", "$18.00$."),
        ("18", "18\\text{ dollars}"),
        ("18", "18 dollars."),
        ("18", "18\\$"),
        ("18", "€18"),
        ("18", "\\text{18}"),
        ("18", "\\mathbf{18}"),
        ("18", "**18**"),
        ("18", "**$18**"),
        ("18", "`18`"),
        ("18", "{18}"),
        ("18", "18."),
        ("18", "18 cm"),
        ("18", "18\\text{ cm}^2"),
        ("18", "18 km/h"),
        ("18", "１８"),
        ("-5", "−5"),
        ("-5", "- 5"),
        ("-5", "-\\$5"),
        ("1080", "1{,}080"),
        ("1080", "1\\,080"),
        ("1080", "1 080"),
        ("1080", "\\$1,080.00"),
        ("$1,080", "1080 dollars"),
        ("3/4", "\\frac{3}{4}"),
        ("3/4", "¾"),
    ],
)
def test_number_as_people_write_it_is_right(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("75", "75\\%"),
        ("75", "$75\\%$"),
        ("75", "75 percent"),
        ("0.75", "75%"),
        ("18", "18 pens"),
        ("18", "18\\text{ million}"),
        ("18", "x = 18"),
        ("18", "18, 19"),
        ("18", "\\{18\\}"),
        ("18", "(18)"),
        ("18", "9 \\cdot 2"),
        ("18", "$9$ $2$"),
        ("18", "\\boxed{17}\\boxed{18}"),
        ("18", "18!"),
        ("$18", "18 euros"),
        ("18 cm", "18 m/s"),
        ("5", "--5"),
        ("1080", "1.080,00"),
    ],
)
def test_more_than_a_number_is_wrong(expected, given):
    assert verdict(expected, given) is Verdict.WRONG


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_nothing_is_no_answer(given):
    assert verdict("4", given) is Verdict.NO_ANSWER


def test_the_tolerance_is_relative_and_may_be_zero():
    half = Problem(id="p", question="q", answer="0.5")
    assert numeric_or_exact(half, "0.5004", tolerance=1e-3) is Verdict.RIGHT
    assert numeric_or_exact(half, "0.5004", tolerance=1e-4) is Verdict.WRONG
    assert numeric_or_exact(half, "0.50", tolerance=0.0) is Verdict.RIGHT
    assert numeric_or_exact(half, "0.5000000000000001", tolerance=0.0) is Verdict.WRONG


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("2.718281828", "2.7182818"),  # fewer digits
        ("2.718281828", "2.718281"),  # and cut off instead of rounded
        ("2.7182818", "2.718281828459045"),
        ("0.30000000000000004", "0.3"),  # what floating point leaves behind
        ("0.3", "0.30000000000000004"),
        ("2.8000000000000003", "2.8000000000000007"),
    ],
)
def test_decimals_that_differ_by_less_than_they_both_show_agree(expected, given):
    assert verdict(expected, given) is Verdict.RIGHT
    left, right = leaves.Leaf(expected), leaves.Leaf(given)
    assert leaves.same(left, right, 1e-6)


def test_hostile_answer_is_judged_at_once():
    assert verdict("4", "1," * 50_000) is Verdict.WRONG
    assert verdict("4", "1e" + "9" * 50) is Verdict.WRONG


def test_exact_compares_texts():
    problem = Problem(id="p", question="q", answer="a\nb")
    for given, expected in ((" a\nb\n", Verdict.RIGHT), ("a b", Verdict.WRONG), ("A\nB", "wrong")):
        assert exact(problem, given) == expected
    assert exact(problem, " ") is Verdict.NO_ANSWER


CHOICES = ("Paris", "London", "New  York", "london", "B")


@pytest.mark.parametrize(
    ("expected", "given", "verdict"),
    [
        ("B", "B", "right"),
        ("B", "(B)", "right"),
        ("B", "b.", "right"),
        ("B", "B)", "right"),
        ("B", "B) London", "right"),
        ("B", "(B)  LONDON.", "right"),
        ("B", "B: london", "right"),
        ("B", "\\text{(B)}", "right"),
        ("B", "$\\textbf{B}$", "right"),
        ("C", "new york", "right"),
        ("A", "Paris", "right"),
        ("E", "(E)", "right"),
        ("(C)", "C", "right"),
        ("B", "A", "wrong"),
        ("B", "B) Paris", "wrong"),  # it contradicts itself
        ("B", "London", "wrong"),  # two choices are called that
        ("E", "B", "wrong"),  # a letter is a letter before it is a text
        ("B", "B or C", "wrong"),
        ("B", "B, C", "wrong"),
        ("B", "BC", "wrong"),
        ("B", "the answer is B", "wrong"),
        ("B", "F", "wrong"),
        ("A", "A Paris", "wrong"),
        ("B", "?", "wrong"),
        ("B", " ", "no_answer"),
        ("F", "F", "unverifiable"),  # no such choice
        ("Paris", "A", "unverifiable"),  # no letter
    ],
)
def test_choice(expected, given, verdict):
    problem = Problem(id="p", question="q", answer=expected, choices=CHOICES)
    assert choice(problem, given) == verdict


def test_choice_whose_texts_are_not_known():
    problem = Problem(id="p", question="q", answer="B")
    assert choice(problem, "(b)") is Verdict.RIGHT
    assert choice(problem, "B) London") is Verdict.WRONG


# Programs. The tests run in the real tool.

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


# All kinds.


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
