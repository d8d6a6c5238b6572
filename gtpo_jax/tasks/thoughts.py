"""Thought dropout (TON, arXiv 2505.16854): a share of demonstrations whose thoughts are emptied.

A policy that was shown both forms may think or not; which of them pays is left to reinforcement
learning.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Generator

from gtpo_jax.tasks.conversations import Conversation, Said
from gtpo_jax.tasks.source import Answer, Call, Script

THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
EMPTY = "<think>\n\n</think>"


def is_dropped(seed: int, name: str | int, *, share: float) -> bool:
    """True for a `share` of the demonstrations, chosen by seed and name or number of each."""
    return random.Random(f"{seed}/thoughts/{name}").random() < share


def script_without_thoughts(script: Script) -> Script:
    """The script with the same calls and the same answer, and nothing written before them."""
    turns: Generator[Call | Answer, str, None] = script
    turn = next(turns)
    while isinstance(turn, Call):
        turn = turns.send((yield dataclasses.replace(turn, thought="")))
    yield dataclasses.replace(turn, thought="")


def conversation_without_thoughts(conversation: Conversation) -> Conversation:
    """The conversation with the thought of each turn emptied: what stands in `<think>` marks, or
    without marks the text before a call. An answer without marks stays as it is.
    """

    def emptied(said: Said) -> Said:
        text, marks = THOUGHT.subn(lambda _: EMPTY, said.text)
        if not marks and said.codes:
            text = ""
        return said if text == said.text else dataclasses.replace(said, text=text, token_ids=None)

    return dataclasses.replace(conversation, turns=tuple(map(emptied, conversation.turns)))
