"""Facts of trajectories that the parts of a method need.

A part names the facts it reads; `packing.episode_batch` gathers them into `EpisodeBatch.facts`. So
a new method adds no field to `EpisodeBatch`, and a fact that no part reads costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gtpo_jax.types import EpisodeBatch, Trajectory

Gather = Callable[[Sequence[Trajectory], int], Any]
"""`(M trajectories, K turns) → arrays`, a pytree whose leaves are NumPy arrays `[M, ...]`."""


class Fact(NamedTuple):
    """A named fact. If `gather` is None, `training` computes it with the policy."""

    name: str
    gather: Gather | None


class Code(NamedTuple):
    """The code of all turns of each trajectory."""

    bytes: jax.Array | np.ndarray  # [M, C] int32, padded on the right
    lengths: jax.Array | np.ndarray  # [M] int32, in bytes


def code_texts(trajectories: Sequence[Trajectory]) -> list[str]:
    """The code of each trajectory, one turn under the other; empty where there is none."""
    return ["\n".join(turn.code for turn in t.turns if turn.code is not None) for t in trajectories]


def gather_code(trajectories: Sequence[Trajectory], max_turns: int) -> Code:
    """The code as UTF-8. C is a power of two, at least 64, to limit the number of shapes."""
    del max_turns
    texts = [text.encode() for text in code_texts(trajectories)]
    width = 64
    while width < max(map(len, texts), default=0):
        width *= 2
    code = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        code[row, : len(text)] = np.frombuffer(text, np.uint8)
    return Code(code, np.array([len(text) for text in texts], np.int32))


def gather_response_tokens(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
    """Numbers of tokens `[M]` that the policy wrote."""
    del max_turns
    return np.array([sum(len(turn.tokens) for turn in t.turns) for t in trajectories], np.int32)


CODE = Fact("code", gather_code)
RESPONSE_TOKENS = Fact("response_tokens", gather_response_tokens)
POLICY_STATES = Fact("policy_states", None)
"""Mean final hidden state `[M, D]` of the policy over the tokens it wrote in turns with code; zeros
if there are none."""


def union(*groups: Iterable[Fact]) -> tuple[Fact, ...]:
    """Every fact once, in the order of first mention.

    Raises `ValueError` if two facts of one name are gathered differently.
    """
    facts: dict[str, Fact] = {}
    for fact in (fact for group in groups for fact in group):
        if facts.setdefault(fact.name, fact) != fact:
            raise ValueError(f"two facts are named {fact.name!r}; give one of them another name")
    return tuple(facts.values())


def read(episodes: EpisodeBatch, fact: Fact) -> Any:
    """The arrays of a fact. Raises `ValueError` if the episodes do not have it."""
    if fact.name not in episodes.facts:
        way = (
            "pass facts=method.facts to `packing.episode_batch`"
            if fact.gather is not None
            else "`training.Training` computes it with the policy"
        )
        raise ValueError(
            f"the method needs the fact {fact.name!r}, the episodes hold"
            f" {sorted(episodes.facts) or 'none'}; {way}"
        )
    return episodes.facts[fact.name]
