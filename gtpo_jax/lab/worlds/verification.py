"""Verification: an answer is better after checks, and the policy answers too early at first."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab.worlds.odds import odds
from gtpo_jax.lab.worlds.world import Event, Judgment, World

ANSWER, CHECK = range(2)
"""Actions: the answer ends the episode; a check makes the answer better, up to the last level."""


def verification(
    *, rights: Sequence[float] = (0.3, 0.6, 0.9, 0.95), turns: int = 6, at_once: float = 0.5
) -> World:
    """An answer after k checks is right with probability `rights[min(k, last)]`.

    The policy observes the number of checks, counted up to the last level, and answers in every
    turn with probability `at_once` at first. An episode without an answer fails.
    First success .516, best .950.
    """
    levels = odds(rights)
    last = len(rights) - 1

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        del chance
        check = action == CHECK
        checks = jnp.minimum(state["checks"] + check, last)
        now = jnp.asarray(rights, float)[checks]
        state = {"checks": checks, "answered": state["answered"] | ~check}
        facts = {"budget_scores": now, "answer_logprobs": jnp.log(now), "progress": now}
        return state, Event(done=~check, calls=check.astype(jnp.int32), facts=facts)

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        right = state["answered"] & levels.right(state["checks"], outcome)
        before = jnp.log(jnp.asarray(rights[0], float))
        return Judgment(success=right, solved=right, facts={"answer_logprobs_before": before})

    return World(
        name="verification",
        claim="Does the method check often enough before it answers?",
        actions=2,
        observations=last + 1,
        tokens=turns,
        turns=turns,
        reset=lambda problem: {"checks": jnp.zeros((), jnp.int32), "answered": jnp.zeros((), bool)},
        observe=lambda state: state["checks"],
        step=step,
        judge=judge,
        verdicts=levels.outcomes,
        logits=np.tile(np.log([at_once, 1.0 - at_once]), (last + 1, 1)),
    )
