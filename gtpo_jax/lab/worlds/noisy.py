"""Noise: chains whose verdict errs, or is lost."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.lab.worlds.chain import chain
from gtpo_jax.lab.worlds.odds import odds
from gtpo_jax.lab.worlds.world import Event, Judgment, World


def noisy(
    *,
    needed: int = 2,
    turns: int = 6,
    false_positive: float = 0.1,
    false_negative: float = 0.1,
) -> World:
    """A chain whose verifier errs in both directions; without an answer it always says failure.

    First success .168, best .900.
    """
    base = chain(needed=needed, turns=turns)
    verifier = odds([0.0, false_positive, 1.0 - false_negative])

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        solved = base.judge(state, outcome).solved
        level = jnp.where(solved, 2, state["answered"].astype(jnp.int32))
        return Judgment(success=verifier.right(level, outcome), solved=solved)

    return base._replace(
        name="noisy",
        claim="Does the method learn the truth from a verifier that errs?",
        judge=judge,
        verdicts=verifier.outcomes,
    )


def failing(*, needed: int = 2, turns: int = 6, fails: float = 0.1) -> World:
    """A chain whose tool breaks down in each call with probability `fails`.

    The verdict of such an episode is unknown, so it is excluded, and long episodes are excluded
    more often than short ones. The policy does not notice.
    First success .107, best 1.000.
    """
    base = chain(needed=needed, turns=turns)

    def step(state: dict, action: jax.Array, chance: jax.Array) -> tuple[dict, Event]:
        inner, event = base.step(state["chain"], action, chance)
        lost = (chance == 1) & (jnp.asarray(event.calls) > 0)
        return {"chain": inner, "lost": state["lost"] | lost}, event

    def judge(state: dict, outcome: jax.Array) -> Judgment:
        return base.judge(state["chain"], outcome)._replace(included=~state["lost"])

    return base._replace(
        name="failing",
        claim="Does the method bear that episodes are excluded, long ones more often?",
        reset=lambda problem: {"chain": base.reset(problem), "lost": jnp.zeros((), bool)},
        observe=lambda state: base.observe(state["chain"]),
        step=step,
        judge=judge,
        chances=(1.0 - fails, fails),
    )
