"""Likeness of tokens to those of successes: measured in packed batches, and what a spread does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import methods, training
from gtpo_jax.learner import likeness
from gtpo_jax.parts import facts, spreads
from tests.learner.test_group_losses import COUNT, SIZES, make_batch, make_trajectories
from tests.learner.test_learner import TOY, TOY_VOCABULARY, toy_params

RIGHT = np.array([sample % 2 == 0 for size in SIZES for sample in range(size)])
GROUPS = np.array([group for group, size in enumerate(SIZES) for _ in range(size)])


def features(trajectory, params):
    """Errors over the vocabulary and hidden states of the written tokens of a trajectory."""
    ids, written = list(trajectory.prompt), []
    for turn in trajectory.turns:
        written += range(len(ids), len(ids) + len(turn.tokens))
        ids += [*turn.tokens, *turn.observation]
    params = {name: np.asarray(x, np.float64) for name, x in params.items()}
    hidden = np.tanh(params["embedding"][ids] @ params["first"])
    logits = hidden @ params["second"] / 0.7
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    errors = [np.eye(TOY_VOCABULARY)[ids[t]] - p[t - 1] for t in written]
    return np.array(errors), np.array([hidden[t - 1] for t in written]), [ids[t] for t in written]


def expected(trajectories, params):
    """`s_t` of every written token, with a loop over pairs of tokens."""
    made = [features(t, params) for t in trajectories]
    scores = []
    for (errors, states, _), group in zip(made, GROUPS, strict=True):
        peers = np.flatnonzero(group == GROUPS)
        words = sorted({word for i in peers for word in made[i][2]})
        scores.append(
            [
                sum(
                    (e[words] @ other_e[words]) * (h @ other_h)
                    for i in peers
                    if RIGHT[i]
                    for other_e, other_h in zip(*made[i][:2], strict=True)
                )
                for e, h in zip(errors, states, strict=True)
            ]
        )
    return scores


@functools.cache
def compiled(chunk):
    return jax.jit(
        functools.partial(likeness.token_likeness, TOY, groups=5, temperature=0.7, chunk=chunk)
    )


@pytest.mark.parametrize("chunk", [4, pytest.param(None, marks=pytest.mark.long)])
def test_packed_batches_have_the_likeness_of_pairs_of_tokens(chunk):
    order = np.random.default_rng(2).permutation(COUNT)
    batch = make_batch(5, 2, order=order)
    found = np.asarray(compiled(chunk)(toy_params(), batch))
    scores = expected(make_trajectories(), toy_params())
    for number, index in enumerate(order):
        own = found[batch.loss_mask & (batch.trajectory_ids == number)]
        np.testing.assert_allclose(own, scores[index], rtol=1e-4, atol=1e-5)
    assert np.ptp(found) > 0.1


def test_step_measures_what_the_spread_reads():
    layout = training.Layout(
        groups=4, group_size=4, max_turns=3, row_tokens=12, rows=2, minibatches=2
    )
    step = training.Training(
        TOY, optax.sgd(0.1), methods.nthr()(methods.gtpo()), layout, temperature=0.7, chunk=4
    )
    assert step.layout.whole_groups
    state = step.init(jax.device_put(toy_params()))
    listed = {p.name for p in step.programs(state, jax.ShapeDtypeStruct)}
    assert "token likeness" in listed
    found, _ = step.measures(
        state.params,
        None,
        make_trajectories(),
        step.layout.minibatches_of(make_trajectories(), seed="1"),
        step._batches,
    )
    for row, values in enumerate(expected(make_trajectories(), toy_params())):
        likened = found[facts.TOKEN_LIKENESS.name][row]
        np.testing.assert_allclose(likened[: len(values)], values, rtol=1e-4, atol=1e-5)
        assert not np.any(likened[len(values) :])


def test_worked_example_of_two_successes_and_one_failure():
    errors = jnp.array([[0.5, -0.5], [0.4, -0.4], [0.5, -0.5], [-0.5, 0.5]])[:, None]
    states = jnp.array([[1.0, 0], [0, 1], [1, 0], [1, 1]])[:, None]
    ids = jnp.zeros((4, 1), jnp.int32)
    counted = jnp.array([[True], [True], [False], [False]])

    @jax.jit
    def scored(errors, states):
        sums = likeness.sums_of_products(errors, states, counted, ids, groups=1)
        return likeness.products_with_sums(errors, states, sums, ids)

    found = np.asarray(scored(errors, states))[:, 0]
    np.testing.assert_allclose(found, [0.5, 0.32, 0.5, -0.9], atol=1e-6)
    values = jnp.array([[0.5, 0], [0.32, 0], [0.5, -0.9], [9.0, 9.0]])
    mask = jnp.array([[True, False], [True, False], [True, True], [True, True]])
    advantages = jnp.array([[0.7071] * 2, [0.7071] * 2, [-1.4142] * 2, [-1.0] * 2])
    success = jnp.array([True, True, False, False])
    kept = jnp.ones(4, bool)
    groups = jnp.array([0, 0, 0, 1], jnp.int32)
    spare = jax.jit(spreads.spared)
    result = spare(advantages, values, mask, success, kept, groups)
    np.testing.assert_allclose(result[2], [-0.4714, -1.4142], atol=1e-4)
    np.testing.assert_array_equal(result[3], advantages[3])  # no success to resemble
    np.testing.assert_array_equal(result[:2], advantages[:2])
    junk = jnp.where(mask, values, jnp.nan)
    np.testing.assert_array_equal(spare(advantages, junk, mask, success, kept, groups), result)
    neutral = spare(advantages, values, mask, success, kept, groups, eta=1.0)
    np.testing.assert_array_equal(neutral, advantages)
    # An excluded success is no example, and an excluded failure does not count in p.
    left = spare(advantages, values, mask, success, kept.at[1].set(False), groups)
    np.testing.assert_allclose(left[2], [-1.4142, -1.4142], atol=1e-4)
