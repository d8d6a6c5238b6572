"""Records left out of sources are counted; training is separated from evaluation."""

import json

import pytest

from gtpo_jax.language import files
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
        ("problems.txt", "must end with .jsonl, .ndjson, .json, .csv, .tsv, .parquet"),
        ("problems.parquet.gz", r"must end with .*; text files may add \.gz, \.bz2, \.xz"),
        ("hub:", "is not a source of problems"),
        ("some/name:a:b:c", "is not a source of problems"),
        ("some/name::test", "is not a source of problems"),
    ],
)
def test_impossible_source_is_an_error(tmp_path, monkeypatch, source, reason):
    monkeypatch.chdir(tmp_path)
    for name in ("problems.txt", "problems.parquet.gz"):
        (tmp_path / name).write_text("question,answer\n")
    with pytest.raises(ValueError, match=reason):
        read_problems(source)


JSON_LINE = '{"question": "q", "answer": 7}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", JSON_LINE),
        ("p.ndjson", JSON_LINE),
        ("p.json", f"[{JSON_LINE}]"),
        ("p.csv", "question,answer\nq,7\n"),
        ("p.csv", 'answer,question\r\n\r\n"7","q"\r\n'),
        ("p.tsv", "question\tanswer\nq\t7"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_text_are_read_compressed_and_with_a_byte_order_mark(
    tmp_path, name, text, suffix, mark
):
    path = tmp_path / (name + suffix)
    with files.COMPRESSED.get(suffix, open)(path, "wb") as file:
        file.write((mark + text).encode())
    [entry] = read_problems(str(path)).entries
    problem = entry.problem
    assert (problem.question, problem.answer, problem.family) == ("q", "7", "p")
    assert problem.id.startswith("p-")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "question,answer\nq,1,2\n",
            r"t\.csv, line 2: 3 values for 2 columns; put values .* quotes",
        ),
        ("question,answer\nq\n", r"t\.csv, line 2: 1 values for 2 columns"),
        ("question,question\nq,1\n", "line 1: the columns need names that differ"),
        ("question,\nq,1\n", "line 1: the columns need names"),
        ('question,answer\n"q\nr",\n', r"t\.csv, line 3: `answer` must be a text"),
        ('question,answer\n"q,1\n', r"t\.csv, line 2: unexpected end of data"),
        ('question,answer\n"q"r,1\n', r"t\.csv, line 2: .*expected after"),
        ("question,answer\n", "holds no problem"),
    ],
)
def test_broken_table_is_an_error_with_its_line(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text, newline="")
    with pytest.raises(ValueError, match=reason):
        read_problems(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    "name", ["p.jsonl", "p.json", "p.csv", "p.parquet", "p.jsonl.gz", "folder"]
)
def test_pointer_of_git_lfs_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    pointer = path / "train.parquet" if name == "folder" else path
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"is a pointer of Git LFS.*git lfs pull"):
        read_problems(str(path))
