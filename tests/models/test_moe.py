"""Routed experts: weights of the router, rows to their experts and back, experts over devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.devices import sharding
from models import decoder, moe
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, make_params

EXPERTS = dataclasses.replace(
    CONFIG, qkv_bias=False, qk_norm=True, mlp_width=16, experts=8, experts_per_token=2
)


def test_router_takes_the_likeliest_experts():
    probabilities = np.array([[0.1, 0.4, 0.3, 0.2], [0.7, 0.1, 0.05, 0.15]], np.float32)
    weights, chosen = moe.route(np.log(probabilities) + 5.0, per_token=2, normalize=False)
    assert chosen.tolist() == [[1, 2], [0, 3]]
    np.testing.assert_allclose(weights, [[0.4, 0.3], [0.7, 0.15]], rtol=1e-5)
    weights, _ = moe.route(np.log(probabilities), per_token=2, normalize=True)
    np.testing.assert_allclose(weights, [[4 / 7, 3 / 7], [14 / 17, 3 / 17]], rtol=1e-5)


def test_router_computes_its_softmax_in_float32():
    weights, _ = moe.route(jnp.array([[1.0, 1.01]], jnp.bfloat16), per_token=2, normalize=True)
    assert weights.dtype == jnp.float32


def test_rows_go_to_their_experts_and_come_back():
    # Expert e multiplies by 10 ** e; nobody asks for expert 1.
    x = jnp.arange(1.0, 5.0)[:, None] * jnp.ones((1, 3))
    chosen = np.array([[2, 0], [3, 2], [0, 3], [0, 2]])
    weights = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75], [0.9, 0.1]], np.float32)
    sizes = []

    def mlp(rows, counts):
        sizes.append(counts.tolist())
        return rows * (10.0 ** np.repeat(np.arange(4), counts))[:, None]

    out = moe.dispatch(x, weights, chosen, mlp, experts=4)
    assert sizes == [[3, 0, 3, 2]]
    expected = [1 * 50.5, 2 * 1000.0, 3 * 750.25, 4 * 10.9]
    np.testing.assert_allclose(out, np.array(expected)[:, None] * np.ones(3), rtol=1e-6)


@pytest.mark.slow
def test_token_does_not_depend_on_the_others_of_its_batch():
    forward, params = decoder.forward_fn(EXPERTS), make_params(EXPERTS)
    tokens = np.random.default_rng(0).integers(0, 50, (4, 6), np.int32)
    positions = np.broadcast_to(np.arange(6), tokens.shape)
    run = jax.jit(lambda tokens, positions: forward.hidden(params, tokens, positions)[0])
    alone = run(tokens[:1], positions[:1])
    assert_same_sums(run(tokens, positions)[:1], alone, depth=decoder_depth(EXPERTS, 6))


@pytest.mark.slow
def test_fresh_experts_start_at_the_scale_of_a_fresh_mlp():
    init = jax.jit(functools.partial(decoder.init_params, EXPERTS))
    params = init(jax.random.key(0))["layers"]["experts"]
    for name, fan_in in (("gate_proj", 32), ("up_proj", 32), ("down_proj", 16), ("router", 32)):
        deviation = float(jnp.std(params[name]["kernel"]))
        assert deviation == pytest.approx(fan_in**-0.5, rel=0.1), name


@pytest.mark.slow
def test_experts_over_devices_give_the_same_loss_and_gradients():
    forward, params = decoder.forward_fn(EXPERTS), make_params(EXPERTS)
    tokens = np.random.default_rng(0).integers(0, 50, (4, 6), np.int32)
    positions = np.broadcast_to(np.arange(6), tokens.shape)

    def loss(params, tokens):
        return jnp.mean(jnp.square(forward.hidden(params, tokens, positions)[0] - 1.0))

    expected = jax.jit(jax.value_and_grad(loss))(params, tokens)
    mesh = sharding.make_mesh(data=2, fsdp=1, tensor=4)
    rules = {**sharding.LOGICAL_RULES, "experts": "tensor", "expert_mlp": None}
    placed = sharding.param_shardings(decoder.logical_axes(EXPERTS), mesh, rules)
    split = jax.device_put(params, placed)
    kernel = split["layers"]["experts"]["up_proj"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 2, 32, 16)
    rows = jax.device_put(tokens, sharding.row_sharding(mesh))
    actual = jax.jit(jax.value_and_grad(loss))(split, rows)
    # There and back, and over the tokens.
    assert_same_sums(actual, expected, depth=3 * decoder_depth(EXPERTS, 6) + tokens.size)
