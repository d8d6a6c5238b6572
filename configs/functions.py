"""Names become functions here, and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from configs.schema import (
    AdapterConfig,
    AlgorithmConfig,
    DialogueConfig,
    OptimizerConfig,
    RunConfig,
    TaskConfig,
    VerifierConfig,
)
from gtpo_jax import advantages, credit, learner, reductions, returns
from gtpo_jax.language import protocols
from gtpo_jax.learner import optimizers
from gtpo_jax.tasks import mappings, reading, stream
from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.tasks.source import Noise, ProblemSource
from gtpo_jax.types import Params, Tool
from gtpo_jax.verifiers import KindVerifier

if TYPE_CHECKING:
    from models.lora import LoraConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """An algorithm is turn rewards, turn advantages, a loss per token, and a reduction.

    `turn_returns` is what its advantages make of rewards on their way, to be recorded.
    """

    turn_rewards: credit.RewardFn
    turn_returns: credit.ReturnFn
    turn_advantages: credit.AdvantageFn
    token_loss: learner.TokenLoss
    reduce: learner.Reduction


def make_algorithm(config: AlgorithmConfig) -> Algorithm:
    """The functions of an algorithm, its hyperparameters bound."""
    if config.name == "gtpo":
        turn_rewards = functools.partial(
            credit.gtpo_reward_parts, shaping=config.shaping, format_penalty=config.format_penalty
        )
        turn_advantages = functools.partial(advantages.gtpo_advantages, discount=config.discount)
        discount = config.discount
    else:
        for field in ("discount", "shaping", "format_penalty"):
            if getattr(config, field) != getattr(AlgorithmConfig, field):
                raise ValueError(f"grpo does not use {field}; leave it out, or choose gtpo")
        turn_rewards, turn_advantages = credit.grpo_reward_parts, advantages.grpo_advantages
        discount = 1.0
    return Algorithm(
        turn_rewards=turn_rewards,
        turn_returns=functools.partial(returns.discounted_returns, discount=discount),
        turn_advantages=turn_advantages,
        token_loss=learner.clipped_loss(
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl_weight=config.kl_weight,
            importance_limit=config.importance_limit,
        ),
        reduce=reductions.token_mean,
    )


def make_source(config: RunConfig) -> ProblemSource:
    """The problems that a config names, all of them read and checked."""
    task = config.task
    noise = Noise(skip_tool=task.skip_tool, unclosed_call=task.unclosed_call)
    if not task.train_file:
        for field in (
            *("eval_file", "mapping", "fields"),
            *("eval_mapping", "eval_fields", "drop_overlap"),
            *("other_numbers", "other_words"),
        ):
            if getattr(task, field) != getattr(TaskConfig, field):
                raise ValueError(f"task.{field} needs task.train_file beside it")
        return GeneratedTask(
            seed=config.seed, families=task.families, level=task.level, noise=noise
        )
    if task.eval_file is None:
        raise ValueError("task.train_file needs task.eval_file beside it, to evaluate on")
    if task.level != TaskConfig.level:
        raise ValueError("task.level is that of generated problems; leave out task.train_file")
    names = task.mapping * len(task.train_file) if len(task.mapping) == 1 else task.mapping
    if len(names) != len(task.train_file):
        raise ValueError(
            f"task.mapping must name one mapping, or one for each of {len(task.train_file)}"
            f" training files, got {len(task.mapping)}"
        )
    if task.eval_mapping is None and len(set(names)) > 1:
        raise ValueError("with several task.mapping, task.eval_mapping has to be given")
    fields = _field_names("fields", task.fields)
    parts = [
        reading.read_problems(source, make_mapping(name), fields=fields)
        for source, name in zip(task.train_file, names, strict=True)
    ]
    evaluation = reading.read_problems(
        task.eval_file,
        make_mapping(task.eval_mapping or names[0]),
        fields=fields
        if task.eval_fields is None
        else _field_names("eval_fields", task.eval_fields),
    )
    joined = reading.join([part.entries for part in parts])
    train = reading.keep_apart(joined, evaluation.entries, drop=task.drop_overlap)
    notes = [note for part in (*parts, evaluation, train) for note in part.notes]
    return stream.entries_task(
        train.entries,
        evaluation.entries,
        seed=config.seed,
        noise=noise,
        other_numbers=task.other_numbers,
        other_words=task.other_words,
        notes=notes,
    )


def make_mapping(name: str) -> mappings.Mapping:
    """How records of a data set become problems."""
    if name not in mappings.MAPPINGS:
        raise ValueError(
            f"there is no mapping {name!r} of problems; there are {', '.join(mappings.MAPPINGS)}"
        )
    return mappings.MAPPINGS[name]


def _field_names(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """Field of a mapping → field of a file, from `question=Problem`."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ValueError(f"task.{option} must be as question=Problem, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def make_protocol(config: DialogueConfig) -> protocols.ToolProtocol:
    """The tool protocol of a chat."""
    known = {
        "fenced": protocols.FencedPython,
        "tags": protocols.CodeTags,
        "hermes": protocols.HermesCalls,
    }
    return known[config.protocol]()


def template_variables(config: DialogueConfig) -> dict[str, Any]:
    """Variable of a chat template → value, from `enable_thinking=false`.

    A value is JSON, or a text where it is none; `True`, `False` and `None` are as in Python.
    """
    variables: dict[str, Any] = {}
    for pair in config.template_variables:
        name, _, value = pair.partition("=")
        if not (name.isidentifier() and "=" in pair) or name in variables:
            raise ValueError(
                "dialogue.template_variables must be as enable_thinking=false, each name once; got"
                f" {pair!r}"
            )
        value = value.lower() if value in ("True", "False") else value
        try:
            variables[name] = None if value == "None" else json.loads(value)
        except ValueError:
            variables[name] = value
    return variables


def make_verifier(config: VerifierConfig, tool: Tool | None) -> KindVerifier:
    """The verifier of a run; to be closed after use. `tool` runs unit tests."""
    return KindVerifier(
        config.kind,
        tolerance=config.tolerance,
        seconds=config.seconds,
        workers=config.workers,
        tool=tool,
    )


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


def make_optimizer(
    config: OptimizerConfig, *, steps: int, updates: int = 1
) -> optax.GradientTransformation:
    """The optimizer of a phase of `steps`, each of so many `updates`, in float32 whatever the
    parameters.
    """
    steps = (config.decay_steps or steps) * updates
    warmup = min(config.warmup_steps, max(steps - 1, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / max(warmup, 1),
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
