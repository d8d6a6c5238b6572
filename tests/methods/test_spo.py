"""SPO's tracker: the value before the update, forgetting, and independence of the order."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit
from gtpo_jax.parts.credit import Tracker
from tests.methods.examples import episodes, exactly

SLOTS = 8


def counts(right, wrong):
    """A tracker whose first slots have these counts."""
    pad = [0.5] * (SLOTS - len(right))
    return Tracker(jnp.asarray([*right, *pad]), jnp.asarray([*wrong, *pad]))


def step(tracker, success, problems, *, eps=1e-8, ddof=1, included=None, **options):
    """One step from a tracker: the next one, and the advantages [M]."""
    method = methods.spo(slots=SLOTS, eps=eps, ddof=ddof, **options)
    batch = episodes(success, problems=np.asarray(problems, np.int32))
    if included is not None:
        batch = dataclasses.replace(batch, included=jnp.asarray(included))
    (_, after, _), found = methods.assign(method, ((), tracker, ()), batch)
    return after, np.asarray(found.advantages)[:, 0]


@pytest.mark.parametrize(
    ("ddof", "expected"),
    [(0, [0.267261, -1.336306, 1.069045]), (1, [0.218218, -1.091089, 0.872872])],
)
def test_advantages_compare_with_the_value_before_the_step(ddof, expected):
    tracker = counts([6.0, 2.0, 4.0], [2.0, 6.0, 4.0])  # values .75, .25, .5
    _, found = step(tracker, [True, False, True], [0, 1, 2], ddof=ddof, eps=0.0)
    exactly(found, expected, 1e-5)


def test_counts_are_forgotten_with_the_drift():
    after, _ = step(counts([6.0], [2.0]), [True], [0], drift=0.03)
    exactly([after.right[0], after.wrong[0]], [6.25, 1.75], 1e-6)
    exactly(credit.retention(jnp.asarray([0.0, 0.006, 1.0])), [0.96, 2**-0.1, 0.875], 1e-6)


def test_only_problems_of_the_step_are_forgotten():
    before = counts([6.0, 3.0], [2.0, 1.0])
    after, _ = step(before, [True, False], [0, 0], included=[True, False])
    exactly(after.right, before.right.at[0].set(6 * 0.875 + 1), 1e-6)
    exactly(after.wrong, before.wrong.at[0].set(2 * 0.875), 1e-6)
    after, _ = step(before, [True, False], [0, 1], included=[False, False])
    exactly(after.right, before.right, 0)


def test_order_within_a_step_does_not_matter_and_ids_wrap():
    before = counts([6.0, 3.0], [2.0, 1.0])
    one, _ = step(before, [True, False, True], [0, SLOTS, 1])
    other, _ = step(before, [True, False, True], [1, 0, 0])
    exactly(one.right[0], 6 * 0.875 + 1, 1e-6)
    exactly(one.wrong[0], 2 * 0.875 + 1, 1e-6)
    exactly(other.right[:2], one.right[:2], 1e-6)
    exactly(other.wrong[:2], one.wrong[:2], 1e-6)


def test_tracker_of_a_method_learns_the_success_rate():
    method = methods.spo(slots=SLOTS)
    state = method.credit.init()
    batch = episodes([True, True, True, False] * 2, problems=np.repeat([1, 2], 4).astype(np.int32))
    for _ in range(40):
        state, _ = methods.assign(method, state, batch)
    tracker = state[1]
    exactly((tracker.right / (tracker.right + tracker.wrong))[1:3], 0.75, 1e-3)
