"""Worked numbers of the modifiers that weigh or replace advantages."""

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import credit
from tests.methods.examples import advantages, episodes, exactly, plain, scores, values
from tests.methods.rows_weights import turn_credit
from tests.tiny import make_trajectory


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


def test_tempsamp_softens_rewards_near_the_gold_answer():
    rewards = jnp.asarray([0.5, 0.3, 0.0, 1.0])
    soft = credit.softened_rewards(rewards, tau=0.8, above=0.01, below=1.0)
    exactly(soft, [0.5963904, 0.4224594, 0.0867636, 0.8018232], 1e-6)
    batch = episodes([True] * 4)
    links = credit.total(), credit.standardized(credit.first_turn, eps=0.0)
    softly = values(credit.chain(credit.softened(), *links), batch, rewards[:, None])
    exactly(softly[:, 0], [0.4559, -0.2075, -1.4877, 1.2393])
    exactly(softly[:, 0], scores([0.5963904, 0.4224594, 0.0867636, 0.8018232]), 1e-5)
    gold = episodes([True] * 4, off_policy=[False, False, False, True])
    anchored = values(credit.anchored(credit.chain(*links)), gold, rewards[:, None])
    sampled = scores([0.5, 0.3, 0.0])
    exactly(sampled, [1.1355, 0.1622, -1.2978])
    exactly(anchored[:, 0], [*sampled, 1.2 * sampled[0]], 1e-5)


def test_tempsamp_keeps_what_turns_earn_and_softens_their_total():
    batch = episodes([True, True], [3, 1])
    earned = jnp.asarray([[0.1, 0.2, 0.2], [0.5, 0, 0]])
    found = values(credit.softened(), batch, earned)
    exactly(found[:, :2], [[0.1, 0.2], [0.5963904, 0]], 1e-5)
    exactly(found.sum(1), [0.5963904] * 2, 1e-5)


def test_tempsamp_anchor_without_a_gold_row_is_its_parent():
    batch = episodes([True, False, True], off_policy=[False] * 3)
    found = advantages(methods.chain(plain(), methods.tempsamp(shaping="anchor")), batch)
    exactly(found, advantages(plain(), batch), 1e-7)


def test_grpo_lead_shortens_successes_and_weighs_hard_problems():
    batch = episodes([True, True, False], response_tokens=np.array([100, 200, 150], np.int32))
    for ddof, expected in ((0, [1.051271, 0.951229, -1]), (1, [1.035987, 0.965263, -1])):
        changed = methods.chain(plain(), methods.grpo_lead(ddof=ddof))
        earned = methods.assign(changed, changed.credit.init(), batch)[1].rewards
        exactly(earned[:, 0], expected, 1e-5)
    weights = credit.difficulty_weights(jnp.asarray([2 / 3, 1 / 3]))
    exactly(weights, [1.166768, 1.483204], 1e-5)
    found = advantages(methods.chain(plain(), methods.grpo_lead()), batch)
    expected = scores([1.0359870, 0.9652626, -1]) * [1.166768, 1.166768, 1.483204]
    exactly(found[:, 0], expected, 1e-5)


def test_grpo_lead_leaves_short_groups_alone_if_asked():
    short, long = (
        episodes([True, True, False], response_tokens=np.array(lengths, np.int32))
        for lengths in ([3000, 9000, 1000], [3000, 9000, 7000])
    )
    for batch, expected in ((short, [1, 1, -1]), (long, [1.035987, 0.965263, -1])):
        method = methods.chain(plain(), methods.grpo_lead(shortest=4500.0))
        earned = methods.assign(method, method.credit.init(), batch)[1].rewards
        exactly(earned[:, 0], expected)
