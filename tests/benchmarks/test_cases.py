"""Replaying reports: results are compared as the reports mean them."""

from __future__ import annotations

import json

import pytest

from benchmarks.cases import files, row, scenes, texts
from benchmarks.cases.__main__ import replay, run
from benchmarks.cases.row import Outcome, Row, agrees

pytestmark = pytest.mark.slow

READ = Outcome(accepted=True, count=164)
REFUSED = Outcome(accepted=False, text="a.jsonl, line 2: the field `answer` is NaN")
CRASHED = Outcome(accepted=False, text="TypeError: no", crashed=True)


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("right", "right", True),
        ("right", "wrong", False),
        ({"answer": "5"}, {"answer": "5", "violation": None}, True),
        ({"answer": "5"}, {"answer": "6", "violation": None}, False),
        ({"answer": "5"}, {}, False),
        ({"answer holds": "def f"}, {"answer": "x\ndef f(x)"}, True),
        ({"answer holds": "def f"}, {"answer": None}, False),
        ("the text names 42", "it is 42", True),
        ("the text names 42", "it is 41", False),
        ("read: null counts as absent", READ, True),
        ("read", REFUSED, False),
        ("164 problems", READ, True),
        ("one problem is read", READ, False),
        ("an error that names the line and the field", REFUSED, True),
        ("an error that names the line", READ, False),
        ("an error that says: run git lfs pull", REFUSED, False),
        ("an error, or the number", READ, True),
        ("read, or an error with file and line", REFUSED, True),
        ("read, or an error with file and line", CRASHED, False),
        ("error: one line, or the default", REFUSED, True),
    ],
)
def test_result_is_compared_as_the_report_means_it(expected, got, same):
    assert agrees(expected, got) is same


def test_reading_tells_errors_for_users_from_crashes():
    def fail(error):
        raise error

    assert row.attempt(lambda: fail(ValueError("one line"))) == Outcome(
        accepted=False, text="one line"
    )
    assert row.attempt(lambda: fail(ValueError("two\nlines"))).crashed
    assert row.attempt(lambda: fail(KeyError("x"))).crashed
    assert row.attempt(lambda: [1, 2]).count == 2


def test_described_files_are_written_as_described():
    with files.adapters() as adapters:
        described = adapters["data files"]
        assert described({"file.jsonl": '{"question":"q","answer":1}'}).count == 1
        assert described({"file.jsonl": "[broken"}).accepted is False
        assert described({"file.jsonl": "some lines … of prose"}) is None


def test_verdicts_and_turns_are_those_of_the_library():
    with texts.adapters() as adapters:
        assert adapters["verifier math"]({"answer": "1/2", "given": "0.5"}) == "right"
        assert adapters["verifier numeric"]({"answer": "1", "given": "2"}) == "wrong"
        turn = adapters["protocol FencedPython"]({"text": "```python\nprint(1)\n```"})
        assert turn == {"codes": ["print(1)"], "answer": None, "violation": None}


def test_every_row_has_one_result(monkeypatch):
    rows = [
        Row(area=area, kind="K", input=given, expected=expected, place="1")
        for area, given, expected in [
            ("verifier numeric (as documented)", {"answer": "1", "given": "1"}, "right"),
            ("verifier numeric", {"answer": "1", "given": "2"}, "right"),
            ("verifier numeric", {"answer": "1", "given": "3"}, "right"),
            ("an area of its own", {"a": "b"}, "right"),
        ]
    ]
    monkeypatch.setattr("benchmarks.cases.__main__.DECISIONS", {rows[2].key: "because"})
    results = [result for _, result, _ in replay(rows)]
    assert results == ["right", "wrong", "otherwise", "prose"]


def test_broken_file_of_reports_names_the_line(tmp_path):
    path = tmp_path / "reports.jsonl"
    path.write_text(json.dumps({"area": "a", "kind": "k", "input": {}}) + "\n")
    with pytest.raises(ValueError, match=r"reports\.jsonl, line 1: expected area, kind"):
        run([str(path)])
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no case"):
        run([str(path)])


def test_scenes_give_what_reports_expect():
    with scenes.adapters() as adapters:
        assert adapters["sampling"]({}) == "right"
        assert adapters["advantages"]({}) == "0, never NaN"
        base = {"base": "Gemma3ForConditionalGeneration"}
        assert adapters["models.peft.adapter_config"](base) == "no adapter in the vision tower"
        text = {"base": "LlamaForCausalLM"}  # its short targets would adapt an image encoder
        assert "vision_tower" in adapters["models.peft.adapter_config"](text)
        assert adapters["launchers"]({}) == "an option"
