"""The training step that a config describes."""

from __future__ import annotations

import jax

from configs.parts import make_optimizer
from configs.schema import RunConfig
from gtpo_jax.methods import Method
from gtpo_jax.training import Layout, Put, Training
from gtpo_jax.types import ForwardFn


def make_layout(config: RunConfig) -> Layout:
    """The batches of a step."""
    train = config.train
    return Layout(
        groups=train.prompts,
        group_size=train.group_size,
        max_turns=config.rollout.max_turns,
        row_tokens=train.row_tokens or config.rollout.context,
        rows=train.rows,
        minibatches=train.minibatches,
        epochs=train.epochs,
        row_buckets=train.row_buckets,
        shared_prompts=train.shared_prompts,
    )


def make_training(
    config: RunConfig, forward: ForwardFn, method: Method, *, put: Put = jax.device_put
) -> Training:
    """The step of `launch.train`, which `launch.plan` compiles for other machines.

    `put` places batches on the devices.
    """
    train = config.train
    return Training(
        forward,
        make_optimizer(
            train.optimizer, steps=train.steps, updates=train.minibatches * train.epochs
        ),
        method,
        make_layout(config),
        temperature=train.temperature,
        chunk=train.logprob_chunk,
        seed=config.seed,
        put=put,
    )
