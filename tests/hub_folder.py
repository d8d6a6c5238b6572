"""A model as a hub gives it: a folder of weights, config, tokenizer and chat template."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from models.config import ModelConfig
from models.hf import export as hf_export
from tests.chat_families import FAMILIES, Family
from tests.tiny import CONFIG, make_params

WIDE = dataclasses.replace(CONFIG, head_dim=16)
"""Wide enough for adapters of rank 16."""


def write_folder(
    folder: pathlib.Path,
    config: ModelConfig = WIDE,
    family: Family = FAMILIES["qwen2.5"],
    *,
    silent: str = "",
) -> ModelConfig:
    """Writes random weights, for the tokenizer of a family, and returns their config.

    With a token to be `silent` with, the model writes it wherever it may write.
    """
    size = -(-family.tokenizer().vocab_size // 16) * 16
    config = dataclasses.replace(config, vocab_size=size)
    params = make_params(config)
    if silent:
        # A feature that every token has, and so every state, and that one has more of.
        params["embedding"][:, 0] = 10.0
        params["embedding"][family.tokenizer().control_id(silent), 0] = 14.0
    hf_export.save_checkpoint(folder, config, params)
    write_dialogue(folder, family)
    return config


def write_dialogue(folder: pathlib.Path, family: Family = FAMILIES["qwen2.5"]) -> None:
    """Writes the tokenizer and the chat template of a family."""
    family.library_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"chat_template": family.template, **dict(family.variables)}
    text = json.dumps(settings)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
