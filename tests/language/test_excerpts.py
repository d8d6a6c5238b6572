"""Excerpts of tool output that is longer than its budget of tokens."""

import re

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.language import tokenizers
from gtpo_jax.language.excerpts import excerpt
from tests.tiny import BYTES

SHIPPED = tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model")
NUMBERS = "".join(f"{i}\n" for i in range(100))
TRACE = "Traceback\n" + "  File a\n" * 9 + "KeyError: 'name'"


@pytest.mark.parametrize(
    ("output", "room", "shown"),
    [
        ("12345", 5, "12345"),
        ("12345", 4, "1..."),
        ("0123456789abc", 12, "01234...9abc"),
        ("12345", 2, ""),  # no room for a mark: better nothing than another number
        ("12345", 0, ""),
        ("", 0, ""),
        ("é" * 9, 14, "ééé...éé"),  # characters of two tokens
        ("日" * 9, 14, "日日...日"),  # and of three
        (NUMBERS, 20, "0\n1\n2\n3\n...\n98\n99\n"),
        (NUMBERS, 40, "0\n1\n2\n3\n4\n5\n6\n7\n8\n...\n94\n95\n96\n97\n98\n99\n"),
        (NUMBERS, 120, None),
        (TRACE, 30, "Traceback\n...\nKeyError: 'name'"),
        (TRACE, 22, "Traceback\n...r: 'name'"),
        (TRACE, 16, "Traceba...'name'"),
    ],
)
def test_excerpt_keeps_beginning_and_end_between_lines(output, room, shown):
    ids, dropped = excerpt(BYTES.encode(output), room, BYTES)
    text = BYTES.decode(ids)
    if shown is None:
        lines = NUMBERS.splitlines()
        before, after = re.split(rf"\[{dropped} tokens truncated\]\n", text)
        count = before.count("\n")
        assert before.splitlines() == lines[:count]
        assert after.splitlines() == lines[-after.count("\n") :] and len(after) > 40
    else:
        assert text == shown
        kept = len(BYTES.encode(re.sub(r"\.\.\.\n?", "", text)))
        assert dropped == len(BYTES.encode(output)) - kept


TEXTS = strategies.text(strategies.sampled_from("ab1 \né日😀.[]"), max_size=150)


@pytest.mark.parametrize("tokenizer", [BYTES, SHIPPED], ids=["bytes", "shipped"])
@hypothesis.given(TEXTS, strategies.integers(0, 150))
def test_excerpt_fits_its_room_and_is_text(tokenizer, output, room):
    assert len(excerpt(tokenizer.encode(output), room, tokenizer)[0]) <= room
    if tokenizer is SHIPPED:  # a character that it lacks decodes to a text that encodes differently
        output = re.sub(r"[^\x00-\x7f]", "", output)
    whole = tokenizer.encode(output)
    ids, dropped = excerpt(whole, room, tokenizer)
    assert len(ids) <= room
    if len(whole) <= room:
        assert (ids, dropped) == (whole, 0)
        return
    text, told = tokenizer.decode(ids), tokenizer.decode(whole)
    assert "\N{REPLACEMENT CHARACTER}" not in text
    if not ids:
        # An output that ends with a line leaves a line break behind the mark.
        mark = "...\n" if output.endswith("\n") else "..."
        assert room < len(tokenizer.encode(mark)) and dropped == len(whole)
        return
    named = re.search(rf"\n?\[{dropped} tokens truncated\]\n", text)
    assert 0 < dropped <= len(whole)
    # The output may hold dots itself, also beside the mark: some match is the mark.
    marks = [named] if named else re.finditer(r"(?=(\.\.\.\n?))", text)
    spans = [mark.span(0 if named else 1) for mark in marks]
    assert any(told.startswith(text[:begin]) and told.endswith(text[end:]) for begin, end in spans)


def test_excerpt_of_an_excerpt_that_fits_is_the_same():
    ids, _ = excerpt(BYTES.encode(NUMBERS), 60, BYTES)
    assert excerpt(ids, 60, BYTES) == (ids, 0)
