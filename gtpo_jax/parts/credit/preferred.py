"""Which trajectories of a group are preferred to which: the verifier's filter of VerIPO."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar, Trajectory

NGRAM = 4
"""Length of the runs of tokens that `REPETITION` counts."""


def repetition(trajectory: Trajectory) -> float:
    """The share of 4-grams of the trajectory's own tokens, turn by turn, that occurred before."""
    grams = [
        tuple(turn.tokens[i : i + NGRAM].tolist())
        for turn in trajectory.turns
        for i in range(len(turn.tokens) - NGRAM + 1)
    ]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


REPETITION = Fact(
    "repetition",
    facts.of_trajectories(repetition, np.float32),
    "[M] float32, share of the runs of four tokens that occurred before in the trajectory",
)
CONSISTENT = Fact(
    "consistent",
    None,
    "[M] bool, the reasoning leads to the answer that was given",
    "pass consistent=function, a function of a trajectory",
)


def preferences(
    success: Bool[Array, " M"],
    sound: Bool[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
) -> Float[Array, " M"]:
    """1 for successes that are sound, −1 for all other kept rows of their group, 0 elsewhere.

    A group without one of the two kinds has no pair: all its rows are 0.
    """
    chosen = kept & success & sound
    rejected = kept & ~chosen
    signs = jnp.where(chosen, 1.0, 0.0) - jnp.where(rejected, 1.0, 0.0)
    number = groups.total(chosen.astype(jnp.int32), chosen, group_ids)
    others = groups.total(rejected.astype(jnp.int32), rejected, group_ids)
    return jnp.where((number > 0) & (others > 0), signs, 0.0)


def preferred(
    *,
    longest: Scalar | None = None,
    most_repetition: Scalar | None = None,
    consistent: Fact | None = None,
) -> Credit:
    """`preferences` on all turns; the rewards do not count.

    A trajectory is sound if it wrote at most `longest` tokens, repeats at most the share
    `most_repetition` of its 4-grams, and the fact `consistent` is true; None asks nothing.
    """
    checks.check_range("longest", longest, 1, float("inf"), hint="it counts tokens, None is off")
    checks.check_range("most_repetition", most_repetition, 0.0, 1.0, hint="it is a share")

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        sound = jnp.ones(episodes.success.shape, bool)
        if longest is not None:
            sound &= jnp.asarray(facts.read(episodes, facts.RESPONSE_TOKENS)) <= longest
        if most_repetition is not None:
            sound &= jnp.asarray(facts.read(episodes, REPETITION)) <= most_repetition
        if consistent is not None:
            sound &= jnp.asarray(facts.read(episodes, consistent)) > 0
        signs = preferences(episodes.success, sound, groups.members(episodes), episodes.group_ids)
        return jnp.where(episodes.turn_mask, signs[:, None], 0.0).astype(x.dtype)

    asked = {
        facts.RESPONSE_TOKENS: longest is not None,
        REPETITION: most_repetition is not None,
    }
    needs = [fact for fact, wanted in asked.items() if wanted]
    return stateless(values, needs=(*needs, *([consistent] if consistent is not None else [])))
