"""Attention: the kernels against the plain one, which itself is checked against NumPy elsewhere."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.devices import sharding
from models import decoder
from models.kernels import choice, fused, masks, plain, splash
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow

B, Q, KV, H = 2, 4, 2, 64
SCALE = 0.2
LENGTH = 150  # more than a tile of splash attention, and no multiple of it
DEPTH = 3 * (H + 2 * LENGTH)  # scores, their sum and the values; gradients of both factors


def inputs(length, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = ((B, length, Q, H), (B, KV, length, H), (B, KV, length, H))
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def segments(length):
    """Two documents and padding in one row, another division in the other."""
    cuts = [[0.3, 0.8], [0.55, 0.95]]
    index = np.arange(length) / length
    return np.stack([np.searchsorted(row, index, side="right") for row in cuts]).astype(np.int32)


def continued(segment_ids):
    """The first document is the prefix of both others in one row, of none in the other row."""
    before = segment_ids == 0
    starts = np.where(before, 0, np.sum(before, axis=1, keepdims=True))
    starts = np.where(segment_ids == 2, np.argmax(segment_ids == 2, axis=1)[:, None], starts)
    positions = np.arange(segment_ids.shape[1]) - starts
    prefix_ids = np.where(before, 0, 1) * np.array([[1], [0]])
    positions += prefix_ids * np.sum(before, axis=1, keepdims=True)
    return segment_ids + 1, masks.Prefixes(prefix_ids, positions)


def masked(q, k, v, segment_ids, prefixes=None, *, scale, window, softcap=None):
    ids = np.zeros(q.shape[:2], np.int32) if segment_ids is None else segment_ids
    of_global, of_local = masks.causal_masks(ids, segment_ids, prefixes, window=window)
    mask = of_global if window is None else of_local
    return plain.plain(q, k, v, mask, scale=scale, softcap=softcap)


def value_and_gradients(run, args, segment_ids, prefixes=None):
    def weighed(q, k, v):
        out = run(q, k, v, segment_ids, prefixes)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    gradients, out = jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))(*args)
    return out, gradients


PACKED = pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
WINDOWS = pytest.mark.parametrize("window", [None, 1, 40, LENGTH + 9])


@PACKED
@pytest.mark.parametrize(
    "window", [40, *(pytest.param(w, marks=pytest.mark.slow) for w in (None, 1, LENGTH + 9))]
)
def test_library_attention_equals_the_plain_one(packed, window):
    args, ids = inputs(LENGTH), segments(LENGTH) if packed else None
    run = functools.partial(fused.fused, implementation="xla")
    results = [
        value_and_gradients(functools.partial(f, scale=SCALE, window=window), args, ids)
        for f in (run, masked)
    ]
    assert_same_sums(*results, depth=DEPTH)


@pytest.mark.parametrize(
    ("packed", "window", "softcap"),
    [
        pytest.param(True, 40, 0.7, marks=pytest.mark.slow),
        pytest.param(False, None, None, marks=pytest.mark.slow),
        pytest.param(False, 40, None, marks=pytest.mark.long),
        pytest.param(True, None, None, marks=pytest.mark.long),
        pytest.param(False, LENGTH + 9, 0.7, marks=pytest.mark.long),
        pytest.param(False, 1, None, marks=pytest.mark.slow),
    ],
)
def test_splash_attention_equals_the_plain_one(packed, window, softcap):
    args, ids = inputs(LENGTH), segments(LENGTH) if packed else None
    options = {"scale": SCALE, "window": window, "softcap": softcap}
    runs = [functools.partial(splash.splash, interpret=True), masked]
    results = [value_and_gradients(functools.partial(f, **options), args, ids) for f in runs]
    assert_same_sums(*results, depth=DEPTH)


def test_token_of_a_continued_segment_sees_its_prefix_and_counts_the_window_from_there():
    segment_ids, prefix_ids = (
        np.array([[1, 1, 1, 2, 2, 3, 3, 0]]),
        np.array([[0] * 3 + [1] * 4 + [0]]),
    )
    prefixes = masks.Prefixes(prefix_ids, np.array([[0, 1, 2, 3, 4, 3, 4, 0]]))
    of_global, of_local = masks.causal_masks(segment_ids, segment_ids, prefixes, window=3)
    assert of_global[0].astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]
    assert of_local[0, 3:7].astype(int).tolist() == [
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 1, 0],
    ]


@pytest.mark.parametrize("block", [40, LENGTH, 512])
def test_blocks_of_queries_change_nothing(block):
    args, (ids, prefixes) = inputs(LENGTH), continued(segments(LENGTH))
    mask = masks.causal_masks(ids, ids, prefixes, window=40)[1]
    options = {"scale": SCALE, "softcap": 0.7}
    results = [
        value_and_gradients(lambda q, k, v, *_, f=f: f(q, k, v, mask, **options), args, None)
        for f in (functools.partial(plain.in_blocks, block=block), plain.plain)
    ]
    assert_same_sums(*results, depth=DEPTH)


@pytest.mark.parametrize("window", [None, 40])
def test_library_attention_behind_prefixes_equals_the_plain_one(window):
    args, (ids, prefixes) = inputs(LENGTH), continued(segments(LENGTH))
    results = [
        value_and_gradients(functools.partial(f, scale=SCALE, window=window), args, ids, prefixes)
        for f in (functools.partial(fused.fused, implementation="xla"), masked)
    ]
    assert_same_sums(*results, depth=DEPTH)


@pytest.mark.parametrize(("window", "softcap"), [(40, 0.7), (None, None)])
def test_splash_attention_behind_prefixes_equals_the_plain_one(window, softcap):
    args, (ids, prefixes) = inputs(LENGTH), continued(segments(LENGTH))
    options = {"scale": SCALE, "window": window, "softcap": softcap}
    results = [
        value_and_gradients(functools.partial(f, **options), args, ids, prefixes)
        for f in (functools.partial(splash.splash, interpret=True), masked)
    ]
    assert_same_sums(*results, depth=DEPTH)


def test_layer_of_one_kind_gives_its_kernel_window_and_prefixes():
    config = dataclasses.replace(CONFIG, head_dim=64, window=40, attention="splash")
    args, (ids, prefixes) = inputs(LENGTH), continued(segments(LENGTH))
    actual = jax.jit(lambda *args: choice.causal(config, *args, ids, prefixes, True))(*args)
    expected = masked(*args, ids, prefixes, scale=config.score_scale, window=40)
    assert_same_sums(actual, expected, depth=DEPTH)


@pytest.mark.parametrize("prefixes", [False, True], ids=["alone", "prefixes"])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_splash_attention_lowers_for_tpu(head_dim, prefixes):
    # The way to a TPU program as far as it can be gone without one: forward, dq, and dk with dv.
    def total(q, k, v, ids):
        options = {"scale": SCALE, "window": 40, "softcap": 3.0}
        behind = masks.Prefixes(ids, ids) if prefixes else None
        return jnp.sum(splash.splash(q, k, v, ids, behind, **options).astype(jnp.float32))

    q = jax.ShapeDtypeStruct((B, LENGTH, Q, head_dim), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((B, KV, LENGTH, head_dim), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((B, LENGTH), jnp.int32)
    traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(q, k, k, ids)
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 3


def test_splash_attention_serves_layers_of_two_kinds_under_one_scan():
    # The flag of a local layer is traced there, and a kernel is compiled for its window.
    config = dataclasses.replace(
        CONFIG, head_dim=64, window=3, window_pattern=(True, False), remat="full"
    )
    params = make_params(config)
    tokens = np.random.default_rng(0).integers(0, 50, (2, 12), np.int32)
    positions = np.broadcast_to(np.arange(12), tokens.shape)
    ids = np.repeat([[1, 2]], [5, 7], axis=1).repeat(2, axis=0).astype(np.int32)

    def hidden(name, config):
        forward = decoder.forward_fn(dataclasses.replace(config, attention=name))
        run = jax.jit(forward.hidden)
        return run(params, tokens, positions, segment_ids=ids)[0]

    assert_same_sums(
        hidden("splash", config), hidden("plain", config), depth=decoder_depth(config, 12)
    )
    one_kind = dataclasses.replace(config, window=None)
    assert np.abs(hidden("plain", one_kind) - hidden("plain", config)).max() > 1e-3


@pytest.mark.parametrize(
    ("kv_heads", "behind", "axis"),
    [
        pytest.param(1, False, "tensor", marks=pytest.mark.long),
        pytest.param(2, False, "tensor", marks=pytest.mark.long),
        (2, True, "tensor"),
        pytest.param(2, False, "sequence", marks=pytest.mark.long),
    ],
)
def test_splash_attention_over_devices_equals_that_of_one(kv_heads, behind, axis):
    # Two key heads are shared by two devices; a single one is computed by both.
    config = dataclasses.replace(
        CONFIG, head_dim=64, kv_heads=kv_heads, window=3, window_pattern=(True, False)
    )
    params = make_params(config)
    tokens = np.random.default_rng(0).integers(0, 50, (4, 12), np.int32)
    positions = np.broadcast_to(np.arange(12), tokens.shape)
    mesh = sharding.make_mesh(data=2, fsdp=2, **{axis: 2})
    ids = positions // 5
    options = (
        {"segment_ids": ids, "prefix_ids": np.maximum(ids - 1, 0)}
        if behind
        else {"segment_ids": ids}
    )

    def loss(forward, params, tokens):
        hidden, _ = forward.hidden(params, tokens, positions, **options)
        return jnp.mean(jnp.square(hidden - 1.0))

    expected, actual = (
        jax.jit(jax.value_and_grad(functools.partial(loss, forward)))(*args)
        for forward, *args in (
            (decoder.forward_fn(config), params, tokens),
            (
                decoder.forward_fn(dataclasses.replace(config, attention="splash"), mesh=mesh),
                jax.device_put(
                    params, sharding.param_shardings(decoder.logical_axes(config), mesh)
                ),
                jax.device_put(tokens, sharding.batch_sharding(mesh)),
            ),
        )
    )
    # There and back, and over the tokens.
    assert_same_sums(actual, expected, depth=3 * decoder_depth(config, 12) + tokens.size)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["whole", "packed", "behind"])
@WINDOWS
def test_cudnn_attention_equals_the_plain_one(layout, window):
    args = tuple(jnp.asarray(x, jnp.bfloat16) for x in inputs(LENGTH))
    ids = None if layout == "whole" else segments(LENGTH)
    ids, prefixes = continued(ids) if layout == "behind" else (ids, None)
    options = {"scale": SCALE, "window": window}
    run = functools.partial(fused.fused, implementation="cudnn", **options)
    out, gradients = value_and_gradients(run, args, ids, prefixes)
    expected, expected_gradients = value_and_gradients(
        functools.partial(masked, **options),
        tuple(np.asarray(x, np.float32) for x in args),
        ids,
        prefixes,
    )
    # bfloat16 has eight bits: each value is rounded a few times on its way.
    chex.assert_trees_all_close(np.asarray(out, np.float32), np.asarray(expected), atol=0.03)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        error = np.abs(np.asarray(actual, np.float32) - wanted).max()
        assert error < 0.03 * np.abs(wanted).max()


@pytest.mark.gpu
def test_default_on_gpu_is_cudnn_and_its_model_stays_near_the_plain_one():
    config = dataclasses.replace(
        CONFIG, head_dim=64, window=3, window_pattern=(True, False), compute_dtype="bfloat16"
    )
    assert choice.choose(config, length=12) == "cudnn"
    params = make_params(config)
    tokens = np.random.default_rng(0).integers(0, 50, (2, 12), np.int32)
    positions = np.broadcast_to(np.arange(12), tokens.shape)
    found = [
        jax.jit(decoder.forward_fn(c).hidden)(params, tokens, positions, segment_ids=positions // 5)
        for c in (config, dataclasses.replace(config, attention="plain"))
    ]
    first, second = (np.asarray(states, np.float32) for states, _ in found)
    assert np.abs(first - second).max() < 0.05 * np.abs(second).max()


def test_window_of_a_token_holds_itself_and_the_tokens_before():
    tokens = np.zeros((1, 5), np.int32)
    of_global, of_local = masks.causal_masks(tokens, None, window=2)
    assert of_global[0].sum(axis=1).tolist() == [1, 2, 3, 4, 5]
    assert of_local[0].astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    of_global, of_local = masks.cache_masks(np.array([[3], [0]]), 5, window=2)
    assert of_global[:, 0].astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]
    assert of_local[:, 0].astype(int).tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 0]]


def chosen(
    monkeypatch,
    backend,
    capability="9.0",
    *,
    devices=1,
    length=64,
    mesh=None,
    **changes,
):
    device = type("Device", (), {"compute_capability": capability})()
    base = dataclasses.replace(CONFIG, head_dim=128, compute_dtype="bfloat16")
    config = dataclasses.replace(base, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "platform", lambda mesh: backend)
        patch.setattr(jax, "local_devices", lambda: [device])
        patch.setattr(jax, "device_count", lambda: devices)
        return choice.choose(config, length=length, mesh=mesh)


def test_default_kernel_is_the_one_that_the_platform_can_run(monkeypatch):
    choose = functools.partial(chosen, monkeypatch)
    assert choose("cpu") == "plain"
    assert choose("gpu") == "cudnn"
    assert choose("gpu", length=63) == "plain"
    assert choose("gpu", compute_dtype="float32") == "plain"
    assert choose("gpu", attention_softcap=50.0) == "plain"
    assert choose("gpu", head_dim=256) == "cudnn"
    assert choose("gpu", "8.0", head_dim=256) == "plain"
    assert choose("gpu", "8.0") == "cudnn"
    assert choose("gpu", "7.5") == choose("gpu", "gfx90a") == "plain"
    assert choose("tpu") == choose("tpu", attention_softcap=50.0) == "splash"
    assert choose("tpu", head_dim=8) == "plain"
    assert choose("tpu", devices=2) == "plain"
    assert choose("tpu", devices=2, mesh=sharding.make_mesh()) == "splash"
    assert choose("gpu", attention="plain") == "plain"
    with pytest.raises(ValueError, match="splash attention runs on TPU"):
        choose("gpu", attention="splash")


@pytest.mark.parametrize(
    ("backend", "changes", "reason"),
    [
        ("cpu", {}, "runs on GPU, and this is cpu"),
        ("gpu", {"compute_dtype": "float32"}, "not in float32"),
        ("gpu", {"attention_softcap": 50.0}, "attention_softcap is 50.0"),
        ("gpu", {"head_dim": 260}, "multiples of 8 up to 256, and head_dim is 260"),
    ],
)
def test_kernel_that_cannot_do_what_is_asked_is_refused(monkeypatch, backend, changes, reason):
    with pytest.raises(ValueError, match=f"attention='cudnn' cannot be used: .*{reason}; 'auto'"):
        chosen(monkeypatch, backend, attention="cudnn", **changes)
