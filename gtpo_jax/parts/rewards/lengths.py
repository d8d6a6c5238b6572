"""Rewards of response length: for all-right groups, around a budget, and by a cosine."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from gtpo_jax.maths import checks
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Scalar


def _tokens(episodes: EpisodeBatch) -> jax.Array:
    return jnp.asarray(facts.read(episodes, facts.RESPONSE_TOKENS), float)


def concise(longest: Scalar) -> Reward:
    """`1 − tokens / longest`, at least 0, on the last turn where all included trajectories of the
    group are right; 0 in all other groups.
    """
    checks.check_positive("longest", longest, hint="it counts the tokens of a response")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        wrong = jnp.where(episodes.success, 0, 1)
        mistakes = groups.total(wrong, groups.members(episodes), episodes.group_ids)
        return jnp.where(mistakes == 0, jnp.maximum(1.0 - _tokens(episodes) / longest, 0.0), 0.0)

    return whole(apply, facts.RESPONSE_TOKENS)


def token_budget(
    step: Num[Array, " M"], *, start: Scalar, decay: Scalar, every: Scalar
) -> Float[Array, " M"]:
    """`max(1, start · decay^⌊step / every⌋)`."""
    periods = jnp.floor(jnp.asarray(step, float) / every)
    return jnp.maximum(start * jnp.asarray(decay, float) ** periods, 1.0)


def budget_rewards(
    tokens: Num[Array, " M"], budget: Float[Array, " M"], *, band: bool = False
) -> Float[Array, " M"]:
    """`l / L` up to the budget L, then `1 − (l − L) / L`, and 0 from 2 L on; with `band` 1 up to L.

    l is the number of tokens.
    """
    share = jnp.asarray(tokens, float) / budget
    below = jnp.ones_like(share) if band else share
    return jnp.where(share <= 1.0, below, jnp.maximum(2.0 - share, 0.0))


def within_budget(
    *,
    start: Scalar = 256.0,
    decay: Scalar = 0.7,
    every: Scalar = 150.0,
    shape: Literal["triangle", "band"] = "triangle",
) -> Reward:
    """The reward of a length near a budget that shrinks with the training step, on the last turn;
    see `budget_rewards` and `token_budget`.
    """
    checks.check_positive("start", start, hint="it is the budget of step 0 in tokens")
    checks.check_range("decay", decay, 0.0, 1.0, hint="it multiplies the budget once a period")
    checks.check_positive("every", every, hint="it is the number of steps of a period")

    def apply(episodes: EpisodeBatch) -> jax.Array:
        step = jnp.asarray(facts.read(episodes, facts.STEP))
        budget = token_budget(step, start=start, decay=decay, every=every)
        return budget_rewards(_tokens(episodes), budget, band=shape == "band")

    return whole(apply, facts.RESPONSE_TOKENS, facts.STEP)


def cosine_rewards(
    success: Bool[Array, " M"], tokens: Num[Array, " M"], *, longest: Scalar
) -> Float[Array, " M"]:
    """`low + (high − low) (1 + cos(π l / longest)) / 2`, l at most `longest`: from 1 down to .5 for
    a success, from 0 down to −.5 for a failure.
    """
    share = jnp.clip(jnp.asarray(tokens, float) / longest, 0.0, 1.0)
    return jnp.where(success, 0.5, -0.5) + 0.25 * (1.0 + jnp.cos(jnp.pi * share))


def cosine(longest: Scalar) -> Reward:
    """The outcome by its length, on the last turn; see `cosine_rewards`."""
    checks.check_positive("longest", longest, hint="it counts the tokens of a response")
    return whole(
        lambda e: cosine_rewards(e.success, _tokens(e), longest=longest), facts.RESPONSE_TOKENS
    )
