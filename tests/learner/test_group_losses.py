"""Losses over whole groups: exact for any division of a batch, and dealt whole groups."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import learner, methods, training
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from tests.learner.test_learner import KEEP_GRADIENT, TOY, TOY_VOCABULARY, toy_params
from tests.tiny import make_trajectory

SIZES = (3, 1, 4, 2)
"""Trajectories of each group."""
COUNT = sum(SIZES)
BOTH = losses.add(
    losses.clipped(low=0.2, high=0.28),
    losses.contrast(temperature=0.5),
    losses.drift_limit(limit=1e-4, weight=2.0, estimator="k3"),
)

MEMBERS = functools.partial(losses.members_of, trajectories=16)


def make_trajectories(sizes=SIZES):
    rng = np.random.default_rng(1)
    shapes = [[(4, 3), (2, 0)], [(3, 2), (1, 0)], [(5, 0)]]
    return [
        make_trajectory(
            rng,
            shapes[(group + sample) % 3],
            group=10 * group,
            success=sample % 2 == 0,
            vocab_size=TOY_VOCABULARY,
        )
        for group, size in enumerate(sizes)
        for sample in range(size)
    ]


def make_batch(micro_batches, rows, length=12, order=None):
    trajectories = make_trajectories()
    advantages = np.random.default_rng(7).standard_normal((COUNT, 3)).astype(np.float32)
    order = np.arange(COUNT) if order is None else order
    return packing.pack(
        [trajectories[i] for i in order],
        advantages[order],
        micro_batches=micro_batches,
        rows=rows,
        row_length=length,
        groups=True,
    )


def whole_loss(params, batch):
    """The loss of a batch of one micro-batch as one function of the parameters."""
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), batch)
    scores = learner.batch_logprobs(TOY, params, batch)
    members = MEMBERS(batch)
    per_token, _ = losses.Loss(BOTH.terms)(losses.Scores(*scores), batch)
    terms = [term(scores.logprobs, batch, members)[0] for term in BOTH.group_terms]
    return reductions.sequence_mean(per_token, batch).mean() + sum(terms)


def test_any_division_has_the_loss_and_gradient_of_the_whole_batch():
    update = jax.jit(
        learner.make_update(TOY, KEEP_GRADIENT, BOTH, reductions.sequence_mean, trajectories=16)
    )
    value = jax.jit(jax.value_and_grad(functools.partial(whole_loss, batch=make_batch(1, 10))))
    loss, expected = value(toy_params())
    shuffled = np.random.default_rng(2).permutation(COUNT)
    for order in (np.arange(COUNT), shuffled):
        state = learner.init_state(toy_params(), KEEP_GRADIENT)
        state, metrics = update(state, make_batch(5, 2, order=order))
        chex.assert_trees_all_close(state.optimizer_state, expected, rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        assert metrics["contrast"] != 0 and metrics["drift_excess"] > 0


REDUCTIONS = {
    "token": reductions.token_mean,
    "turn": reductions.turn_mean,
    "constant": reductions.over_length(7),
}


def test_terms_over_groups_count_in_full_whatever_the_reduction():
    with jax.enable_x64(True):
        batch = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x[0], np.float64) if x.dtype == np.float32 else x[0]),
            make_batch(1, 10),
        )
        loss, logprobs = losses.contrast(), batch.behavior_logprobs

        def reduced(logprobs, reduce):
            shared = losses.with_group_share(loss, reduce, logprobs, batch, trajectories=16)
            per_token, _ = loss(losses.Scores(logprobs, logprobs), shared)
            return reduce(per_token, batch).mean()

        def direct(logprobs):
            members = MEMBERS(batch)
            return loss.group_terms[0](logprobs, batch, members)[0]

        def everything(logprobs):
            ways = [functools.partial(reduced, reduce=reduce) for reduce in REDUCTIONS.values()]
            return [jax.value_and_grad(way)(logprobs) for way in (direct, *ways)]

        expected, *others = jax.jit(everything)(logprobs)
        assert expected[1].dtype == jnp.float64 and np.any(expected[1])
        for other in others:
            chex.assert_trees_all_close(other, expected, rtol=1e-6)
            assert other[1].dtype == jnp.float64


def test_groups_are_numbered_within_the_batch():
    batch = make_batch(2, 5)
    assert set(np.unique(batch.group_ids)) == set(range(len(SIZES)))
    members = jax.jit(MEMBERS)(batch)
    assert int(members.present.sum()) == COUNT
    numbers = [group for group, size in enumerate(SIZES) for _ in range(size)]
    np.testing.assert_array_equal(members.group_ids[:COUNT], numbers)
    right = [sample % 2 == 0 for size in SIZES for sample in range(size)]
    np.testing.assert_array_equal(members.successes[:COUNT], right)
    assert make_batch(2, 5).successes is not None
    plain = packing.empty_batch(1, 4)
    assert plain.group_ids is None and plain.group_share is None


LAYOUT = training.Layout(
    groups=4, group_size=4, max_turns=3, row_tokens=24, rows=2, minibatches=4, whole_groups=True
)


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (3, 1, 4, 2), (4, 1, 1, 1, 4, 2, 3), (4,), ()])
@pytest.mark.parametrize("minibatches", [1, 2, 4])
def test_minibatches_have_whole_groups_and_as_many_trajectories_as_fit(sizes, minibatches):
    layout = dataclasses.replace(LAYOUT, minibatches=minibatches)
    given = make_trajectories(sizes)
    parts = layout.minibatches_of(given, seed="1")
    assert sorted(index for part in parts for index in part) == list(range(len(given)))
    groups = [{given[index].group for index in part} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups)) == len(sizes)
    assert all(len(part) <= layout.minibatch_trajectories for part in parts)
    assert len(parts) >= 1
    if sizes == (4, 4, 4, 4):
        assert [len(part) for part in parts] == [16 // minibatches] * minibatches


def test_group_that_no_minibatch_holds_is_refused():
    with pytest.raises(ValueError, match="a group has 5 trajectories, and a minibatch holds 4"):
        LAYOUT.minibatches_of(make_trajectories((5, 2)), seed="1")


def test_step_asks_for_whole_groups_and_one_more_pass():
    layout = dataclasses.replace(LAYOUT, whole_groups=False, minibatches=2)
    method = methods.disco(delta=0.0)
    step = training.Training(TOY, optax.sgd(0.1), method, layout)
    assert step.layout.whole_groups
    state = step.init(jax.device_put(toy_params()))
    listed = {p.name: p for p in step.programs(state, jax.ShapeDtypeStruct)}
    assert listed["update"].arguments[2].group_ids.shape == listed["update"].shape
    heads = listed["update"].function.lower(*listed["update"].arguments).as_text()
    plain = training.Training(TOY, optax.sgd(0.1), methods.grpo(), layout)
    listed = {p.name: p for p in plain.programs(state, jax.ShapeDtypeStruct)}
    assert listed["update"].arguments[2].group_ids is None and not plain.layout.whole_groups
    without = listed["update"].function.lower(*listed["update"].arguments).as_text()
    assert heads.count("stablehlo.while") == without.count("stablehlo.while") + 1
    state, report = step.step(0, state, make_trajectories((4, 4, 3, 4)))
    assert len(report.updates) == 2 and all(m["contrast"] != 0 for m in report.updates)
    assert not np.allclose(state.params["first"], toy_params()["first"])


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="needs the largest number of trajectories"):
        learner.make_update(TOY, KEEP_GRADIENT, BOTH, reductions.token_mean)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), make_batch(1, 10))
    scores = losses.Scores(batch.behavior_logprobs, batch.behavior_logprobs)
    with pytest.raises(ValueError, match="need the batch's group_share"):
        BOTH(scores, batch)
    bare = dataclasses.replace(batch, group_ids=None)
    with pytest.raises(ValueError, match="pass groups=True"):
        MEMBERS(bare)
