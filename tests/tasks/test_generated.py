"""Generated problems: right answers, no leak into evaluation, demonstrators as wrong as stated."""

import math
import random
import re

import pytest

from gtpo_jax.tasks.demonstrations import play
from gtpo_jax.tasks.generated import FAMILIES, GeneratedTask, is_held_out
from gtpo_jax.tasks.source import Answer, Call, Noise, guess
from gtpo_jax.testing import FakeTool
from tests.tasks.scripted import run_here

TASK = GeneratedTask(seed=0)
FAITHFUL = Noise(skip_tool=0.0, unclosed_call=0.0)
COUNT = 1200


def solve(family, question):
    """The answer, worked out anew from the words of the question."""
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if family == "arithmetic":
        a, sign, c = re.search(r"(\d+\*\d+)([+-])(\d+)", question).groups()
        return eval(f"{a}{sign}{c}")
    if family == "word":
        if "packs" in question and "boxes" in question:
            each, boxes, lost = numbers
            return each * boxes - lost
        owned, bags, each = numbers
        return owned + bags * each if "buys" in question else owned - bags * each
    if family == "remainder":
        a, b, m = numbers
        return (a * b) % m
    if family == "gcd":
        a, b = numbers
        return max(d for d in range(1, min(a, b) + 1) if a % d == b % d == 0)
    if family == "branch":
        a, b, add, subtract = numbers
        return a * b + add if a * b % 2 == 0 else a * b - subtract
    value, steps, *_ = numbers
    for _ in range(steps):
        value = 3 * value + 1 if value % 2 else value // 2
    return value


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_from_the_question(family):
    task = GeneratedTask(seed=3, families=(family,))
    problems = [task.train_problem(i) for i in range(300)] + task.held_out(100)
    for problem in problems:
        assert problem.family == family
        assert problem.answer == str(solve(family, problem.question)), problem.question
    assert len({problem.question for problem in problems}) > 200


def test_families_take_turns():
    assert [TASK.train_problem(i).family for i in range(12)] == [*FAMILIES] * 2
    assert [problem.family for problem in TASK.held_out(6)] == [*FAMILIES]


def test_problem_is_identified_by_its_question():
    assert all(p.id == p.question for p in (TASK.train_problem(i) for i in range(20)))


def test_training_never_meets_a_held_out_question():
    seen = {TASK.train_problem(i).question for i in range(COUNT)}
    seen |= {TASK.demonstration(i)[0].question for i in range(COUNT)}
    # Of another seed, too: which questions are held out does not depend on it.
    held_out = {p.question for seed in (0, 1) for p in GeneratedTask(seed=seed).held_out(COUNT)}
    assert not seen & held_out
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, seen))


def test_a_tenth_of_all_questions_is_held_out():
    rng = random.Random(0)
    questions = [FAMILIES["arithmetic"](rng).question for _ in range(4000)]
    share = sum(map(is_held_out, questions)) / len(questions)
    assert share == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 4000))


def test_streams_are_repeatable_and_differ():
    def questions(task):
        return [
            [task.train_problem(i).question for i in range(60)],
            [problem.question for problem in task.held_out(60)],
            [task.demonstration(i)[0].question for i in range(60)],
        ]

    assert questions(TASK) == questions(GeneratedTask(seed=0))
    # A longer evaluation begins like a shorter one.
    assert [p.question for p in TASK.held_out(7)] == questions(TASK)[1][:7]
    streams = questions(TASK) + questions(GeneratedTask(seed=1))
    for i, first in enumerate(streams):
        assert all(first != second for second in streams[i + 1 :])


@pytest.mark.parametrize("family", FAMILIES)
def test_demonstrators_err_often_and_not_always(family):
    # Where the misconception is more frequent than the truth, imitation alone learns it.
    task = GeneratedTask(seed=0, families=(family,), noise=FAITHFUL)
    played = play((task.demonstration(i) for i in range(COUNT)), FakeTool(run_here))
    share = sum(p.answer.text == p.problem.answer for p in played) / COUNT
    assert 0.25 < share < (0.8 if family in ("arithmetic", "gcd") else 0.5)
    assert all(p.calls for p in played)


def test_noise_strays_as_often_as_stated():
    noise = Noise(skip_tool=0.15, unclosed_call=0.06)
    task = GeneratedTask(seed=0, families=("branch",), noise=noise)
    played = play((task.demonstration(i) for i in range(COUNT)), FakeTool(run_here))
    skipped = sum(not p.calls for p in played) / COUNT
    assert skipped == pytest.approx(0.15, abs=4 * math.sqrt(0.15 * 0.85 / COUNT))
    calls = [call.call for p in played for call in p.calls]
    unclosed = sum(not call.closed for call in calls) / len(calls)
    assert unclosed == pytest.approx(0.06, abs=4 * math.sqrt(0.06 * 0.94 / len(calls)))
    # Whoever forgot to close a call guesses at once.
    assert all(p.calls[-1] is c for p in played for c in p.calls if not c.call.closed)


def test_gcd_demonstrator_repairs_its_error():
    task = GeneratedTask(seed=0, families=("gcd",), noise=FAITHFUL)
    played = play((task.demonstration(i) for i in range(100)), FakeTool(run_here))
    repaired = [p for p in played if len(p.calls) == 2]
    assert repaired
    for p in repaired:
        assert p.calls[0].output == "NameError" and p.answer.text == p.problem.answer


def test_demonstrator_copes_with_a_tool_out_of_time():
    task = GeneratedTask(seed=0, families=("chain", "branch"), noise=FAITHFUL)
    tool = FakeTool(lambda code: "Time limit exceeded.")
    played = play((task.demonstration(i) for i in range(40)), tool)
    assert {p.answer.text for p in played} == {"Time limit exceeded."}


def test_script_is_sent_what_its_call_printed():
    _, script = GeneratedTask(seed=0, families=("arithmetic",), noise=FAITHFUL).demonstration(0)
    call = next(script)
    assert isinstance(call, Call) and call.closed
    assert script.send("77") == Answer(text="77")


def test_guess_is_near_the_truth():
    rng = random.Random(0)
    guesses = [int(guess("50", rng)) for _ in range(500)]
    assert min(guesses) == 40 and max(guesses) == 60
    assert guess("a word", rng) == "a word"


@pytest.mark.parametrize("families", [(), ("arithmetic", "algebra")])
def test_unknown_or_no_family_is_refused(families):
    with pytest.raises(ValueError, match=r"among \['arithmetic', .*\], got (none|\['algebra'\])"):
        GeneratedTask(seed=0, families=families)
