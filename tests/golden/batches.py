"""Golden inputs as batches of one shape, on which the credit of a method is run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.parts import credit
from gtpo_jax.parts.credit.credit import Credit
from gtpo_jax.types import EpisodeBatch
from tests.golden.loader import floats, integers, load

ROWS, TURNS = 12, 8
"""Every case is padded to this shape, with excluded rows, so that operations compile once."""


def padded(values, fill=0):
    """An array `[M]` or `[M, K]` as one of `[ROWS]` or `[ROWS, TURNS]`."""
    values = np.asarray(values)
    out = np.full((ROWS, TURNS)[: values.ndim], fill, values.dtype)
    out[tuple(slice(size) for size in values.shape)] = values
    return out


def close(actual, expected, atol=1e-5):
    """Compares the rows and turns that are not padding."""
    kept = tuple(slice(size) for size in np.shape(expected))
    np.testing.assert_allclose(np.asarray(actual)[kept], expected, rtol=1e-5, atol=atol)


def counted(turn_counts) -> np.ndarray:
    """The mask `[M, K]` of so many turns a row."""
    return np.arange(max(turn_counts)) < np.asarray(turn_counts)[:, None]


def episodes(mask, groups, **facts) -> EpisodeBatch:
    """Included rows of these groups with facts `[M, K]` or `[M]`, all failures; the rows of the
    padding are excluded, and belong to the first group."""
    mask = padded(np.asarray(mask, bool))
    return EpisodeBatch(
        group_ids=integers(padded(groups)),
        included=jnp.arange(ROWS) < len(groups),
        success=jnp.zeros(ROWS, bool),
        turn_mask=jnp.asarray(mask | (np.arange(ROWS) >= len(groups))[:, None]),
        violations=jnp.zeros(mask.shape, bool),
        facts={name: jnp.asarray(padded(fact, fill=3)) for name, fact in facts.items()},
    )


def one_turn(groups, **facts) -> EpisodeBatch:
    """Included rows of one turn each, with facts `[M]` of that turn."""
    columns = {name: np.asarray(fact)[:, None] for name, fact in facts.items()}
    return episodes(np.ones((len(groups), 1)), groups, **columns)


def succeeding(batch: EpisodeBatch, success) -> EpisodeBatch:
    """The same episodes with these successes `[M]`."""
    return dataclasses.replace(batch, success=jnp.asarray(padded(np.asarray(success, bool), True)))


def entropies_of(values, tokens=1) -> dict:
    """The facts that tell the mean entropies `[M]` of trajectories of one turn."""
    values = np.asarray(values, np.float32)
    return {"turn_entropies": values, "turn_tokens": np.broadcast_to(np.int32(tokens), len(values))}


def column(values) -> np.ndarray:
    return np.asarray(values)[:, None]


def runs(count: int, size: int) -> np.ndarray:
    """Groups of `size` neighboring rows."""
    return np.arange(count) // size


def on_last(values, mask) -> np.ndarray:
    """Values `[M]` on the last turns of a mask without gaps."""
    return column(values) * (mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1))))


def credited(link: Credit, values, batch) -> np.ndarray:
    """The advantages that a credit makes of rewards `[M, K]`; 100 stands on the padding."""
    rewards = floats(padded(np.asarray(values, np.float32), fill=100))
    return np.asarray(credit.trace(link, link.init(), rewards, batch).advantages)


def each(file, *, without=(), where=None):
    """Parametrizes over the cases of a file; `where` chooses them by their inputs."""
    names = [
        name
        for name, case in load(file).items()
        if name not in without and (where is None or where(case["inputs"]))
    ]
    return pytest.mark.parametrize("case", names)
