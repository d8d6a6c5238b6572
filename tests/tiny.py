"""A decoder, a dialogue and trajectories small enough for tests."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from gtpo_jax.language.grammar import Dialogue
from gtpo_jax.testing import ByteTokenizer
from gtpo_jax.types import Params, Problem, StopReason, Trajectory, Turn, Verdict
from models import decoder
from models.config import ModelConfig

BYTES = ByteTokenizer()
DIALOGUE = Dialogue(BYTES)
CONFIG = ModelConfig(
    vocab_size=BYTES.vocab_size,
    width=32,
    layers=2,
    query_heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    qkv_bias=True,
    rope_theta=1e4,
    init_scale=0.3,
)
FORWARD = decoder.forward_fn(CONFIG)


def make_params(config: ModelConfig = CONFIG, seed: int = 0) -> Params:
    """Random parameters, as NumPy arrays: no bias is 0 and no scale is 1, as in a fresh model.

    They are the caller's own: on CPU an array on a device may share its memory with them.
    """
    return jax.tree.map(np.copy, _make_params(config, seed))


@functools.cache
def _make_params(config: ModelConfig, seed: int) -> Params:
    shapes = jax.eval_shape(functools.partial(decoder.init_params, config), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape)
        name = path[-1].key
        if name == "scale":
            noise = 1 + 0.1 * noise
        elif name == "bias":
            noise = 0.1 * noise
        elif name == "kernel":
            noise = noise * leaf.shape[-2] ** -0.5
        else:
            noise = config.init_scale * noise
        return noise.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_trajectory(
    rng: np.random.Generator,
    lengths: Sequence[tuple[int, int]],
    *,
    prompt: int = 3,
    group: int = 0,
    success: bool = True,
    vocab_size: int = CONFIG.vocab_size,
) -> Trajectory:
    """Random ids: turns and observations of the lengths given, log-probs near those of chance."""

    def ids(count: int) -> np.ndarray:
        return rng.integers(0, vocab_size, count).astype(np.int32)

    turns = tuple(
        Turn(
            tokens=ids(written),
            logprobs=(rng.standard_normal(written) * 0.3 - np.log(vocab_size)).astype(np.float32),
            text="",
            observation=ids(observed),
        )
        for written, observed in lengths
    )
    return Trajectory(
        problem=Problem(id="p", question="q", answer="a"),
        group=group,
        sample=0,
        prompt=ids(prompt),
        turns=turns,
        stop_reason=StopReason.ANSWERED,
        verdict=Verdict.RIGHT if success else Verdict.WRONG,
    )


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by one for each program that JAX compiles inside."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **_: str | int) -> None:
        if event.endswith("/backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
