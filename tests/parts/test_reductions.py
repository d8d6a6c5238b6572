"""Reductions of a loss per token to one number: each of them, and every loss under each of them."""

import dataclasses
import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import divergences, masking, ratios
from gtpo_jax.parts import losses, reductions
from gtpo_jax.types import TokenBatch
from tests import reference

WIDTH = 24
REDUCTIONS = {
    "token_mean": reductions.token_mean,
    "sequence_mean": reductions.sequence_mean,
    "turn_mean": reductions.turn_mean,
    "constant_length": functools.partial(reductions.constant_length, length=7.0),
}
each_reduction = pytest.mark.parametrize("how", REDUCTIONS)


def clipped(policy, behavior, advantages):
    return losses.clipped_surrogate(ratios.log_ratios(policy, behavior), advantages).loss


def bounded(policy, behavior, advantages):
    log_ratio = ratios.log_ratios(policy, behavior)
    return losses.clipped_surrogate(log_ratio, advantages, dual_clip=1.2, ratio_cap=1.5).loss


def cispo(policy, behavior, advantages):
    log_ratio = ratios.log_ratios(policy, behavior)
    return losses.cispo_surrogate(log_ratio, policy, advantages).loss


LOSSES = {
    "clipped": clipped,
    "bounded": bounded,
    "cispo": cispo,
    "k1": lambda policy, behavior, _: divergences.kl_k1(policy, behavior),
    "k2": lambda policy, behavior, _: divergences.kl_k2(policy, behavior),
    "k3": lambda policy, behavior, _: divergences.kl_k3(policy, behavior),
}
each_loss = pytest.mark.parametrize("loss", LOSSES)

# Two documents in the first row, turns that touch each other, a document without trained tokens,
# and one whose only turn follows at once on a turn of equal index.
ROWS = [
    [
        [("given", 2), ("trained", 3), ("given", 2), ("trained", 1), ("trained", 2)],
        [("trained", 4), ("given", 1)],
        [("trained", 5)],
    ],
    [[("given", 6)], [("given", 1), ("trained", 2), ("trained", 2), ("given", 3)]],
    [[("given", 1), ("trained", 9), ("given", 4), ("trained", 1)]],
    *([],) * 3,
]


@functools.cache
def reducer(how: str):
    return jax.jit(REDUCTIONS[how])


def tokens(batch: TokenBatch):
    """Log-probs of policy and behavior, and advantages; a trajectory has the same ones in any
    layout.
    """
    out = np.zeros((3, *batch.loss_mask.shape), np.float32)
    for row in np.unique(batch.trajectory_ids):
        here = np.asarray(batch.trajectory_ids) == row
        rng = np.random.default_rng(int(row) + 1)
        policy = -rng.exponential(size=here.sum())
        behavior = policy + rng.normal(scale=0.4, size=here.sum())
        out[:, here] = policy, behavior, rng.normal(size=here.sum())
    return jnp.asarray(out)


@functools.cache
def objective(loss: str, how: str):
    """Compiled: the gradient of the total with respect to the policy's log-probs, the total and the
    weight.
    """

    def total(policy, behavior, advantages, batch):
        out = REDUCTIONS[how](LOSSES[loss](policy, behavior, advantages), batch)
        return out.total, out

    return jax.jit(jax.grad(total, has_aux=True))


def value_and_gradient(loss: str, how: str, *arguments):
    gradient, out = objective(loss, how)(*arguments)
    return out.mean(), gradient / jnp.maximum(out.weight, 1.0)


@each_reduction
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_reduction_of_packed_rows_matches_the_reference(how, compiled):
    batch = reference.token_batch(ROWS, width=WIDTH)
    per_token = tokens(batch)[0]
    reduce = reducer(how) if compiled else REDUCTIONS[how]
    expected = reference.reduced(per_token, batch, how, length=7.0)
    np.testing.assert_allclose(reduce(per_token, batch).mean(), expected, rtol=1e-5)


@pytest.mark.slow
@each_reduction
@hypothesis.given(seed=st.integers(0, 2**31))
@hypothesis.settings(max_examples=15)
def test_reduction_of_random_rows_matches_the_reference(how, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(4):
        room, documents = WIDTH, []
        while room > 0 and rng.random() < 0.8:
            pieces = []
            while room > 0 and rng.random() < 0.7:
                count = int(rng.integers(1, min(room, 5) + 1))
                pieces.append((rng.choice(["given", "trained"]), count))
                room -= count
            documents.append(pieces)
        rows.append(documents)
    batch = reference.token_batch(rows, width=WIDTH)
    per_token = jnp.asarray(rng.normal(size=(4, WIDTH)), jnp.float32)
    expected = reference.reduced(per_token, batch, how, length=7.0)
    found = reducer(how)(per_token, batch).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Padding in front instead of behind, and between documents and rows.
    moved = jax.tree.map(lambda x: np.roll(x, 5, axis=1), (per_token, batch))
    if not np.any(batch.segment_ids[:, -5:]):
        np.testing.assert_allclose(reducer(how)(*moved).mean(), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "how, total, weight",
    [
        ("token_mean", 10.0, 4.0),
        ("sequence_mean", 5.0 / 3.0 + 5.0, 2.0),
        ("turn_mean", 1.0 + 2.0 + 5.0, 3.0),
        ("constant_length", 10.0, 14.0),
    ],
)
def test_weights_of_hand_numbers_are_counts(how, total, weight):
    # A trajectory of two turns and three tokens, another of one token.
    batch = reference.token_batch(
        [[[("given", 1), ("trained", 1), ("trained", 2)], [("trained", 1)]]], width=6
    )
    per_token = jnp.array([[9.0, 1.0, 2.0, 2.0, 5.0, 9.0]])
    out = REDUCTIONS[how](per_token, batch)
    np.testing.assert_allclose([out.total, out.weight], [total, weight], rtol=1e-6)


def test_turns_with_an_empty_observation_between_them_are_two():
    # Adjacent in the mask, and told apart by their ids only.
    touching = reference.token_batch([[[("trained", 1), ("trained", 3)]]], width=4)
    merged = reference.token_batch([[[("trained", 4)]]], width=4)
    per_token = jnp.array([[1.0, 0.0, 0.0, 0.0]])
    assert float(reductions.turn_mean(per_token, touching).mean()) == 0.5
    assert float(reductions.turn_mean(per_token, merged).mean()) == 0.25


def test_turns_of_equal_index_in_adjacent_documents_are_two():
    batch = reference.token_batch([[[("trained", 1)], [("trained", 3)]]], width=4)
    per_token = jnp.array([[1.0, 0.0, 0.0, 0.0]])
    out = reductions.turn_mean(per_token, batch)
    assert (float(out.mean()), float(out.weight)) == (0.5, 2.0)


def test_turn_with_an_untrained_token_inside_stays_one():
    # A token that the policy did not sample has no turn, and does not cut the turn around it.
    batch = reference.token_batch([[[("given", 1), ("trained", 5), ("given", 2)]]], width=8)
    holed = dataclasses.replace(
        batch,
        loss_mask=batch.loss_mask.at[0, 3].set(False),
        turn_ids=batch.turn_ids.at[0, 3].set(-1),
    )
    per_token = jnp.array([[0.0, 4.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0]])
    out = reductions.turn_mean(per_token, holed)
    assert (float(out.mean()), float(out.weight)) == (1.0, 1.0)


@each_reduction
def test_reduction_of_bfloat16_losses_is_summed_in_float32(how):
    batch = reference.token_batch([[[("trained", 2000)]]], width=2000)
    per_token = jnp.ones((1, 2000), jnp.bfloat16)
    out = REDUCTIONS[how](per_token, batch)
    assert out.total.dtype == out.weight.dtype == jnp.float32
    expected = 2000 / 7 if how == "constant_length" else 1.0
    np.testing.assert_allclose(out.mean(), expected, rtol=1e-6)


@pytest.mark.slow
@each_loss
@each_reduction
def test_loss_does_not_depend_on_packing_order_or_padding(loss, how):
    # The same trajectories one a row, in another order, padding in front and behind.
    packed = reference.token_batch(ROWS, width=WIDTH)
    value, gradient = value_and_gradient(loss, how, *tokens(packed), packed)
    documents = [document for row in ROWS for document in row]
    alone = reference.token_batch([[d] for d in documents], width=WIDTH)
    assert len(documents) == len(ROWS)
    alone = jax.tree.map(lambda x: jnp.roll(x[::-1], 3, axis=1), alone)
    assert int(alone.segment_ids.max()) == 1 and not np.any(alone.segment_ids[:, :3])
    other_value, other = value_and_gradient(loss, how, *tokens(alone), alone)
    np.testing.assert_allclose(other_value, value, rtol=1e-5, atol=1e-6)
    for row in range(len(documents)):
        before = gradient[np.asarray(packed.trajectory_ids) == row]
        after = other[np.asarray(alone.trajectory_ids) == row]
        chex.assert_trees_all_close(after, before, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@each_loss
@each_reduction
def test_loss_does_not_depend_on_the_cut_into_micro_batches(loss, how):
    # Totals and weights add up; rows hold unequal numbers of trained tokens, one none.
    batch = reference.token_batch(ROWS, width=WIDTH)
    whole = (*tokens(batch), batch)
    value, gradient = value_and_gradient(loss, how, *whole)
    rows = [jax.tree.map(lambda x, r=r: x[r : r + 1], whole) for r in range(len(ROWS))]
    slopes, sums = zip(*(objective(loss, how)(*row) for row in rows), strict=True)
    added = masking.WeightedSum(*(sum(x) for x in zip(*sums, strict=True)))
    np.testing.assert_allclose(added.mean(), value, rtol=1e-5, atol=1e-6)
    cut = jnp.concatenate(slopes) / added.weight
    chex.assert_trees_all_close(cut, gradient, rtol=1e-5, atol=1e-7)


@each_loss
@each_reduction
def test_loss_with_junk_where_nothing_is_trained_is_unchanged(loss, how):
    # NaN leaves the value alone, and finite junk the gradient too.
    batch = reference.token_batch(ROWS, width=WIDTH)
    clean = tokens(batch)
    value, gradient = value_and_gradient(loss, how, *clean, batch)
    for junk in (jnp.nan, jnp.inf):
        filled = jnp.where(batch.loss_mask, clean, junk)
        chex.assert_trees_all_equal(value_and_gradient(loss, how, *filled, batch)[0], value)
    filled = jnp.where(batch.loss_mask, clean, -1e4)
    chex.assert_trees_all_equal(value_and_gradient(loss, how, *filled, batch), (value, gradient))


@each_loss
@each_reduction
def test_loss_of_a_batch_without_trained_tokens_is_zero_with_zero_gradient(loss, how):
    batch = reference.token_batch(ROWS, width=WIDTH)
    nothing = dataclasses.replace(
        batch,
        loss_mask=jnp.zeros_like(batch.loss_mask),
        turn_ids=jnp.full_like(batch.turn_ids, -1),
    )
    value, gradient = value_and_gradient(loss, how, *tokens(batch), nothing)
    assert float(value) == 0.0
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(gradient))
