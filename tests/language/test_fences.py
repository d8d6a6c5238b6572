"""Fenced blocks: their labels and places, and texts that are made to take long."""

import re
import time

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.language import answers, fences

FENCE = "```"


@pytest.mark.parametrize(
    ("label", "language"),
    [
        ("", ""),
        ("python", "python"),
        ("Python3", "python"),
        ("python3.11", "python"),
        ("py3", "py"),
        ("ipython3", "ipython"),
        ("{.python .numberLines}", "python"),
        ("{python, echo=FALSE}", "python"),
        ('python title="a.py"', "python"),
        ("python:a.py", "python"),
        ("python2", "python2"),
        ("python-repl", "python-repl"),
        ("C++", "c++"),
        ("md3", "md3"),
        ("=", ""),
    ],
)
def test_language_of_a_label(label, language):
    assert fences.language(label) == language


PIECES = ["```", "````", "~~~", "python", "\n", "\n", " ", "   ", "x", "<answer>", "</answer>"]
TEXTS = strategies.lists(strategies.sampled_from(PIECES), max_size=30).map("".join)
SECOND_FENCE = re.compile(r"(```|~~~).*<answer> *(```|~~~)")


@hypothesis.given(text=TEXTS, begin=strategies.integers(0, 5))
@hypothesis.settings(max_examples=300)
def test_blocks_are_apart_and_in_order_and_masked_in_place(text, begin):
    # A fence behind a tag is not seen in the rest of a line that begins with a fence.
    hypothesis.assume(not SECOND_FENCE.search(text))
    found = fences.blocks(text, begin)
    places = [place for block in found for place in (block.begin, block.code_end, block.end)]
    assert places == sorted(places) and all(begin <= p <= len(text) for p in places)
    plain = fences.masked(text, found)
    assert len(plain) == len(text)
    assert all(a in (b, " ") for a, b in zip(plain, text, strict=True))
    # Nothing else opens a block, and what is left of the text is what stands between them.
    assert not fences.blocks(plain, begin)
    spans = [(block.begin, block.end) for block in found]
    ends = zip([0, *(end for _, end in spans)], [*(a for a, _ in spans), None], strict=True)
    assert fences.without(text, spans) == "\n".join(text[a:b] for a, b in ends)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "\\boxed " * 20_000 + "x" * 20_000,
        "\\boxed{}" * 20_000,
        "\\boxed 1" + "x" * 100_000,
        "<answer>" * 20_000,
        "<answer></answer>" * 10_000,
        f"{FENCE}\n" * 30_000,
        f"{FENCE}\n  {FENCE}\n" * 15_000,
        f"~~~\n{FENCE}\n" * 15_000,
        "".join("`" * (3 + i % 200) + "x\n" for i in range(2_000)),
        "".join(" " * (i % 40) + f"{FENCE}x\n" for i in range(10_000)),
        "<think>" * 20_000,
        "</think>" * 20_000,
        "{" * 100_000 + "\\boxed 5",
    ],
    ids=range(14),
)
def test_no_text_takes_long(text):
    begun = time.process_time()
    answers.read_answer(text)
    assert time.process_time() - begun < 2
