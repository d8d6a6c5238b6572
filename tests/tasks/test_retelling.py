"""Word problems told anew: the expression still solves them."""

import dataclasses
import random
import re

import pytest

from gtpo_jax.tasks.retelling import add_sentence, exchange_words, retell, wording_of
from gtpo_jax.tasks.source import Noise
from gtpo_jax.tasks.stream import Entry, entries_task
from gtpo_jax.types import Problem

# The 120 most frequent words stay: six of every question, and these others.
FREQUENT = " ".join(f"common{chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(19))

TOLD = [
    ("Ann", "pens"),
    ("Ben", "eggs"),
    ("Eva", "boxes"),
    ("Tom", "nuts"),
    ("Sue", "cards"),
    ("Max", "coins"),
]


def question(name: str, thing: str) -> str:
    return f"{name} has 30 {thing}. {name} buys 12 {thing} more. How many {thing} has {name} now?"


def entry(name: str, thing: str) -> Entry:
    problem = Problem(id=name, question=question(name, thing), answer="42")
    return Entry(problem, "30 + 12")


# Those are to be read, not to be shown how to solve.
FILLING = [Entry(Problem(id=f"f{n}", question=FREQUENT, answer="1")) for n in range(9)]
WORDING = wording_of([FREQUENT] * 9 + [question(*told) for told in TOLD])


def test_names_stand_for_names_and_plurals_for_plurals():
    assert set(WORDING.words[True, False]) == {name for name, _ in TOLD}
    assert set(WORDING.words[False, True]) == {thing for _, thing in TOLD}


@pytest.mark.parametrize("seed", range(20))
def test_a_word_is_exchanged_wherever_it_stands_and_the_rest_stays(seed):
    told = exchange_words(question("Ann", "pens"), WORDING, random.Random(seed))
    match = re.fullmatch(
        r"(\w+) has 30 (\w+)\. (\w+) buys 12 (\w+) more\. How many (\w+) has (\w+) now\?", told
    )
    assert match is not None, told
    assert match[1] == match[3] == match[6]
    assert match[2] == match[4] == match[5]
    assert (match[1], match[2]) in {(name, thing) for name, _ in TOLD for _, thing in TOLD}


def test_most_words_are_exchanged_and_not_all():
    rng = random.Random(0)
    told = [exchange_words(question("Ann", "pens"), WORDING, rng) for _ in range(400)]
    kept = sum("Ann" in text for text in told) / 400
    # 0.7 of them are drawn, of which one draw in six is the word itself.
    assert abs(kept - (1 - 0.7 * 5 / 6)) < 4 * (0.25 / 400) ** 0.5


def test_a_sentence_with_a_number_comes_before_one_of_the_question():
    sentences = ("The pool is 9 m long.",)
    wording = wording_of([*sentences, "The pool is 9 m long. How long is it?"])
    assert wording.sentences == sentences
    asked = question("Ann", "pens")
    told = {add_sentence(asked, wording, random.Random(seed)) for seed in range(20)}
    assert len(told) == 3
    assert {text.replace(f"{sentences[0]} ", "") for text in told} == {asked}
    assert all(text.endswith("How many pens has Ann now?") for text in told)


def test_nothing_is_put_into_a_long_question_or_into_one_of_a_single_sentence():
    wording = wording_of(["The pool is 9 m long. How long is it?"])
    for text in ("How much is 2 and 3?", f"It is 2. {'very ' * 50}long. How long?"):
        assert add_sentence(text, wording, random.Random(0)) == text


def test_numbers_stay_and_now_and_then_there_is_one_beside_the_point():
    wording = dataclasses.replace(WORDING, sentences=("The pool is 9 m long.",))
    told = [retell(question("Ann", "pens"), wording, random.Random(seed)) for seed in range(400)]
    numbers = [re.findall(r"\d+", text) for text in told]
    assert all([n for n in found if n != "9"] == ["30", "12"] for found in numbers)
    longer = sum(len(found) == 3 for found in numbers) / 400
    assert abs(longer - 0.3) < 4 * (0.25 / 400) ** 0.5


def test_the_expression_solves_what_is_told_with_other_numbers_too():
    told = [entry(*one) for one in TOLD]
    quiet = Noise(skip_tool=0.0, unclosed_call=0.0)
    task = entries_task(told, [], seed=0, noise=quiet, other_numbers=1.0, other_words=1.0)
    for index in range(60):
        problem, script = task.demonstration(index)
        call = next(script)
        printed = re.fullmatch(r"print\((\d+)(.)(\d+)\)", call.code)
        assert printed is not None
        match = re.search(r"has (\d+) \w+\. .*buys (\d+) \w+ more", problem.question)
        assert match is not None
        assert int(problem.answer) == int(match[1]) + int(match[2])
        assert {printed[1], printed[3]} <= {match[1], match[2]}


def test_the_share_of_problems_told_anew_is_that_of_the_option():
    entries = [entry(*told) for told in TOLD]
    as_written = {item.problem.id for item in entries}
    for share, low, high in ((0.0, 0.0, 0.0), (0.5, 0.35, 0.65), (1.0, 1.0, 1.0)):
        task = entries_task(entries + FILLING, [], seed=0, other_words=share)
        problems = [task.demonstration(index)[0] for index in range(150)]
        anew = sum(problem.id not in as_written for problem in problems) / 150
        assert low <= anew <= high


def test_a_telling_is_the_same_for_its_number_and_another_in_the_next_epoch():
    entries = [entry(*told) for told in TOLD] + FILLING
    first, second = (entries_task(entries, [], seed=3, other_words=1.0) for _ in range(2))
    shown = [first.demonstration(index)[0] for index in range(60)]
    assert shown == [second.demonstration(index)[0] for index in reversed(range(60))][::-1]
    assert len({problem.id for problem in shown}) == 60
    assert len({problem.question for problem in shown}) > 40


def test_training_problems_are_asked_as_they_are_written():
    entries = [entry(*told) for told in TOLD]
    task = entries_task(entries, [], seed=0, other_words=1.0)
    assert {task.train_problem(index) for index in range(12)} == {e.problem for e in entries}
