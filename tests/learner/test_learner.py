"""The update: the tokens that it learns from, and invariances."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from gtpo_jax import learner, methods
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.types import ForwardFn, TokenBatch
from models import decoder
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, FORWARD, compilations, make_params, make_trajectory

pytestmark = pytest.mark.slow

ROWS, LENGTH = 4, 24
# There and back, and over the tokens.
GRADIENT_DEPTH = 3 * decoder_depth(CONFIG, 2 * LENGTH) + CONFIG.vocab_size + ROWS * LENGTH
CLIPPED = losses.clipped(low=0.2, high=0.28)


IMITATION = losses.imitation()


def both_losses(scores, batch):
    """A loss that depends on everything that the losses depend on."""
    clipped, diagnostics = CLIPPED(scores, batch)
    supervised, _ = IMITATION(scores, batch)
    return clipped + 0.3 * supervised, diagnostics


LOSSES = {"clipped": CLIPPED, "supervised": IMITATION, "both": losses.term(both_losses)}
# An optimizer that leaves the parameters alone and keeps the gradient as its state.
KEEP_GRADIENT = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradient, state, params=None: (jax.tree.map(jnp.zeros_like, gradient), gradient),
)
ADAM = optax.adam(0.1)
# Logits that are a parameter, `[B, T, V]`.
EXPLICIT = ForwardFn(
    hidden=lambda params, tokens, positions, *, segment_ids=None, prefix_ids=None, cache=None: (
        params["logits"],
        cache,
    ),
    logits=lambda params, hidden: hidden,
    init_cache=lambda rows, positions: None,
    vocab_size=CONFIG.vocab_size,
)


# Two layers that see one token: enough for whatever does not concern attention, and quick.
TOY_VOCABULARY, TOY_WIDTH = 13, 6
TOY = ForwardFn(
    hidden=lambda params, tokens, positions, *, segment_ids=None, prefix_ids=None, cache=None: (
        jnp.tanh(jnp.take(params["embedding"], tokens, axis=0) @ params["first"]),
        cache,
    ),
    logits=lambda params, hidden: hidden @ params["second"],
    init_cache=lambda rows, positions: None,
    vocab_size=TOY_VOCABULARY,
)


def toy_params():
    rng = np.random.default_rng(3)
    shapes = {
        "embedding": (TOY_VOCABULARY, TOY_WIDTH),
        "first": (TOY_WIDTH, TOY_WIDTH),
        "second": (TOY_WIDTH, TOY_VOCABULARY),
    }
    return {name: 0.5 * rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def make_trajectories(count=5, seed=0, vocab_size=CONFIG.vocab_size):
    rng = np.random.default_rng(seed)
    shapes = [[(4, 3), (2, 0)], [(3, 2), (2, 2), (4, 0)], [(6, 0)], [(1, 4), (1, 0)], [(5, 5)]]
    return [
        make_trajectory(rng, shapes[i % len(shapes)], vocab_size=vocab_size) for i in range(count)
    ]


def toy_batch(**shape):
    return make_batch(make_trajectories(vocab_size=TOY_VOCABULARY), **shape)


def make_batch(trajectories=None, *, micro_batches=1, rows=ROWS, length=LENGTH):
    trajectories = make_trajectories() if trajectories is None else trajectories
    advantages = np.random.default_rng(7).standard_normal((len(trajectories), 3))
    return packing.pack(
        trajectories,
        advantages.astype(np.float32),
        micro_batches=micro_batches,
        rows=rows,
        row_length=length,
    )


@functools.cache
def compiled(loss, forward=FORWARD, optimizer=KEEP_GRADIENT):
    return jax.jit(learner.make_update(forward, optimizer, LOSSES[loss], reductions.token_mean))


def gradient(batch, *, loss="both", forward=FORWARD, params=None):
    """Gradient and metrics of one update, with NumPy leaves."""
    if params is None:
        params = toy_params() if forward is TOY else make_params()
    state = learner.init_state(params, KEEP_GRADIENT)
    state, metrics = compiled(loss, forward)(state, batch)
    return jax.device_get((state.optimizer_state, metrics))


def assert_same(result, expected):
    """Gradients and metrics are equal up to rounding."""
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[0])) > 1e-3
    assert_same_sums(result[0], expected[0], depth=GRADIENT_DEPTH)
    for name, value in expected[1].items():
        np.testing.assert_allclose(result[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", ["clipped", "supervised"])
def test_environment_token_gets_no_gradient(loss):
    # Exactly zero at every position that predicts a token nobody sampled.
    batch = make_batch()
    logits = np.random.default_rng(0).standard_normal((ROWS, LENGTH, CONFIG.vocab_size))
    params = {"logits": logits.astype(np.float32)}
    flows, _ = gradient(batch, loss=loss, forward=EXPLICIT, params=params)
    flows = flows["logits"]
    predicts_trained = np.zeros((ROWS, LENGTH), bool)
    predicts_trained[:, :-1] = batch.loss_mask[0, :, 1:]
    assert np.all(flows[~predicts_trained] == 0)
    touched = np.abs(flows).max(axis=-1) > 0
    if loss == "supervised":
        np.testing.assert_array_equal(touched, predicts_trained)
    else:  # the clip holds some back
        assert 10 < touched.sum() <= predicts_trained.sum()


def test_environment_token_conditions_later_ones():
    # An observation has no gradient, and is attended all the same.
    [trajectory] = make_trajectories(1)
    batch = make_batch([trajectory], rows=1)
    row = jax.tree.map(lambda x: x[0], batch)
    observed = len(trajectory.prompt) + len(trajectory.turns[0].tokens)
    changed = row.tokens.copy()
    changed[0, observed] = (changed[0, observed] + 1) % CONFIG.vocab_size
    run = jax.jit(functools.partial(learner.batch_logprobs, FORWARD))
    before = run(make_params(), row).logprobs
    after = run(make_params(), dataclasses.replace(row, tokens=changed)).logprobs
    differs = np.abs(np.asarray(before - after))[0] > 1e-6
    second = row.turn_ids[0] == 1
    assert not np.any(differs[:observed]) and np.all(differs[second])


def test_junk_in_masked_positions_changes_nothing():
    batch = toy_batch()
    junk = dataclasses.replace(
        batch,
        behavior_logprobs=np.where(batch.loss_mask, batch.behavior_logprobs, np.nan),
        token_advantages=np.where(batch.loss_mask, batch.token_advantages, np.inf),
        tokens=np.where(batch.segment_ids > 0, batch.tokens, 5),
    )
    assert_same(gradient(junk, forward=TOY), gradient(batch, forward=TOY))


def test_padding_changes_nothing():
    # Longer rows and more of them.
    expected = gradient(make_batch())
    wide = make_batch(length=2 * LENGTH, rows=ROWS + 1)
    # The same rows as before, so that packing is not what is tested.
    batch = make_batch()
    for field in dataclasses.fields(TokenBatch):
        if (target := getattr(wide, field.name)) is None:
            continue
        target[...] = getattr(packing.empty_batch(1, 1), field.name)[0, 0]
        target[:, 1:, :LENGTH] = getattr(batch, field.name)
    assert_same(gradient(wide), expected)


@pytest.mark.parametrize("micro_batches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_cut_into_micro_batches_changes_nothing(micro_batches):
    # Micro-batches hold different numbers of trained tokens, so a mean of means would differ.
    batch = toy_batch()
    cut = jax.tree.map(lambda x: x.reshape(micro_batches, -1, LENGTH), batch)
    assert len(set(cut.loss_mask.sum(axis=(1, 2)))) > 1
    assert_same(gradient(cut, forward=TOY), gradient(batch, forward=TOY))


def test_empty_micro_batch_in_the_middle_hides_nothing_behind_it():
    batch = jax.tree.map(lambda x: x.reshape(ROWS, 1, LENGTH), toy_batch())
    empty = packing.empty_batch(1, LENGTH)
    spread = jax.tree.map(lambda x, e: np.stack([x[0], e, x[1], e, e, x[2], x[3]]), batch, empty)
    assert_same(gradient(spread, forward=TOY), gradient(toy_batch(), forward=TOY))


@pytest.mark.parametrize("chunk", [5, 64])
def test_logits_in_chunks_change_nothing(chunk):
    update = learner.make_update(
        TOY, KEEP_GRADIENT, LOSSES["both"], reductions.token_mean, chunk=chunk
    )
    state = learner.init_state(toy_params(), KEEP_GRADIENT)
    state, metrics = jax.jit(update)(state, toy_batch())
    found = jax.device_get((state.optimizer_state, metrics))
    assert_same(found, gradient(toy_batch(), forward=TOY))


def test_packing_and_order_change_nothing():
    # Several documents in a row, or one row each and in another order.
    packed = make_batch(length=40, rows=3)
    assert packed.segment_ids.max() > 1
    # In one shape, that of the longer rows above, so that one program serves both.
    together, alone = (packing.empty_batch(ROWS + 1, 2 * LENGTH) for _ in range(2))
    for field in dataclasses.fields(TokenBatch):
        if (target := getattr(alone, field.name)) is None:
            continue
        values = getattr(packed, field.name)[0]
        getattr(together, field.name)[:3, :40] = values
        for row in range(5):
            here = packed.trajectory_ids[0] == row
            target[4 - row, : here.sum()] = values[here]
    alone.segment_ids[...] = alone.trajectory_ids >= 0
    together, alone = (jax.tree.map(lambda x: x[None], batch) for batch in (together, alone))
    assert_same(gradient(alone), gradient(together))


def test_gradient_matches_finite_differences_in_float64():
    # The loss written anew in NumPy, token by token, differentiated numerically.
    batch = toy_batch(micro_batches=2, rows=2)
    params = {name: value.astype(np.float64) for name, value in toy_params().items()}

    def loss(params):
        total, count = 0.0, 0
        for row in np.ndindex(batch.tokens.shape[:2]):
            tokens = batch.tokens[row]
            for t in np.flatnonzero(batch.loss_mask[row]):
                hidden = np.tanh(params["embedding"][tokens[t - 1]] @ params["first"])
                logits = hidden @ params["second"]
                logprob = logits[tokens[t]] - np.log(np.exp(logits).sum())
                ratio = np.exp(logprob - np.float64(batch.behavior_logprobs[row][t]))
                advantage = np.float64(batch.token_advantages[row][t])
                bounded = min(max(ratio, 0.8), 1.28)
                total += -min(ratio * advantage, bounded * advantage) - 0.3 * logprob
                count += 1
        return total / count

    analytic, metrics = gradient(batch, forward=TOY)
    assert float(metrics["loss"]) == pytest.approx(loss(params), rel=1e-5)
    assert 0.1 < metrics["clip_fraction"] < 0.9
    rng = np.random.default_rng(0)
    for name, value in params.items():
        for _ in range(12):
            entry = tuple(rng.integers(value.shape))
            ends = []
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved[entry] += step
                ends.append(loss(params | {name: moved}))
            numeric = (ends[0] - ends[1]) / 2e-6
            assert analytic[name][entry] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_frozen_parts_stay_and_the_others_move_as_if_nothing_were_frozen():
    batch = toy_batch()
    update = compiled("both", TOY, optimizer=optax.sgd(0.1))
    whole, _ = update(learner.init_state(toy_params(), optax.sgd(0.1)), batch)
    state = learner.init_state(toy_params(), optax.sgd(0.1), trained=("first",))
    assert state.frozen.keys() == {"embedding", "second"}
    part, metrics = update(state, batch)
    expected = toy_params() | {"first": np.asarray(whole.params["first"])}
    assert np.abs(expected["first"] - toy_params()["first"]).max() > 1e-3
    chex.assert_trees_all_close(jax.device_get(part.params), expected, rtol=1e-6)
    chex.assert_trees_all_equal(jax.device_get(part.frozen), jax.device_get(state.frozen))
    alone = gradient(batch, forward=TOY)[0]["first"]
    assert float(metrics["grad_norm"]) == pytest.approx(np.linalg.norm(alone), rel=1e-5)


def test_optimizer_sees_trained_parts_alone():
    state = learner.init_state(toy_params(), optax.adam(1.0), trained=("first",))
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(state.optimizer_state)]
    assert sorted(sizes) == [1, TOY_WIDTH**2, TOY_WIDTH**2]
    with pytest.raises(ValueError, match=r"parts among \['embedding', 'first', 'second'\], got"):
        learner.init_state(toy_params(), optax.adam(1.0), trained=("third",))


@pytest.mark.parametrize("loss", ["clipped", "supervised"])
def test_batch_without_trained_tokens_changes_no_parameter(loss):
    batch = toy_batch()
    masked = dataclasses.replace(batch, loss_mask=np.zeros_like(batch.loss_mask))
    optimizer, update = ADAM, compiled(loss, TOY, optimizer=ADAM)
    # After one step Adam has momentum, and would move on a gradient of zero.
    before, _ = update(learner.init_state(toy_params(), optimizer), batch)
    after, metrics = update(before, masked)
    chex.assert_trees_all_equal(after, before)
    assert float(metrics["loss"]) == float(metrics["grad_norm"]) == 0.0
    assert all(np.all(np.isfinite(value)) for value in jax.device_get(metrics).values())


def test_gradient_that_is_not_finite_changes_nothing_and_is_named():
    batch, optimizer = toy_batch(), ADAM
    update = compiled("clipped", TOY, optimizer=optimizer)
    before, metrics = update(learner.init_state(toy_params(), optimizer), batch)
    assert float(metrics["skipped"]) == 0.0 and not np.any(metrics["nonfinite"])
    broken = before.trained["second"].at[2, 5].set(np.inf)
    broken = dataclasses.replace(before, trained=before.trained | {"second": broken})
    after, metrics = update(broken, batch)
    chex.assert_trees_all_equal(after, broken)
    assert float(metrics["skipped"]) == 1.0 and not np.isfinite(metrics["grad_norm"])
    named = learner.nonfinite_names(after, np.asarray(metrics["nonfinite"]))
    assert "second" in named and set(named) <= {"embedding", "first", "second"}

    def overflow(scores, batch):  # of the derivative alone, in one parameter alone
        return scores.logprobs * jnp.where(batch.token_advantages > 0, np.inf, 1.0), {}

    update = jax.jit(
        learner.make_update(TOY, optimizer, losses.term(overflow), reductions.token_mean)
    )
    after, metrics = update(before, batch)
    chex.assert_trees_all_equal(after, before)
    assert float(metrics["skipped"]) == 1.0


def test_gradients_of_bfloat16_parameters_are_summed_in_float32():
    # The same micro-batch 300 times: a sum in bfloat16 would stop growing at 256 of its terms.
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), toy_params())
    one = toy_batch()
    many = jax.tree.map(lambda x: np.concatenate([x] * 300), one)
    alone, repeated = (gradient(batch, forward=TOY, params=params)[0] for batch in (one, many))
    for name, value in alone.items():
        np.testing.assert_allclose(
            np.float32(repeated[name]), np.float32(value), rtol=1e-2, atol=1e-4
        )


def test_ratios_are_against_proximal_logprobs_where_there_are_some():
    # By hand: two tokens, μ, π₀ and π apart; the clip goes by π / π₀, the weight by π₀ / μ.
    policy = jnp.log(jnp.array([[0.30, 0.20]]))
    batch = dataclasses.replace(
        jax.tree.map(lambda x: x[0, :1, :2], toy_batch()),
        behavior_logprobs=jnp.log(jnp.array([[0.10, 0.25]])),
        proximal_logprobs=jnp.log(jnp.array([[0.20, 0.10]])),
        reference_logprobs=jnp.log(jnp.array([[0.15, 0.40]])),
        token_advantages=jnp.array([[2.0, -1.0]]),
        loss_mask=jnp.ones((1, 2), bool),
    )
    scores = losses.Scores(policy, jnp.zeros_like(policy))
    plain, _ = CLIPPED(scores, batch)
    np.testing.assert_allclose(plain, [[-1.28 * 2.0, 0.8]], rtol=1e-6)
    recomputed, _ = methods.recompute()(methods.gtpo()).loss(scores, batch)
    np.testing.assert_allclose(recomputed, [[-1.28 * 2.0, 2.0]], rtol=1e-6)
    loss = methods.chain(methods.gtpo(), methods.importance(limit=1.5), methods.kl(weight=0.5)).loss
    total, diagnostics = loss(scores, batch)
    weights, ratios = np.array([1.5, 0.4]), np.array([0.5, 2.0])  # π₀ / μ cut at 1.5; π_ref / π
    expected = weights * [-2.56, 2.0] + 0.5 * (ratios - 1 - np.log(ratios))
    np.testing.assert_allclose(total, [expected], rtol=1e-5)
    np.testing.assert_allclose(diagnostics["importance_weight"], [weights], rtol=1e-6)
    np.testing.assert_array_equal(diagnostics["importance_truncated"], [[1.0, 0.0]])
    np.testing.assert_array_equal(diagnostics["clip_fraction"], [[1.0, 0.0]])
    without = dataclasses.replace(batch, proximal_logprobs=None, reference_logprobs=None)
    assert loss.needs == {"proximal_logprobs", "reference_logprobs"}
    with pytest.raises(ValueError, match="a batch with proximal_logprobs, reference_logprobs"):
        loss(scores, without)


def test_stepwise_logprobs_are_those_of_each_micro_batch():
    batch, params = toy_batch(micro_batches=2, rows=2), toy_params()
    assert batch.loss_mask.any(axis=(1, 2)).all()
    found = jax.jit(functools.partial(learner.stepwise_logprobs, TOY))(params, batch)
    for index in range(2):
        one = jax.device_put(jax.tree.map(lambda x, index=index: x[index], batch))
        expected = learner.batch_logprobs(TOY, params, one).logprobs
        np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-6)


def test_empty_micro_batches_behind_are_not_computed():
    runs = []

    def hidden(params, tokens, *others, **options):
        jax.debug.callback(runs.append, tokens[0, 0])
        return TOY.hidden(params, tokens, *others, **options)

    forward = dataclasses.replace(TOY, hidden=hidden)
    update = learner.make_update(forward, optax.sgd(0.1), CLIPPED, reductions.token_mean)
    batch, params = toy_batch(micro_batches=7, rows=2), toy_params()
    filled = int(np.flatnonzero(batch.loss_mask.any(axis=(1, 2)))[-1]) + 1
    assert 1 < filled < 7

    def computed(program, *arguments):
        runs.clear()
        found = jax.block_until_ready(jax.jit(program)(*arguments))
        jax.effects_barrier()
        return len(runs), found

    assert computed(update, learner.init_state(params, optax.sgd(0.1)), batch)[0] == filled
    assert computed(functools.partial(learner.logprob_gap, forward), params, batch)[0] == filled
    count, logprobs = computed(functools.partial(learner.stepwise_logprobs, forward), params, batch)
    assert count == filled
    assert np.all(logprobs[batch.loss_mask] < 0) and not np.any(logprobs[filled:])


def test_frozen_parts_are_not_donated():
    state = learner.init_state(jax.device_put(toy_params()), optax.sgd(0.1), trained=("first",))
    update = learner.make_update(TOY, optax.sgd(0.1), CLIPPED, reductions.token_mean)
    after, _ = learner.CompiledUpdate(update, state)(state, toy_batch())
    assert state.trained["first"].is_deleted()
    assert after.frozen["second"] is state.frozen["second"]


def test_metrics_are_means_over_trained_tokens():
    batch = toy_batch()
    _, metrics = gradient(batch, loss="clipped", forward=TOY)
    row = jax.tree.map(lambda x: x[0], batch)
    run = jax.jit(functools.partial(learner.batch_logprobs, TOY))
    policy, entropy, _ = run(toy_params(), row)
    mask = row.loss_mask
    ratio = np.exp(np.asarray(policy)[mask] - row.behavior_logprobs[mask])
    clipped = np.where(row.token_advantages[mask] > 0, ratio > 1.28, ratio < 0.8)
    assert metrics["trained_tokens"] == mask.sum()
    np.testing.assert_allclose(metrics["entropy"], np.asarray(entropy)[mask].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["clip_fraction"], clipped.mean(), rtol=1e-5)
    positive = np.asarray(row.token_advantages)[mask] > 0
    np.testing.assert_allclose(metrics["clip_high"], (clipped & positive).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["clip_low"], (clipped & ~positive).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["ratio"], ratio.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["ratio_max"], ratio.max(), rtol=1e-4)
    kl = (ratio - 1 - np.log(ratio)).mean()
    np.testing.assert_allclose(metrics["behavior_kl"], kl, rtol=1e-4)


def test_largest_gap_is_found_in_any_micro_batch():
    batch = toy_batch()
    run = jax.jit(functools.partial(learner.batch_logprobs, TOY))
    logprobs = run(toy_params(), jax.tree.map(lambda x: x[0], batch)).logprobs
    exact = np.where(batch.loss_mask, np.asarray(logprobs)[None], 99.0).astype(np.float32)
    row = int(np.flatnonzero(batch.loss_mask[0].any(axis=1))[-1])
    exact[0, row, int(np.flatnonzero(batch.loss_mask[0, row])[2])] += 0.25
    cut = dataclasses.replace(batch, behavior_logprobs=exact)
    cut = jax.tree.map(lambda x: x.reshape(ROWS, 1, LENGTH), cut)
    assert float(learner.logprob_gap(TOY, toy_params(), cut)) == pytest.approx(0.25, abs=1e-4)


MESH_OPTIMIZER = optax.adam(1e-2)


@functools.cache
def updated_on_one_device():
    """The state and the metrics of an update of eight rows, the last ones empty."""
    update = learner.make_update(FORWARD, MESH_OPTIMIZER, CLIPPED, reductions.token_mean)
    return jax.jit(update)(learner.init_state(make_params(), MESH_OPTIMIZER), make_batch(rows=8))


@pytest.mark.parametrize(
    ("axes", "kind"),
    [
        pytest.param({"data": 8}, AxisType.Auto, marks=pytest.mark.long),
        pytest.param({"fsdp": 8}, AxisType.Auto, marks=pytest.mark.long),
        ({"data": 2, "fsdp": 2, "tensor": 2}, AxisType.Auto),
        ({"data": 1, "fsdp": 2, "sequence": 4}, AxisType.Auto),
        pytest.param({"data": 8}, AxisType.Explicit, marks=pytest.mark.long),
        pytest.param({"data": 1, "fsdp": 8}, AxisType.Explicit, marks=pytest.mark.long),
        pytest.param(
            {"data": 2, "fsdp": 2, "tensor": 2}, AxisType.Explicit, marks=pytest.mark.long
        ),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, dict) else value.name,
)
def test_mesh_changes_nothing(axes, kind):
    # Rows shared by devices, some of which hold nothing but padding.
    batch = make_batch(rows=8)
    empty_rows = ~batch.loss_mask[0].any(axis=1)
    assert empty_rows[-2:].all() and not empty_rows.all()
    expected, expected_metrics = updated_on_one_device()
    update = learner.make_update(FORWARD, MESH_OPTIMIZER, CLIPPED, reductions.token_mean)

    mesh = sharding.make_mesh(**axes)
    if kind is AxisType.Explicit:
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(kind,) * len(mesh.axis_names))
        forward = sharding.with_auto_axes(FORWARD, mesh)
        update = learner.make_update(forward, MESH_OPTIMIZER, CLIPPED, reductions.token_mean)
    placed = sharding.param_shardings(decoder.logical_axes(CONFIG), mesh)
    state = learner.init_state(jax.device_put(make_params(), placed), MESH_OPTIMIZER)
    shared = jax.device_put(batch, sharding.batch_sharding(mesh, leading=1))
    shared_update = learner.CompiledUpdate(update, state)
    with jax.set_mesh(mesh):
        result, metrics = shared_update(state, shared)
    chex.assert_trees_all_close(
        jax.device_get(metrics), jax.device_get(expected_metrics), rtol=1e-4, atol=1e-6
    )
    # Adam's first step is ± the learning rate: where a gradient is about zero its sign is chance.
    differences = jax.tree.map(
        lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).ravel(), result.params, expected.params
    )
    assert np.quantile(np.concatenate(jax.tree.leaves(differences)), 0.999) < 1e-5
    # The parameters stay where they were put, and so the next update finds its program.
    assert jax.tree.map(lambda x: x.sharding, result.params) == placed
    with jax.set_mesh(mesh), compilations() as compiled:
        shared_update(result, shared)
    assert compiled == []


def test_supervised_loss_falls_on_a_fixed_batch_with_one_compilation():
    optimizer = optax.adam(1e-2)
    update = learner.make_update(FORWARD, optimizer, IMITATION, reductions.token_mean)
    state = learner.init_state(jax.device_put(make_params()), optimizer)
    update = learner.CompiledUpdate(update, state)
    batch = make_batch()
    state, metrics = update(state, batch)
    losses = [float(metrics["loss"])]
    with compilations() as compiled:
        for _ in range(29):
            state, metrics = update(state, batch)
            losses.append(float(metrics["loss"]))
    assert compiled == []
    assert losses[-1] < 0.2 * losses[0]
    assert int(state.step) == 30
