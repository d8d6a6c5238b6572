"""Adapters as a folder of the library PEFT, which servers and `transformers` read.

adapter_config.json         rank, alpha, names of the projections
adapter_model.safetensors   A [r, in] and B [out, r] of every layer, in float32
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import jax
import numpy as np

from gtpo_jax.types import Params
from models import hf_names
from models import lora as lora_lib
from models.config import ModelConfig

PARTS = {"lora_A": lora_lib.A, "lora_B": lora_lib.B}


def adapter_config(config: ModelConfig, lora: lora_lib.LoraConfig, *, base_model: str = "") -> dict:
    """What adapter_config.json says. `base_model` is the name or folder of the base checkpoint."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(lora_lib.targets(config, lora)),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
    }


def adapter_tensors(
    config: ModelConfig, adapters: Params, *, prefix: str = ""
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every tensor of adapter_model.safetensors, layer by layer.

    `prefix` is that of `hf_names.tensors`: it stands before the names of the base checkpoint.
    """
    adapters = jax.device_get(adapters)
    for tensor in hf_names.tensors(config, prefix=prefix):
        adapter = adapters["layers"].get(tensor.path[-2]) if tensor.layer is not None else None
        if adapter is None or tensor.path[-1] != "kernel":
            continue
        module = tensor.name.removesuffix(".weight")
        for part, leaf in PARTS.items():
            name = f"base_model.model.{module}.{part}.weight"
            yield name, np.ascontiguousarray(tensor.swap(adapter[leaf][tensor.index]))


def save(
    folder: str | pathlib.Path,
    config: ModelConfig,
    lora: lora_lib.LoraConfig,
    adapters: Params,
    *,
    base_model: str = "",
    prefix: str = "",
) -> None:
    """Writes the folder, which is made if it is not there. Needs the extra `hf`.

    `adapters` are those of `lora.init_adapters`, without the base.
    """
    try:
        from safetensors.numpy import save_file  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "writing adapters for PEFT needs safetensors; install the extra: pip install -e '.[hf]'"
        ) from error
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = adapter_config(config, lora, base_model=base_model)
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    tensors = dict(adapter_tensors(config, adapters, prefix=prefix))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
