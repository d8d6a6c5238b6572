"""Problems in grain pipelines: their order, any pipeline as a task, demonstrations of them."""

import math
import random
import re
import subprocess
import sys

import grain
import pytest

from gtpo_jax.tasks.demonstrations import play
from gtpo_jax.tasks.expressions import expression_script
from gtpo_jax.tasks.source import Answer, Noise
from gtpo_jax.tasks.stream import Entry, GrainTask, entries_task, settled, shuffled
from gtpo_jax.testing import FakeTool
from gtpo_jax.types import Problem
from tests.tasks.scripted import run_here
from tests.tiny import DIALOGUE


def make_entries(count, start=0):
    return [
        Entry(Problem(id=str(i), question=f"q{i}", answer=str(3 * i)), f"3 * {i}")
        for i in range(start, start + count)
    ]


def make_task(**arguments):
    return entries_task(make_entries(8), make_entries(2, 8), seed=0, **arguments)


def numbers(task, indices):
    return [int(task.train_problem(i).id) for i in indices]


def test_epochs_hold_every_problem_once_in_new_orders():
    task = make_task()
    epochs = [[task.train_problem(8 * e + i).question for i in range(8)] for e in range(3)]
    assert all(
        sorted(epoch) == sorted(epochs[0]) == [f"q{i}" for i in range(8)] for epoch in epochs
    )
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == [make_task().train_problem(i).question for i in range(8)]


def test_evaluation_problems_come_from_their_own_file():
    task = make_task()
    assert [p.question for p in task.held_out(5)] == ["q8", "q9"]
    assert [p.question for p in task.held_out(1)] == ["q8"]


@pytest.mark.slow
@pytest.mark.parametrize(("slip", "count"), [(0.3, 800), (0.0, 20)])
def test_demonstration_prints_the_expression_and_answers_with_it(slip, count):
    task = make_task(noise=Noise(skip_tool=0.0, unclosed_call=0.0, slip=slip))
    played = play((task.demonstration(i) for i in range(count)), DIALOGUE, FakeTool(run_here))
    faithful = [
        p for p in played if p.calls[0].call.code == f"print(3*{int(p.problem.answer) // 3})"
    ]
    assert all(p.answer.text == p.problem.answer for p in faithful)
    share = 1 - len(faithful) / count
    # A slip that exchanges the factors of 3*3 cannot be seen.
    unseen = slip * 0.5 / 8
    spread = math.sqrt(slip * (1 - slip) / count)
    assert share == pytest.approx(slip - unseen, abs=4 * spread)


@pytest.mark.parametrize("expression", ["7", "(8 - 3) * 2", "1.5 / 4", ""])
def test_slip_keeps_the_expression_a_program(expression):
    for seed in range(40):
        script = expression_script(expression, random.Random(seed), slip=1.0)
        code = next(script).code
        compile(code, "demonstration", "exec")
        assert script.send("out") == Answer(text="out")


def test_file_without_expressions_cannot_demonstrate():
    entries = [Entry(Problem(id="1", question="q", answer="1"))]
    task = entries_task(entries, entries, seed=0)
    assert task.train_problem(3).question == "q"
    with pytest.raises(ValueError, match="no problem of the training files has an `expression`"):
        task.demonstration(0)


def test_demonstrations_are_made_of_problems_with_an_expression_alone():
    entries = [Entry(Problem(id="1", question="q", answer="1")), *make_entries(1, 5)]
    task = entries_task(entries, entries, seed=0)
    assert {task.demonstration(i)[0].answer for i in range(10)} == {"15"}


@pytest.mark.slow
def test_order_is_that_of_the_seed_in_every_process():
    code = (
        "from tests.tasks.test_stream import make_task, numbers;"
        "print(numbers(make_task(), range(40)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str(numbers(make_task(), range(40)))


def test_problem_of_an_index_does_not_depend_on_what_was_read_before():
    """The step in a checkpoint is the position; nothing else has to be saved."""
    read = numbers(make_task(), range(100))
    fresh = make_task()
    order = list(range(100))
    random.Random(0).shuffle(order)
    assert numbers(fresh, order) == [read[i] for i in order]
    # Far ahead, and shared among processes: each asks for its own numbers alone.
    assert make_task().train_problem(10**12) == make_task().train_problem(10**12)


def test_seeds_and_streams_share_no_order():
    items = list(range(50))

    def order(seed, stream, epoch):
        pipeline = shuffled(items, seed=seed, stream=stream)
        return tuple(pipeline[50 * epoch + i] for i in range(50))

    orders = {
        order(seed, stream, epoch)
        for seed in (-1, 0, 1, 2**40)
        for stream in ("train", "demonstration")
        for epoch in range(4)
    }
    assert len(orders) == 4 * 2 * 4
    assert all(sorted(each) == items for each in orders)


def test_first_places_are_uniform():
    """Over 300 seeds each of 5 items comes first about equally often."""
    firsts = [shuffled(range(5), seed=seed, stream="s")[0] for seed in range(300)]
    for item in range(5):
        assert firsts.count(item) == pytest.approx(60, abs=4 * math.sqrt(300 * 0.16))


def test_one_problem_is_enough_and_none_is_an_error():
    assert [shuffled(["only"], seed=0, stream="s")[i] for i in range(3)] == ["only"] * 3
    with pytest.raises(ValueError, match="nothing to shuffle"):
        shuffled([], seed=0, stream="s")


def problems(entries):
    return [entry.problem for entry in entries]


def test_any_pipeline_is_a_task():
    few, many = make_entries(4), make_entries(40, 100)
    odd = grain.MapDataset.source(problems(many)).filter(lambda p: int(p.id) % 2 == 1)
    mixed = grain.MapDataset.mix(
        [
            shuffled(problems(few), seed=1, stream="few"),
            settled(odd).shuffle(seed=3).repeat(),
        ],
        weights=[0.75, 0.25],
    )
    task = GrainTask(train=mixed, evaluation=problems(make_entries(3, 500)))
    read = numbers(task, range(80))
    assert sorted(read[:16]).count(0) == 3  # 12 of 16 are from the few, each three times
    assert sum(number < 100 for number in read) == 60
    assert len({number for number in read if number >= 100}) == 20
    assert all(number % 2 for number in read if number >= 100)
    assert [p.id for p in task.held_out(2)] == ["500", "501"]


def test_epoch_of_a_finite_pipeline_goes_round():
    pipeline = grain.MapDataset.source(problems(make_entries(3)))
    task = GrainTask(train=pipeline, evaluation=())
    assert numbers(task, range(7)) == [0, 1, 2, 0, 1, 2, 0]


def test_gap_of_a_filter_is_an_error_that_names_the_way_out():
    pipeline = grain.MapDataset.source(problems(make_entries(4))).filter(lambda p: p.id != "2")
    task = GrainTask(train=pipeline, evaluation=())
    assert numbers(task, (0, 1, 3)) == [0, 1, 3]
    with pytest.raises(ValueError, match=r"no Problem 2: a filter dropped it.*settled"):
        task.train_problem(2)
    assert numbers(GrainTask(train=settled(pipeline), evaluation=()), range(3)) == [0, 1, 3]


def test_element_that_is_no_problem_is_an_error():
    task = GrainTask(train=grain.MapDataset.source([{"question": "q"}]), evaluation=())
    with pytest.raises(ValueError, match="element 0 of the pipeline is a dict, expected a Problem"):
        task.train_problem(0)


def told(count=200):
    """Questions with the number of their expression."""
    return [
        Entry(
            Problem(id=str(i), question=f"Of 12 rows of {i} pens?", answer=str(12 * i)), f"12 * {i}"
        )
        for i in range(13, 13 + count)
    ]


def test_the_share_with_other_numbers_is_that_of_the_option():
    entries = told()
    as_written = {entry.problem.question for entry in entries}
    for share, low, high in ((0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 0.9, 1.0)):
        task = entries_task(entries, [], seed=0, other_numbers=share)
        problems = [task.train_problem(index) for index in range(400)]
        changed = sum(problem.question not in as_written for problem in problems) / 400
        assert low <= changed <= high
        assert len({problem.id for problem in problems if "/" in problem.id}) >= 395 * changed


def test_other_numbers_are_the_same_for_a_position_and_others_in_the_next_epoch():
    tasks = [entries_task(told(), [], seed=3, other_numbers=1.0) for _ in range(2)]
    epochs = [tasks[0].train_problem(index).question for index in range(400)]
    assert [tasks[1].train_problem(i).question for i in reversed(range(400))][::-1] == epochs
    assert len(set(epochs)) > 380


def test_demonstrations_with_other_numbers_are_of_the_problem_they_stand_beside():
    quiet = Noise(skip_tool=0.0, unclosed_call=0.0)
    task = entries_task(told(), [], seed=0, noise=quiet, other_numbers=1.0)
    played = play((task.demonstration(i) for i in range(100)), DIALOGUE, FakeTool(run_here))
    # Slips exchange the factors or take another operator; without one the answer is right.
    right = sum(p.answer.text == p.problem.answer for p in played)
    assert right > 60
    for p in played:
        shown = set(re.findall(r"\d+", p.problem.question))
        assert set(re.findall(r"\d+", p.calls[0].call.code)) <= shown


def test_a_problem_without_an_expression_keeps_its_numbers():
    plain = [Entry(entry.problem) for entry in told(50)]
    task = entries_task(plain, [], seed=0, other_numbers=1.0)
    as_written = {entry.problem for entry in plain}
    assert {task.train_problem(index) for index in range(50)} == as_written
