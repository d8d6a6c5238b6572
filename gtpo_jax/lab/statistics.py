"""Intervals and ranks over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean over seeds and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """True if the two intervals have a common point."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of independent values, one per seed, and the percentile interval of resampled means.

    Resamples are drawn from `seed`, so equal values give equal intervals.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("a bootstrap needs at least one value, got none")
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = values[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def difference(
    values: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray
) -> Interval:
    """The mean difference of two arms that share their seeds, and its bootstrap interval."""
    return bootstrap(np.asarray(values, np.float64) - np.asarray(others, np.float64))


def ratio(
    values: Sequence[float] | np.ndarray,
    others: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The ratio of the means of two arms that share their seeds, and its bootstrap interval.

    Raises `ValueError` if the arms differ in their number of seeds.
    """
    upper, lower = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if upper.shape != lower.shape or not len(upper):
        raise ValueError(
            f"arms must share their seeds, at least one, got {len(upper)} and {len(lower)} values"
        )
    draws = np.random.default_rng(seed).integers(0, len(upper), (resamples, len(upper)))
    found = upper[draws].mean(axis=1) / lower[draws].mean(axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(upper.mean() / lower.mean()), float(low), float(high))


def ranks(intervals: Mapping[str, Interval]) -> dict[str, int]:
    """The rank of each arm, 1 the best: one more than the arms whose interval lies wholly above.

    Arms whose intervals overlap may share a rank.
    """
    return {
        name: 1 + sum(other.low > own.high for other in intervals.values())
        for name, own in intervals.items()
    }
