"""Shapes of the arguments of the decode programs: each new shape compiles a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import jax
import numpy as np


def fitting(sizes: Sequence[int], needed: int) -> int:
    """The first of the ascending sizes that is `needed` or more."""
    return next(size for size in sizes if size >= needed)


def given(array: np.ndarray | np.generic) -> jax.Array:
    """The same NumPy array, typed as the argument that a jitted program takes.

    Type cast only: `jnp.asarray` would compile one more program.
    """
    return cast(jax.Array, array)
