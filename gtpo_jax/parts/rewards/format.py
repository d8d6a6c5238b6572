"""Penalties for turns that break the rules of the dialogue."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.rewards.outcome import outcome_rewards
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Scalar


def format_rewards(
    violations: Bool[Array, "M K"], turn_mask: Bool[Array, "M K"], *, penalty: Scalar
) -> Float[Array, "M K"]:
    """`−penalty` on every turn that broke the dialogue's rules, 0 on all others."""
    checks.check_turns(turn_mask=turn_mask, violations=violations)
    checks.check_masks(turn_mask=turn_mask, violations=violations)
    check_penalty(penalty)
    return jnp.where(violations & turn_mask, -penalty, 0.0)


def format_penalty(penalty: Scalar = 0.1) -> Reward:
    """`−penalty` on every turn that broke the dialogue's rules; see `format_rewards`."""
    check_penalty(penalty)
    return Reward(lambda e: format_rewards(e.violations, e.turn_mask, penalty=penalty))


def check_penalty(penalty: Scalar) -> None:
    """Raises on a negative penalty."""
    checks.check_range(
        "penalty", penalty, 0.0, float("inf"), hint="it is taken away, so pass its magnitude"
    )


def forfeit() -> Reward:
    """`−1` on the last turn of a success in which any turn broke the rules, so that it earns
    nothing.

    With `outcome()`, the reward `min(r_accuracy, r_format)` in {0, 1} of GTPO's GRPO baseline.
    """

    def apply(episodes: EpisodeBatch) -> Array:
        broken = jnp.any(episodes.violations & episodes.turn_mask, axis=1)
        lost = broken & episodes.success & episodes.included
        return outcome_rewards(-as_float(lost), episodes.turn_mask)

    return Reward(apply)


def well_formed(weight: Scalar = 1.0) -> Reward:
    """`weight` on the last turn of a trajectory in which no turn broke the rules."""

    def apply(episodes: EpisodeBatch) -> Array:
        return jnp.where(jnp.any(episodes.violations & episodes.turn_mask, axis=1), 0.0, weight)

    return whole(apply)
