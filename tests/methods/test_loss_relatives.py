"""One suite over the relatives that act on the loss of tokens: every row, the same batches."""

import dataclasses
import functools
import importlib
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.devices import sharding
from gtpo_jax.learner.update import without_junk
from gtpo_jax.parts import losses
from gtpo_jax.types import Candidates
from tests.methods import loss_relatives
from tests.methods.loss_relatives import Row, method_of, tried

TABLE: dict[str, Row] = {
    name: row
    for path in sorted(pathlib.Path(__file__).parent.glob("losses_*.py"))
    for name, row in importlib.import_module(f"tests.methods.{path.stem}").ROWS.items()
}
each = pytest.mark.parametrize("name", TABLE)
SEEDS, DIRECTIONS, TRAJECTORIES = 2, 4, 12
ORDER = np.random.default_rng(5).permutation(len(loss_relatives.LAYOUT))


def floats(found):
    """The batch and the scores as arrays of float32."""
    batch = jax.tree.map(
        lambda x: np.asarray(x, np.float32) if np.asarray(x).dtype == np.float64 else np.asarray(x),
        found.batch,
    )
    return batch, loss_relatives.scores(found)


def with_junk(batch, scores):
    """NaN in every float of the batch that no token is trained with, other ids and scores there."""
    mask, rng = np.asarray(batch.loss_mask), np.random.default_rng(9)

    def junk(x):
        here = mask.reshape(*mask.shape, *(1,) * (np.ndim(x) - 2))
        if np.issubdtype(np.asarray(x).dtype, np.floating):
            return np.where(here, x, np.nan)
        return x

    fields = {
        name: junk(getattr(batch, name))
        for name in ("behavior_logprobs", "token_advantages", *losses.FIELDS)
        if name != "candidates"
    }
    ids, logprobs = batch.candidates
    ids = np.where(mask[..., None], ids, rng.integers(0, loss_relatives.WORDS, ids.shape))
    changed = dataclasses.replace(
        batch,
        candidates=Candidates(ids.astype(np.int32), junk(logprobs)),
        marks={name: junk(values) for name, values in batch.marks.items()},
        **fields,
    )

    def other(x):
        here = mask.reshape(*mask.shape, *(1,) * (np.ndim(x) - 2))
        return jnp.where(here, x, -rng.random(np.shape(x)).astype(np.float32))

    return changed, jax.tree.map(other, scores)


@functools.cache
def stacked():
    """Seeds, then the first with its rows permuted, with junk, and without a trained token."""
    seeds = [loss_relatives.data(seed) for seed in range(SEEDS)]
    batch, scores = floats(seeds[0])
    nothing = dataclasses.replace(batch, loss_mask=np.zeros_like(batch.loss_mask))
    made = {
        "permuted": jax.tree.map(lambda x: np.asarray(x)[ORDER], (batch, scores)),
        "junk": with_junk(batch, scores),
        "nothing": (nothing, scores),
    }
    stack = jax.tree.map(lambda *xs: np.stack(xs), *map(floats, seeds), *made.values())
    return seeds, list(made), stack


def loss_of(method):
    """`(batch, scores) → reduced loss` as the update computes it."""

    def total(scores, batch):
        batch = losses.with_group_share(
            method.loss,
            method.reduce,
            scores.logprobs,
            without_junk(batch),
            trajectories=TRAJECTORIES,
        )
        return method.reduce(method.loss(scores, batch)[0], batch).mean()

    return lambda batch, scores: jax.value_and_grad(total)(scores, batch)


def evaluate(method):
    """Losses and gradients of every entry of the stack."""
    return jax.device_get(jax.jit(jax.vmap(loss_of(method)))(*stacked()[2]))


@functools.cache
def found(name):
    return evaluate(method_of(name, TABLE[name]))


def entry(results, index):
    return jax.tree.map(lambda x: x[index], results)


def variant(name, which):
    return entry(found(name), SEEDS + stacked()[1].index(which))


def moved(at, direction, step):
    """The scores, moved along a direction."""
    values = (at.logprobs, at.entropies, at.extras)
    logprobs, entropies, extras = jax.tree.map(lambda x, d: x + step * d, values, direction)
    return dataclasses.replace(at, logprobs=logprobs, entropies=entropies, extras=extras)


def test_table_holds_every_loss():
    assert {tried(name) for name in TABLE} <= {*methods.METHODS, *methods.MODIFIERS}


@each
def test_loss_is_that_of_the_reference(name):
    row, (seeds, _, _) = TABLE[name], stacked()
    for seed, at in enumerate(seeds):
        expected = loss_relatives.reference_loss(row, at, at)
        np.testing.assert_allclose(
            found(name)[0][seed], expected, rtol=row.rtol, atol=row.atol, err_msg=f"seed {seed}"
        )


@each
def test_gradient_is_that_of_finite_differences_of_the_reference(name):
    row, at, rng = TABLE[name], stacked()[0][0], np.random.default_rng(3)
    gradient = entry(found(name)[1], 0)
    step, slopes = 1e-6, []
    for _ in range(DIRECTIONS):
        values = (at.logprobs, at.entropies, at.extras)
        direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), values)
        ends = [
            loss_relatives.reference_loss(row, moved(at, direction, sign * step), at)
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        along = jax.tree.map(lambda d, g: np.sum(d * g), direction, tuple(gradient))
        slope = sum(jax.tree.leaves(along))
        np.testing.assert_allclose(slope, expected, rtol=20 * row.rtol, atol=10 * row.atol)
        slopes.append(abs(expected))
    assert max(slopes) > 1e-3


@each
def test_order_and_junk_change_nothing(name):
    loss, gradient = entry(found(name), 0)
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    for which in ("permuted", "junk"):
        other, slopes = variant(name, which)
        np.testing.assert_allclose(other, loss, err_msg=which, **tolerance)
        expected = jax.tree.map(lambda x, w=which: x[ORDER] if w == "permuted" else x, gradient)
        chex.assert_trees_all_close(slopes, expected, **tolerance)


@each
def test_gradient_reaches_trained_tokens_only(name):
    at = stacked()[0][0]
    _, gradient = entry(found(name), 0)
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf)) and not np.any(leaf[~np.asarray(at.batch.loss_mask)])
    loss, gradient = variant(name, "nothing")
    assert loss == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.neutral])
def test_neutral_options_give_the_parent(name):
    row = TABLE[name]
    assert row.neutral and row.parent
    parent, neutral = evaluate(row.parent()), evaluate(row.neutral())
    chex.assert_trees_all_close(neutral[1], parent[1], rtol=1e-4, atol=1e-6)
    if row.values:
        np.testing.assert_allclose(neutral[0], parent[0], rtol=1e-4, atol=1e-6)
    apart = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), found(name), parent)
    assert max(map(float, jax.tree.leaves(apart))) > 1e-4  # the row itself is not its parent


@pytest.mark.parametrize("name", list(TABLE)[::40])
def test_one_call_is_the_same_outside_jit(name):
    method = method_of(name, TABLE[name])
    batch, scores = jax.tree.map(jnp.asarray, floats(stacked()[0][0]))
    eager = loss_of(method)(batch, scores)
    chex.assert_trees_all_close(eager, entry(found(name), 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(TABLE)[5::40])
def test_eight_devices_give_the_loss_of_one(name):
    mesh = sharding.make_mesh(data=8)
    place = sharding.batch_sharding(mesh)
    batch, scores = jax.device_put(floats(stacked()[0][0]), place)
    spread = jax.jit(loss_of(method_of(name, TABLE[name])))(batch, scores)
    chex.assert_trees_all_close(spread, entry(found(name), 0), rtol=1e-4, atol=1e-6)


@each
def test_missing_needs_are_named(name):
    method = method_of(name, TABLE[name])
    batch, scores = jax.tree.map(jnp.asarray, floats(stacked()[0][0]))
    bare = dataclasses.replace(batch, **dict.fromkeys(losses.FIELDS))
    needs = method.loss.needs
    assert needs <= set(losses.NEEDS)
    assert ("candidates" in needs) == (method.loss.candidates > 0)
    if method.loss.marks:
        with pytest.raises(ValueError, match="the loss needs a batch with marks"):
            method.loss(scores, dataclasses.replace(batch, marks=None))
    if needs & set(losses.FIELDS):
        with pytest.raises(ValueError, match="the loss needs a batch with"):
            method.loss(scores, bare)
    if needs - set(losses.FIELDS):
        with pytest.raises(ValueError, match="the loss needs scores with"):
            method.loss(losses.Scores(*scores[:2]), batch)
