"""Each part of the reward goes through the credit by itself (GDPO, arXiv 2601.05242)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp

from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.types import EpisodeBatch, Scalar


def decoupled(
    credit: Credit, *, weights: Mapping[str, Scalar] | None = None, joined: Collection[str] = ()
) -> Credit:
    """`Σ_n weights[n] · credit(r_n)` over the named parts r_n of the reward; a weight that is not
    given is 1.

    Parts in `joined` are added up before and count as one, which has the first of their names.
    Raises `ValueError` if the credit has a state: one state cannot serve several rewards.
    """
    weights = weights or {}
    if jax.tree.leaves(credit.init()):
        raise ValueError(
            "decoupled applies the credit of the method once for each part of the reward, so it"
            " needs a credit without state, and this one has a state; choose a method without"
            " memory, such as gtpo, grpo or rloo"
        )

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        parts = _join(facts.read(episodes, facts.REWARD_PARTS), joined)
        unknown = sorted(set(weights) - set(parts))
        if unknown:
            raise ValueError(
                f"decoupled has weights of {', '.join(unknown)}, the method has the rewards"
                f" {', '.join(parts)}"
            )
        total = jnp.zeros_like(x)
        for name, part in parts.items():
            total += weights.get(name, 1.0) * credit.apply(credit.init(), part, episodes)[1]
        return total

    return stateless(values, needs=facts.union((facts.REWARD_PARTS,), credit.facts))


def _join(parts: Mapping[str, jax.Array], joined: Collection[str]) -> dict[str, jax.Array]:
    """The parts, those of `joined` added up under the first of their names."""
    together = [name for name in joined if name in parts]
    sums = {name: part for name, part in parts.items() if name not in together[1:]}
    for name in together[1:]:
        sums[together[0]] += parts[name]
    return sums
