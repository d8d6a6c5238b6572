"""Links over turns of a group that are alike: the same state, transition or history."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.credit import recurring
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import check_options, normalize
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar

TRANSITION = (facts.ANCHORS, facts.ACTIONS)


def among_anchors(*, divide_by_std: bool = False, ddof: int = 0, eps: Scalar = 1e-6) -> Credit:
    """`(x − mean) / (std + eps)` over the turns of the group that begin in the same state.

    A state that occurs once gives 0; a trajectory that returns to a state counts each time.
    """
    return _among(
        lambda episodes: jnp.asarray(facts.read(episodes, facts.ANCHORS)),
        (facts.ANCHORS,),
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
    )


def among_histories(*, divide_by_std: bool = True, ddof: int = 0, eps: Scalar = 1e-6) -> Credit:
    """`(x − mean) / (std + eps)` over the turns of the group with the same index and the same
    states and actions before them.
    """

    return _among(
        lambda episodes: recurring.histories(*_states_and_actions(episodes)),
        TRANSITION,
        divide_by_std=divide_by_std,
        ddof=ddof,
        eps=eps,
    )


def mean_of_transitions() -> Credit:
    """The mean of x over the turns of the group with the same state, action and next state.

    A transition that occurs once keeps its own value; one that a trajectory repeats counts each
    time.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        ids = recurring.transitions(*_states_and_actions(episodes), episodes.turn_mask)
        return recurring.mean_over(x, recurring.equal_ids(ids), episodes)

    return stateless(values, needs=TRANSITION)


def _states_and_actions(episodes: EpisodeBatch) -> tuple[jax.Array, jax.Array]:
    anchors, actions = (jnp.asarray(facts.read(episodes, fact)) for fact in TRANSITION)
    return anchors, actions


def _among(
    ids: Callable[[EpisodeBatch], jax.Array],
    needs: tuple[Fact, ...],
    *,
    divide_by_std: bool,
    ddof: int,
    eps: Scalar,
) -> Credit:
    check_options(ddof, eps)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        return normalize(
            x,
            episodes.turn_mask & episodes.included[:, None],
            episodes.group_ids,
            over=recurring.equal_ids(ids(episodes)),
            divide_by_std=divide_by_std,
            ddof=ddof,
            eps=eps,
        )

    return stateless(values, needs=needs)
