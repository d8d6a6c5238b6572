"""Generated problems: right answers, no leak into evaluation, demonstrators as wrong as stated."""

import contextlib
import hashlib
import math
import random
import re

import pytest

from gtpo_jax.tasks.demonstrations import play
from gtpo_jax.tasks.generated import FAMILIES, GeneratedTask, is_held_out
from gtpo_jax.tasks.source import Answer, Call, Noise, guess
from gtpo_jax.testing import FakeTool
from tests.tasks.scripted import run_here
from tests.tiny import DIALOGUE

TASK = GeneratedTask(seed=0)
FAITHFUL = Noise(skip_tool=0.0, unclosed_call=0.0)
COUNT = 1200


def solve(family, question):
    """The answer, worked out anew from the words of the question, at any level."""
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if family == "arithmetic":
        return eval(re.search(r"\d[\d*+-]*\d", question)[0])
    if family == "word":
        owned = 0
        for deal in re.findall(r"(?:packs|has|buys|sells)[^.]*", question):
            given = [int(n) for n in re.findall(r"\d+", deal)]
            if deal.startswith("has"):
                owned = given[0]
            elif deal.startswith("packs"):
                owned = given[0] * given[1] - given[2]
            else:
                owned += given[0] * given[1] * (1 if deal.startswith("buys") else -1)
        return owned
    if family == "remainder":
        *factors, m = numbers
        value = 1
        for factor in factors:
            value = value * factor % m
        return value
    if family == "gcd":
        least = min(numbers)
        small = [d for d in range(1, math.isqrt(least) + 1) if least % d == 0]
        divisors = small + [least // d for d in small]
        return max(d for d in divisors if all(n % d == 0 for n in numbers))
    if family == "branch":
        a, b, *changes = numbers
        value = a * b
        for add, subtract in zip(changes[::2], changes[1::2], strict=True):
            value += -subtract if value % 2 else add
        return value
    value, steps, *_ = numbers
    for _ in range(steps):
        value = 3 * value + 1 if value % 2 else value // 2
    return value


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", [1, 2, 3, 5])
def test_answers_follow_from_the_question(family, level):
    task = GeneratedTask(seed=3, families=(family,), level=level)
    count = 300 if level == 1 else 80
    problems = [task.train_problem(i) for i in range(count)] + task.held_out(count // 3)
    for problem in problems:
        assert problem.family == family
        assert problem.answer == str(solve(family, problem.question)), problem.question
    assert len({problem.question for problem in problems}) > count // 2


def test_level_1_is_what_it_has_always_been():
    """A run, and a tokenizer trained on demonstrations, depend on these numbers."""
    digest = hashlib.sha256()
    for index in range(600):
        digest.update(repr(TASK.train_problem(index)).encode())
        problem, script = TASK.demonstration(index)
        turns = [next(script)]
        with contextlib.suppress(StopIteration):
            while True:
                turns.append(script.send("7"))
        digest.update(repr((problem, [repr(turn) for turn in turns])).encode())
    digest.update(repr(TASK.held_out(200)).encode())
    assert digest.hexdigest()[:16] == "9dac1e866572bb33"


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_grow(family):
    """Questions get longer with every level, and none is asked at two of them."""
    lengths, asked = [], set()
    for level in (1, 2, 3, 4):
        task = GeneratedTask(seed=0, families=(family,), level=level)
        questions = {task.train_problem(i).question for i in range(200)}
        assert not questions & asked
        asked |= questions
        lengths.append(sum(map(len, questions)) / len(questions))
        assert all(map(is_held_out, [p.question for p in task.held_out(20)]))
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", [2, 4])
def test_demonstrators_solve_higher_levels_now_and_then(family, level):
    task = GeneratedTask(seed=0, families=(family,), level=level, noise=FAITHFUL)
    played = play((task.demonstration(i) for i in range(300)), DIALOGUE, FakeTool(run_here))
    share = sum(p.answer.text == p.problem.answer for p in played) / 300
    assert 0.1 < share < 0.85


def test_level_starts_from_one():
    with pytest.raises(ValueError, match="starts from 1, got 0"):
        GeneratedTask(seed=0, level=0)


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
    played = play((task.demonstration(i) for i in range(COUNT)), DIALOGUE, FakeTool(run_here))
    share = sum(p.answer.text == p.problem.answer for p in played) / COUNT
    assert 0.25 < share < (0.8 if family in ("arithmetic", "gcd") else 0.5)
    assert all(p.calls for p in played)


def test_noise_strays_as_often_as_stated():
    noise = Noise(skip_tool=0.15, unclosed_call=0.06)
    task = GeneratedTask(seed=0, families=("branch",), noise=noise)
    played = play((task.demonstration(i) for i in range(COUNT)), DIALOGUE, FakeTool(run_here))
    skipped = sum(not p.calls for p in played) / COUNT
    assert skipped == pytest.approx(0.15, abs=4 * math.sqrt(0.15 * 0.85 / COUNT))
    calls = [call.call for p in played for call in p.calls]
    unclosed = sum(not call.closed for call in calls) / len(calls)
    assert unclosed == pytest.approx(0.06, abs=4 * math.sqrt(0.06 * 0.94 / len(calls)))
    # Whoever forgot to close a call guesses at once.
    assert all(p.calls[-1] is c for p in played for c in p.calls if not c.call.closed)


def test_gcd_demonstrator_repairs_its_error():
    task = GeneratedTask(seed=0, families=("gcd",), noise=FAITHFUL)
    played = play((task.demonstration(i) for i in range(100)), DIALOGUE, FakeTool(run_here))
    repaired = [p for p in played if len(p.calls) == 2]
    assert repaired
    for p in repaired:
        assert p.calls[0].output == "NameError" and p.answer.text == p.problem.answer


def test_demonstrator_copes_with_a_tool_out_of_time():
    task = GeneratedTask(seed=0, families=("chain", "branch"), noise=FAITHFUL)
    tool = FakeTool(lambda code: "Time limit exceeded.")
    played = play((task.demonstration(i) for i in range(40)), DIALOGUE, tool)
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
