"""Trajectories as JSON lines: their records, and files of them."""

import dataclasses
import gzip
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import (
    ANSWER,
    ANSWER_END,
    CODE,
    CODE_END,
    CONTROL_SYMBOLS,
    END,
    Dialogue,
)
from gtpo_jax.results import records
from gtpo_jax.testing import ByteTokenizer
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Trajectory, Turn, Verdict

TOKENIZER = ByteTokenizer()
DIALOGUE = Dialogue(TOKENIZER)


def ids(*parts):
    """Ids of texts and markers."""
    found = []
    for part in parts:
        control = part in CONTROL_SYMBOLS
        found += [TOKENIZER.control_id(part)] if control else TOKENIZER.encode(part)
    return np.array(found, np.int32)


def make_turn(*parts, **fields):
    tokens = ids(*parts)
    return Turn(
        tokens=tokens,
        logprobs=-np.arange(len(tokens), dtype=np.float32) / 3,
        text=TOKENIZER.decode(tokens),
        **fields,
    )


RESULT = ToolResult(
    status=ToolStatus.ERROR,
    stdout="π = 3\n",
    stderr="ValueError: \udc80",
    wall_seconds=0.123456,
    truncated_bytes=5,
)
TRAJECTORY = Trajectory(
    problem=Problem(id="p/1", question="2 + 2?", answer="4", family="sums"),
    group=3,
    sample=1,
    prompt=DIALOGUE.prompt("2 + 2?"),
    turns=(
        make_turn(
            *("so ", CODE, "print(2)", CODE_END, END),
            codes=("print(2)",),
            results=(RESULT,),
            observation=DIALOGUE.observation("π", budget=16)[0],
            observation_dropped=2,
        ),
        make_turn(ANSWER, "4 €", ANSWER_END, END, violation="late"),
    ),
    stop_reason=StopReason.ANSWERED,
    verdict=Verdict.RIGHT,
    answer="4 €",
)
CREDIT = {"reward": np.array([0.0, 1.0]), "advantage": np.array([-1 / 3, 2 / 3], np.float32)}


FACTS = {"problems": np.int32(3), "calls": np.array([1, 0]), "ids": np.array([2**31 - 1, 7])}
FACTS |= {"entropy": np.array([1 / 3, np.nan], np.float32), "right": np.bool_(True)}


def make_record(trajectory=TRAJECTORY, credit=CREDIT, facts=None):
    return records.trajectory_record(trajectory, TOKENIZER, step=7, credit=credit, facts=facts)


def test_a_record_says_what_happened():
    record = make_record()
    first, second = record.pop("turns")
    assert record == {
        "version": 1,
        "step": 7,
        "group": 3,
        "sample": 1,
        "problem": {"id": "p/1", "question": "2 + 2?", "answer": "4", "family": "sums"},
        "prompt": "<|user|>2 + 2?<|end|><|assistant|>",
        "stop_reason": "answered",
        "verdict": "right",
        "answer": "4 €",
        "success": True,
        "included": True,
        "shared_turns": 0,
        "off_policy": False,
        "facts": {},
    }
    assert first["pieces"] == [*"so ", "<code>", *"print(2)", "</code>", "<|end|>"]
    assert first["markers"] == [3, 12, 13]
    assert first["logprobs"][:3] == [0.0, -0.3333, -0.6667]
    assert first["entropies"] == []
    assert first["codes"] == ["print(2)"] and first["violation"] is None
    assert first["results"] == [
        {
            "status": "error",
            "stdout": "π = 3\n",
            "stderr": "ValueError: \udc80",
            "wall_seconds": 0.1235,
            "truncated_bytes": 5,
            "state_lost": False,
        }
    ]
    assert first["observation"] == "<|tool|>π<|end|><|assistant|>"
    assert first["observation_dropped"] == 2
    assert first["credit"] == {"reward": 0.0, "advantage": -0.333333}
    # Three bytes of one character: it stands with the last of them.
    assert second["pieces"] == ["<answer>", "4", " ", "", "", "€", "</answer>", "<|end|>"]
    assert second["violation"] == "late"
    assert second["credit"] == {"reward": 1.0, "advantage": 0.666667}


@hypothesis.given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30))
def test_pieces_are_the_text_of_the_tokens(tokens):
    pieces, markers = records.token_pieces(tokens, TOKENIZER)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == TOKENIZER.decode(tokens)
    assert markers == [i for i, token in enumerate(tokens) if token >= 256]


def test_pieces_of_a_sentencepiece_model():
    tokenizer = tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model")
    tokens = [
        *tokenizer.encode("x = 12\n"),
        tokenizer.control_id(END),
        *tokenizer.encode(" <code>"),
    ]
    pieces, markers = records.token_pieces(tokens, tokenizer)
    assert "".join(pieces) == "x = 12\n<|end|> <code>"
    assert [pieces[i] for i in markers] == ["<|end|>"]


def test_an_id_without_text_is_shown_all_the_same():
    class Holes(ByteTokenizer):
        def token_bytes(self, token):
            return b"" if token == 7 else super().token_bytes(token)

        def decode(self, ids):
            return super().decode([i for i in ids if i != 7])

    assert records.token_pieces([65, 7], Holes()) == (["A", "<token 7>"], [1])


def test_what_is_no_number_is_null():
    turn = dataclasses.replace(
        TRAJECTORY.turns[1],
        logprobs=np.full(8, -np.inf, np.float32),
        entropies=np.full(8, np.nan, np.float32),
    )
    trajectory = dataclasses.replace(TRAJECTORY, turns=(turn,))
    record = make_record(trajectory, {"advantage": np.array([np.nan])})
    [turn] = record["turns"]
    assert turn["logprobs"] == turn["entropies"] == [None] * 8
    assert turn["credit"] == {"advantage": None}


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((1, 2)), np.zeros(())])
def test_credit_of_other_turns_is_refused(values):
    with pytest.raises(ValueError, match="credit 'reward' of a trajectory of 2 turns"):
        make_record(credit={"reward": values})


def test_facts_are_numbers_of_the_trajectory_or_of_its_turns():
    assert make_record(facts=FACTS)["facts"] == {
        **{"problems": 3, "calls": [1, 0], "ids": [2**31 - 1, 7]},
        **{"entropy": [0.333333, None], "right": 1},
    }
    with pytest.raises(ValueError, match="fact 'calls' of a trajectory of 2 turns"):
        make_record(facts={"calls": np.zeros(3)})


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_records_come_back(tmp_path, name):
    path = tmp_path / "new" / name
    made = [make_record(facts=FACTS), make_record(credit=None)]
    records.write_records(path, iter(made))
    assert list(records.read_records(path)) == made
    assert [p.name for p in path.parent.iterdir()] == [name]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") is name.endswith(".gz")


def test_equal_records_make_equal_files(tmp_path):
    for name in ("a.gz", "b.gz"):
        records.write_records(tmp_path / name, [make_record()])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.jsonl"
    records.write_records(path, [make_record()])
    with pytest.raises(ValueError):
        records.write_records(path, [make_record(), {"version": 1, "step": float("nan")}])
    assert list(records.read_records(path)) == [make_record()]
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]


def test_steps_are_found_in_their_order(tmp_path):
    assert records.saved_records(tmp_path / "none") == []
    for step in (1_000_000, 30, 4):
        records.write_records(records.step_path(tmp_path, step), [])
    (tmp_path / "step-000009.jsonl.gz.tmp").touch()
    (tmp_path / "notes.txt").touch()
    assert records.step_path(tmp_path, 4).name == "step-000004.jsonl.gz"
    found = records.saved_records(tmp_path)
    assert found == [(step, records.step_path(tmp_path, step)) for step in (4, 30, 1_000_000)]


LINE = json.dumps({"version": 1}).encode() + b"\n"
PACKED = gzip.compress(LINE, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", LINE + b"{", "line 2: Expecting property name"),
        ("t.jsonl", LINE + b'{"version": 2}\n', "line 2: expected a record of version 1, got 2"),
        ("t.jsonl", b"[1]\n", "line 1: expected a record of version 1, got None"),
        ("t.jsonl.gz", LINE, "cannot read trajectories from .*t.jsonl.gz: Not a gzipped file"),
        ("t.jsonl.gz", PACKED[:-9], "cannot read trajectories from"),
        ("t.jsonl.gz", PACKED[:10] + b"\xff" * 20, "cannot read trajectories from"),
    ],
    ids=["no_object", "other_version", "list", "not_packed", "cut_off", "damaged"],
)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(records.read_records(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot read trajectories from"):
        next(records.read_records(tmp_path / "t.jsonl"))
