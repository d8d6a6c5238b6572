"""Generalized advantage estimation over turns, with a value head that the credit learns itself."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.parts.credit.discounted import check_discount, discounted_returns
from gtpo_jax.types import EpisodeBatch, Scalar

PRECISION = jax.lax.Precision.HIGHEST


def gae(
    rewards: Float[Array, "M K"],
    values: Float[Array, "M K"],
    turn_mask: Bool[Array, "M K"],
    *,
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "M K"]:
    """`A[m, k] = Σ_{j ≥ k} (discount · trace)^(j−k) δ[m, j]`, where
    `δ[m, k] = r[m, k] + discount · V[m, k+1] − V[m, k]` and V is 0 after the last turn.
    """
    values = jnp.where(turn_mask, values, 0.0)
    later = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    errors = jnp.where(turn_mask, as_float(rewards) + discount * later - values, 0.0)
    return discounted_returns(errors, turn_mask, discount=discount * trace)


class ValueHead(NamedTuple):
    """Sums from which ridge regression reads a linear value function of F features."""

    products: jax.Array  # [F, F] Σ φ φᵀ
    targets: jax.Array  # [F] Σ φ R


def turn_features(states: Float[Array, "M K D"], *, width: int, seed: int) -> Float[Array, "M K F"]:
    """`width` random projections of the state at unit mean square, and the constant 1.

    The projection is Gaussian and depends on `seed` and D alone.
    """
    states = as_float(states)
    size = jnp.sqrt(jnp.mean(jnp.square(states), axis=-1, keepdims=True))
    states = states / jnp.maximum(size, 1e-6)
    depth = states.shape[-1]
    projection = jax.random.normal(jax.random.key(seed), (depth, width), jnp.float32)
    scaled = (projection / depth**0.5).astype(states.dtype)
    projected = jnp.matmul(states, scaled, precision=PRECISION)
    return jnp.pad(projected, ((0, 0), (0, 0), (0, 1)), constant_values=1.0)


def values_of(head: ValueHead, features: Float[Array, "M K F"], ridge: Scalar) -> jax.Array:
    """`φ · (Σ φ φᵀ + ridge · I)⁻¹ Σ φ R`, `[M, K]`; 0 for a head that has seen nothing."""
    regular = head.products + ridge * jnp.eye(len(head.targets), dtype=head.products.dtype)
    weights = jax.scipy.linalg.solve(regular, head.targets, assume_a="pos")
    return jnp.matmul(features, weights.astype(features.dtype), precision=PRECISION)


def learned(
    head: ValueHead,
    features: Float[Array, "M K F"],
    returns: Float[Array, "M K"],
    mask: Bool[Array, "M K"],
    *,
    forget: Scalar,
) -> ValueHead:
    """The head after the turns in `mask`; earlier sums are multiplied by `1 − forget`."""
    counted = jnp.where(mask[..., None], features, 0.0).astype(head.products.dtype)
    counted = masking.everywhere(counted)
    returns = masking.everywhere(jnp.where(mask, returns, 0.0).astype(head.targets.dtype))
    products = jnp.einsum("mkf,mkg->fg", counted, counted, precision=PRECISION)
    targets = jnp.einsum("mkf,mk->f", counted, returns, precision=PRECISION)
    kept = 1.0 - forget
    return ValueHead(kept * head.products + products, kept * head.targets + targets)


def learned_values(
    *,
    discount: Scalar = 0.99,
    trace: Scalar = 0.9,
    width: int = 64,
    ridge: Scalar = 1.0,
    forget: Scalar = 0.1,
    seed: int = 0,
) -> Credit:
    """`gae` with the values of a head on `turn_features` of the states before turns.

    The head learns the discounted returns of a step after the advantages of the step are computed,
    so no advantage contains its own return. Before the first step all values are 0.
    """
    check_discount(discount)
    checks.check_range("trace", trace, 0.0, 1.0, hint="1 sums all later rewards")
    checks.check_range("forget", forget, 0.0, 1.0, hint="0 keeps every step alike")
    checks.check_positive("ridge", ridge, hint="it keeps the regression solvable")
    checks.check_positive("width", width, hint="it counts the features of a state")

    def apply(
        state: ValueHead, rewards: jax.Array, episodes: EpisodeBatch
    ) -> tuple[ValueHead, jax.Array]:
        features = turn_features(facts.read(episodes, facts.TURN_STATES), width=width, seed=seed)
        mask = episodes.turn_mask & episodes.included[:, None]
        values = values_of(state, features, ridge)
        advantages = gae(rewards, values, episodes.turn_mask, discount=discount, trace=trace)
        returns = discounted_returns(rewards, episodes.turn_mask, discount=discount)
        return learned(state, features, returns, mask, forget=forget), advantages

    return Credit(lambda: _unlearned(width + 1), apply, (facts.TURN_STATES,), name="gae")


def _unlearned(width: int) -> ValueHead:
    return ValueHead(jnp.zeros((width, width)), jnp.zeros(width))
