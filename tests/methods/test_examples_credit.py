"""Worked numbers of the relatives that act on advantages and baselines, and what ties them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import credit
from gtpo_jax.types import EpisodeBatch
from tests.methods.rows_weights import turn_credit
from tests.tiny import make_trajectory


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
    assign = jax.jit(lambda batch: methods.assign(method, method.credit.init(), batch)[1])
    return np.asarray(assign(batch).advantages)


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
        method = turn_credit()
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


def answered(agree, **facts):
    """One-turn rows of three right answers and a wrong one, with clusters of answers."""
    ones = np.ones((4, 1))
    return episodes(
        [True, True, True, False],
        answers=np.asarray(agree, np.int32),
        turn_logprobs=-0.5 * ones,
        turn_tokens=ones.astype(np.int32),
        **facts,
    )


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1 / (1 + 0.0417 / np.log(4) * 0.5623351)),
        ({"alpha": 0.02, "form": "linear"}, 1 - 0.02 / np.log(4) * 0.5623351),
        ({"alpha": 0.02, "form": "linear", "estimator": "mean"}, 1 - 0.02 / np.log(4) * 0.8369882),
    ],
)
def test_seed_grpo_shrinks_the_advantages_of_a_divided_group(options, factor):
    method = methods.chain(methods.dr_grpo(), methods.seed_grpo(**options))
    found = advantages(method, answered([5, 5, 5, 6]))[:, 0]
    exactly(found, np.array([0.25, 0.25, 0.25, -0.75]) * factor, 1e-6)


def test_seed_grpo_takes_a_row_without_an_answer_as_a_cluster_of_its_own():
    method = methods.chain(methods.dr_grpo(), methods.seed_grpo(alpha=1.0))
    united, apart = (
        advantages(method, answered(answers)) for answers in ([5, 5, 5, 5], [-1, -1, -1, -1])
    )
    exactly(united[:, 0], [0.25, 0.25, 0.25, -0.75], 1e-6)
    exactly(apart, united / 2, 1e-6)  # SE = log G


def entropic(success, entropies):
    column = np.asarray(entropies)[:, None]
    return episodes(success, turn_entropies=column, turn_tokens=np.full(column.shape, 7))


def test_edge_grpo_divides_by_the_relative_entropy():
    batch = entropic([True, False, False], [0.5, 1.0, 1.5])
    found = advantages(methods.chain(plain(), methods.edge_grpo()), batch)
    exactly(found[:, 0], [2.828427, -0.707107, -0.471405], 1e-5)


def test_entropy_of_a_row_is_the_mean_over_its_tokens():
    batch = episodes(
        [True, False], [2, 1], turn_entropies=[[0.4, 1.0], [1.0, 9.0]], turn_tokens=[[1, 5], [3, 9]]
    )
    found = advantages(methods.chain(plain(), methods.edge_grpo()), batch)
    exactly(found, [[0.95 / 0.9] * 2, [-0.95, 0]], 1e-6)


def test_egpo_adds_a_bounded_bonus():
    batch = entropic([True, False, False, True], [0.8, 0.2, 2.0, 0.1])
    found = advantages(methods.chain(plain(), methods.egpo()), batch)
    exactly(found[:, 0], [1.2, -0.92, -0.8, 1.04], 1e-5)


def test_egpo_without_entropy_is_its_parent():
    batch = entropic([True, False, False, True], [0.0] * 4)
    found = advantages(methods.chain(plain(), methods.egpo()), batch)
    exactly(found, advantages(plain(), batch), 1e-7)


def test_gcpo_weighs_by_the_alignment_with_the_group():
    states = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    same = np.array([[3.0, 1.0]] * 3, np.float32)
    batch = episodes(
        [True, False, False], response_states=states, resampled_states=same, resampled_means=same
    )
    found = advantages(methods.chain(plain(), methods.gcpo()), batch)
    exactly(found[:, 0], [2, -1, -1.414214], 1e-5)


def test_dr_irl_weighs_by_the_hardness_of_data_and_model():
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    batch = episodes(
        [True, False, False],
        demonstration_distance=[0.4, 0.1, 0.1],
        demonstration_gap=[1.0, 1.0, -0.5],
    )
    method = methods.chain(plain(), methods.dr_irl(tau=0.5))
    first = sigmoid(0.4) / sigmoid(0.2) * sigmoid(1.0) / sigmoid(0.5)
    assert round(first, 4) == 1.2788
    others = sigmoid(0.1) / sigmoid(0.2) * sigmoid(1.0) / sigmoid(0.5)
    exactly(
        advantages(method, batch)[:, 0],
        np.array([1.414214, -0.707107, -0.707107]) * [first, others, others],
        1e-5,
    )


def test_dr_irl_takes_functions_of_a_trajectory():
    given = [make_trajectory(np.random.default_rng(0), [(2, 1)] * turns) for turns in (1, 2)]
    modifier = methods.dr_irl(distance=lambda t: len(t.turns), gap=lambda t: float(t.success))
    needs = methods.chain(plain(), modifier).facts
    batch = packing.episode_batch(given, max_turns=2, needs=needs)
    exactly(batch.facts["demonstration_distance"], [1, 2], 0)
    exactly(batch.facts["demonstration_gap"], [t.success for t in given], 0)


def test_silenced_groups_of_equal_outcome_get_nothing():
    batch = episodes(
        [True, True, False, False, True, False], [2, 1, 1, 2, 2, 1], group_ids=[0, 0, 1, 1, 2, 2]
    )
    method = turn_credit()
    before = advantages(method, batch)
    found = advantages(methods.chain(method, methods.silenced()), batch)
    assert np.any(before[:2])
    exactly(found[:4], 0, 0)
    exactly(found[4:], before[4:], 1e-7)
