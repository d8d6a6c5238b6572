"""Prompts that the trajectories of a row share: the same update as with a prompt for each."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtpo_jax import learner
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.testing import scripted_forward
from models import decoder, lora
from tests import reference
from tests.learner.test_packing import excluded, written_out
from tests.models.variants import VARIANTS
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, make_params, make_trajectory

ROWS, LENGTH = 8, 40
PROMPT = 9  # longer than any window of the variants
TURNS = [[(4, 3), (2, 0)], [(3, 2), (5, 0)], [(6, 0)], [(1, 4), (1, 0)], [(2, 2), (1, 1), (3, 0)]]
CLIPPED = losses.clipped(low=0.2, high=0.28)


def make_groups(vocab_size=CONFIG.vocab_size):
    """Two groups, of which the first is more than a row holds, and one trajectory by itself."""
    rng = np.random.default_rng(0)
    trajectories = []
    for group, members in enumerate((TURNS, TURNS[:3], TURNS[:1])):
        prompt = rng.integers(0, vocab_size, PROMPT).astype(np.int32)
        for turns in members:
            trajectory = make_trajectory(rng, turns, group=group, vocab_size=vocab_size)
            trajectories.append(dataclasses.replace(trajectory, prompt=prompt))
    return trajectories


def packed(trajectories, *, shared_prompts, rows=ROWS, row_length=LENGTH):
    advantages = np.random.default_rng(7).standard_normal((len(trajectories), 3))
    return packing.pack(
        trajectories,
        advantages.astype(np.float32),
        micro_batches=1,
        rows=rows,
        row_length=row_length,
        shared_prompts=shared_prompts,
    )


def in_order(batch, values):
    """`values [B, T]` of the trained tokens, by trajectory and position."""
    order = np.lexsort((batch.positions[batch.loss_mask], batch.trajectory_ids[batch.loss_mask]))
    return np.asarray(values)[batch.loss_mask][order]


def evaluated(forward, params, batch, place=lambda batch: batch):
    """Loss, gradient, and log-probs and entropies of the trained tokens in order."""
    batch = jax.tree.map(lambda x: x[0], batch)

    def loss(params, batch):
        found = learner.batch_logprobs(forward, params, batch)
        clipped, _ = CLIPPED(losses.Scores(*found), batch)
        total = reductions.token_mean(clipped - 0.3 * found.logprobs, batch)
        return total.mean(), found

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, found), gradient = jax.device_get(run(params, place(batch)))
    return value, gradient, *(in_order(batch, leaf) for leaf in jax.tree.leaves(found))


def assert_same(actual, expected, config):
    """Loss, gradient, and statistics each are equal but for rounding."""
    # There and back, and over the tokens.
    depth = 3 * decoder_depth(config, LENGTH) + config.vocab_size + ROWS * LENGTH
    for ours, theirs in zip(actual, expected, strict=True):
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs)) > 1e-2
        assert_same_sums(ours, theirs, depth=depth)


@functools.cache
def repeated(name):
    """The results of a variant with one prompt per trajectory."""
    config = VARIANTS[name]
    batch = packed(make_groups(), shared_prompts=False)
    return evaluated(decoder.forward_fn(config), make_params(config), batch)


def slow(*names, also=()):
    return [pytest.param(name, marks=[pytest.mark.slow, *also]) for name in names]


@pytest.mark.parametrize(
    "name",
    [*slow("two_ropes"), *slow(*sorted(VARIANTS.keys() - {"two_ropes"}), also=[pytest.mark.long])],
)
def test_shared_prompts_give_the_loss_and_gradient_of_repeated_ones(name):
    # Windows and angles count from the beginning of the prompt, wherever it stands.
    config = VARIANTS[name]
    batch = packed(make_groups(), shared_prompts=True)
    actual = evaluated(decoder.forward_fn(config), make_params(config), batch)
    assert_same(actual, repeated(name), config)


@pytest.mark.long
def test_shared_prompts_over_a_mesh_give_the_same():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    config = VARIANTS["two_ropes"]
    placed = sharding.param_shardings(decoder.logical_axes(config), mesh)
    actual = evaluated(
        decoder.forward_fn(config, mesh=mesh),
        jax.device_put(make_params(config), placed),
        packed(make_groups(), shared_prompts=True),
        functools.partial(jax.device_put, device=sharding.row_sharding(mesh)),
    )
    assert_same(actual, repeated("two_ropes"), config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")
def test_shared_prompts_with_adapters_give_the_same():
    options = lora.LoraConfig(rank=2, targets=("q_proj", "v_proj", "down_proj"))
    adapters = jax.jit(functools.partial(lora.init_adapters, CONFIG, options))(jax.random.key(0))
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(
        lambda x: 0.2 * rng.standard_normal(x.shape).astype(np.float32), adapters
    )
    params = lora.add(make_params(), adapters)
    forward = lora.forward_fn(CONFIG, options)
    actual, expected = (
        evaluated(forward, params, packed(make_groups(), shared_prompts=shared))
        for shared in (True, False)
    )
    assert_same(actual, expected, CONFIG)


def test_token_sees_the_prompt_and_its_own_trajectory_and_nothing_else():
    config = VARIANTS["qk_norm"]  # without a window
    forward, params = decoder.forward_fn(config), make_params(config)
    batch = packed(make_groups()[:3], shared_prompts=True, rows=1, row_length=48)
    row = jax.tree.map(lambda x: x[0, 0], batch)
    assert row.segment_ids.max() == 4 and set(row.prefix_ids[row.segment_ids > 1]) == {1}
    run = jax.jit(functools.partial(forward.hidden, params))

    def hidden(tokens):
        options = {"segment_ids": batch.segment_ids[0], "prefix_ids": batch.prefix_ids[0]}
        return np.asarray(run(tokens[None], batch.positions[0], **options)[0][0])

    before = hidden(row.tokens)
    index = np.arange(len(row.tokens))
    for changed in (0, PROMPT - 2, PROMPT - 1, int(np.argmax(row.segment_ids == 3))):
        tokens = row.tokens.copy()
        tokens[changed] = (tokens[changed] + 1) % config.vocab_size
        moved = np.abs(hidden(tokens) - before).max(axis=1) > 1e-6
        segment = row.segment_ids[changed]
        expected = (row.segment_ids == segment) | (row.prefix_ids == segment)
        np.testing.assert_array_equal(moved, expected & (index >= changed))


def test_prefixes_without_segments_are_refused():
    forward, ids = decoder.forward_fn(CONFIG), jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="give segment_ids"):
        forward.hidden(make_params(), ids, ids, prefix_ids=ids)


def test_scripted_policy_reads_behind_a_shared_prompt():
    trajectories = make_groups(vocab_size=50)
    dialogues = [
        np.concatenate([t.prompt, *(np.concatenate([u.tokens, u.observation]) for u in t.turns)])
        for t in trajectories
    ]
    forward = scripted_forward(dialogues, vocab_size=50, otherwise=0)
    run = jax.jit(functools.partial(learner.batch_logprobs, forward))
    found = []
    for shared in (True, False):
        batch = jax.tree.map(lambda x: x[0], packed(trajectories, shared_prompts=shared))
        found.append(in_order(batch, run({}, batch).logprobs))
    np.testing.assert_array_equal(*found)
    # All tokens but the first of those dialogues that begin like another one.
    assert np.sum(found[0] < -1.0) == 4 + 2


# Packing.


@st.composite
def groups(draw):
    """Trajectories of up to four groups, some excluded, members apart, prompts of 1 to 7 tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    trajectories = []
    for group in range(draw(st.integers(1, 4))):
        prompt = rng.integers(1, 30_000, draw(st.integers(1, 7))).astype(np.int32)
        for sample in range(draw(st.integers(1, 5))):
            turns = int(rng.integers(1, 4))
            one = reference.trajectory(rng, turns=turns, group=group, sample=sample)
            one = dataclasses.replace(one, prompt=prompt)
            trajectories.append(excluded(one) if rng.random() < 0.1 else one)
    return [trajectories[index] for index in rng.permutation(len(trajectories))]


def pack_both(trajectories, advantages, row_length):
    shape = {"micro_batches": 1, "rows": 20, "row_length": row_length}
    return [
        packing.pack(trajectories, advantages, **shape, shared_prompts=shared)
        for shared in (True, False)
    ]


def read_shared(batch):
    """(trajectory id, its tokens with those of the prefix) of every segment with a trajectory."""
    documents = []
    fields = (batch.tokens, batch.positions, batch.loss_mask, batch.turn_ids)
    fields += (batch.behavior_logprobs, batch.token_advantages)
    for row in np.ndindex(batch.tokens.shape[:-1]):
        segments = batch.segment_ids[row]
        for segment in range(1, segments.max(initial=0) + 1):
            (columns,) = np.nonzero(segments == segment)
            assert np.all(np.diff(columns) == 1), "a segment is one contiguous piece"
            (index,) = set(batch.trajectory_ids[row][columns].tolist())
            (prefix,) = set(batch.prefix_ids[row][columns].tolist())
            if index < 0:
                assert prefix == 0 and np.sum(batch.prefix_ids[row] == segment)
                continue
            if prefix:
                (before,) = np.nonzero(segments == prefix)
                assert before[-1] < columns[0]
                columns = np.concatenate([before, columns])
            documents.append((index, [tuple(f[row][c].item() for f in fields) for c in columns]))
    return documents


@jax.jit
def reduced(batch):
    """The log-probs of a batch, reduced in each of the ways that look at its ids."""
    ways = (reductions.token_mean, reductions.sequence_mean, reductions.turn_mean)
    return [reduce(batch.behavior_logprobs, batch) for reduce in ways]


@given(groups(), st.sampled_from([32, 96]))
def test_packing_with_shared_prompts_holds_every_trajectory_once_and_whole(
    trajectories, row_length
):
    advantages = np.random.default_rng(0).normal(size=(len(trajectories), 3)).astype(np.float32)
    shared, plain = pack_both(trajectories, advantages, row_length)
    documents = read_shared(shared)
    kept = [index for index, t in enumerate(trajectories) if t.included]
    assert sorted(index for index, _ in documents) == kept
    for index, tokens in documents:
        assert tokens == written_out(trajectories[index], advantages[index])
    assert shared.loss_mask.sum() == plain.loss_mask.sum()
    assert np.count_nonzero(shared.segment_ids) <= np.count_nonzero(plain.segment_ids)
    assert plain.prefix_ids is None
    # Nothing trained is left to chance by a reduction either.
    sums = [reduced(jax.tree.map(lambda x: x[0], batch)) for batch in (shared, plain)]
    chex.assert_trees_all_close(*sums, rtol=1e-5)


def test_shared_prompt_stands_once_in_each_row_that_needs_it():
    trajectories = make_groups()
    batch = packed(trajectories, shared_prompts=True)
    rows = jax.tree.map(lambda x: x[0], batch)
    assert rows.prefix_ids is not None
    holding = {
        row: set(rows.trajectory_ids[row][rows.trajectory_ids[row] >= 0].tolist())
        for row in range(ROWS)
    }
    first = [row for row, held in holding.items() if held & {0, 1, 2, 3, 4}]
    assert len(first) == 2, "more than a row holds"
    for prompt, copies in ((trajectories[0].prompt, 2), (trajectories[5].prompt, 1)):
        windows = np.lib.stride_tricks.sliding_window_view(rows.tokens, PROMPT - 1, axis=1)
        assert np.sum(np.all(windows == prompt[:-1], axis=-1)) == copies
    # A trajectory by itself is packed as it always was.
    alone = rows.trajectory_ids == 8
    assert not rows.prefix_ids[alone].any() and rows.positions[alone].tolist()[0] == 0
    plain = packed(trajectories, shared_prompts=False)
    assert np.sum(plain.segment_ids > 0) - np.sum(batch.segment_ids > 0) == (8 - 3) * (PROMPT - 1)


def test_prompt_of_one_token_is_not_shared():
    trajectories = [dataclasses.replace(t, prompt=t.prompt[:1]) for t in make_groups()]
    shared, plain = pack_both(trajectories, np.ones((9, 3), np.float32), 40)
    assert not np.any(shared.prefix_ids)
    assert np.sum(shared.segment_ids > 0) == np.sum(plain.segment_ids > 0)


@pytest.mark.parametrize("shared_prompts", [False, True])
def test_oversize_trajectory_is_named_by_its_own_length(shared_prompts):
    trajectories = make_groups()
    longest = max(t.length for t in trajectories)
    with pytest.raises(ValueError, match=rf"of {longest} tokens does not fit a row of 10;"):
        packed(trajectories[4:], shared_prompts=shared_prompts, row_length=10)


def test_row_shape_is_the_shortest_that_holds_what_belongs_together():
    trajectories = make_groups()  # up to 18 tokens; the group of three is 8 + 10 + 11 + 7 shared
    shape = functools.partial(packing.row_shape, trajectories[5:8], rows=2, row_length=160)
    assert max(t.length for t in trajectories[5:8]) == 19
    assert shape(buckets=1) == (2, 160)
    assert shape(buckets=2) == (4, 80)
    assert shape(buckets=9) == (16, 20)
    assert shape(buckets=9, shared_prompts=True) == (8, 40)
    assert shape(buckets=9, shared_prompts=True, row_length=144) == (8, 36)
    # Those that fit no row together do not ask for one.
    assert packing.row_shape(
        trajectories, rows=2, row_length=40, buckets=9, shared_prompts=True
    ) == (2, 40)
    assert packing.row_shape([], rows=2, row_length=40, buckets=2) == (4, 20)
    assert packing.row_shape([], rows=2, row_length=45, buckets=9) == (2, 45)
