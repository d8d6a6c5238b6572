"""Claims of the relatives: the world that was made for each, and the parent to beat.

The table is committed before its results. `measure` is a measure of `gtpo_jax.lab.suite.Cell`; the
claim holds if the method's interval lies above the parent's, or below it for a measure of economy.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One method in one world, beside its parent."""

    method: str
    parent: str
    world: str
    measure: str = "solved@60"
    lower: bool = False  # the claim is that the measure falls


CLAIMS: tuple[Claim, ...] = ()
