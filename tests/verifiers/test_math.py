"""Mathematical answers: the table, data sets against themselves, and math-verify's own verdicts."""

import json
import pathlib
import threading
from typing import Any

import pytest

from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import KindVerifier
from tests.verifiers import math_table, spelling_table, structure_table

pytestmark = pytest.mark.slow

pytest.importorskip("math_verify", reason="needs the extra `tasks`")

THEMES = {**math_table.THEMES, **spelling_table.THEMES, **structure_table.THEMES}
CASES = {
    (theme, place): case for theme, table in THEMES.items() for place, case in enumerate(table)
}
DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"


def problem(expected):
    return Problem(id=expected, question="q", answer=expected)


@pytest.fixture(scope="module")
def verifier():
    with KindVerifier("math", workers=2, seconds=30) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def judged(verifier):
    """All cases at once."""
    futures = {
        at: verifier.submit(problem(expected), given) for at, (expected, given, *_) in CASES.items()
    }
    return {at: future.result() for at, future in futures.items()}


@pytest.mark.parametrize("at", CASES, ids=lambda at: f"{at[0]}-{at[1]}")
def test_table(judged, at):
    expected, given, verdict, why = CASES[at]
    if not given:
        verdict = Verdict.NO_ANSWER
    assert judged[at] == verdict, f"{given!r} for {expected!r}: {why}"


def test_the_table_is_large_and_of_both_kinds():
    verdicts = [verdict for _, _, verdict, _ in CASES.values()]
    assert len(CASES) >= 120
    assert min(verdicts.count("right"), verdicts.count("wrong")) >= 60
    assert len({case[:2] for case in CASES.values()}) == len(CASES)


def test_an_answer_is_right_for_itself(verifier):
    expected = {case[0] for case in CASES.values()}
    futures = [verifier.submit(problem(text), text) for text in expected]
    assert {future.result() for future in futures} == {Verdict.RIGHT}


FALSE_POSITIVES = [
    case[:2] for case in CASES.values() if case[2] == "wrong" and case[3].startswith("* ")
]


def test_the_false_positives_of_math_verify_are_known():
    """Names of its release: the guards rely on them, and a new release would show here."""
    import math_verify

    no_limit: Any = {"parsing_timeout": None}

    def alone(expected, given):
        left, right = (math_verify.parse(f"${text}$", **no_limit) for text in (expected, given))
        return math_verify.verify(left, right, timeout_seconds=None)

    assert len(FALSE_POSITIVES) >= 30
    assert [case for case in FALSE_POSITIVES if not alone(*case)] == []


def test_a_verdict_does_not_depend_on_the_thread(verifier):
    # math-verify's own limit raises outside of the main thread.
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(verifier(problem("1/2"), "0.5")))
    thread.start()
    thread.join()
    assert verdicts == [Verdict.RIGHT]


def test_a_long_answer_is_wrong_at_once(verifier):
    deep = "x^{" * 300 + "x" + "}" * 300
    for text in ("(" * 100_000, "1," * 100_000, "x^" * 900, "-" * 1999, "$" * 1999, deep):
        assert verifier(problem("5"), text) is Verdict.WRONG


# Answers of competitions, which must be here for this: `shared/data` beside the checkout.


def answers(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the answers of {name} are not beside this checkout")
    return [json.loads(line)["answer"] for line in path.read_text().splitlines()]


def spellings(answer, kind):
    """The same number written in five ways."""
    value = int(float(answer))
    if kind == "numeric":
        return [f" {value}\n", f"{value}.0", f"{value:+}", f"{value:,}.00", f"{value / 10}e1"]
    return [
        f"${value}$",
        f"\\boxed{{{value}}}",
        f"x = {value}",
        f"\\frac{{{2 * value}}}{{2}}",
        f"{value:,}.0",
    ]


@pytest.mark.parametrize("kind", ["numeric", "math"])
def test_competition_answers_verify_against_themselves_and_no_other(verifier, kind):
    golds = answers("aime24.jsonl") + answers("amc23.jsonl")
    assert len(golds) == 70
    kinds = {gold: Problem(id=gold, question="q", answer=gold, verifier=kind) for gold in golds}
    right = [
        verifier.submit(kinds[gold], given) for gold in golds for given in spellings(gold, kind)
    ]
    # Every ordered pair of different values, in spellings that take turns.
    wrong = [
        verifier.submit(kinds[gold], spellings(other, kind)[(i + j) % 5])
        for i, gold in enumerate(golds)
        for j, other in enumerate(golds)
        if float(gold) != float(other)
    ]
    assert len(wrong) > 4500
    assert {future.result() for future in right} == {Verdict.RIGHT}
    assert {future.result() for future in wrong} == {Verdict.WRONG}
