"""Verdicts whose chance of being right depends on the state, as one finite set of outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Odds(NamedTuple):
    """Outcomes that all levels share: level `i` is right if the outcome is below `ranks[i]`."""

    outcomes: tuple[float, ...]  # their probabilities, none of them zero
    ranks: tuple[int, ...]

    def right(self, level: jax.Array, outcome: jax.Array) -> jax.Array:
        """True if this outcome makes this level right."""
        return outcome < jnp.asarray(self.ranks, jnp.int32)[level]


def odds(chances: Sequence[float]) -> Odds:
    """Outcomes under which level `i` is right with probability `chances[i]`.

    The unit interval is cut at every chance; a level is right in all cuts below its own chance. So
    a better level is right wherever a worse one is.
    """
    if not all(0.0 <= chance <= 1.0 for chance in chances):
        raise ValueError(f"chances are probabilities in [0, 1], got {tuple(chances)}")
    edges = np.unique([0.0, *chances, 1.0])
    ranks = np.searchsorted(edges, np.asarray(chances, np.float64))
    return Odds(tuple(float(width) for width in np.diff(edges)), tuple(int(rank) for rank in ranks))
