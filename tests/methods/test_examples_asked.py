"""Worked examples and laws of what users ask for beside rewards and baselines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import credit, rewards
from gtpo_jax.types import EpisodeBatch
from tests.methods import relatives
from tests.methods.rows_asked import turn_method
from tests.tiny import make_trajectory


def batch(success, turns, **given) -> EpisodeBatch:
    """One group of included trajectories without violations."""
    mask = np.arange(max(turns)) < np.array(turns)[:, None]
    return EpisodeBatch(
        group_ids=jnp.zeros(len(turns), jnp.int32),
        included=jnp.ones(len(turns), bool),
        success=jnp.array(success, bool),
        turn_mask=jnp.asarray(mask),
        violations=jnp.zeros(mask.shape, bool),
        facts={name: jnp.asarray(value) for name, value in given.items()},
    )


def advantages(method, episodes):
    assign = jax.jit(lambda e: methods.assign(method, method.credit.init(), e)[1].advantages)
    return np.asarray(assign(episodes))


def test_entropies_shape_the_rewards_of_trajectories():
    entropies, ones = np.array([3, 1, 2, 2], np.float32), np.ones(4, bool)
    shaped = jax.jit(credit.shared_rewards)(
        np.array([1, 1, 0, 0], np.float32), entropies, ones, np.zeros(4, np.int32)
    )
    np.testing.assert_allclose(shaped, [1.15, 1.05, -1.1, -1.1], atol=1e-6)
    inverse = jax.jit(credit.shared_rewards)(
        np.zeros(2, np.float32), np.array([4, 1], np.float32), ones[:2], np.zeros(2, np.int32)
    )
    np.testing.assert_allclose(inverse, [-1.04, -1.16], atol=1e-6)


def test_grpo_s_blows_up_entropies_of_equal_groups_unless_silent():
    facts = {"turn_entropies": [[3.0], [1.0]], "turn_tokens": [[1], [1]]}
    episodes = batch([True, True], [1, 1], **facts)
    assert not advantages(methods.grpo_s(), episodes).any()
    printed = advantages(methods.grpo_s(silent=False), episodes)
    np.testing.assert_allclose(printed[:, 0], [1, -1], atol=1e-4)


def test_information_gains_are_differences_of_probabilities():
    # The right answer has .1 before, then .4, .3; the other trajectory has .1, then .2.
    facts = {
        "answer_logprobs": np.log([[0.4, 0.3, 0.9], [0.2, 0.9, 0.9]]),
        "answer_logprobs_before": np.log([0.1, 0.1]),
    }
    episodes = batch([True, False], [3, 2], **facts)
    gains = jax.jit(rewards.information_gain().apply)(episodes)
    np.testing.assert_allclose(gains, [[0.3, -0.1, 0], [0.1, 0, 0]], atol=1e-6)
    # z of gains .3, -.1, .1: mean .1, deviation .16330; z of outcomes: 1, -1.
    z = 0.2 / 0.1632993
    expected = [[z - 0.9 * z + 0.81, -z + 0.9, 1], [-0.9, -1, 0]]
    found = advantages(methods.igpo(discount=0.9, eps=0.0), episodes)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_generalized_advantages_of_turns():
    rewards_, values = jnp.array([[0.0, 0.5, 1.0]]), jnp.array([[0.2, 0.4, 0.6]])
    mask = jnp.ones((1, 3), bool)
    found = credit.gae(rewards_, values, mask, discount=0.9, trace=0.5)
    errors = [0.9 * 0.4 - 0.2, 0.5 + 0.9 * 0.6 - 0.4, 1 - 0.6]  # .16, .64, .4
    last, middle = errors[2], errors[1] + 0.45 * errors[2]
    np.testing.assert_allclose(found[0], [errors[0] + 0.45 * middle, middle, last], atol=1e-6)


def head_steps(steps, **options):
    """Advantages and value heads of `turn_ppo` over several batches."""
    method = methods.turn_ppo(whiten=False, width=5, **options)
    step = jax.jit(lambda state, e: methods.assign(method, state, e))
    state, out = method.credit.init(), []
    for seed in range(steps):
        episodes = relatives.episodes(seed)
        wanted = {fact.name: episodes.facts[fact.name] for fact in method.facts}
        episodes = jax.tree.map(jnp.asarray, dataclasses.replace(episodes, facts=wanted))
        state, turn_credit = step(state, episodes)
        out.append((episodes, turn_credit, state))
    return out


def test_value_head_is_the_ridge_regression_of_the_steps_before():
    ridge, forget, discount, trace = 0.5, 0.25, 0.9, 0.8
    options = {"ridge": ridge, "forget": forget, "discount": discount, "trace": trace}
    seen = head_steps(3, **options)
    products, targets = np.zeros((6, 6)), np.zeros(6)
    for episodes, turn_credit, _ in seen:
        weights = np.linalg.solve(products + ridge * np.eye(6), targets)
        states = np.asarray(episodes.facts["turn_states"], np.float64)
        states /= np.sqrt(np.mean(states**2, axis=-1, keepdims=True))
        projection = np.asarray(jax.random.normal(jax.random.key(0), (6, 5)), np.float64)
        features = np.ones((*states.shape[:2], 6))
        features[..., :5] = states @ projection / np.sqrt(6)
        products, targets = (1 - forget) * products, (1 - forget) * targets
        earned = np.asarray(turn_credit.rewards, np.float64)
        for i, mask in enumerate(np.asarray(episodes.turn_mask)):
            later, total, value_after = 0.0, 0.0, 0.0
            for k in reversed(range(mask.sum())):
                value = features[i, k] @ weights
                error = earned[i, k] + discount * value_after - value
                later, value_after = error + discount * trace * later, value
                total = earned[i, k] + discount * total
                if episodes.included[i]:
                    np.testing.assert_allclose(turn_credit.advantages[i, k], later, atol=2e-4)
                    products += np.outer(features[i, k], features[i, k])
                    targets += features[i, k] * total
    np.testing.assert_allclose(jax.tree.leaves(seen[-1][2])[0], products, atol=1e-3)


def test_values_of_the_first_step_are_zero_and_later_ones_are_learned():
    seen = head_steps(3, discount=1.0, trace=1.0)
    first, last = seen[0], seen[-1]
    gaps = []
    for episodes, turn_credit, _ in (first, last):
        kept = np.asarray(relatives.kept(episodes))
        returns = np.cumsum(np.asarray(turn_credit.rewards)[:, ::-1], axis=1)[:, ::-1]
        gaps.append(np.abs(np.asarray(turn_credit.advantages) - returns)[kept].max())
    assert gaps[0] < 1e-6 < 0.05 < gaps[1]


def test_value_head_reduces_the_variance_of_advantages_where_states_tell_the_return():
    """Returns that are linear in the state are learned, so that advantages vanish."""
    rng = np.random.default_rng(0)
    states = rng.choice([-1.0, 1.0], (64, 1, 4)).astype(np.float32)
    head = credit.learned_values(width=8, ridge=1e-3, forget=0.0)
    earned = jnp.asarray(2.0 + states[..., 0] - 0.5 * states[..., 3])
    episodes = batch([True] * 64, [1] * 64, turn_states=states)
    state, before = jax.jit(head.apply)(head.init(), earned, episodes)
    _, after = jax.jit(head.apply)(state, earned, episodes)
    assert np.abs(before).min() > 0.4 and np.abs(after).max() < 0.01


@pytest.mark.parametrize("smear", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.3, None])
def test_progress_adds_up_to_the_last_score_minus_the_start(smear, start):
    rng = np.random.default_rng(2)
    scores = rng.random((6, 5)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = np.nan
    mask = np.arange(5) < np.array([5, 4, 3, 1, 0, 5])[:, None]
    options = {"start": start, "smear": smear}
    change = jax.jit(rewards.progress_rewards, static_argnames="start")
    found = change(jnp.asarray(scores), jnp.asarray(mask), **options)
    assert np.isfinite(found).all() and not np.any(np.asarray(found)[~mask])
    for row, earned in zip(np.where(mask, scores, np.nan), found, strict=True):
        known = row[~np.isnan(row)]
        begin = known[:1].sum() if start is None else start
        total = known[-1] - begin if len(known) else 0.0
        np.testing.assert_allclose(np.sum(earned), total, atol=1e-6)


def test_a_turn_without_a_score_hands_its_progress_on_and_smears_go_back():
    scores, mask = jnp.array([[0.2, np.nan, 0.8]]), jnp.ones((1, 3), bool)
    change = jax.jit(rewards.progress_rewards, static_argnames="start")
    plain = change(scores, mask)
    np.testing.assert_allclose(plain, [[0.2, 0, 0.6]], atol=1e-6)
    fresh = change(scores, mask, start=None)
    np.testing.assert_allclose(fresh, [[0, 0, 0.6]], atol=1e-6)
    smeared = change(scores, mask, start=None, smear=0.5)
    np.testing.assert_allclose(smeared, [[0.15 / 1.75, 0.3 / 1.75, 0.6 / 1.75]], atol=1e-6)


def test_progress_by_a_function_of_a_trajectory():
    rng = np.random.default_rng(0)
    given = [make_trajectory(rng, [(2, 1)] * n) for n in (3, 1)]
    scores = {3: [0.5, None, 0.75], 1: [1.0]}
    method = methods.chain(
        turn_method(), methods.progress(function=lambda t: scores[len(t.turns)], weight=2.0)
    )
    episodes = packing.episode_batch(given, max_turns=4, needs=method.facts)
    earned = jax.jit(method.rewards["progress"].apply)(episodes)
    np.testing.assert_allclose(earned, [[1, 0, 0.5, 0], [2, 0, 0, 0]], atol=1e-6)
    wrong = methods.progress(function=lambda t: [0.0])(turn_method())
    with pytest.raises(ValueError, match="a finite score or None for each of the 3 turns"):
        packing.episode_batch(given, max_turns=4, needs=wrong.facts)


def two_parts(**options):
    """GRPO on an outcome and on a score of another scale."""
    score = rewards.Reward(lambda e: e.facts["score"])
    plain = methods.grpo(ddof=1, eps=1e-4)
    plain = plain._replace(rewards={"outcome": rewards.outcome(), "score": score})
    return methods.chain(plain, methods.decoupled(**options))


def test_parts_of_a_reward_are_normalized_by_themselves():
    """Outcomes 1, 1, 0, 0 and scores 0, 10, 0, 10: each part has the same voice."""
    episodes = batch([True, True, False, False], [1] * 4, score=[[0.0], [10.0], [0.0], [10.0]])
    z = 0.5 / (np.sqrt(1 / 3) + 1e-4)  # of the outcome, ddof 1
    big = 5 / (10 * np.sqrt(1 / 3) + 1e-4)
    total = np.array([z - big, z + big, -z - big, big - z])
    found = advantages(two_parts(whiten=False), episodes)[:, 0]
    np.testing.assert_allclose(found, total, atol=1e-5)
    whitened = advantages(two_parts(), episodes)[:, 0]
    np.testing.assert_allclose(whitened, total / (total.std(ddof=1) + 1e-4), atol=1e-5)
    half = advantages(two_parts(weights={"score": 0.5}, whiten=False), episodes)[:, 0]
    np.testing.assert_allclose(
        half, [z - big / 2, z + big / 2, -z - big / 2, big / 2 - z], atol=1e-5
    )


def test_joined_parts_count_as_one():
    episodes = batch([True, True, False, False], [1] * 4, score=[[0.0], [10.0], [0.0], [10.0]])
    joined = two_parts(joined=["score", "outcome"], whiten=False)
    plain = joined._replace(credit=methods.grpo(ddof=1, eps=1e-4).credit)
    np.testing.assert_allclose(advantages(joined, episodes), advantages(plain, episodes), atol=1e-6)


def test_decoupled_refuses_a_credit_with_a_state_and_unknown_weights():
    with pytest.raises(ValueError, match="needs a credit without state"):
        methods.chain(methods.turn_ppo(), methods.decoupled())
    episodes = batch([True, False], [1, 1], score=[[0.0], [1.0]])
    with pytest.raises(ValueError, match="weights of form, the method has the rewards outcome"):
        advantages(two_parts(weights={"form": 2.0}), episodes)


def test_certain_turns_weigh_more_with_mean_one():
    weigh = jax.jit(lambda x: credit.certainty_weights(x, mask, jnp.zeros(2, jnp.int32), rate=1.0))
    mask = jnp.array([[True, True], [True, False]])
    found = weigh(jnp.array([[0.2, 0.4], [0.6, 9.0]]))
    np.testing.assert_allclose(found, [[1.519441, 0.921588], [0.558971, 1.0]], atol=1e-5)
    assert np.mean(np.asarray(found)[np.asarray(mask)]) == pytest.approx(1.0)
    np.testing.assert_allclose(weigh(jnp.ones((2, 2))), np.ones((2, 2)))
