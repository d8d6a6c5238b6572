"""Word problems told anew: the expression still solves them."""

import random
import re
from fractions import Fraction

import pytest

from gtpo_jax.tasks.retelling import add_sentence, exchange_words, retell, wording_of
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


@pytest.mark.parametrize("seed", range(30))
def test_the_expression_solves_what_is_told(seed):
    given = entry("Ann", "pens")
    problem, expression = retell(given.problem, "30 + 12", WORDING, random.Random(seed))
    first, second = expression.split(" + ")
    assert Fraction(problem.answer) == int(first) + int(second)
    assert problem.id.startswith("Ann/")
    assert f"has {first} " in problem.question and f"buys {second} " in problem.question


def test_what_cannot_have_other_numbers_is_told_in_other_words():
    given = Problem(id="p", question=question("Ann", "pens"), answer="7")
    told = [retell(given, "3 + 4", WORDING, random.Random(seed)) for seed in range(10)]
    assert {(problem.answer, expression) for problem, expression in told} == {("7", "3 + 4")}
    assert len({problem.question for problem, _ in told}) > 3


def test_the_share_of_problems_told_anew_is_that_of_the_option():
    entries = [entry(*told) for told in TOLD] * 100
    as_written = {item.problem.question for item in entries}
    for share, low, high in ((0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 0.99, 1.0)):
        task = entries_task(entries, [], seed=0, retell=share)
        problems = [task.train_problem(index) for index in range(600)]
        anew = sum(problem.question not in as_written for problem in problems) / 600
        assert low <= anew <= high


def test_every_telling_is_the_same_for_its_number_and_another_in_the_next_epoch():
    entries = [entry(*told) for told in TOLD]
    first, second = (entries_task(entries, [], seed=3, retell=1.0) for _ in range(2))
    asked = [first.train_problem(index).question for index in range(12)]
    assert asked == [second.train_problem(index).question for index in reversed(range(12))][::-1]
    assert len(set(asked)) == 12
    demonstrated, _ = first.demonstration(0)
    assert demonstrated.question not in asked


def test_a_problem_without_an_expression_is_told_as_it_is():
    plain = Entry(Problem(id="p", question=question("Ann", "pens"), answer="42"))
    task = entries_task([plain, entry("Ben", "eggs")], [], seed=0, retell=1.0)
    questions = [task.train_problem(index).question for index in range(40)]
    assert questions.count(plain.problem.question) == 20
