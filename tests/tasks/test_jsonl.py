"""Problems in JSON are read, or refused with the line."""

import json
import pathlib

import pytest

from gtpo_jax.tasks.mappings import MAPPINGS
from gtpo_jax.tasks.reading import keep_apart, read_problems

GOOD = {"question": "What is 2+2?", "answer": 4, "expression": "2 + 2"}


def write(tmp_path, *lines):
    path = tmp_path / "problems.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_fields_are_read_and_filled_in(tmp_path):
    path = write(tmp_path, GOOD, "", {"question": " q ", "answer": " a ", "id": 7, "more": [1]})
    first, second = read_problems(path).entries
    assert (first.problem.id, first.problem.family) == ("problems-1", "problems")
    assert (first.problem.answer, first.expression) == ("4", "2 + 2")
    problem = second.problem
    assert (problem.id, problem.question, problem.answer) == ("7", "q", "a")
    assert second.expression is None
    assert (first.problem.info, problem.info) == ({}, {"more": [1]})


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path):
    question = "one\u2028two\x85three"
    path = write(tmp_path, json.dumps({"question": question, "answer": 1}, ensure_ascii=False))
    [entry] = read_problems(path).entries
    assert entry.problem.question == question


def test_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n")
    assert read_problems(path).entries[0].problem.answer == "4"


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
        ({"question": "q", "answer": 1, "id": [1]}, "`id` must be"),
        ('{"question": "q", "answer": NaN}', "`answer` must be a text or a finite number, got nan"),
        ('{"question": "q", "answer": -Infinity}', "`answer` must be .* finite number, got -inf"),
        ('{"question": "q", "answer": 1e400}', "`answer` must be .* finite number, got inf"),
        ('{"question": "q", "answer": 1, "id": Infinity}', "`id` must be .* finite number"),
        (
            '{"question": "q", "answer": ' + "9" * 5000 + "}",
            "an integer of 5,000 digits, and 4,300",
        ),
        ('{"question": "q", "answer": ' + "[" * 10**5 + "}", "JSON nested too deeply|not JSON"),
        ({"prompt": "q", "answer": 1}, "--task.fields question=prompt reads the field `prompt`"),
        ({"question": "q", "target": 1}, "--task.fields answer=target reads the field `target`"),
        ({"question": "q", "answer": 1, "family": [1]}, r"`family` must be .* got \[1\]"),
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
    with pytest.raises(ValueError, match=r"cannot read .*nowhere\.jsonl: No such file"):
        read_problems(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_fields_that_may_be_absent_may_be_missing(tmp_path, missing):
    line = f'{{"id": {missing}, "question": "q", "answer": 1, "family": {missing},'
    path = write(tmp_path, *[f'{line} "expression": {missing}, "more": NaN}}'] * 2)
    first, second = read_problems(path).entries
    assert (first.problem.id, second.problem.id) == ("problems-1", "problems-2")
    assert first.problem.family == "problems" and first.expression is None


def test_broken_record_names_the_expected_schema(tmp_path):
    with pytest.raises(ValueError, match="; expected `question` and `answer`; `id`, `family`"):
        read_problems(write(tmp_path, {"question": "q"}))


def test_message_of_a_long_value_stays_short(tmp_path):
    with pytest.raises(ValueError, match="…") as raised:
        read_problems(write(tmp_path, {"question": ["long"] * 999, "answer": 1}))
    said = str(raised.value).replace(str(tmp_path), "")
    assert len(said) < 400 and "\n" not in said


def test_list_of_objects_is_read_with_their_numbers(tmp_path):
    path = tmp_path / "problems.json"
    path.write_text(json.dumps([GOOD, {"question": "q", "answer": 2}], indent=1))
    assert [e.problem.id for e in read_problems(path).entries] == ["problems-1", "problems-2"]
    path.write_text(json.dumps([GOOD, {"question": "q"}], indent=1))
    with pytest.raises(ValueError, match=r"problems\.json, record 2: `answer` must be"):
        read_problems(path)
    path.write_text("[{},\n nonsense]")
    with pytest.raises(ValueError, match=r"problems\.json, line 2: not JSON"):
        read_problems(path)
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD))
    assert [e.problem.id for e in read_problems(path).entries] == ["problems-1", "problems-3"]


def test_fields_under_other_names(tmp_path):
    path = write(tmp_path, {"Problem": "q", "question": "not this", "answer": 3})
    [entry] = read_problems(path, fields={"question": "Problem"}).entries
    assert entry.problem.question == "q"
    with pytest.raises(ValueError, match="line 1: there is no field `Solution` to be read as"):
        read_problems(path, fields={"answer": "Solution"})


SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the problem files are not beside this checkout")
def test_real_problem_files_load_and_share_no_question():
    train = read_problems(SHARED / "mawps_asdiv_train.jsonl").entries
    held_out = read_problems(SHARED / "svamp_dev.jsonl").entries
    assert (len(train), len(held_out)) == (3130, 700)
    assert all(entry.expression for entry in train)
    assert keep_apart(train, held_out).entries == train
    for name, count in (("aime24", 30), ("amc23", 40)):
        loaded = read_problems(SHARED / f"{name}.jsonl", MAPPINGS[name])
        assert (len(loaded.entries), loaded.notes) == (count, ())
        assert all(entry.problem.answer.lstrip("-").isdecimal() for entry in loaded.entries)
