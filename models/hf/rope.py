"""Rotary positions in `config.json`: read in either style, written in the older one.

In the newer style `rope_parameters` holds everything; in the older one `rope_theta`, `rope_scaling`
and `rope_local_base_freq` are separate keys. Where both are present, `rope_scaling` counts, as in
`transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig, RopeScaling
from models.hf import values as hf_values
from models.hf.families import OPTIONAL, REPEATED, SCALINGS, Family

NAMES = ("rope_type", "type", "rope_theta")
"""Keys of a rotary setting that are not parameters of its scaling."""


def read_rope(family: Family, known: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary fields of a ModelConfig. Raises ValueError for features that the decoder lacks."""
    every, near = _by_layers(known)
    fields: dict[str, Any] = {"rope_theta": float(every.get("rope_theta", known["rope_theta"]))}
    if family.local_theta:
        theta = near.get("rope_theta", known["rope_local_base_freq"])
        fields["local_rope_theta"] = float(theta)
        if _read_scaling(near, known) is not None:
            raise ValueError(
                f"config.json of {family.architecture} scales the rotary positions of"
                " sliding_attention, which models/ does not support"
            )
    scaling = _read_scaling(every, known)
    return fields if scaling is None else fields | {"rope_scaling": scaling}


def _by_layers(known: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The settings of global layers, and of local ones, which may be empty."""
    where = "the rotary settings in config.json"
    later = hf_values.read(known.get("rope_parameters", {}), where=where)
    older = hf_values.read(known.get("rope_scaling", {}), where=where)
    near = {**later, **older}.get("sliding_attention", {})
    every = dict(older or later)
    if "rope_theta" in later:
        every.setdefault("rope_theta", later["rope_theta"])
    every = every.get("full_attention", every)
    return hf_values.read(every, where=where), hf_values.read(near, where=where)


def _read_scaling(said: Mapping[str, Any], known: Mapping[str, Any]) -> RopeScaling | None:
    """The scaling that the settings of a kind of layers ask for; None: no scaling."""
    kind = said.get("rope_type", said.get("type", "default"))
    kind = "none" if kind == "default" else kind
    if kind not in SCALINGS:
        raise ValueError(
            f"config.json has rope_type={hf_values.shown(kind)}, which models/ does not support;"
            f" it has default, {', '.join([*SCALINGS][1:])}"
        )
    values = {key: value for key, value in said.items() if key not in NAMES}
    if kind == "yarn":
        _complete_yarn(values, known)
    if kind in ("llama3", "yarn"):
        values.setdefault("original_max_position_embeddings", known["max_position_embeddings"])
    missing = sorted({*SCALINGS[kind].values()} - {*values} - OPTIONAL)
    if missing:
        raise ValueError(f"the rotary scaling {kind!r} in config.json lacks {', '.join(missing)}")
    scaling = {ours: values.pop(key) for ours, key in SCALINGS[kind].items() if key in values}
    for key, value in values.items():
        if key in REPEATED and (REPEATED[key] is None or value in REPEATED[key]):
            continue
        raise ValueError(
            f"config.json has {key} of the rotary scaling {kind!r}={hf_values.shown(value)},"
            " which models/ does not support"
        )
    return None if kind == "none" else RopeScaling(kind=kind, **scaling)


def _complete_yarn(values: dict[str, Any], known: Mapping[str, Any]) -> None:
    """Derives `factor` from the context lengths, and `attention_factor` from `mscale` and
    `mscale_all_dim`, which it removes.
    """
    original = values.get("original_max_position_embeddings")
    if "factor" not in values and original:
        values["factor"] = known["max_position_embeddings"] / original
    if values.get("mscale") and values.get("mscale_all_dim") and "factor" in values:
        above, below = values.pop("mscale"), values.pop("mscale_all_dim")
        grown = 0.1 * math.log(max(values["factor"], 1.0))
        values.setdefault("attention_factor", (1 + above * grown) / (1 + below * grown))


def write_rope(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Rotary keys of `config.json`, in the older style."""
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
