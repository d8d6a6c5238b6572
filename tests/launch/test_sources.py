"""The problems that options name: several files, mappings, overlap, valid combinations."""

import dataclasses
import json

import pytest

from configs.presets import TINY
from configs.problems import make_source
from configs.schema import RunConfig, TaskConfig
from launch import cli
from launch.run.session import Session

GSM8K = [{"question": f"How many is {i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(3)]
MATH = [{"problem": f"Find ${i}$.", "solution": rf"\boxed{{{i}}}"} for i in range(2)]
PLAIN = [{"question": "how  many is 1?", "answer": "1"}, {"question": "And 2?", "answer": "2"}]


@pytest.fixture
def files(tmp_path):
    def write(name, records):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(path)

    return {
        "gsm8k": write("gsm8k.jsonl", GSM8K),
        "math": write("math.jsonl", MATH),
        "plain": write("plain.jsonl", PLAIN),
        "other": write("other.jsonl", PLAIN[1:]),
    }


def make(**options):
    return make_source(dataclasses.replace(TINY, task=TaskConfig(**options)))


def complaint(**options):
    with pytest.raises(ValueError) as raised:
        make(**options)
    return str(raised.value)


def test_files_with_mappings_of_their_own(files):
    source = make(
        train_file=(files["gsm8k"], files["math"]),
        mapping=("gsm8k", "math"),
        eval_file=files["other"],
        eval_mapping="plain",
    )
    problems = [source.train_problem(i) for i in range(5)]
    assert sorted(p.verifier for p in problems) == ["math"] * 2 + ["numeric"] * 3
    assert {p.id for p in problems} == {"gsm8k-1", "gsm8k-2", "gsm8k-3", "math-1", "math-2"}
    assert source.held_out(9)[0].question == "And 2?"


def test_overlap_is_refused_or_dropped_and_told(files, tmp_path, capsys):
    options = {
        "train_file": (files["gsm8k"],),
        "mapping": ("gsm8k",),
        "eval_file": files["plain"],
        "eval_mapping": "plain",
    }
    assert "1 of 3 training problems are also evaluated on" in complaint(**options)
    source = make(**options, drop_overlap=True)
    assert {source.train_problem(i).answer for i in range(4)} == {"0", "2"}
    config = dataclasses.replace(TINY, task=TaskConfig(**options, drop_overlap=True))
    with Session(config, tmp_path / "run"):
        assert "1 training problems left out that are evaluated on" in capsys.readouterr().out


def test_fields_under_other_names(files, tmp_path):
    path = tmp_path / "named.jsonl"
    path.write_text(json.dumps({"Q": "What?", "A": 4}) + "\n")
    fields = ("question=Q", "answer=A")
    source = make(train_file=(str(path),), fields=fields, eval_file=files["other"], eval_fields=())
    assert source.train_problem(0).question == "What?"
    both = {"train_file": (str(path),), "fields": fields, "eval_file": files["other"]}
    assert "there is no field `Q` to be read as `question`" in complaint(**both)


OWN = """
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem

def convert(record):
    return Entry(Problem(id="", question=record["text"], answer=str(record["sum"])))
"""


def test_a_mapping_of_ones_own_is_named_by_its_path(files, tmp_path, monkeypatch):
    (tmp_path / "my_mapping.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "2 and 2?", "sum": 4}) + "\n")
    source = make(
        train_file=(str(path),),
        mapping=("my_mapping:convert",),
        eval_file=files["other"],
        eval_mapping="plain",
    )
    problem = source.train_problem(0)
    assert (problem.question, problem.answer, problem.family) == ("2 and 2?", "4", "mine")
    named = {"train_file": (str(path),), "eval_file": files["other"], "eval_mapping": "plain"}
    told = complaint(**named, mapping=("my_mapping:nothing",))
    assert "task.mapping my_mapping:nothing: my_mapping has no nothing" in told


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"eval_file": "x.jsonl"}, "task.eval_file needs task.train_file"),
        ({"mapping": ("gsm8k",)}, "task.mapping needs task.train_file"),
        ({"drop_overlap": True}, "task.drop_overlap needs task.train_file"),
        ({"train_file": ("x.jsonl",)}, "task.train_file needs task.eval_file"),
        ({"level": 0}, "task.level must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_go_together(options, reason):
    assert reason in complaint(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"level": 2}, "task.level applies to generated problems"),
        (
            {"mapping": ("gsm9k",)},
            "there is no mapping 'gsm9k' of problems; there are plain, gsm8k",
        ),
        ({"mapping": ("gsm8k",) * 2}, "or one for each of 1 training files, got 2"),
        ({"fields": ("question",)}, "task.fields must be as question=Problem, got 'question'"),
        ({"eval_fields": ("=x",)}, "task.eval_fields must be as question=Problem, got '=x'"),
    ],
)
def test_options_of_files_that_cannot_be(files, options, reason):
    named = {"train_file": (files["gsm8k"],), "eval_file": files["other"], "mapping": ("gsm8k",)}
    assert reason in complaint(**named | options)


def test_several_mappings_leave_that_of_the_evaluation_open(files):
    options = {
        "train_file": (files["gsm8k"], files["math"]),
        "mapping": ("gsm8k", "math"),
        "eval_file": files["other"],
    }
    assert "task.eval_mapping is required" in complaint(**options)


def test_command_line_takes_one_file_or_several(files):
    options = [
        "--task.train-file",
        "a",
        "b",
        "--task.mapping",
        "gsm8k",
        "math",
        "--task.level",
        "3",
    ]
    parsed = cli.parse(cli.Arguments, options, program="tests").config
    assert isinstance(parsed, RunConfig)
    assert parsed.task.train_file == ("a", "b") and parsed.task.mapping == ("gsm8k", "math")
    assert parsed.task.eval_fields is None and parsed.task.level == 3
    single = cli.parse(cli.Arguments, ["--task.train-file", "a"], program="tests").config
    assert single.task.train_file == ("a",)
