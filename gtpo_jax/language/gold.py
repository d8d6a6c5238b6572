"""Writes gold answers as a policy would: the answer itself, and what a turn says before it."""

from __future__ import annotations

import numpy as np

from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.types import GoldAnswer, Problem


def gold_answer(dialogue: AnyDialogue, problem: Problem) -> GoldAnswer:
    """The gold answer of a problem in the dialogue's form of an answer, without a thought.

    A token that holds the start or the end of the answer counts as part of it. The end of the turn
    is left out. Raises `ValueError` if the problem has no answer as a text, or if the dialogue
    cannot write it.
    """
    if not problem.answer.strip():
        raise ValueError(
            f"problem {problem.id!r} has no gold answer as a text, which the method scores; leave"
            " out such problems, or choose another method"
        )
    try:
        tokens = dialogue.answer("", problem.answer)
    except ValueError as error:
        raise ValueError(
            f"the gold answer of problem {problem.id!r}, which the method scores, cannot be"
            f" written: {error}"
        ) from None
    texts = [dialogue.tokenizer.token_bytes(token) for token in tokens.tolist()]
    whole, sought = b"".join(texts), problem.answer.strip().encode()
    # The last occurrence: what precedes an answer may hold its letters, as \boxed holds an x.
    start = whole.rfind(sought)
    # A tokenizer that normalizes text may write other bytes; then the whole text is the answer.
    start, end = (0, len(whole)) if start < 0 else (start, start + len(sought))
    ends = np.cumsum([len(text) for text in texts])
    first = int(np.searchsorted(ends, start, side="right"))
    last = int(np.searchsorted(ends, end, side="left"))
    return GoldAnswer(tokens[:first], tokens[first : last + 1])
