"""Builds the parts of a run that settings name: protocol, verifier, tool, adapters, optimizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from configs.methods import import_path
from configs.schema import (
    AdapterConfig,
    DialogueConfig,
    OptimizerConfig,
    ToolConfig,
    VerifierConfig,
)
from gtpo_jax import tools
from gtpo_jax.language import protocols
from gtpo_jax.learner import optimizers
from gtpo_jax.tools import remote
from gtpo_jax.types import ClosingTool, Params, Tool
from gtpo_jax.verifiers import KindVerifier

if TYPE_CHECKING:
    from models.lora import LoraConfig


def make_protocol(config: DialogueConfig) -> protocols.ToolProtocol:
    """The tool protocol of a chat."""
    if config.stop_after_block:
        return protocols.FencedPython.after_block()
    known = {
        "fenced": protocols.FencedPython,
        "tags": protocols.CodeTags,
        "hermes": protocols.HermesCalls,
    }
    return known[config.protocol]()


def template_variables(config: DialogueConfig) -> dict[str, Any]:
    """Variable of a chat template → value, from `enable_thinking=false`.

    A value is JSON, or else a text; `True`, `False` and `None` are as in Python.
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
    """The verifier of a run; close it after use. `tool` runs unit tests."""
    own = import_path(config.kind, "verifier.kind") if ":" in config.kind else None
    return KindVerifier(
        config.kind,
        own=own,
        tolerance=config.tolerance,
        seconds=config.seconds,
        workers=config.workers,
        tool=tool,
    )


def make_tool(config: ToolConfig) -> ClosingTool:
    """The tool of a run; close it after use."""
    if config.factory:
        return _own_tool(config.factory)
    if config.remote:
        return remote.RemoteSandbox(
            config.remote,
            max_running=config.running,
            wall_seconds=config.limits.wall_seconds,
            guard_seconds=config.limits.guard_seconds,
            memory_bytes=config.limits.memory_bytes,
            output_bytes=config.limits.output_bytes,
        )
    return tools.PythonExecutor(
        max_running=config.running,
        preload=config.preload,
        allow=config.allow,
        limits=config.limits,
    )


def _own_tool(path: str) -> ClosingTool:
    tool = import_path(path, "tool.factory")()
    if not isinstance(tool, ClosingTool):
        raise ValueError(
            f"tool.factory {path} must return a tool with submit(code, *, timeout) and close(), got"
            f" {type(tool).__name__}"
        )
    return tool


def make_lora(config: AdapterConfig) -> LoraConfig | None:
    """The adapters of a model; None if all parameters are trained."""
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
    """The optimizer of a phase of `steps` steps with `updates` updates each. It computes in
    float32, whatever the type of the parameters.
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
    """Selects stacked layer matrices `[L, in, out]`, which are orthogonalized per layer; others are
    not.
    """
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map(lambda p: matrix if jnp.ndim(p) == 3 else None, params)
