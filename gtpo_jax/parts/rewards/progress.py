"""Rewards for progress: the change of a score of the state after each turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.discounted import discounted_returns
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar, Trajectory

PROGRESS = Fact(
    "progress",
    None,
    "[M, K] float32, score of the state after the turn; NaN for a turn without a score",
    "an environment that scores its states, or a function of your own (`progress function=…`)",
)

StateScores = Callable[[Trajectory], Sequence[float | None]]
"""A function from a trajectory to a score of the state after each turn; None: it is not scored."""


def progress_rewards(
    scores: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    *,
    start: Scalar | None = 0.0,
    smear: Scalar = 0.0,
) -> Float[Array, "M K"]:
    """`δ[m, k] = Φ[m, k] − Φ[m, k−1]`, where `Φ[m, −1]` is `start`; a turn with a NaN for a score
    earns 0, and the next turn with a score the change since the last one.

    The rewards of a trajectory add up to its last score minus `start`. With `start` None, the first
    score takes the place of `start`. A `smear` γ > 0 divides `δ[m, k]` among turns j ≤ k in
    proportion to `γ^(k−j)`, which leaves the sum as it is.
    """
    check_smear(smear)
    scored = turn_mask & ~jnp.isnan(scores)
    scores = jnp.where(scored, as_float(scores), 0.0)
    first = jnp.argmax(scored, axis=1)[:, None]
    begin = jnp.take_along_axis(scores, first, axis=1)[:, 0]
    if start is not None:
        begin = jnp.full_like(begin, start)

    def step(before: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        score, known = now
        after = jnp.where(known, score, before)
        return after, after - before

    _, changes = jax.lax.scan(step, begin, (scores.T, scored.T))
    index = jnp.arange(scores.shape[1])
    # As products: a power of 0 would be NaN in its derivative.
    powers = jnp.cumprod(jnp.where(index > 0, jnp.asarray(smear, scores.dtype), 1.0))
    return discounted_returns(changes.T / jnp.cumsum(powers), turn_mask, discount=smear)


def progress(
    fact: Fact = PROGRESS,
    *,
    weight: Scalar = 1.0,
    start: Scalar | None = 0.0,
    smear: Scalar = 0.0,
) -> Reward:
    """`weight` times `progress_rewards` of a fact with the scores of states."""
    check_smear(smear)

    def apply(episodes: EpisodeBatch) -> jax.Array:
        scores = facts.read(episodes, fact)
        return weight * progress_rewards(scores, episodes.turn_mask, start=start, smear=smear)

    return Reward(apply, (fact,))


def check_smear(smear: Scalar) -> None:
    """Raises unless the smear is in `[0, 1]`."""
    checks.check_range("smear", smear, 0.0, 1.0, hint="0 leaves a change with its own turn")


def scores_by(function: StateScores) -> Fact:
    """The fact of the scores that a function gives the states of a trajectory.

    Gathering raises `ValueError` if there are more or fewer scores than turns, or if one of them is
    infinite.
    """
    name = f"progress by {function.__name__}"

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        values = np.full((len(trajectories), max_turns), np.nan, np.float32)
        for row, trajectory in enumerate(trajectories):
            if not (trajectory.turns and trajectory.included):
                continue
            scores = [np.nan if x is None else float(x) for x in function(trajectory)]
            if len(scores) != len(trajectory.turns) or np.isinf(scores).any():
                raise ValueError(
                    f"{name} must give a finite score or None for each of the"
                    f" {len(trajectory.turns)} turns of the trajectory of problem"
                    f" {trajectory.problem.id!r}, got {scores}"
                )
            values[row, : len(scores)] = scores
        return values

    return Fact(name, gather, "[M, K] float32, score of the state after the turn, NaN without one")
