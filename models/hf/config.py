"""`config.json` of Hugging Face checkpoints to a ModelConfig, and back.

The differences between families are data in `models/hf/families.py`. A feature that a ModelConfig
cannot express is refused by name, never skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig
from models.hf import values as hf_values
from models.hf.families import (
    ABSENT,
    ACTIVATIONS,
    ALIASES,
    COMMON,
    COMMON_DEFAULTS,
    FAMILIES,
    MODULES,
    OURS,
    RIVALS,
    RULED,
    WRAPPERS,
    Family,
)
from models.hf.files import DTYPES
from models.hf.rope import read_rope, write_rope

Json = Mapping[str, Any]


def from_hf(config: Json, *, dtype: str = "float32") -> ModelConfig:
    """The model that a `config.json` describes; for a model of text and images, its text part.

    `dtype` is used where the file names none, or "auto". Nulls stand for defaults. Raises
    ValueError, in one line, for an architecture or a feature that the decoder does not have, and
    for a value that its key does not allow.
    """
    family, config = _family(config), decoder_part(config)
    for key, absent in ABSENT.items():
        if config.get(key) is not None and config[key] not in absent:
            raise _unsupported(family, key, config[key])
    names = {**ALIASES, **{theirs: common for common, theirs in family.renamed.items()}}
    said = hf_values.read({names.get(key, key): value for key, value in config.items()})
    known = {**COMMON_DEFAULTS, **family.defaults, **said}
    theirs = {**COMMON, **family.keys}
    _complete_heads(config, known)
    missing = sorted({key for key in theirs.values() if key not in known})
    if missing:
        raise ValueError(f"config.json of {family.architecture} lacks {', '.join(missing)}")
    if known[family.activation] not in ACTIVATIONS:
        raise _unsupported(family, family.activation, known[family.activation])
    for key, only in family.asserted.items():
        if known[key] != only:
            raise _unsupported(family, key, known[key])
    rows = known["vocab_size"]
    if family.renamed and known.get("embedding_size", rows) != rows:
        raise _unsupported(family, "embedding_size", known["embedding_size"])
    dtype = _read_dtype(config, dtype)
    return ModelConfig(
        **family.fixed,
        **{field: known[key] for field, key in theirs.items()},
        **{**read_rope(family, known), **_read_window(family, known)},
        activation=ACTIVATIONS[known[family.activation]],
        param_dtype=dtype,
        compute_dtype=dtype,
    )


def name_prefix(config: Json) -> str:
    """The prefix of the names of the decoder's tensors in the checkpoint."""
    wrapper = WRAPPERS.get(_architecture(config))
    return wrapper.prefix if wrapper else ""


def module_prefix(config: Json) -> str:
    """The prefix of the names of the decoder's layers in the model of `transformers`."""
    wrapper = WRAPPERS.get(_architecture(config))
    return wrapper.modules if wrapper else MODULES


def published_name(config: Json, name: str) -> str:
    """The name that a tensor has in published files.

    Some files name tensors after their modules in `transformers`; those names are translated. A
    published name stays as it is.
    """
    wrapper = WRAPPERS.get(_architecture(config))
    if wrapper is None:
        for theirs, common in _family(config).tensors.items():
            name = name.replace(theirs, common)
        return name
    if name == "lm_head.weight":
        return wrapper.prefix + name
    if name.startswith(wrapper.modules):
        return f"{wrapper.prefix}{MODULES}{name.removeprefix(wrapper.modules)}"
    return name


def saved_name(config: Json, name: str) -> str:
    """The name that a tensor has in the files of a family whose names are its own: the inverse of
    `published_name` there, and the same name elsewhere.
    """
    for theirs, common in reversed([*_family(config).tensors.items()]):
        name = name.replace(common, theirs)
    return name


def to_hf(config: ModelConfig, *, others: Json | None = None) -> dict[str, Any]:
    """The `config.json` of a model, for the first family that can express it.

    `others` has the keys that a ModelConfig does not know, such as the ids of special tokens or the
    longest context; it may be the whole file that the model came from. Raises ValueError if no
    family can express the model, with the fields that keep it from the nearest one.
    """
    family = family_of(config)
    kept = {key: value for key, value in (others or {}).items() if key not in RIVALS}
    own = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{key: getattr(config, field) for field, key in {**COMMON, **family.keys}.items()},
        **write_rope(family, config),
        **_write_window(family, config),
        family.activation: {ours: theirs for theirs, ours in ACTIVATIONS.items()}[
            config.activation
        ],
        "torch_dtype": config.param_dtype,
        **family.asserted,
    }
    written = {**kept, **{family.renamed.get(key, key): value for key, value in own.items()}}
    if "query_pre_attn_scalar" in written:
        scalar = written["query_pre_attn_scalar"] or config.head_dim
        written["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
    return written


def family_of(config: ModelConfig) -> Family:
    """The first family that can express a model; raises ValueError if none can."""
    obstacles = [(_obstacles(family, config), family) for family in FAMILIES]
    fewest, family = min(obstacles, key=lambda pair: len(pair[0]))
    if fewest:
        values = ", ".join(f"{name}={getattr(config, name)!r}" for name in fewest)
        raise ValueError(
            f"no family of models/hf/families.py has {values}; without that it is a"
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
    if "mask_id" in family.keys and config.mask_id is None:
        found.append("mask_id")
    if family.renamed and config.head_dim * config.query_heads != config.width:
        found.append("head_dim")
    if family.renamed and config.rope_scaling.kind != "none":
        found.append("rope_scaling")
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
    names = config.get("architectures") or ["none"]
    return str(names[0]) if isinstance(names, list) else str(names)


def _family(config: Json) -> Family:
    """The family of the decoder."""
    name = _architecture(config)
    if name in WRAPPERS:
        name = WRAPPERS[name].decoder
    for family in FAMILIES:
        if family.architecture == name:
            return family
    known = ", ".join([*(family.architecture for family in FAMILIES), *WRAPPERS])
    raise ValueError(f"config.json is of the architecture {hf_values.shown(name)}; known: {known}")


def decoder_part(config: Json) -> Json:
    """The decoder's part of a `config.json`: all of it, or `text_config` with the rest added."""
    if _architecture(config) not in WRAPPERS:
        return config
    inner = hf_values.read(config).get("text_config")
    if inner is None:
        raise ValueError(f"config.json of {_architecture(config)} lacks text_config")
    outer = {key: value for key, value in config.items() if value is not None}
    return {**config, **inner, **{k: outer[k] for k in outer if inner.get(k, k) is None}}


def _complete_heads(config: Json, known: dict[str, Any]) -> None:
    """Derives head counts that a file gives as null, or leaves out where there is no default."""
    heads, nothing = known.get("num_attention_heads"), object()
    if heads is None:
        return
    if config.get("num_key_value_heads", nothing) is None or "num_key_value_heads" not in known:
        known["num_key_value_heads"] = heads
    if config.get("head_dim", nothing) is None or "head_dim" not in known:
        known["head_dim"] = known.get("hidden_size", 0) // heads


def _read_dtype(config: Json, default: str) -> str:
    """The dtype that a file names, as `bfloat16` or as `torch.bfloat16`."""
    names = (config.get(key) for key in ("dtype", "torch_dtype"))
    name = next((name for name in names if name not in (None, "", "auto")), default)
    dtype = name.removeprefix("torch.") if isinstance(name, str) else name
    if dtype not in DTYPES.values():
        raise ValueError(
            f"config.json has the dtype {hf_values.shown(name)}; expected auto or one of"
            f" {', '.join(DTYPES.values())}"
        )
    return dtype


def _unsupported(family: Family, key: str, value: object) -> ValueError:
    return ValueError(
        f"config.json of {family.architecture} has {key}={hf_values.shown(value)}, which models/"
        " does not support"
    )


def _read_window(family: Family, known: Json) -> dict[str, Any]:
    """The window and the shortest pattern of local layers; empty where no layer is local."""
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
    """Keys of `config.json` for the window and the local layers."""
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
