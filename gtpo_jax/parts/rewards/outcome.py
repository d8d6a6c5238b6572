"""The outcome of a trajectory, on its last turn."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import turns
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar


def outcome_rewards(
    outcomes: Float[Array, " M"], turn_mask: Bool[Array, "M K"]
) -> Float[Array, "M K"]:
    """The outcome of a trajectory on its last turn, 0 on all others."""
    return jnp.where(turns.last_turns(turn_mask), outcomes[:, None], 0.0)


def outcome(*, right: Scalar = 1.0, wrong: Scalar = 0.0) -> Reward:
    """`right` for a success and `wrong` for a failure, on the last turn.

    An excluded trajectory, whose outcome is unknown, earns 0.
    """

    def apply(episodes: EpisodeBatch) -> Array:
        earned = jnp.where(episodes.success, right, wrong)
        return outcome_rewards(
            as_float(jnp.where(episodes.included, earned, 0.0)), episodes.turn_mask
        )

    return Reward(apply)
