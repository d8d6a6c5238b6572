"""Fixtures of `benchmarks.update`: trajectories of known lengths, our update, its MFU."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts import make_optimizer
from configs.schema import OptimizerConfig
from gtpo_jax import learner
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.types import Params, Problem, StopReason, Trajectory, Turn, Verdict
from launch.planning.estimate import model_operations
from models import decoder
from models.config import ModelConfig

TURNS = 4  # most turns of a trajectory
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
OPTIMIZER = OptimizerConfig(learning_rate=1e-4, warmup_steps=1)
STEPS = 1_000_000  # steps of the schedule, so long that the learning rate is constant

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products, by a part of the device's name; vendor's figures for SXM."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Trajectories, and the advantages of their turns."""

    trajectories: list[Trajectory]
    advantages: np.ndarray  # [M, TURNS] float32

    @property
    def tokens(self) -> int:
        """Number of tokens of prompts, turns and observations, without padding."""
        return sum(trajectory.length for trajectory in self.trajectories)

    @property
    def trained(self) -> int:
        return sum(len(turn.tokens) for t in self.trajectories for turn in t.turns)


def model_config(*, vocab_size: int, width: int, layers: int) -> ModelConfig:
    """A small Qwen2."""
    return ModelConfig(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        query_heads=4,
        kv_heads=2,
        head_dim=width // 4,
        mlp_width=4 * width,
        qkv_bias=True,
    )


def make_batch(*, count: int, context: int, vocab_size: int, equal: bool) -> Batch:
    """`count` trajectories of random tokens above 0, which are about equally likely.

    With `equal` lengths, prompts have an eighth of the context and the remainder has the rest.
    Otherwise prompts are spread evenly from half of that to all of it, and remainders from a
    sixteenth to all: a little over half on average, and the longest fill the context. One to
    `TURNS` turns divide the remainder; the last quarter of each turn but the last is tool output.
    """
    rng = np.random.default_rng(0)
    longest_prompt = context // 8
    longest = context - longest_prompt

    def spread(least: float, most: int) -> np.ndarray:
        lengths = np.linspace(1.0 if equal else least, 1.0, count) * most
        return rng.permutation(np.maximum(np.rint(lengths).astype(int), 1))

    def ids(size: int) -> np.ndarray:
        return rng.integers(1, vocab_size, size).astype(np.int32)

    def turn(size: int, observed: int) -> Turn:
        chance = np.full(size - observed, -np.log(vocab_size), np.float32)
        return Turn(
            tokens=ids(size - observed), logprobs=chance, text="", observation=ids(observed)
        )

    def turns(size: int) -> tuple[Turn, ...]:
        parts = np.array_split(np.arange(size), min(int(rng.integers(1, TURNS + 1)), size))
        sizes = [len(part) for part in parts]
        return (*(turn(n, n // 4) for n in sizes[:-1]), turn(sizes[-1], 0))

    prompts, rest = spread(0.5, longest_prompt), spread(1 / 16, longest)
    trajectories = [
        Trajectory(
            problem=Problem(id="", question="", answer=""),
            group=0,
            sample=sample,
            prompt=ids(prompt),
            turns=turns(size),
            stop_reason=StopReason.ANSWERED,
            verdict=Verdict.RIGHT,
        )
        for sample, (prompt, size) in enumerate(zip(prompts, rest, strict=True))
    ]
    advantages = rng.standard_normal((count, TURNS)).astype(np.float32)
    return Batch(trajectories=trajectories, advantages=advantages)


def padded(batch: Batch) -> dict[str, np.ndarray]:
    """The input of the peers: prompts padded on the left and the rest on the right, with 0."""
    trajectories = batch.trajectories
    width = max(len(t.prompt) for t in trajectories)
    longest = max(t.length - len(t.prompt) for t in trajectories)
    prompts = np.zeros((len(trajectories), width), np.int32)
    shape = (len(trajectories), longest)
    completions, trained = np.zeros(shape, np.int32), np.zeros(shape, bool)
    advantages, logprobs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row, trajectory in enumerate(trajectories):
        prompts[row, width - len(trajectory.prompt) :] = trajectory.prompt
        start = 0
        for index, turn in enumerate(trajectory.turns):
            written = (row, slice(start, start + len(turn.tokens)))
            completions[written], trained[written] = turn.tokens, True
            advantages[written] = batch.advantages[row, index]
            logprobs[written] = turn.logprobs
            start += len(turn.tokens)
            completions[row, start : start + len(turn.observation)] = turn.observation
            start += len(turn.observation)
    return {
        "prompt_ids": prompts,
        "completion_ids": completions,
        "trained": trained,
        "advantages": advantages,
        "logprobs": logprobs,
    }


def write_padded(path: pathlib.Path, batch: Batch) -> None:
    arrays: dict[str, Any] = padded(batch)
    np.savez(path, **arrays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Our update, which can run over a batch again and again, each time from the state it left."""

    run: Callable[[], learner.Metrics]  # returns when the update is done
    positions: int  # positions computed, padding included


def ours(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    rows: int,
    row_length: int,
    chunk: int | None = None,
) -> Packed:
    """The update as `launch.train` makes it, over micro-batches of `rows` packed rows."""
    packed = packing.pack(
        batch.trajectories,
        batch.advantages,
        micro_batches=-(-len(batch.trajectories) // rows),
        rows=rows,
        row_length=row_length,
    )
    filled = int(np.count_nonzero(packed.loss_mask.any(axis=(1, 2))))
    optimizer = make_optimizer(OPTIMIZER, steps=STEPS)
    # An update consumes the memory of its state, and the parameters are the caller's.
    state = learner.init_state(jax.tree.map(jnp.copy, params), optimizer)
    update = learner.CompiledUpdate(
        learner.make_update(
            decoder.forward_fn(config),
            optimizer,
            losses.clipped(low=CLIP_LOW, high=CLIP_HIGH),
            reductions.token_mean,
            chunk=chunk,
        ),
        state,
    )
    on_device = jax.device_put(packed)

    def run() -> learner.Metrics:
        nonlocal state
        state, metrics = jax.block_until_ready(update(state, on_device))
        return metrics

    return Packed(run=run, positions=filled * rows * row_length)


def init_params(config: ModelConfig) -> Params:
    return jax.jit(functools.partial(decoder.init_params, config))(jax.random.key(0))


def flops(config: ModelConfig, lengths: Sequence[int]) -> float:
    """FLOPs of an update on documents of these lengths: six per weight that a token uses, including
    the head and not the embedding, plus causal attention. Recomputation does not count.
    """
    return sum(model_operations(config, length, length) for length in lengths)


def mfu(config: ModelConfig, lengths: Sequence[int], *, seconds: float, device: str) -> float:
    """Model FLOPs over the FLOPs that the device could do in the time; `device` is its name."""
    peak = next((flop for name, flop in PEAKS.items() if name in device), None)
    if peak is None:
        raise ValueError(f"the peak of {device} is not known; it is of {', '.join(PEAKS)}")
    return flops(config, lengths) / seconds / peak
