"""Names become functions here, and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from configs.schema import AdapterConfig, AlgorithmConfig, DialogueConfig, OptimizerConfig
from gtpo_jax import advantages, credit, learner, optimizers, protocols, reductions
from gtpo_jax.types import Params

if TYPE_CHECKING:
    from models.lora import LoraConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """An algorithm is turn rewards, turn advantages, a loss per token, and a reduction."""

    turn_rewards: credit.RewardFn
    turn_advantages: credit.AdvantageFn
    token_loss: learner.TokenLoss
    reduce: learner.Reduction


def make_algorithm(config: AlgorithmConfig) -> Algorithm:
    """The functions of an algorithm, its hyperparameters bound."""
    if config.name == "gtpo":
        turn_rewards = functools.partial(
            credit.gtpo_turn_rewards, shaping=config.shaping, format_penalty=config.format_penalty
        )
        turn_advantages = functools.partial(advantages.gtpo_advantages, discount=config.discount)
    else:
        for field in ("discount", "shaping", "format_penalty"):
            if getattr(config, field) != getattr(AlgorithmConfig, field):
                raise ValueError(f"grpo does not use {field}; leave it out, or choose gtpo")
        turn_rewards, turn_advantages = credit.grpo_turn_rewards, advantages.grpo_advantages
    return Algorithm(
        turn_rewards=turn_rewards,
        turn_advantages=turn_advantages,
        token_loss=learner.clipped_loss(
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl_weight=config.kl_weight,
            importance_limit=config.importance_limit,
        ),
        reduce=reductions.token_mean,
    )


def make_protocol(config: DialogueConfig) -> protocols.ToolProtocol:
    """The tool protocol of a chat."""
    known = {
        "fenced": protocols.FencedPython,
        "tags": protocols.CodeTags,
        "hermes": protocols.HermesCalls,
    }
    return known[config.protocol]()


def make_lora(config: AdapterConfig) -> LoraConfig | None:
    """The adapters of a model; None where all of it is trained."""
    if config.rank == 0:
        return None
    try:
        from models import lora
    except ImportError as error:
        raise ValueError(
            f"lora.rank {config.rank} needs the library qwix: pip install -e '.[lora]'"
        ) from error
    targets = config.targets or "all linear"
    return lora.LoraConfig(rank=config.rank, alpha=config.alpha, targets=targets)


def make_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
    """The optimizer with its schedule over `steps` updates, in float32 whatever the parameters."""
    warmup = min(config.warmup_steps, max(steps - 1, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / warmup,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.learning_rate * config.final_fraction,
    )
    if config.kind == "muon":
        inner = optax.contrib.muon(
            schedule,
            adam_b1=config.b1,
            adam_b2=config.b2,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_layer_matrices,
        )
    else:
        inner = optax.adam(schedule, b1=config.b1, b2=config.b2)
    clipped = optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)
    return optimizers.with_float32_masters(clipped)


def _layer_matrices(params: Params) -> Params:
    """Stacked layer matrices `[L, in, out]` are orthogonalized per layer; the rest is not."""
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map(lambda p: matrix if jnp.ndim(p) == 3 else None, params)
