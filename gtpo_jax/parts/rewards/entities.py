"""Partial credit for failures that found entities of the answer (E-GRPO, arXiv 2510.24694)."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Scalar, StopReason, Trajectory, Turn


def prose(turn: Turn) -> str:
    """The text of a turn without the code of its calls."""
    text = turn.text
    for code in turn.codes:
        for spelled in (code, json.dumps(code)[1:-1], json.dumps(code, ensure_ascii=False)[1:-1]):
            text = text.replace(spelled, " ") if spelled else text
    return text


def _entities(trajectory: Trajectory) -> list[str]:
    return list(dict.fromkeys(str(entity) for entity in trajectory.problem.info["entities"]))


def _hits(trajectory: Trajectory) -> int:
    texts = [prose(turn) for turn in trajectory.turns]
    return sum(any(entity in text for text in texts) for entity in _entities(trajectory))


ENTITY_HITS = Fact(
    "entity_hits",
    facts.of_trajectories(_hits, np.int32),
    "[M] int32, entities of the problem that the policy names outside code, as exact phrases",
    fields=("entities",),
)
ENTITY_COUNT = Fact(
    "entity_count",
    facts.of_trajectories(lambda t: len(_entities(t)), np.int32),
    "[M] int32, entities of the problem",
    fields=("entities",),
)
CUT_OFF = Fact(
    "cut_off",
    facts.of_trajectories(lambda t: t.stop_reason is StopReason.TURN_LIMIT, np.bool_),
    "[M] bool, the last turn did not end in its token budget",
)


def entity_outcomes(
    success: Bool[Array, " M"],
    invalid: Bool[Array, " M"],
    hits: Int[Array, " M"],
    count: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    *,
    alpha: Scalar,
) -> Float[Array, " M"]:
    """1 for a success, `alpha · γ_i / max_group(γ)` for a failure, 0 for an invalid row.

    `γ_i = hits_i / count_i`. Invalid rows count in the maximum, which the paper leaves open; if it
    is 0, a failure earns 0.
    """
    share = jnp.asarray(hits, float) / jnp.maximum(jnp.asarray(count, float), 1.0)
    best = groups.largest(share, kept, group_ids, empty=0.0)
    partial = alpha * jnp.where(best > 0, share / jnp.where(best > 0, best, 1.0), 0.0)
    return jnp.where(invalid, 0.0, jnp.where(success, 1.0, partial))


def entities(alpha: Scalar = 0.3) -> Reward:
    """The outcome of a trajectory, or its entities; see `entity_outcomes`. A row is invalid if one
    of its turns broke the rules of the dialogue.
    """
    checks.check_range("alpha", alpha, 0.0, 1.0, hint="below 1 a failure stays below a success")

    def apply(episodes: EpisodeBatch) -> Array:
        return entity_outcomes(
            episodes.success,
            jnp.any(episodes.violations & episodes.turn_mask, axis=1),
            jnp.asarray(facts.read(episodes, ENTITY_HITS)),
            jnp.asarray(facts.read(episodes, ENTITY_COUNT)),
            groups.members(episodes),
            episodes.group_ids,
            alpha=alpha,
        )

    return whole(apply, ENTITY_HITS, ENTITY_COUNT)
