"""`config.json` of Hugging Face checkpoints to a ModelConfig, and back.

What differs between families is data in `models/hf_families.py`. What a ModelConfig cannot say is
refused by name, never skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig, RopeScaling
from models.hf_families import (
    ABSENT,
    ACTIVATIONS,
    ALIASES,
    COMMON,
    COMMON_DEFAULTS,
    FAMILIES,
    OPTIONAL,
    OURS,
    RIVALS,
    RULED,
    SCALINGS,
    WRAPPERS,
    Family,
)

Json = Mapping[str, Any]


def from_hf(config: Json) -> ModelConfig:
    """The model that a `config.json` describes; of one for text and images, the text part.

    Raises ValueError for an architecture or a feature that the decoder does not have.
    """
    family, config = _decoder_part(config)
    for key, absent in ABSENT.items():
        if config.get(key) is not None and config[key] not in absent:
            raise _unsupported(family, key, config[key])
    renamed = {ALIASES.get(key, key): value for key, value in config.items()}
    known = {**COMMON_DEFAULTS, **family.defaults, **renamed}
    theirs = {**COMMON, **family.keys}
    if known.get("num_key_value_heads") is None:
        known["num_key_value_heads"] = known.get("num_attention_heads")
    if known.get("head_dim") is None and known.get("num_attention_heads"):
        known["head_dim"] = known.get("hidden_size", 0) // known["num_attention_heads"]
    missing = sorted({key for key in theirs.values() if key not in known})
    if missing:
        raise ValueError(f"config.json of {family.architecture} lacks {', '.join(missing)}")
    if known[family.activation] not in ACTIVATIONS:
        raise _unsupported(family, family.activation, known[family.activation])
    dtype = str(known.get("dtype") or known.get("torch_dtype") or "float32")
    return ModelConfig(
        **family.fixed,
        **{field: known[key] for field, key in theirs.items()},
        **{**_read_rope(family, known), **_read_window(family, known)},
        activation=ACTIVATIONS[known[family.activation]],
        param_dtype=dtype,
        compute_dtype=dtype,
    )


def name_prefix(config: Json) -> str:
    """What stands before the names of the decoder's tensors in the checkpoint."""
    return WRAPPERS.get(_architecture(config), ("", ""))[1]


def to_hf(config: ModelConfig, *, others: Json | None = None) -> dict[str, Any]:
    """The `config.json` of a model, for the first family that can express it.

    `others` has the keys that a ModelConfig does not know, ids of special tokens or the longest
    context; it may be the whole file that the model came from. Raises ValueError if no family can,
    with the fields that stand in the way of the nearest one.
    """
    family = family_of(config)
    kept = {key: value for key, value in (others or {}).items() if key not in RIVALS}
    found = {
        **kept,
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{key: getattr(config, field) for field, key in {**COMMON, **family.keys}.items()},
        **_write_rope(family, config),
        **_write_window(family, config),
        family.activation: {ours: theirs for theirs, ours in ACTIVATIONS.items()}[
            config.activation
        ],
        "torch_dtype": config.param_dtype,
    }
    if "query_pre_attn_scalar" in found:
        scalar = found["query_pre_attn_scalar"] or config.head_dim
        found["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
    return found


def family_of(config: ModelConfig) -> Family:
    """The first family that can express a model; raises ValueError if there is none."""
    obstacles = [(_obstacles(family, config), family) for family in FAMILIES]
    fewest, family = min(obstacles, key=lambda pair: len(pair[0]))
    if fewest:
        values = ", ".join(f"{name}={getattr(config, name)!r}" for name in fewest)
        raise ValueError(
            f"no family of models/hf_families.py has {values}; without that it is a"
            f" {family.architecture}"
        )
    return family


def _obstacles(family: Family, config: ModelConfig) -> list[str]:
    """Fields whose values the family cannot express."""
    free = {*COMMON, *family.keys, *RULED, *OURS}
    found = [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in free
        and getattr(config, field.name) != family.fixed.get(field.name, field.default)
    ]
    if "experts" in family.keys and not config.experts:
        found.append("experts")
    local = config.local_layers
    if any(local):
        if family.windows == "none":
            found.append("window")
        elif (family.windows == "all" and not all(local)) or (
            family.windows == "upper" and list(local) != sorted(local)
        ):
            found.append("window_pattern")
        if family.local_theta != (config.local_rope_theta is not None):
            found.append("local_rope_theta")
    return found


def _architecture(config: Json) -> str:
    return (config.get("architectures") or ["none"])[0]


def _decoder_part(config: Json) -> tuple[Family, Json]:
    """The family of the decoder, and the part of the file that describes it."""
    name = _architecture(config)
    if name in WRAPPERS:
        outer = {key: config[key] for key in ("dtype", "torch_dtype") if key in config}
        name, config = WRAPPERS[name][0], {**outer, **config["text_config"]}
    for family in FAMILIES:
        if family.architecture == name:
            return family, config
    known = ", ".join([*(family.architecture for family in FAMILIES), *WRAPPERS])
    raise ValueError(f"config.json is of the architecture {name!r}; known: {known}")


def _unsupported(family: Family, key: str, value: object) -> ValueError:
    return ValueError(
        f"config.json of {family.architecture} has {key}={value!r}, which models/ does not support"
    )


def _read_rope(family: Family, known: Json) -> dict[str, Any]:
    """Fields of rotary positions, from the keys of either style: `rope_parameters` holds all, or
    `rope_theta`, `rope_scaling` and `rope_local_base_freq` stand beside each other.
    """
    every = known.get("rope_parameters") or known.get("rope_scaling") or {}
    near: Json = {}
    if "full_attention" in every:
        every, near = every["full_attention"], every.get("sliding_attention") or {}
    fields: dict[str, Any] = {"rope_theta": float(every.get("rope_theta", known["rope_theta"]))}
    if family.local_theta:
        theta = near.get("rope_theta", known["rope_local_base_freq"])
        fields["local_rope_theta"] = float(theta)
        if near.get("rope_type", "default") != "default":
            raise _unsupported(family, "rope_type of sliding_attention", near["rope_type"])
    kind = every.get("rope_type", every.get("type", "default"))
    kind = "none" if kind == "default" else kind
    if kind not in SCALINGS:
        raise _unsupported(family, "rope_type", kind)
    values = {key: value for key, value in every.items() if value is not None}
    for key in ("rope_type", "type", "rope_theta"):
        values.pop(key, None)
    if kind in ("llama3", "yarn") and "max_position_embeddings" in known:
        values.setdefault("original_max_position_embeddings", known["max_position_embeddings"])
    missing = sorted({*SCALINGS[kind].values()} - {*values} - OPTIONAL)
    if missing:
        raise ValueError(f"the rotary scaling {kind!r} in config.json lacks {', '.join(missing)}")
    scaling = {ours: values.pop(key) for ours, key in SCALINGS[kind].items() if key in values}
    for key, value in values.items():
        if value not in ABSENT.get(key, ()):
            raise _unsupported(family, f"{key} of the rotary scaling {kind!r}", value)
    if kind != "none":
        fields["rope_scaling"] = RopeScaling(kind=kind, **scaling)
    return fields


def _write_rope(family: Family, config: ModelConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    scaling = config.rope_scaling
    if scaling.kind != "none":
        values = {key: getattr(scaling, ours) for ours, key in SCALINGS[scaling.kind].items()}
        values = {key: value for key, value in values.items() if value is not None}
        found["rope_scaling"] = {"rope_type": scaling.kind, **values}
    if family.local_theta:
        theta = config.local_rope_theta
        found["rope_local_base_freq"] = config.rope_theta if theta is None else theta
    return found


def _read_window(family: Family, known: Json) -> dict[str, Any]:
    """Window and the shortest pattern of local layers; nothing where no layer is local."""
    layers, window = known["num_hidden_layers"], known.get("sliding_window")
    match family.windows:
        case "none":
            if known.get("use_sliding_window"):
                raise _unsupported(family, "use_sliding_window", True)
            return {}
        case "all":
            local = [True] * layers
        case "upper":
            window = window if known.get("use_sliding_window") else None
            local = [layer >= known["max_window_layers"] for layer in range(layers)]
        case "pattern":
            local = [(layer + 1) % known["sliding_window_pattern"] != 0 for layer in range(layers)]
    if known.get("layer_types") is not None:
        unknown = set(known["layer_types"]) - {"sliding_attention", "full_attention"}
        if unknown or len(known["layer_types"]) != layers:
            raise _unsupported(family, "layer_types", known["layer_types"])
        local = [kind == "sliding_attention" for kind in known["layer_types"]]
    if window is None or not any(local):
        return {"local_rope_theta": None} if family.local_theta else {}
    period = next(
        n for n in range(1, layers + 1) if all(local[i] == local[i % n] for i in range(layers))
    )
    return {"window": window, "window_pattern": tuple(local[:period])}


def _write_window(family: Family, config: ModelConfig) -> dict[str, Any]:
    local = config.local_layers
    found: dict[str, Any] = {"sliding_window": config.window}
    types = ["sliding_attention" if near else "full_attention" for near in local]
    match family.windows:
        case "none":
            return {}
        case "upper":
            found |= {
                "use_sliding_window": any(local),
                "max_window_layers": local.count(False),
                "layer_types": types,
            }
        case "pattern":
            found["layer_types"] = types
            if False in local:
                period = local.index(False) + 1
                if all(near == ((i + 1) % period != 0) for i, near in enumerate(local)):
                    found["sliding_window_pattern"] = period
    return found
