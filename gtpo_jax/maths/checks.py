"""Argument checks for public functions: each error names the argument, what was expected, what was
passed, and the way out.

Shapes and dtypes are known while tracing; values are checked only when they are Python numbers,
since a traced value is not known yet.
"""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp


def check_turns(**arrays: jax.Array) -> None:
    """Raises unless all arrays are `[M, K]` with the shape of the first."""
    first, expected = next(iter(arrays.items()))
    if jnp.ndim(expected) != 2:
        raise ValueError(
            f"{first} must be [trajectories, turns], got shape {jnp.shape(expected)};"
            " pad trajectories to a common number of turns"
        )
    check_same_shape(**arrays)


def check_same_shape(**arrays: jax.Array) -> None:
    """Raises unless all arrays have the shape of the first: nothing is broadcast silently."""
    (first, expected), *others = arrays.items()
    for name, array in others:
        if jnp.shape(array) != jnp.shape(expected):
            raise ValueError(
                f"{name} must have the shape of {first}, {jnp.shape(expected)},"
                f" got {jnp.shape(array)}; pad or broadcast it before the call"
            )


def check_trajectories(count: int, **arrays: jax.Array) -> None:
    """Raises unless every array is `[count]`: one value per trajectory."""
    for name, array in arrays.items():
        if jnp.shape(array) != (count,):
            raise ValueError(
                f"{name} must hold one value for each of the {count} trajectories,"
                f" got shape {jnp.shape(array)}; flatten groups into one axis of trajectories"
            )


def check_masks(**masks: jax.Array) -> None:
    """Raises unless every array is boolean."""
    for name, mask in masks.items():
        if jnp.result_type(mask) != jnp.bool_:
            raise TypeError(
                f"{name} must be boolean, True means keep, got {jnp.result_type(mask)};"
                f" pass `{name} != 0`"
            )


def check_range(name: str, value: object, low: float, high: float, *, hint: str) -> None:
    """Raises unless a number lies in `[low, high]`; `hint` says what to pass instead."""
    if isinstance(value, numbers.Real) and not low <= float(value) <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}; {hint}")


def check_positive(name: str, value: object, *, hint: str) -> None:
    """Raises unless a number is greater than 0; `hint` says what to pass instead."""
    if isinstance(value, numbers.Real) and not float(value) > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}; {hint}")
