"""A model as a hub gives it: a folder of weights, config, tokenizer and chat template."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from models import hf_export
from models.config import ModelConfig
from tests.chat_families import FAMILIES, Family
from tests.tiny import CONFIG, make_params

WIDE = dataclasses.replace(CONFIG, head_dim=16)
"""Wide enough for adapters of rank 16."""


def write_folder(
    folder: pathlib.Path, config: ModelConfig = WIDE, family: Family = FAMILIES["qwen2.5"]
) -> ModelConfig:
    """Writes random weights, for the tokenizer of a family, and returns their config."""
    size = -(-family.tokenizer().vocab_size // 16) * 16
    config = dataclasses.replace(config, vocab_size=size)
    hf_export.save_checkpoint(folder, config, make_params(config))
    family.library_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"chat_template": family.template, **dict(family.variables)}
    text = json.dumps(settings)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return config
