"""Tool protocols on any text: nothing raises, and what is written is parsed back."""

import json

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.language import protocols
from gtpo_jax.language.answers import read_answer, trimmed, write_answer
from gtpo_jax.language.protocols import CodeTags
from tests.language.test_protocols import ALL, FENCE, FENCED, HERMES, TAGS, call, said

TRICKY = [
    "```", "````", "```python", "\n", " ", "\t", "\r", "<code>", "</code>", "<tool_call>",
    "</tool_call>", "<answer>", "</answer>", "\\boxed{", "\\boxed{4}", "{", "}", '"', "\\", "'",
    "<think>", "</think>", '{"name": "python", "arguments": {"code": "', '"}}', "print(1)", "é",
    "</interpreter>", "<interpreter>", "```output", "[", "1", ",", "\u2028", "\x85", "\x00",
]  # fmt: skip
PIECES = strategies.lists(strategies.sampled_from(TRICKY), max_size=12).map("".join)
TEXTS = PIECES | strategies.text(max_size=40)


@ALL
@hypothesis.given(text=TEXTS, in_thought=strategies.booleans(), most=strategies.integers(1, 3))
@hypothesis.settings(max_examples=200)
def test_any_text_is_calls_or_an_answer_or_a_violation(protocol, text, in_thought, most):
    turn = protocol.parse(text, most_calls=most, in_thought=in_thought)
    assert turn.text == text
    told = [bool(turn.codes), turn.answer is not None, turn.violation is not None]
    assert told.count(True) == 1 and len(turn.codes) <= most


@ALL
@hypothesis.given(text=strategies.text(strategies.characters(codec=None), max_size=20))
def test_halves_of_surrogate_pairs_do_not_raise(protocol, text):
    protocol.parse(protocol.call(text) + text)


def expressible(protocol, code):
    if isinstance(protocol, CodeTags):
        return "</code>" not in code and code.strip()[:3] != FENCE
    return True


@ALL
@hypothesis.given(code=TEXTS, other=TEXTS)
@hypothesis.settings(max_examples=200)
def test_code_comes_back_from_its_call(protocol, code, other):
    hypothesis.assume(expressible(protocol, code) and expressible(protocol, other))
    assert said(protocol, f"First:\n{protocol.call(code)}") == call(code)
    both = f"{protocol.call(code)}\n{protocol.call(other)}\nThat is all."
    assert said(protocol, both, most_calls=2) == call(code, other)


@ALL
@hypothesis.given(code=TEXTS)
@hypothesis.settings(max_examples=200)
def test_call_that_lacks_its_end_is_a_violation(protocol, code):
    hypothesis.assume(expressible(protocol, code))
    text = protocol.call(code, closed=False)
    assert protocol.call(code).startswith(text)
    codes, answer, violation = said(protocol, f"So:\n{text}")
    assert codes == () and answer is None and violation is not None


@hypothesis.given(answer=TEXTS)
@hypothesis.settings(max_examples=200)
def test_answer_comes_back_from_its_text(answer):
    try:
        text = write_answer(answer)
    except ValueError as error:
        assert repr(answer) in str(error)
        marks = ("boxed", "answer>", "think>")
        assert any(mark in answer for mark in marks) or not _balanced(answer)
        return
    assert read_answer(f"It is {text}.") == (trimmed(answer), None)


def _balanced(text):
    return text.count("{") == text.count("}") and "\\" not in text


@ALL
@hypothesis.given(text=TEXTS, in_thought=strategies.booleans())
@hypothesis.settings(max_examples=200)
def test_segments_of_a_turn_are_its_text_and_only_tags_are_meant(protocol, text, in_thought):
    pieces = protocol.segments(text, in_thought=in_thought)
    assert "".join(piece.text for piece in pieces) == text
    tags = {*protocols.TAGS, getattr(protocol, "opening", ""), getattr(protocol, "closing", "")}
    assert {piece.text for piece in pieces if piece.template} <= tags


def meant(protocol, text, **settings):
    return [piece.text for piece in protocol.segments(text, **settings) if piece.template]


def test_tags_are_meant_around_calls_and_text_in_their_code():
    code = "print('</tool_call><tool_call><think></answer>')"
    around = ["<think>", "</think>"]
    thought = "<think>\nhm\n</think>\n"
    assert meant(HERMES, f"{thought}{HERMES.call(code)}") == [
        *around,
        "<tool_call>",
        "</tool_call>",
    ]
    assert meant(FENCED, f"{thought}{FENCED.call(code)}") == around
    assert meant(TAGS, f"{thought}{TAGS.call(code)}") == [*around, "<code>", "</code>"]
    assert meant(HERMES, "<tool_call>\n{'</tool_call>") == ["<tool_call>", "</tool_call>"]
    assert meant(HERMES, f"hm</think>{HERMES.call('1')}", in_thought=True)[0] == "</think>"
    assert meant(FENCED, "<tool_call> <answer>4</answer>") == ["<answer>", "</answer>"]


@pytest.mark.parametrize(
    ("protocol", "words"),
    [(FENCED, "```python"), (TAGS, "<code>"), (HERMES, '"code"')],
    ids=["fenced", "tags", "hermes"],
)
def test_policy_is_told_how_to_call_and_to_answer(protocol, words):
    assert words in protocol.system_prompt + json.dumps(protocol.tools).replace("\\", "")
    assert "\\boxed{}" in protocol.system_prompt


def test_example_of_the_described_protocol_is_a_call():
    example = protocols.HERMES_DESCRIBED_PROMPT.split(":\n", 1)[1].split("Its output")[0]
    assert said(HERMES, example) == call("print(1 + 1)")
