"""Cases whose input is prose: each is built here and returns the words that the reports expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import folders
from benchmarks.cases.row import Adapter
from configs.schema import DialogueConfig
from gtpo_jax import methods
from gtpo_jax.decoding import sampling
from launch import cli
from launch.rollout import RolloutArguments
from models import lora
from models.hf import config as hf_config
from models.hf import peft
from models.presets import TINY

OTHER_PARTS = (
    "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
    "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
    "model.multi_modal_projector.mm_input_projection",
)
"""Modules of a text and image model that are not part of its decoder."""

ADAPTERS = lora.LoraConfig(rank=2)


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapters of areas whose cases are descriptions."""
    yield {
        "sampling": _draws,
        "advantages": _advantages,
        "models.peft.adapter_config": _targets,
        "launch.convert export --adapters peft": _names,
        "launch.rollout chat": _end,
        "launchers": _option,
    }


def _draws(given: Mapping[str, Any]) -> str:
    """Filters and logits at their extremes: the drawn token is among the allowed ones."""
    keys = jax.random.split(jax.random.key(0), 64)
    ties = jnp.tile(jnp.array([2.0, 2.0, 1.0, 2.0]), (64, 1))
    huge = jnp.tile(jnp.array([1e30, -1e30, 0.0, 1e30]), (64, 1))
    draws = {
        (0, 1, 3): sampling.truncated(keys, ties, top_p=0.8),
        (0,): sampling.truncated(keys, ties, top_p=0.0),
        (0, 1, 3, 3): sampling.truncated(keys, ties, min_p=1.0),
        (0, 3): sampling.truncated(keys, huge, top_p=0.5),
        (0, 1, 3, 1): sampling.categorical(keys, ties, temperature=1e-8),
    }
    wrong = [
        allowed
        for allowed, draw in draws.items()
        if not np.isin(draw.tokens, allowed).all() or not np.isfinite(draw.sampled_logprobs).all()
    ]
    return f"wrong among {wrong}" if wrong else "right"


def _advantages(given: Mapping[str, Any]) -> str:
    """Groups without signal: equal, of one, all excluded, with one left; one contains NaN."""
    groups = jnp.array([0, 0, 0, 2, 5, 5, 7, 7, 7])
    earned = jnp.array([0.3, 0.3, 0.3, 5.0, 1.0, 0.0, 0.7, jnp.nan, 0.1])
    included = jnp.array([True] * 4 + [False] * 2 + [True] + [False] * 2)
    turn_mask = jnp.ones((len(groups), 1), bool)
    for credit in (
        methods.gtpo_advantages,
        methods.grpo_advantages,
        methods.rloo_advantages,
        methods.mt_grpo_advantages,
    ):
        found = credit(earned[:, None], turn_mask, groups, included)
        if not np.all(np.asarray(found)[np.asarray(included)] == 0):
            return f"{credit.__name__} gives {np.asarray(found).ravel()}"
    return "0, never NaN"


def _targets(given: Mapping[str, Any]) -> str:
    """PEFT adapts each module whose name is a target, or ends with one after a dot."""
    modules = hf_config.module_prefix({"architectures": [given["base"]]})
    targets = peft.adapter_config(TINY, ADAPTERS, modules=modules)["target_modules"]
    adapted = [
        name
        for name in OTHER_PARTS
        for target in targets
        if name == target or name.endswith(f".{target}")
    ]
    return f"adapters in {adapted}" if adapted else "no adapter in the vision tower"


def _names(given: Mapping[str, Any]) -> str:
    modules = hf_config.module_prefix({"architectures": [given["imported"]]})
    fresh = lora.init_adapters(TINY, ADAPTERS, jax.random.key(0))
    names = [tensor.name for tensor in peft.adapter_tensors(TINY, fresh, modules=modules)]
    others = [name for name in names if ".language_model." not in name]
    expected = "tensors named after the base checkpoint (…language_model…)"
    return f"also {others[:3]}" if others or not names else expected


def _end(given: Mapping[str, Any]) -> str:
    dialogue = folders.make_dialogue(folders.SYMBOLS[::2])
    read = dialogue.parse(folders.with_symbols(dialogue, "It is \\boxed{5}.<|endoftext|>"))
    return "the turn ends there" if read.answer == "5" else str(read.violation)


def _option(given: Mapping[str, Any]) -> str:
    options = ["chat", "--dialogue.template-variables", "enable_thinking=false"]
    parsed = cli.parse(RolloutArguments, options, program="launch.rollout")
    usual = DialogueConfig().template_variables
    return "an option" if parsed.config.dialogue.template_variables != usual else "no option"
