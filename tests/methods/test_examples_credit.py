"""Worked numbers of the relatives that act on advantages and baselines, and what ties them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit
from gtpo_jax.types import EpisodeBatch


def episodes(success, turns=None, *, group_ids=None, **facts):
    """Included trajectories without violations; one turn each unless `turns` counts them."""
    count = len(success)
    turns = np.ones(count, int) if turns is None else np.asarray(turns)
    mask = np.arange(turns.max()) < turns[:, None]
    return EpisodeBatch(
        group_ids=jnp.zeros(count, jnp.int32) if group_ids is None else jnp.asarray(group_ids),
        included=jnp.ones(count, bool),
        success=jnp.asarray(success, bool),
        turn_mask=jnp.asarray(mask),
        violations=jnp.zeros(mask.shape, bool),
        facts={name: jnp.asarray(value) for name, value in facts.items()},
    )


def advantages(method, batch):
    return np.asarray(methods.assign(method, method.credit.init(), batch)[1].advantages)


def values(link, batch, start):
    """The result of a credit on given values."""
    start = jnp.broadcast_to(jnp.asarray(start, jnp.float32), batch.turn_mask.shape)
    return np.asarray(credit.trace(link, link.init(), start, batch).advantages)


def exactly(actual, expected, atol=1e-4):
    np.testing.assert_allclose(actual, expected, atol=atol)


THREE = dict(success=[True, False, False], turns=[2, 2, 1])


def plain():
    return methods.grpo(eps=0.0)


def test_gigpo_compares_turns_that_begin_in_the_same_state():
    batch = episodes(**THREE, anchors=[[0, 1], [0, 2], [0, 0]])
    expected = [[1.3, 0.66667], [-0.65, -0.33333], [-0.65, 0]]
    exactly(advantages(methods.gigpo(), batch), expected, 1e-5)


def test_gigpo_is_grpo_where_no_state_recurs():
    batch = episodes(**THREE, anchors=np.arange(6).reshape(3, 2))
    parent = methods.grpo(divide_by_std=False)
    exactly(advantages(methods.gigpo(), batch), advantages(parent, batch), 1e-6)


def test_salt_shares_the_advantage_of_a_common_transition():
    batch = episodes(**THREE, anchors=[[0, 1], [0, 1], [0, 9]], actions=[[5, 6], [5, 7], [8, 0]])
    expected = [[0.353553, 1.414214], [0.353553, -0.707107], [-0.707107, 0]]
    exactly(advantages(methods.chain(plain(), methods.salt()), batch), expected, 1e-5)


def test_salt_counts_a_repeated_transition_each_time_and_tells_next_states_apart():
    same = dict(anchors=[[0, 0, 1], [0, 2, 0]], actions=[[3, 3, 0], [3, 0, 0]])
    batch = episodes([True, False], [3, 2], **same)
    found = advantages(methods.chain(plain(), methods.salt()), batch)
    exactly(found, [[1, 1, 1], [-1, -1, 0]], 1e-6)  # into 0, into 1, into 2
    looping = dict(anchors=[[0, 0, 0], [0, 0, 0]], actions=[[3, 3, 0], [3, 0, 0]])
    batch = episodes([True, False], [3, 2], **looping)
    found = advantages(methods.chain(plain(), methods.salt()), batch)
    exactly(found, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0]], 1e-6)  # twice 1, once −1; both end alike


@pytest.mark.parametrize("parent", ["grpo", "gtpo", "rloo"])
def test_salt_is_its_parent_where_no_transition_recurs(parent):
    method = methods.METHODS[parent]()
    if parent == "gtpo":
        method = methods.gtpo(shaping=0.0)._replace(rewards=methods.grpo().rewards)
    ids = np.arange(6).reshape(3, 2)
    batch = episodes(**THREE, anchors=ids, actions=ids)
    changed = methods.chain(method, methods.salt())
    exactly(advantages(changed, batch), advantages(method, batch), 1e-6)


def test_flow_grpo_broadcasts_the_outcome_to_turns():
    batch = episodes([True, False, False, True], [2, 1, 3, 2])
    method = methods.flow_grpo(eps=0.0)
    found = advantages(method, batch)[np.asarray(batch.turn_mask)]
    exactly(np.sort(found), [-0.8660254] * 4 + [0.8660254] * 4, 1e-5)
    over_turns = methods.flow_grpo(eps=0.0, normalize=credit.group)
    exactly(np.abs(advantages(over_turns, batch))[np.asarray(batch.turn_mask)], 0.9354143, 1e-5)
    assert method.loss.needs == {"reference_logprobs"}
