"""Credit for groups that hold a response from elsewhere, such as the gold answer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gtpo_jax.maths import checks, turns
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, State, stateless
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar

OFF_POLICY = Fact(
    "off_policy",
    facts.of_trajectories(lambda t: t.off_policy, np.bool_),
    "[M] bool, True for a response that the policy did not sample, such as the gold answer",
)


def softened_rewards(
    rewards: Float[Array, "*shape"], *, tau: Scalar, above: Scalar, below: Scalar
) -> Float[Array, "*shape"]:
    """`tau + above · ln(1 + r − tau)` for `r ≥ tau`, and below it
    `tau − (exp(below · (tau − r)) − 1) / (exp(below) − 1)`: flat near the best reward, steep below.
    """
    rewards = as_float(rewards)
    high = tau + above * jnp.log1p(jnp.maximum(rewards - tau, 0.0))
    low = tau - jnp.expm1(below * jnp.maximum(tau - rewards, 0.0)) / jnp.expm1(below)
    return jnp.where(rewards >= tau, high, low)


def softened(*, tau: Scalar = 0.8, above: Scalar = 0.01, below: Scalar = 1.0) -> Credit:
    """Rewards whose total over a trajectory is softened; the last turn has the difference."""
    check_softening(above, below)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        total = jnp.sum(jnp.where(episodes.turn_mask, x, 0.0), axis=1, keepdims=True)
        change = softened_rewards(total, tau=tau, above=above, below=below) - total
        return jnp.where(turns.last_turns(episodes.turn_mask), x + change, x)

    return stateless(values)


def anchored(credit: Credit, *, scale: Scalar = 1.2) -> Credit:
    """The credit of the rows that the policy sampled; the others get `scale` times the largest
    advantage of their group.

    Off-policy rows enter no statistics of `credit`.
    """
    checks.check_positive("scale", scale, hint="1.2 is the paper's")

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        elsewhere = jnp.asarray(facts.read(episodes, OFF_POLICY)).astype(bool)
        sampled = dataclasses.replace(episodes, included=episodes.included & ~elsewhere)
        state, values = credit.apply(state, values, sampled)
        best = jnp.max(values, axis=1, initial=-jnp.inf, where=episodes.turn_mask)
        best = groups.largest(best, groups.members(sampled), episodes.group_ids)
        return state, jnp.where(elsewhere[:, None], scale * best[:, None], values)

    needs = facts.union(credit.facts, (OFF_POLICY,))
    return Credit(credit.init, apply, needs)


def check_softening(above: Scalar, below: Scalar) -> None:
    """Raises unless both slopes are positive."""
    checks.check_positive("above", above, hint="it is the slope above tau, 0.01 is the paper's")
    checks.check_positive("below", below, hint="it bends the rewards below tau, 1 is the paper's")
