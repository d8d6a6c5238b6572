"""What is left out of sources is counted; problems held out are kept apart from training."""

import json

import pytest

from gtpo_jax.tasks.mappings import MAPPINGS
from gtpo_jax.tasks.reading import join, keep_apart, read_problems
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem


def entries(*questions, start=0):
    return [
        Entry(Problem(id=f"p{i}", question=question, answer="1"))
        for i, question in enumerate(questions, start)
    ]


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_same_question_in_both_is_an_error_with_count_and_pair():
    train = entries("A pen?", "How  many\nPENS are left?", "And nuts?", "and NUTS?")
    held_out = entries("how many pens are left?", "And nuts?", start=7)
    with pytest.raises(ValueError, match=r"--task\.drop-overlap") as raised:
        keep_apart(train, held_out)
    message = str(raised.value)
    assert "3 of 4 training problems" in message and "'How many PENS are left?'" in message
    assert "'p1'" in message and "'p7'" in message


def test_overlap_is_dropped_from_training_and_counted():
    train = entries("a", "b", "c", "B ")
    kept = keep_apart(train, entries("b"), drop=True)
    assert [entry.problem.question for entry in kept.entries] == ["a", "c"]
    assert kept.notes == ("2 training problems left out that are evaluated on",)
    nothing = keep_apart(train, entries("d"), drop=True)
    assert nothing.entries == train and nothing.notes == ()
    with pytest.raises(ValueError, match="every training problem is also evaluated on"):
        keep_apart(entries("b"), entries("b"), drop=True)


def test_joined_sources_keep_ids_unless_they_share_some():
    one, two = entries("a", "b"), entries("c", start=5)
    assert [e.problem.id for e in join([one, two])] == ["p0", "p1", "p5"]
    joined = join([one, entries("c")])
    assert [e.problem.id for e in joined] == ["1/p0", "1/p1", "2/p0"]
    assert [e.problem.question for e in joined] == ["a", "b", "c"]


def test_repeated_rows_are_dropped_and_counted_where_the_data_set_repeats(tmp_path):
    def row(index, question):
        return {
            "prompt": [{"role": "user", "content": question}],
            "reward_model": {"ground_truth": "34"},
            "extra_info": {"index": index},
        }

    path = write(tmp_path / "dapo.jsonl", row("x", "q"), row("y", "r"), row("x", "q"))
    loaded = read_problems(path, MAPPINGS["dapo-math"])
    assert [entry.problem.id for entry in loaded.entries] == ["x", "y"]
    assert loaded.notes == (f"{path}: 1 left out that repeat an earlier one",)


def test_competitions_of_other_years_are_left_out_and_counted(tmp_path):
    rows = [{"id": i, "problem": f"q{i}", "answer": 7.0, "url": url} for i, url in enumerate(
        ["a/2022_AMC_12A_Problems/1", "a/2023_AMC_12B_Problems/2", "a/2022_AMC_12B_Problems/3"]
    )]  # fmt: skip
    path = write(tmp_path / "amc.jsonl", *rows)
    loaded = read_problems(path, MAPPINGS["amc23"])
    assert [entry.problem.id for entry in loaded.entries] == ["1"]
    assert loaded.notes == (f"{path}: 2 left out of another year than 2023",)
    path = write(tmp_path / "amc.jsonl", rows[0])
    with pytest.raises(ValueError, match=r"holds no problem \(.*1 left out of another year"):
        read_problems(path, MAPPINGS["amc23"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("problems.csv", "must end with .jsonl, .json, .parquet"),
        ("hub:", "is no source of problems"),
        ("some/name:a:b:c", "is no source of problems"),
        ("some/name::test", "is no source of problems"),
    ],
)
def test_impossible_source_is_an_error(tmp_path, monkeypatch, source, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems.csv").write_text("question,answer\n")
    with pytest.raises(ValueError, match=reason):
        read_problems(source)
