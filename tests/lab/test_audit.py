"""The audit beside a second code: plain Python, NumPy, no library function; and known truths."""

import math

import jax
import numpy as np
import pytest

from benchmarks.lab_recursion import Chain, discounted_scores, leave_one_out
from gtpo_jax import methods
from gtpo_jax.lab import audit as audits
from gtpo_jax.lab import enumeration
from gtpo_jax.lab.policies import recurrent, table
from gtpo_jax.lab.worlds import chain, recoverable
from gtpo_jax.parts import credit, rewards
from tests import reference

NEEDED, TURNS, ACTIONS = 1, 3, 4
LOGITS = np.random.default_rng(0).normal(size=(NEEDED + 1, ACTIONS))
PLAIN = Chain(NEEDED, TURNS, LOGITS)


def small():
    return chain(needed=NEEDED, turns=TURNS)


def test_exact_gradient_is_that_of_plain_recursion():
    report = audits.audit(small(), methods.rloo(), size=2, params=LOGITS)
    assert report.exact and abs(report.success - PLAIN.success()) < 1e-10
    np.testing.assert_allclose(report.gradient, PLAIN.gradient().ravel(), atol=1e-10)


def test_turn_values_give_the_exact_gradient():
    vine = audits.audit(small(), methods.vine(length=1), size=1, params=LOGITS)
    assert vine.bias < 1e-9 and abs(vine.scale - 1) < 1e-9
    np.testing.assert_allclose(vine.update, PLAIN.gradient().ravel(), atol=1e-10)


@pytest.mark.long
def test_turn_values_are_less_noisy_than_the_outcome():
    world = recoverable(needed=1, turns=4)
    vine = audits.audit(world, methods.vine(length=1), size=1)
    # Values without noise, as of many rollouts; the outcome has the same gradient.
    total = outcome_only(methods.rloo())._replace(credit=credit.total())
    plain = audits.audit(world, total, size=1)
    assert max(vine.bias, plain.bias) < 1e-9
    assert plain.signal_to_noise < 0.7 * vine.signal_to_noise


@pytest.mark.parametrize("name", ["rloo", "grpo", "gtpo"])
def test_expected_update_is_that_of_plain_recursion(name):
    method, advantages, rewarded = {
        "rloo": (methods.rloo(), leave_one_out, {"forfeit": True}),
        "grpo": (
            methods.grpo(),
            lambda rows: reference.grpo(rows, [0] * len(rows), [True] * len(rows)),
            {"forfeit": True},
        ),
        "gtpo": (
            methods.gtpo(shaping=0.0, silence_equal=False),
            discounted_scores,
            {"penalty": 0.1},
        ),
    }[name]
    expected = PLAIN.expected_update(advantages, 2, **rewarded)
    report = audits.audit(small(), method, size=2, params=LOGITS)
    np.testing.assert_allclose(report.update, expected.ravel(), atol=1e-10)


def outcome_only(method):
    return methods.chain(method, methods.reduce(over="constant"))._replace(
        rewards={"outcome": rewards.outcome()}
    )


@pytest.mark.parametrize("size", [2, 3])
def test_rloo_is_unbiased(size):
    report = audits.audit(small(), outcome_only(methods.rloo()), size=size, params=LOGITS)
    assert report.bias < 1e-10 and abs(report.cosine - 1) < 1e-10
    # The loss divides by 1024 tokens a trajectory.
    assert report.scale == pytest.approx(1 / 1024, rel=1e-9)
    assert report.signal_to_noise > 0


def test_a_token_mean_biases_rloo():
    method = methods.rloo()._replace(rewards={"outcome": rewards.outcome()})
    assert audits.audit(small(), method, size=2, params=LOGITS).bias > 0.01


@pytest.mark.parametrize("size", [2, 3])
def test_grpo_weighs_prompts_by_the_deviation_of_their_success(size):
    """Binary rewards: `E u = g · E[sqrt(m (1 − m))] / (p (1 − p))`, m the share of successes."""
    report = audits.audit(small(), outcome_only(methods.grpo(eps=0.0)), size=size, params=LOGITS)
    p = report.success
    factor = sum(
        math.comb(size, s) * p**s * (1 - p) ** (size - s) * math.sqrt(s * (size - s)) / size
        for s in range(size + 1)
    )
    assert report.cosine == pytest.approx(1, abs=1e-9) and report.bias < 1e-6
    assert report.scale * 1024 == pytest.approx(factor / (p * (1 - p)), rel=1e-9)


def test_discounting_pushes_down_first_turns_of_right_trajectories():
    likely = np.zeros((NEEDED + 1, ACTIONS))
    likely[0, 0] = likely[1, 2] = 4.0  # right, then the answer: nearly all groups are all right
    arms = {
        name: audits.audit(small(), outcome_only(method), size=3, params=likely)
        for name, method in {
            "discounted": methods.gtpo(shaping=0.0, silence_equal=False),
            "plain": methods.gtpo(shaping=0.0, silence_equal=False, discount=1.0),
        }.items()
    }
    assert arms["discounted"].first_turn_of_right < -0.5
    assert arms["discounted"].pushed_down > 0.9
    assert arms["plain"].first_turn_of_right >= 0 and arms["plain"].pushed_down == 0


def test_samples_agree_with_enumeration_within_their_error():
    method = outcome_only(methods.rloo())
    exact = audits.audit(small(), method, size=2, params=LOGITS)
    sampled = audits.audit(small(), method, size=2, params=LOGITS, samples=20_000)
    assert not sampled.exact and 0 < sampled.error < 0.2
    gap = np.linalg.norm(sampled.update - exact.update) / np.linalg.norm(exact.update)
    assert gap < 4 * sampled.error


@pytest.mark.long
def test_recurrent_policy_is_audited_too():
    report = audits.audit(small(), outcome_only(methods.rloo()), size=2, policy=recurrent(width=3))
    assert report.bias < 1e-10


def test_too_many_paths_or_groups_are_told_with_a_way_out():
    with pytest.raises(ValueError, match="more than 100 paths; make it smaller"):
        enumeration.enumerate_paths(chain(), limit=100)
    with pytest.raises(ValueError, match="groups of 8; make the world"):
        audits.audit(small(), methods.rloo(), size=8)


def test_probabilities_of_paths_sum_to_one():
    with jax.enable_x64(True):
        paths = enumeration.enumerate_paths(small())
        total = enumeration.path_probabilities(paths, table(), jax.numpy.asarray(LOGITS)).sum()
    assert abs(float(total) - 1) < 1e-12
