"""A world: a small decision process of turns, in which the gradient of success is known exactly.

A policy writes tokens; a token may end the turn, and the world then answers with an observation.
All of a world is finite and explicit: actions, observations, and chance, whose outcomes have given
probabilities. So trajectories can be sampled by the thousand, and also be enumerated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

State = Any
"""State of a world: a pytree of scalars, the problem among them."""


Number = Any
"""A scalar array, or a Python number that becomes one."""


class Event(NamedTuple):
    """The consequences of one token, scalars."""

    ends_turn: Number = True
    done: Number = False  # the episode ends with this token
    violation: Number = False  # the turn broke the rules of the dialogue
    calls: Number = 0  # tool calls of the turn
    call_errors: Number = 0  # calls that failed through the fault of the policy
    facts: Mapping[str, Number] = {}
    """Further facts of the turn; the value at its last token counts. The same names in all steps.
    """


class Judgment(NamedTuple):
    """The end of an episode, scalars."""

    success: Number  # the verdict, from which methods learn
    solved: Number  # the truth
    included: Number = True  # the verdict is known
    facts: Mapping[str, Number] = {}  # further facts of the trajectory


class World(NamedTuple):
    """A finite world. Its functions are pure, of scalars, and are used under `vmap`.

    An episode that takes all `tokens` or `turns` ends where it stands. After the end, tokens do not
    count.
    """

    name: str
    claim: str  # the question that it asks a method, in a sentence
    actions: int  # number of tokens of the vocabulary
    observations: int  # number of different observations
    tokens: int  # maximum tokens of an episode
    turns: int  # maximum turns of an episode
    reset: Callable[[jax.Array], State]  # problem → state
    observe: Callable[[State], jax.Array]  # state → observation, int32
    step: Callable[[State, jax.Array, jax.Array], tuple[State, Event]]  # state, action, chance
    judge: Callable[[State, jax.Array], Judgment]  # state, chance of the verdict
    problems: tuple[float, ...] = (1.0,)  # probability of each problem; a group shares its problem
    chances: tuple[float, ...] = (1.0,)  # probability of each outcome of chance in a step
    verdicts: tuple[float, ...] = (1.0,)  # probability of each outcome of chance in `judge`
    logits: np.ndarray | None = None  # [observations, actions] of the first policy; None: zeros
    rows: int = 1  # agents, each with a trajectory of its own; `facts` then names `agent`
