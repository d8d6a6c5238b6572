"""Problem files: what is read, what is refused with its line, and demonstrations of expressions."""

import json
import math
import random

import pytest

from gtpo_jax.tasks.demonstrations import play
from gtpo_jax.tasks.jsonl import SLIP_SHARE, JsonlTask, expression_script, read_problems
from gtpo_jax.tasks.source import Answer, Noise
from gtpo_jax.testing import FakeTool
from tests.tasks.scripted import run_here

GOOD = {"question": "What is 2+2?", "answer": 4, "expression": "2 + 2"}


def write(tmp_path, *lines):
    path = tmp_path / "problems.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def make_task(tmp_path, count=10, **arguments):
    records = [
        {"question": f"q{i}", "answer": 3 * i, "expression": f"3 * {i}"} for i in range(count)
    ]
    entries = tuple(read_problems(write(tmp_path, *records)))
    return JsonlTask(train=entries[:-2], evaluation=entries[-2:], seed=0, **arguments)


def test_fields_are_read_and_filled_in(tmp_path):
    path = write(tmp_path, GOOD, "", {"question": " q ", "answer": " a ", "id": 7, "more": [1]})
    first, second = read_problems(path)
    assert (first.problem.id, first.problem.family) == ("problems-1", "problems")
    assert (first.problem.answer, first.expression) == ("4", "2 + 2")
    problem = second.problem
    assert (problem.id, problem.question, problem.answer) == ("7", "q", "a")
    assert second.expression is None


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path):
    question = "one\u2028two\x85three"
    path = write(tmp_path, json.dumps({"question": question, "answer": 1}, ensure_ascii=False))
    [entry] = read_problems(path)
    assert entry.problem.question == question


def test_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n")
    assert read_problems(path)[0].problem.answer == "4"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("nonsense", "not JSON .* at column 1"),
        ("[1, 2]", "expected an object, got list"),
        ('"text"', "expected an object, got str"),
        ({"answer": 1}, "`question` must be a text or a number, got None"),
        ({"question": "q"}, "`answer` must be a text or a number, got None"),
        ({"question": "", "answer": 1}, "`question` must be"),
        ({"question": "q", "answer": "  "}, "`answer` must be"),
        ({"question": "q", "answer": [1]}, r"`answer` must be .* got \[1\]"),
        ({"question": "q", "answer": True}, "`answer` must be .* got True"),
        ({"question": "q", "answer": 1, "expression": 3}, "`expression` must be a text, got 3"),
        ({"question": "q", "answer": 1, "id": None}, "`id` must be"),
        ({"question": "q", "answer": 1, "id": "problems-1"}, "id 'problems-1' is that of line 1"),
    ],
)
def test_broken_line_is_an_error_with_its_number(tmp_path, line, reason):
    path = write(tmp_path, GOOD, "", line, GOOD)
    with pytest.raises(ValueError, match=rf"problems\.jsonl, line 3: .*{reason}"):
        read_problems(path)


def test_file_without_problems_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no problem"):
        read_problems(write(tmp_path, "", ""))
    with pytest.raises(ValueError, match="cannot read problems from"):
        read_problems(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9", "answer": 1}')
    with pytest.raises(ValueError, match="cannot read problems from"):
        read_problems(tmp_path / "latin.jsonl")


def test_epochs_hold_every_problem_once_in_new_orders(tmp_path):
    task = make_task(tmp_path)
    epochs = [[task.train_problem(8 * e + i).question for i in range(8)] for e in range(3)]
    assert all(
        sorted(epoch) == sorted(epochs[0]) == [f"q{i}" for i in range(8)] for epoch in epochs
    )
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == [make_task(tmp_path).train_problem(i).question for i in range(8)]


def test_evaluation_problems_come_from_their_own_file(tmp_path):
    task = make_task(tmp_path)
    assert [p.question for p in task.held_out(5)] == ["q8", "q9"]
    assert [p.question for p in task.held_out(1)] == ["q8"]


def test_demonstration_prints_the_expression_and_answers_with_it(tmp_path):
    task = make_task(tmp_path, noise=Noise(skip_tool=0.0, unclosed_call=0.0))
    count = 800
    played = play((task.demonstration(i) for i in range(count)), FakeTool(run_here))
    faithful = [
        p for p in played if p.calls[0].call.code == f"print(3*{int(p.problem.answer) // 3})"
    ]
    assert all(p.answer.text == p.problem.answer for p in faithful)
    share = 1 - len(faithful) / count
    # A slip that exchanges the factors of 3*3 cannot be seen.
    unseen = SLIP_SHARE * 0.5 / 8
    assert share == pytest.approx(SLIP_SHARE - unseen, abs=4 * math.sqrt(0.21 / count))


@pytest.mark.parametrize("expression", ["7", "(8 - 3) * 2", "1.5 / 4", ""])
def test_slip_keeps_the_expression_a_program(expression):
    for seed in range(40):
        script = expression_script(expression, random.Random(seed))
        code = next(script).code
        compile(code, "demonstration", "exec")
        assert script.send("out") == Answer(text="out")


def test_file_without_expressions_cannot_demonstrate(tmp_path):
    entries = tuple(read_problems(write(tmp_path, {"question": "q", "answer": 1})))
    task = JsonlTask(train=entries, evaluation=entries, seed=0)
    assert task.train_problem(3).question == "q"
    with pytest.raises(ValueError, match="no problem of the training file has an `expression`"):
        task.demonstration(0)


def test_demonstrations_are_made_of_problems_with_an_expression_alone(tmp_path):
    entries = tuple(read_problems(write(tmp_path, {"question": "q", "answer": 1}, GOOD)))
    task = JsonlTask(train=entries, evaluation=entries, seed=0)
    assert {task.demonstration(i)[0].answer for i in range(10)} == {"4"}
