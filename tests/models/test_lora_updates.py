"""Adapters in training: gradients, what an update moves, and where it lies."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("qwix", reason="needs the extra `lora`")

from gtpo_jax import decoding, learner
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from models import decoder, lora
from tests.models.adapters import FORWARD, LORA, adapted_params, logits_of, random_tokens, run
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, make_trajectory

# qwix 0.1.8 asks flax for a name by its old spelling.
pytestmark = pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")

GRADIENT_DEPTH = 3 * decoder_depth(CONFIG, 7) + 2 * 7  # there and back, and over the tokens
ROWS, LENGTH = 8, 20
CLIP = 1e-3
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(1e-2))
CLIPPED = losses.clipped(low=0.2, high=0.28)


def make_batch(micro_batches=1):
    rng = np.random.default_rng(0)
    shapes = [[(4, 3), (2, 0)], [(3, 2), (4, 0)], [(6, 0)], [(5, 5)]]
    trajectories = [make_trajectory(rng, shape) for shape in shapes]
    advantages = np.random.default_rng(7).standard_normal((len(shapes), 3)).astype(np.float32)
    return packing.pack(
        trajectories, advantages, micro_batches=micro_batches, rows=ROWS, row_length=LENGTH
    )


@functools.cache
def updated(mesh_axes=()):
    """State before, compiled program, state and metrics after two updates, and what was given."""
    params = adapted_params()
    params["base"]["final_norm"]["scale"][0] = -0.0
    batch, axes = make_batch(), dict(mesh_axes)
    mesh = sharding.make_mesh(**axes) if axes else None
    if mesh is not None:
        params = jax.device_put(
            params, sharding.param_shardings(lora.logical_axes(CONFIG, LORA), mesh)
        )
        batch = jax.device_put(batch, sharding.batch_sharding(mesh, leading=1))
    params = jax.tree.map(jnp.array, params)
    state = learner.init_state(params, OPTIMIZER, trained=(lora.ADAPTER,))
    before = jax.tree.map(np.array, state)  # a view would keep the buffers from being donated
    forward = lora.forward_fn(CONFIG, LORA, mesh=mesh)
    update = learner.make_update(forward, OPTIMIZER, CLIPPED, reductions.token_mean)
    program = learner.CompiledUpdate(update, state)
    given, metrics = state, {}
    for _ in range(2):
        state, metrics = program(state, batch)
    return before, given, state, metrics


@pytest.mark.slow
@pytest.mark.parametrize("remat", [pytest.param("dots", marks=pytest.mark.long), "full"])
def test_rematerialized_gradient_is_the_gradient(remat):
    params, tokens = adapted_params(), random_tokens(2, 7)

    def gradient(config):
        forward = lora.forward_fn(config, LORA)

        def loss(params):
            return jnp.mean(jnp.square(run(forward, params, tokens)))

        return jax.jit(jax.grad(loss))(params)

    expected = gradient(CONFIG)
    found = gradient(dataclasses.replace(CONFIG, remat=remat))
    assert_same_sums(found, expected, depth=GRADIENT_DEPTH)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(expected["base"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected["adapter"]))


@pytest.mark.slow
def test_update_moves_every_adapter_and_no_bit_of_the_base():
    before, given, after, _ = updated()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.trained))  # donated
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given.frozen))
    for old, new in zip(
        *(jax.tree.leaves(state.params["base"]) for state in (before, after)), strict=True
    ):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
    for old, new in zip(
        *(jax.tree.leaves(state.params["adapter"]) for state in (before, after)), strict=True
    ):
        assert np.mean(np.asarray(old) != np.asarray(new)) > 0.9
    assert int(after.step) == 2


@pytest.mark.slow
def test_gradient_of_adapters_is_that_of_the_merged_model():
    # Chain rule by hand: dA = s · dW Bᵀ, dB = s · Aᵀ dW.
    params, tokens = adapted_params(), random_tokens(2, 7)

    def loss(forward, params):
        return jnp.mean(jnp.square(run(forward, params, tokens)))

    plain = jax.jit(jax.grad(functools.partial(loss, decoder.forward_fn(CONFIG))))
    kernels = plain(lora.merge(params, LORA))["layers"]
    found = jax.jit(jax.grad(functools.partial(loss, FORWARD)))(params)["adapter"]["layers"]
    for name, adapter in params["adapter"]["layers"].items():
        a, b = adapter["kernel_lora_a"], adapter["kernel_lora_b"]
        expected = {
            "kernel_lora_a": 2.0 * np.einsum("lio,lro->lir", kernels[name]["kernel"], b),
            "kernel_lora_b": 2.0 * np.einsum("lir,lio->lro", a, kernels[name]["kernel"]),
        }
        for part, value in expected.items():
            assert_same_sums(found[name][part], value, depth=GRADIENT_DEPTH)


@pytest.mark.slow
@pytest.mark.long
def test_update_holds_no_gradient_of_the_base():
    # A base that is large beside its activations: 31 MiB, of which one layer is 4.
    config = dataclasses.replace(
        CONFIG, width=256, layers=8, query_heads=4, head_dim=64, mlp_width=1024
    )

    def init(key):
        return lora.add(decoder.init_params(config, key), lora.init_adapters(config, LORA, key))

    params = jax.eval_shape(init, jax.random.key(0))
    base = sum(leaf.size * 4 for leaf in jax.tree.leaves(params["base"]))
    batch = jax.tree.map(lambda leaf: leaf[:, :1], make_batch())

    def memory(forward, params, trained=None):
        def state(params):
            return learner.init_state(params, OPTIMIZER, trained=trained)

        update = learner.make_update(forward, OPTIMIZER, CLIPPED, reductions.token_mean)
        program = jax.jit(update, donate_argnums=0)
        found = program.lower(jax.eval_shape(state, params), batch).compile().memory_analysis()
        fresh = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.temp_size_in_bytes + fresh

    assert memory(lora.forward_fn(config, LORA), params, (lora.ADAPTER,)) < 0.6 * base
    assert memory(decoder.forward_fn(config), params["base"]) > base


@pytest.mark.parametrize(
    "axes",
    [
        (("data", 2), ("fsdp", 2), ("tensor", 2)),
        pytest.param((("data", 1), ("fsdp", 8)), marks=pytest.mark.long),
        pytest.param((("data", 4), ("tensor", 2)), marks=pytest.mark.long),
    ],
)
@pytest.mark.slow
def test_update_over_a_mesh_is_that_of_one_device(axes):
    _, _, after, metrics = updated(axes)
    before, _, expected, expected_metrics = updated()
    mesh = dict(axes)
    placed = after.params["adapter"]["layers"]["q_proj"]
    shard = placed["kernel_lora_a"].sharding.shard_shape((2, 32, 4))
    assert shard == (2, 32 // mesh.get("fsdp", 1), 4)
    shard = placed["kernel_lora_b"].sharding.shard_shape((2, 4, 32))
    assert shard == (2, 4, 32 // mesh.get("tensor", 1))
    chex.assert_trees_all_equal(after.params["base"], before.params["base"])
    # Adam divides by small gradients, so rounding is measured against its step of 1e-2.
    chex.assert_trees_all_close(after.params, jax.device_get(expected.params), atol=1e-4)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_logical_axes_name_every_axis_of_every_parameter():
    axes = lora.logical_axes(CONFIG, LORA)
    leaves, structure = jax.tree.flatten(axes, is_leaf=lambda x: isinstance(x, tuple))
    params = adapted_params()
    assert structure == jax.tree.structure(params)
    assert [len(names) for names in leaves] == [np.ndim(p) for p in jax.tree.leaves(params)]
    found = axes["adapter"]["layers"]["down_proj"]
    assert found == {
        "kernel_lora_a": ("layers", "mlp", None),
        "kernel_lora_b": ("layers", None, "embed"),
    }


@pytest.mark.slow
def test_sampled_logprobs_are_those_of_the_learner():
    params, rows, prompt, steps = adapted_params(), 4, 5, 12
    tokens = random_tokens(rows, prompt, seed=4)
    programs = decoding.make_programs(
        FORWARD,
        sampling.categorical,
        segment_steps=steps,
        stop_ids=(),
        vocab_size=CONFIG.vocab_size,
    )
    state = programs.init(rows, 32)
    prompts = decoding.Prompts(
        tokens=jnp.asarray(tokens[:, :-1]),
        source=jnp.arange(rows),
        lengths=jnp.full(rows, prompt - 1, jnp.int32),
        pending=jnp.asarray(tokens[:, -1]),
        keys=jax.random.split(jax.random.key(1), rows),
        limits=jnp.full(rows, 32, jnp.int32),
        begins=jnp.asarray(True),
    )
    state = programs.prefill(params, state, prompts)
    _, segment = programs.decode_segment(params, state, jnp.int32(0))
    whole = np.concatenate([tokens, np.asarray(segment.draws.tokens)], axis=1)

    def taken(forward, params):
        logprobs = jax.nn.log_softmax(logits_of(forward, params, whole)[:, :-1])
        return np.take_along_axis(np.asarray(logprobs), whole[:, 1:, None], -1)[:, prompt - 1 :, 0]

    depth = decoder_depth(CONFIG, prompt + steps) + CONFIG.vocab_size
    assert_same_sums(segment.draws.logprobs, taken(FORWARD, params), depth=depth)
    base = taken(decoder.forward_fn(CONFIG), params["base"])
    assert np.abs(base - segment.draws.logprobs).max() > 0.05
