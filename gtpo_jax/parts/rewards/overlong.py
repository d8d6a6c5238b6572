"""A penalty for long responses (DAPO, arXiv 2503.14476, Eq. 13)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.rewards.outcome import outcome_rewards
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar


def overlong_penalties(
    tokens: Int[Array, " M"], *, longest: Scalar, buffer: Scalar
) -> Float[Array, " M"]:
    """`clip((longest − buffer − tokens) / buffer, −1, 0)`: 0 up to `longest − buffer` tokens, then
    linear, −1 from `longest` on.
    """
    check_lengths(longest, buffer)
    return jnp.clip((longest - buffer - as_float(tokens)) / buffer, -1.0, 0.0)


def check_lengths(longest: Scalar, buffer: Scalar) -> None:
    """Raises unless both lengths are positive."""
    checks.check_positive("buffer", buffer, hint="it counts tokens until the full penalty")
    checks.check_positive("longest", longest, hint="it counts the tokens of a response")


def overlong(longest: Scalar, *, buffer: Scalar) -> Reward:
    """The penalty for a long response, on the last turn; see `overlong_penalties`.

    A response is everything that the policy writes in a trajectory, without tool output.
    """
    check_lengths(longest, buffer)

    def apply(episodes: EpisodeBatch) -> Array:
        tokens = facts.read(episodes, facts.RESPONSE_TOKENS)
        penalties = overlong_penalties(jnp.asarray(tokens), longest=longest, buffer=buffer)
        return outcome_rewards(penalties, episodes.turn_mask)

    return Reward(apply, (facts.RESPONSE_TOKENS,))
