"""A stream longer than its limit keeps its head and its tail."""

from __future__ import annotations

import os
import re

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.tools.sandbox.capture import Capture, cut


@pytest.mark.parametrize(
    ("text", "keep", "shown"),
    [
        ("0123456789", 10, "0123456789"),
        ("0123456789ab", 10, "01234\n[2 bytes truncated]\n789ab"),
        ("a\nb\nc\nd\ne\nf\n", 6, "a\n[8 bytes truncated]\nf\n"),
        ("aa\nbb\ncc\ndd\n", 9, "aa\n[6 bytes truncated]\ndd\n"),
        ("one\nand a long line\ntwo\n", 20, "one\nand a \n[4 bytes truncated]\n line\ntwo\n"),
        ("é" * 10, 11, "ééé\n[10 bytes truncated]\néé"),
        ("日" * 10, 10, "日\n[24 bytes truncated]\n日"),
        ("😀" * 4, 8, "😀\n[8 bytes truncated]\n😀"),
        ("😀" * 4, 6, "[16 bytes truncated]\n"),
        ("\n" * 9, 4, "\n\n[6 bytes truncated]\n\n"),
    ],
)
def test_cut_keeps_whole_lines_or_else_whole_characters(text, keep, shown):
    assert cut(text.encode(), keep)[0] == shown


TEXTS = strategies.text(strategies.sampled_from("ab\né日😀"), max_size=80)


@hypothesis.given(TEXTS, strategies.integers(2, 60))
def test_cut_keeps_a_beginning_and_an_end_and_counts_the_rest(text, keep):
    data = text.encode()
    shown, dropped = cut(data, keep)
    if len(data) <= keep:
        assert (shown, dropped) == (text, 0)
        return
    [head, tail] = re.split(rf"\n?\[{dropped} bytes truncated\]\n", shown)
    head += "\n" if text.startswith(f"{head}\n") and f"{head}\n[" in shown else ""
    kept = len(data) - dropped
    assert len(data) - keep <= dropped and text.endswith(tail)
    assert text.startswith(head[: -1 if len((head + tail).encode()) > kept else None])
    # At most half of each part is given up for a whole line, and three bytes for a character.
    assert kept >= keep // 2 - 6


@hypothesis.given(strategies.binary(max_size=100), strategies.integers(2, 40))
@hypothesis.settings(max_examples=50)
def test_stream_is_cut_as_its_bytes_are(data, keep):
    reading, writing = os.pipe()
    try:
        capture = Capture(reading, keep, stop_at=1000)
        for at in range(0, len(data), 7):
            os.write(writing, data[at : at + 7])
            assert capture.read()
        assert capture.text() == cut(data, keep)
    finally:
        os.close(reading)
        os.close(writing)
