"""Worked examples, laws and golden numbers of losses over whole groups."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import credit, losses
from gtpo_jax.types import TokenBatch
from tests.golden.loader import golden, load
from tests.tiny import make_trajectory

WIDTH, ROWS = 5, 12


def batch(lengths, groups, successes, advantages, *, behavior=0.0, reference=0.0) -> TokenBatch:
    """One row for each trajectory of one turn, padded to `[ROWS, WIDTH]`."""

    def rows(values, dtype: Any = np.float32):
        column = np.zeros(ROWS, dtype)
        column[: len(lengths)] = values
        return np.broadcast_to(column[:, None], (ROWS, WIDTH)).copy()

    mask = np.arange(WIDTH) < rows(lengths, int)
    ids = np.broadcast_to(np.arange(ROWS, dtype=np.int32)[:, None], (ROWS, WIDTH))
    zeros = np.zeros((ROWS, WIDTH), np.int32)

    def scored(values):
        out = np.zeros((ROWS, WIDTH), np.float32)
        values = np.asarray(values, np.float32)
        out[: len(lengths)] = values[..., :WIDTH] if values.ndim else values
        return out

    return TokenBatch(
        tokens=zeros,
        positions=zeros,
        segment_ids=mask.astype(np.int32),
        loss_mask=mask,
        turn_ids=np.where(mask, 0, -1).astype(np.int32),
        trajectory_ids=np.where(mask, ids, -1).astype(np.int32),
        behavior_logprobs=scored(behavior),
        proximal_logprobs=scored(behavior),
        reference_logprobs=scored(reference),
        token_advantages=rows(advantages),
        group_ids=rows(groups, np.int32),
        successes=rows(successes, bool),
    )


def one_token(scores, successes, advantages: Any = 0.0, groups: Any = 0, **options):
    """Trajectories of one token each, whose log-probs are the scores."""
    made = batch(np.ones(len(scores), int), groups, successes, advantages, **options)
    logprobs = np.zeros((ROWS, WIDTH), np.float32)
    logprobs[: len(scores), 0] = scores
    return logprobs, made


@functools.cache
def compiled(loss):
    def total(logprobs, made):
        members = losses.members_of(made, trajectories=ROWS)
        return sum(term(logprobs, made, members)[0] for term in loss.group_terms)

    return jax.jit(jax.value_and_grad(total))


def evaluate(loss, logprobs, made):
    value, gradient = compiled(loss)(jnp.asarray(logprobs), made)
    return float(value), np.asarray(gradient)


def test_disco_of_one_success_and_two_failures():
    made = one_token([-0.5, -1.0, -2.0], [True, False, False])
    hard, slopes = evaluate(losses.contrast(), *made)
    soft, _ = evaluate(losses.contrast(temperature=10.0), *made)
    np.testing.assert_allclose([-hard, -soft], [1.0, 0.9875], atol=1e-5)
    np.testing.assert_allclose(slopes[:3, 0], [-1, 0.5, 0.5], atol=1e-6)


def test_questions_of_equal_outcomes_count_in_the_mean_and_add_nothing():
    groups = [0, 0, 0, 1, 1, 2]
    made = one_token(
        [-0.5, -1.0, -2.0, -3.0, -4.0, -5.0], [True, False, False, True, True, False], groups=groups
    )
    for loss, expected in ((losses.contrast(), 1.0), (losses.contrast(temperature=10.0), 0.9875)):
        value, slopes = evaluate(loss, *made)
        np.testing.assert_allclose(-value, expected / 3, atol=1e-5)
        assert not np.any(slopes[3:])


LONG = ("discob_logL_0", "discob_logL_1", "disco_logL_3", "disco_Lratio_5")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.long) if c in LONG else c for c in load("disco")]
)
def test_disco_is_that_of_the_public_code(case):
    inputs, outputs = golden("disco", case)
    soft = "disco_" in case
    estimators: Any = {"kl": "k1", "low_var_kl": "k3"}
    loss = losses.add(
        losses.contrast(
            score="ratio" if "Lratio" in case else "likelihood",
            temperature=inputs["tau"] if soft else None,
        ),
        losses.drift_limit(
            limit=inputs["delta"],
            weight=inputs["beta"],
            estimator=estimators[inputs["kl_type"]],
        ),
    )
    lengths = np.sum(inputs["eos_mask"], axis=1).astype(int)
    made = batch(
        lengths, inputs["uid"], inputs["seq_level_rewards"], 0.0, behavior=inputs["old_log_prob"]
    )
    value, slopes = evaluate(loss, np.asarray(inputs["log_prob"], np.float32), made)
    scale = np.abs(outputs["gradient"]).max()
    np.testing.assert_allclose(slopes, outputs["gradient"], atol=3e-5 * scale)
    if not soft:  # the value of the code's soft form is not that of its gradient
        np.testing.assert_allclose(value, outputs["pg_loss"], rtol=3e-5)


REGRESSION = losses.regression(eps=1e-6)


def test_regression_of_the_standard_score_of_log_ratios():
    z = np.array([1.4142136, -0.7071068, -0.7071068], np.float32)
    made = one_token([0.2, 0.0, -0.2], [True, False, False], z)
    np.testing.assert_allclose(evaluate(REGRESSION, *made)[0], 0.2679, atol=5e-5)
    # The scale of log-ratios does not count, and neither does a constant.
    other = one_token([0.7, 0.3, -0.1], [True, False, False], z)
    np.testing.assert_allclose(evaluate(REGRESSION, *other)[0], 0.2679, atol=5e-5)
    # With a fixed scale it is REBEL: (1 - .2)² + 0 + (0 - (-.2))² over residuals of R - mean.
    centered = np.array([2, -1, -1], np.float32) / 3
    rebel = one_token([0.2, 0.0, -0.2], [True, False, False], centered)
    expected = np.mean((centered - 2 * np.array([0.2, 0, -0.2])) ** 2)
    np.testing.assert_allclose(evaluate(losses.regression(scale=2.0), *rebel)[0], expected, 1e-5)


def test_regression_begins_with_a_policy_gradient_of_slope_one_over_eps():
    z = np.array([1.4142136, -0.7071068, -0.7071068], np.float32)
    value, slopes = evaluate(losses.regression(eps=0.5), *one_token([0, 0, 0], [1, 0, 0], z))
    np.testing.assert_allclose(value, 1.0, atol=1e-5)
    np.testing.assert_allclose(slopes[:3, 0], -2 / 3 * z / 0.5, rtol=1e-5)
    lone, slopes = evaluate(losses.regression(eps=0.5), *one_token([0.3], [1], [0.0]))
    assert lone == 0 and not np.any(slopes)


def test_preference_of_two_winners_over_two_losers():
    made = one_token([0.4, 0.2, -0.1, -0.3], [True, True, False, False])
    loss = losses.group_preference(weight=1.0, beta=1.0, variance=1.0)
    np.testing.assert_allclose(evaluate(loss, *made)[0], 0.4741 + 0.01, atol=5e-5)
    # A question without losers changes nothing.
    more = one_token([0.4, 0.2, -0.1, -0.3, 5.0], [1, 1, 0, 0, 1], groups=[0, 0, 0, 0, 1])
    np.testing.assert_allclose(evaluate(loss, *more)[0], 0.4841, atol=5e-5)


def test_pairs_of_two_rewards():
    free = losses.pair_gradient(limit=None)
    made = one_token([0, 0], [True, False], [1.0, 0.2])
    _, slopes = evaluate(free, *made)
    np.testing.assert_allclose(slopes[:2, 0], [-0.4, 0.4], atol=1e-6)


@pytest.mark.parametrize("clipping", ["separate", "joint"])
def test_pairs_have_the_gradient_of_rloo_on_fresh_samples(clipping):
    lengths, groups = [2, 1, 3, 5, 2, 4, 1], [0, 0, 0, 1, 1, 2, 1]
    rewards = np.array([1, 0, 0, 0.3, 1, 0.7, 0.2], np.float32)
    made = batch(lengths, groups, 0, rewards)
    logprobs = np.zeros((ROWS, WIDTH), np.float32)
    _, slopes = evaluate(losses.pair_gradient(clipping=clipping), logprobs, made)
    expected = []
    for i, group in enumerate(groups):
        others = [rewards[j] for j, other in enumerate(groups) if other == group and j != i]
        expected.append(rewards[i] - np.mean(others) if others else 0.0)
    np.testing.assert_allclose(expected[:3], [1, -0.5, -0.5])
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(slopes[row, :length], -expected[row] / len(groups), atol=1e-6)


def test_clipped_pairs_stop_where_the_better_one_is_likely_enough():
    made = one_token([0.5, -0.5], [True, False], [1.0, 0.0])
    for clipping in ("separate", "joint"):
        _, slopes = evaluate(losses.pair_gradient(clipping=clipping), *made)
        assert not np.any(slopes)
    back = one_token([-0.5, 0.5], [True, False], [1.0, 0.0])
    _, apart = evaluate(losses.pair_gradient(), *back)
    np.testing.assert_allclose(apart[:2, 0], [-0.5 * np.exp(-0.5), 0.5 * np.exp(0.5)], rtol=1e-5)
    _, joint = evaluate(losses.pair_gradient(clipping="joint"), *back)
    np.testing.assert_allclose(joint[:2, 0], 0.5 * np.exp(-1) * np.array([-1, 1]), rtol=1e-5)


def test_dpo_of_two_pairs():
    made = one_token([1.0, 0.0, -2.0, 3.0], [1, 0, 0, 0], [1, -1, -1, 0])
    value, slopes = evaluate(losses.pair_preference(beta=0.5), *made)
    expected = np.mean([np.log1p(np.exp(-0.5)), np.log1p(np.exp(-1.5))])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.sum(slopes) == pytest.approx(0, abs=1e-6) and slopes[3, 0] == 0


def test_filter_prefers_what_is_right_short_and_new():
    rng = np.random.default_rng(0)
    made = [make_trajectory(rng, [(8, 0)], success=right) for right in (True, True, True, False)]
    looped = np.tile(np.array([1, 2], np.int32), 4)
    turn = dataclasses.replace(made[1].turns[0], tokens=looped)
    made[1] = dataclasses.replace(made[1], turns=(turn,))
    made[2] = make_trajectory(rng, [(8, 0), (4, 0)])
    method = methods.dpo(longest=10, most_repetition=0.5, consistent=lambda t: t is not made[0])
    signs = signs_of(method, made)
    assert not np.any(signs)  # nothing passes
    method = methods.dpo(longest=10, most_repetition=0.5)
    np.testing.assert_array_equal(signs_of(method, made)[:, 0], [1, -1, -1, -1])
    np.testing.assert_array_equal(signs_of(methods.dpo(), made)[:, 0], [1, 1, 1, -1])
    repeated = credit.REPETITION.gather
    assert repeated is not None
    np.testing.assert_allclose(repeated(made, 2), [0, 0.6, 0, 0])


def signs_of(method, trajectories):
    episodes = packing.episode_batch(trajectories, max_turns=2, needs=method.facts)
    assign = jax.jit(lambda e: methods.assign(method, method.credit.init(), e)[1].advantages)
    return np.asarray(assign(episodes))


@pytest.mark.parametrize("case", load("capo"))
def test_curvature_is_that_of_the_public_code(case):
    inputs, outputs = golden("capo", case)
    h, p = np.asarray(inputs["h"]), np.asarray(inputs["softmax_probs"])
    tokens = np.asarray(inputs["tokens"])
    scores = [
        np.log(np.take_along_axis(p, tokens[..., None], axis=-1)[..., 0]),
        np.stack([(p**2).sum(-1), (p**3).sum(-1)], axis=-1),
        (h**2).sum(-1),
        np.broadcast_to(np.asarray(inputs["advantages"])[:, None], tokens.shape),
    ]
    shift = jax.jit(losses.predicted_shift)(
        *(jnp.asarray(x, jnp.float32) for x in scores), learning_rate=inputs["lr"]
    )
    np.testing.assert_allclose(shift.objective, outputs["full_update_term"], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(shift.policy, outputs["kl_term"], rtol=2e-4, atol=1e-9)
    if case == "hand":
        np.testing.assert_allclose(shift.objective, 0.0071654, atol=5e-8)
        np.testing.assert_allclose(shift.policy, 2.592e-5, rtol=1e-5)
