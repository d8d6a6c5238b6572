"""A modifier of our own: no credit for groups of equal outcome."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def silenced(*, equal: Literal["success", "reward"] = "success") -> Modifier:
    """Our own: groups whose outcomes are all equal teach nothing.

    `A'[m, k] = A[m, k] · 1[outcomes of the group differ]`.

    In a group that fails as a whole only format penalties differ, in one that succeeds as a whole
    only what the discount makes of lengths; division by the deviation of the group enlarges both to
    the size of an outcome. `equal` is `success`, the verdict, or `reward`, the total reward of a
    trajectory.
    """
    return lambda method: add_link(method, credit.silence_equal_groups(equal))
