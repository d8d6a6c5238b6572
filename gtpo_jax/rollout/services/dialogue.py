"""What plans ask of a dialogue: answers as turns, and observations of turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.parts.plans.moment import OBSERVE, WRITE_ANSWER
from gtpo_jax.types import Turn


def turn_text(dialogue: AnyDialogue, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of a turn without its end marker, as `AnyDialogue.turn` takes it."""
    ids = [int(token) for token in tokens]
    if ids and ids[-1] in dialogue.stop_ids:
        ids.pop()
    return dialogue.tokenizer.decode(ids)


def of_dialogue(dialogue: AnyDialogue, *, observation_tokens: int) -> dict[str, Any]:
    """The services that need a dialogue only, by name.

    An observation has at most `observation_tokens` tokens.
    """

    def write_answer(thought: str, answer: str) -> str:
        return turn_text(dialogue, dialogue.answer(thought, answer))

    def observe(turn: Turn, output: str) -> Turn:
        ended = len(turn.tokens) > 0 and int(turn.tokens[-1]) in dialogue.stop_ids
        observation, dropped = dialogue.observation(output, budget=observation_tokens, ended=ended)
        return dataclasses.replace(
            turn, observation=observation, observation_dropped=dropped, results=()
        )

    return {WRITE_ANSWER.name: write_answer, OBSERVE.name: observe}
