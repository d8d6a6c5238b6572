"""Checks values of `config.json`; a wrong one is refused by name in one line.

A whole number may be written as 32.0. Null stands for the default where a key has one.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

COUNTS = {  # smallest and largest value
    "vocab_size": (1, 2**31 - 1),
    "hidden_size": (1, 2**31 - 1),
    "intermediate_size": (1, 2**31 - 1),
    "moe_intermediate_size": (1, 2**31 - 1),
    "num_hidden_layers": (1, 2**16),
    "num_attention_heads": (1, 2**16),
    "num_key_value_heads": (1, 2**16),
    "num_experts": (1, 2**16),
    "num_experts_per_tok": (1, 2**16),
    "head_dim": (1, 2**16),
    "max_position_embeddings": (1, 2**63 - 1),
    "original_max_position_embeddings": (1, 2**63 - 1),
    "sliding_window": (1, 2**63 - 1),
    "sliding_window_pattern": (1, 2**16),
    "max_window_layers": (0, 2**31 - 1),
    "mask_token_id": (0, 2**31 - 1),
}
POSITIVE = {
    "rms_norm_eps",
    "rope_theta",
    "rope_local_base_freq",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
}
NOT_NEGATIVE = {"initializer_range", "mscale", "mscale_all_dim"}
FLAGS = {"tie_word_embeddings", "norm_topk_prob", "use_sliding_window", "include_qkv_bias"}
WORDS = {"hidden_act", "hidden_activation", "rope_type", "type"}
OBJECTS = {
    "rope_scaling",
    "rope_parameters",
    "full_attention",
    "sliding_attention",
    "text_config",
}
LISTS = {"layer_types"}
NULLABLE = {"sliding_window", "attn_logit_softcapping", "final_logit_softcapping"}
"""Keys whose null is a value: it turns the feature off."""


def read(values: Mapping[str, Any], *, where: str = "config.json") -> dict[str, Any]:
    """Checks the values of known keys, and drops nulls that stand for a default.

    Raises ValueError with the key, the expectation and the value.
    """
    return {
        key: value if value is None else _checked(key, value, where)
        for key, value in values.items()
        if value is not None or key in NULLABLE
    }


def shown(value: object) -> str:
    """A value as one short line, for an error message."""
    return reprlib.repr(value)


def _checked(key: str, value: Any, where: str) -> Any:
    """The checked value of a key; values of unknown keys pass unchecked."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in COUNTS:
        low, high = COUNTS[key]
        expected = f"a whole number from {low:,} to {high:,}"
        right = number and low <= value <= high and value == int(value)
        value = int(value) if right else value
    elif key in POSITIVE or key in NOT_NEGATIVE:
        expected = "a positive number" if key in POSITIVE else "a number of at least 0"
        right = number and 0 <= value <= 1e38 and (value > 0 or key in NOT_NEGATIVE)
    elif key in FLAGS:
        expected, right = "true or false", isinstance(value, bool)
    elif key in WORDS:
        expected, right = "a name", isinstance(value, str)
    elif key in OBJECTS:
        expected, right = "an object", isinstance(value, Mapping)
    elif key in LISTS:
        expected = "a list of names"
        right = isinstance(value, list) and all(isinstance(each, str) for each in value)
    else:
        return value
    if not right:
        raise ValueError(f"{where} has {key}={shown(value)}; expected {expected}")
    return value
