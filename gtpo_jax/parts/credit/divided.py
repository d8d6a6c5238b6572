"""Credit within parts of a group, such as the rows of one agent."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gtpo_jax.maths import masking
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch


def divided_groups(group_ids: Int[Array, " M"], parts: Int[Array, " M"]) -> Int[Array, " M"]:
    """Group ids in `[0, M)`, equal exactly for rows of one group with equal `parts`: the index of
    the first such row.
    """
    same = group_ids[:, None] == masking.everywhere(group_ids)
    same &= parts[:, None] == masking.everywhere(parts)
    return jnp.argmax(same, axis=1).astype(group_ids.dtype)


def divided(credit: Credit, fact: Fact) -> Credit:
    """The values of `credit` with each group divided by a fact `[M]`; see `divided_groups`."""

    def apply(state: State, values: jax.Array, episodes: EpisodeBatch) -> tuple[State, jax.Array]:
        parts = jnp.asarray(facts.read(episodes, fact))
        group_ids = divided_groups(episodes.group_ids, parts)
        return credit.apply(state, values, dataclasses.replace(episodes, group_ids=group_ids))

    return Credit(credit.init, apply, facts.union(credit.facts, (fact,)))
