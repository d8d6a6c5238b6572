"""Savings of encoding a group's prompt once: FLOPs and seconds of an update.

python -m benchmarks.prefix --json figures.json

One group of trajectories with equal prompts and one turn each is packed in two ways: every
trajectory in its own row with its own prompt, one row per micro-batch, or all of them behind one
prompt in a single row. A time is the median of interleaved runs of the whole compiled update.

FLOPs are those of the compiled gradient by XLA's cost analysis, which counts the body of a loop
once however often it runs. The counted programs therefore have no loops: all rows are in one
micro-batch, and a model of one layer and one of none give `none + layers · (one − none)`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.figures import Figure
from benchmarks.measure import run_benchmark
from gtpo_jax import learner
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.types import (
    ForwardFn,
    Params,
    Problem,
    StopReason,
    TokenBatch,
    Trajectory,
    Turn,
    Verdict,
)
from launch import cli
from models import decoder
from models.config import ModelConfig
from models.presets import QWEN2_5_1_5B

QWEN = dataclasses.replace(QWEN2_5_1_5B, param_dtype="float32", compute_dtype="float32")
LOSS = losses.clipped(low=0.2, high=0.28)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixArguments:
    """An update with one shared prompt, compared with the same update with one prompt per
    trajectory.
    """

    prompt: int = 2048
    """Tokens of the prompt."""
    suffix: int = 256
    """Tokens of each trajectory after the prompt."""
    group: int = 8
    """Trajectories that share the prompt."""
    width: int = 512
    """Width of the timed model; its heads have 64 features, its MLP is four times as wide."""
    layers: int = 2
    repeats: int = 3
    """Number of updates of each kind."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


def make_group(arguments: PrefixArguments, vocab_size: int) -> list[Trajectory]:
    """A group of random trajectories whose tokens are about equally likely."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(0, vocab_size, count).astype(np.int32)

    prompt = ids(arguments.prompt)
    chance = np.full(arguments.suffix, -np.log(vocab_size), np.float32)
    return [
        Trajectory(
            problem=Problem(id="", question="", answer=""),
            group=0,
            sample=sample,
            prompt=prompt,
            turns=(Turn(tokens=ids(arguments.suffix), logprobs=chance, text=""),),
            stop_reason=StopReason.ANSWERED,
            verdict=Verdict.RIGHT,
        )
        for sample in range(arguments.group)
    ]


def make_batches(arguments: PrefixArguments, vocab_size: int) -> dict[str, TokenBatch]:
    """The group as batches with its prompt `repeated` and `shared`; rows have no padding."""
    trajectories = make_group(arguments, vocab_size)
    advantages = np.random.default_rng(1).standard_normal((arguments.group, 1)).astype(np.float32)
    alone = arguments.prompt + arguments.suffix
    together = arguments.prompt - 1 + arguments.group * (1 + arguments.suffix)
    pack = functools.partial(packing.pack, trajectories, advantages, rows=1)
    return {
        "repeated": pack(micro_batches=arguments.group, row_length=alone),
        "shared": pack(micro_batches=1, row_length=together, shared_prompts=True),
    }


def make_config(arguments: PrefixArguments) -> ModelConfig:
    heads = arguments.width // 64
    return ModelConfig(
        vocab_size=4096,
        width=arguments.width,
        layers=arguments.layers,
        query_heads=heads,
        kv_heads=heads // 4 if heads % 4 == 0 else heads,
        head_dim=64,
        mlp_width=4 * arguments.width,
    )


def count_flops(config: ModelConfig, batch: TokenBatch) -> float:
    """FLOPs of the gradient of a batch `[A, B, T]`, all of it in one micro-batch; see above."""
    layers, config = config.layers, dataclasses.replace(config, layers=1)
    forward = decoder.forward_fn(config)
    params = jax.eval_shape(functools.partial(decoder.init_params, config), jax.random.key(0))
    rows = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((x.shape[0] * x.shape[1], x.shape[2]), x.dtype), batch
    )

    def embed(params: Params, tokens: jax.Array, positions: jax.Array, **_: jax.Array | None):
        return jnp.take(params["embedding"], tokens, axis=0), None

    def flops(forward: ForwardFn) -> float:
        def loss(params: Params, batch: TokenBatch) -> jax.Array:
            scores = losses.Scores(*learner.batch_logprobs(forward, params, batch))
            return reductions.token_mean(LOSS(scores, batch)[0], batch).mean()

        analysis = jax.jit(jax.grad(loss)).lower(params, rows).compile().cost_analysis()
        if not analysis:
            raise ValueError(f"XLA counts no FLOPs on {jax.default_backend()}; run it on CPU")
        return analysis["flops"]

    one, none = flops(forward), flops(dataclasses.replace(forward, hidden=embed))
    return none + layers * (one - none)


def time_updates(
    config: ModelConfig, batches: dict[str, TokenBatch], repeats: int
) -> tuple[dict[str, list[float]], float]:
    """Seconds of every update, and the largest difference of its gradient from the first batch's,
    relative to the largest entry of that.
    """
    params = jax.jit(functools.partial(decoder.init_params, config))(jax.random.key(0))
    # Plain descent that leaves the gradient in its state: momentum without memory.
    optimizer = optax.sgd(1e-3, momentum=0.0)
    state = learner.init_state(params, optimizer)
    update = learner.make_update(decoder.forward_fn(config), optimizer, LOSS, reductions.token_mean)
    batches = jax.device_put(batches)
    compiled = {
        name: jax.jit(update).lower(state, batch).compile() for name, batch in batches.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    gradients = {}
    for _ in range(repeats):
        for name, batch in batches.items():
            start = time.perf_counter()
            new, _ = jax.block_until_ready(compiled[name](state, batch))
            seconds[name].append(time.perf_counter() - start)
            gradients[name] = [np.asarray(leaf) for leaf in jax.tree.leaves(new.optimizer_state)]
    first, *others = gradients.values()
    largest = max(np.abs(leaf).max() for leaf in first)
    gaps = [np.abs(a - b).max() for other in others for a, b in zip(first, other, strict=True)]
    return seconds, float(max(gaps) / largest)


def measure(arguments: PrefixArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    config = make_config(arguments)
    batches = make_batches(arguments, config.vocab_size)
    flops = {name: count_flops(config, batch) for name, batch in batches.items()}
    larger = {name: count_flops(QWEN, batch) for name, batch in batches.items()}
    seconds, gap = time_updates(config, batches, arguments.repeats)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    tokens = {name: int(np.count_nonzero(batch.segment_ids)) for name, batch in batches.items()}

    figures: dict[str, Figure] = {}
    for name in batches:
        figures[f"tokens, {name}"] = Figure(value=tokens[name], unit="tokens")
        figures[f"FLOPs, {name}"] = Figure(value=flops[name] / 1e12, unit="TFLOP")
        figures[f"update, {name}"] = Figure(value=medians[name], unit="seconds")
    figures["FLOPs, repeated / shared"] = Figure(
        value=flops["repeated"] / flops["shared"], unit="ratio", at_least=3.5
    )
    figures["update, repeated / shared"] = Figure(
        value=medians["repeated"] / medians["shared"], unit="ratio", at_least=2.5
    )
    figures["FLOPs, repeated / shared, Qwen2.5-1.5B"] = Figure(
        value=larger["repeated"] / larger["shared"], unit="ratio"
    )
    figures["largest difference of the gradients"] = Figure(
        value=gap, unit="of the largest entry", at_most=1e-5
    )
    notes = [
        f"a prompt of {arguments.prompt} tokens, {arguments.group} times {arguments.suffix} behind"
        f" it; {config.parameters:,} parameters in {config.layers} layers, float32, on"
        f" {jax.default_backend()}; medians of {arguments.repeats} updates in turn",
    ]
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(PrefixArguments, measure, argv, "benchmarks.prefix")


if __name__ == "__main__":
    cli.main(run)
