"""The form of a row of the suite of relatives, and the episodes that all rows are tried on.

A row holds a method, a slow float64 reference of its advantages, and what it reduces to at its
neutral options. `tests/methods/test_relatives.py` tries every row on the same stack of episodes, so
each method is compiled once.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from gtpo_jax.methods import Method
from gtpo_jax.types import EpisodeBatch

ROWS, TURNS, SEEDS = 16, 4, 3
GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 0, 1, 3, 3, 2], np.int32)
"""Group 1 is all right, group 2 all wrong; 0 and 3 are mixed."""
FactMaker = Callable[[np.random.Generator, EpisodeBatch], object]


@dataclasses.dataclass(frozen=True)
class Row:
    """A relative under test."""

    make: Callable[[], Method]
    reference: Callable[[EpisodeBatch], np.ndarray]
    """Episodes of NumPy arrays → advantages [M, K] in float64, written from the paper with loops;
    only turns of included trajectories are compared."""
    neutral: Callable[[], Method] | None = None
    """The method at options where it is its parent."""
    parent: Callable[[], Method] | None = None
    atol: float = 2e-5
    signs: bool = True  # its advantages are not all 0 on the random episodes


FACTS: dict[str, FactMaker] = {
    "calls": lambda rng, e: rng.integers(0, 3, e.turn_mask.shape).astype(np.int32),
    "call_errors": lambda rng, e: rng.integers(0, 2, e.turn_mask.shape).astype(np.int32),
    "turn_tokens": lambda rng, e: rng.integers(1, 9, e.turn_mask.shape).astype(np.int32),
    "response_tokens": lambda rng, e: rng.integers(5, 50, len(e.success)).astype(np.int32),
    "turn_entropies": lambda rng, e: rng.uniform(0.1, 2.0, e.turn_mask.shape).astype(np.float32),
    "turn_logprobs": lambda rng, e: -rng.uniform(0.1, 2.0, e.turn_mask.shape).astype(np.float32),
    "anchors": lambda rng, e: rng.integers(0, 4, e.turn_mask.shape).astype(np.int32),
    "contexts": lambda rng, e: rng.integers(0, 2**31 - 1, e.turn_mask.shape).astype(np.int32),
    "actions": lambda rng, e: rng.integers(0, 3, e.turn_mask.shape).astype(np.int32),
    "answers": lambda rng, e: rng.integers(-1, 3, len(e.success)).astype(np.int32),
    "problems": lambda rng, e: (7 + e.group_ids).astype(np.int32),
    "versions": lambda rng, e: np.zeros(e.turn_mask.shape, np.int32),
    "step": lambda rng, e: np.full(len(e.success), 3, np.int32),
}
"""Name of a fact → random arrays of it. Rooms of rows add theirs."""


def episodes(seed: int) -> EpisodeBatch:
    """Random episodes: turns of every count, violations, excluded rows, one group of one row."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, TURNS + 1, ROWS)
    counts[seed % ROWS] = 0  # a trajectory without turns
    success = np.where(GROUPS == 1, True, np.where(GROUPS == 2, False, rng.random(ROWS) < 0.5))
    success[[0, 1]] = [True, False]
    success &= counts > 0
    included = rng.random(ROWS) < 0.85
    included[[0, 1]] = True
    mask = np.arange(TURNS) < counts[:, None]
    batch = EpisodeBatch(
        group_ids=GROUPS,
        included=included,
        success=success,
        turn_mask=mask,
        violations=(rng.random((ROWS, TURNS)) < 0.2) & mask,
    )
    return with_facts(batch, rng)


def with_facts(batch: EpisodeBatch, rng: np.random.Generator) -> EpisodeBatch:
    """The episodes with every known fact."""
    return dataclasses.replace(
        batch, facts={name: make(rng, batch) for name, make in FACTS.items()}
    )


def kept(batch: EpisodeBatch) -> np.ndarray:
    """True at the turns of included trajectories, [M, K]."""
    return np.asarray(batch.turn_mask) & np.asarray(batch.included)[:, None]


def members(batch: EpisodeBatch, row: int) -> list[int]:
    """Included rows with turns of the group of a row."""
    return [
        i
        for i in range(len(batch.group_ids))
        if batch.group_ids[i] == batch.group_ids[row]
        and batch.included[i]
        and batch.turn_mask[i].any()
    ]


def spread(batch: EpisodeBatch, values: np.ndarray) -> np.ndarray:
    """A value [M] on every turn of its trajectory, [M, K]."""
    return np.where(kept(batch), np.asarray(values, np.float64)[:, None], 0.0)


def standard_scores(
    batch: EpisodeBatch, totals: np.ndarray, *, std: bool = True, eps: float = 1e-6
):
    """GRPO's `(R − mean) / (std + eps)` within the group, [M]; 0 for equal rewards."""
    out = np.zeros(len(totals))
    for row in range(len(totals)):
        pool = np.array([totals[i] for i in members(batch, row)], np.float64)
        if len(pool) and np.ptp(pool) > 0:
            out[row] = (totals[row] - pool.mean()) / (pool.std() + eps if std else 1.0)
    return out


def outcome_and_forfeit(batch: EpisodeBatch) -> np.ndarray:
    """The trajectory reward [M] of `grpo`: 1 for a well-formed success, else 0."""
    broken = (np.asarray(batch.violations) & np.asarray(batch.turn_mask)).any(1)
    return (np.asarray(batch.success) & ~broken & np.asarray(batch.included)).astype(np.float64)
