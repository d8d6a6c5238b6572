"""Wrappers of optax optimizers: float32 arithmetic for parameters of lower precision."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gtpo_jax.types import Params


class MasterState(NamedTuple):
    """Float32 copies of the parameters, and the state of the optimizer that updates them."""

    masters: Params
    inner: optax.OptState


def with_float32_masters(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Applies an optimizer to float32 master copies; the parameters are the masters, rounded.

        params = round(masters),    masters ← masters + optimizer(gradients)

    bfloat16 has 8 bits of precision: a step below 1/512 of a parameter would round to zero, and a
    second moment would hardly decay. With float32 masters neither happens.

    Leaves that are already float32 are their own masters and are not copied. Every other parameter
    costs 4 bytes more.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> MasterState:
        copies = jax.tree.map(lambda p: None if _is_wide(p) else p.astype(jnp.float32), params)
        return MasterState(masters=copies, inner=inner.init(_joined(copies, params)))

    def update(
        updates: Params, state: optax.OptState, params: Params | None = None, **extra
    ) -> tuple[Params, MasterState]:
        assert isinstance(state, MasterState)
        if params is None:
            raise ValueError(
                "float32 masters need the parameters: update(gradients, state, params)"
            )
        masters = _joined(state.masters, params)
        gradients = jax.tree.map(lambda g, m: g.astype(m.dtype), updates, masters)
        steps, after = inner.update(gradients, state.inner, masters, **extra)
        moved = optax.apply_updates(masters, steps)

        def step_of(param: jax.Array, step: jax.Array, master: jax.Array) -> jax.Array:
            # `apply_updates` adds this step in float32 and rounds to the dtype of the parameter.
            if _is_wide(param):
                return step
            return master.astype(param.dtype).astype(jnp.float32) - param.astype(jnp.float32)

        result = jax.tree.map(step_of, params, steps, moved)
        copies = jax.tree.map(lambda p, m: None if _is_wide(p) else m, params, moved)
        return result, MasterState(masters=copies, inner=after)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_wide(leaf: jax.Array) -> bool:
    return jnp.promote_types(leaf.dtype, jnp.float32) == leaf.dtype


def _joined(copies: Params, params: Params) -> Params:
    """The masters: the copy of a parameter, or the parameter itself if it has none."""
    return jax.tree.map(
        lambda copy, param: param if copy is None else copy,
        copies,
        params,
        is_leaf=lambda leaf: leaf is None,
    )
