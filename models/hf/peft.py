"""Adapters as a folder in the format of PEFT, which servers and `transformers` read.

adapter_config.json         rank, alpha, names of the projections
adapter_model.safetensors   A [r, in] and B [out, r] of every layer, in float32

Tensors are named after the modules that PEFT finds in the model of `transformers`. A name that
matches no module is not loaded, and only a warning says so.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gtpo_jax.types import Params
from models import lora as lora_lib
from models.config import ModelConfig
from models.hf import config as hf_config
from models.hf import files, weights
from models.hf import folder as hf_folder
from models.hf import names as hf_names
from models.hf import tensors as hf_tensors
from models.hf.families import MODULES

PARTS = {"lora_A": lora_lib.A, "lora_B": lora_lib.B}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROOT = "base_model.model."
"""Prefix that PEFT puts before the name of a module."""


def adapter_config(
    config: ModelConfig,
    lora: lora_lib.LoraConfig,
    *,
    base_model: str = "",
    modules: str = MODULES,
) -> dict:
    """The contents of adapter_config.json. `base_model` names the base checkpoint or its folder.

    `modules` is the prefix of the decoder's layers in the model of `transformers`, as
    `hf_config.module_prefix` gives it. Where the decoder is the whole model, targets have short
    names such as `q_proj`. Where it is a part, they are named in full, because an image encoder has
    a `q_proj` too.
    """
    names = lora_lib.targets(config, lora)
    if modules != MODULES:
        names = sorted({_module(tensor, modules) for tensor in _targeted(config, names)})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(names),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
    }


def adapter_tensors(
    config: ModelConfig, adapters: Params, *, modules: str = MODULES
) -> tuple[hf_names.Tensor, ...]:
    """Every tensor of adapter_model.safetensors, layer by layer, and its place in `adapters`."""
    tensors = []
    for tensor in _targeted(config, adapters["layers"]):
        for part, leaf in PARTS.items():
            *parents, name, _ = tensor.path
            path = (*parents, name, leaf)
            tensors.append(
                hf_names.Tensor(
                    name=f"{ROOT}{_module(tensor, modules)}.{part}.weight",
                    shape=adapters["layers"][name][leaf].shape[:0:-1],
                    path=path,
                    layer=tensor.layer,
                    expert=None,
                    transposed=True,
                )
            )
    return tuple(tensors)


def _targeted(config: ModelConfig, names: Iterable[str]) -> Iterator[hf_names.Tensor]:
    """The matrices of a decoder that belong to projections of these names."""
    for tensor in hf_names.tensors(config):
        if tensor.layer is not None and tensor.path[-1] == "kernel" and tensor.path[-2] in names:
            yield tensor


def _module(tensor: hf_names.Tensor, modules: str) -> str:
    """The module of a matrix in the model of `transformers`."""
    return modules + tensor.name.removeprefix(MODULES).removesuffix(".weight")


def save(
    folder: str | pathlib.Path,
    config: ModelConfig,
    lora: lora_lib.LoraConfig,
    adapters: Params,
    *,
    base_model: str = "",
    modules: str = MODULES,
    checked_against: str | pathlib.Path | None = None,
    overwrite: bool = False,
) -> int:
    """Writes the folder and reads it back; returns the number of matrices that have adapters.

    `adapters` have the structure that `lora.init_adapters` gives, without the base; `modules` is
    the argument of `adapter_config`. `checked_against` is the folder of the base: raises ValueError
    unless the adapters fit its files. The folder appears once every bit of it has been compared.
    Existing adapters are an error without `overwrite`; any other existing folder is always an
    error.
    """
    folder = pathlib.Path(folder).absolute()
    hf_folder.check_free(folder, marker=CONFIG, overwrite=overwrite)
    said = adapter_config(config, lora, base_model=base_model, modules=modules)
    tensors = adapter_tensors(config, adapters, modules=modules)
    leaves = weights.by_path(adapters)
    if checked_against is not None:
        _check_base(checked_against, said["target_modules"], tensors)
    dtype = np.dtype("float32")
    with hf_folder.appearing(folder) as partial:
        hf_folder.write_json(partial / CONFIG, said)
        hf_tensors.write_tensors(partial / WEIGHTS, tensors, leaves, dtype)
        if files.read_json(partial / CONFIG) != said:
            raise ValueError(f"{CONFIG} does not read back as it was written; nothing was kept")
        hf_tensors.check_stored(files.read_header(partial / WEIGHTS), tensors, leaves, dtype)
    return len(tensors) // len(PARTS)


def _check_base(
    base: str | pathlib.Path, targets: Sequence[str], tensors: Iterable[hf_names.Tensor]
) -> None:
    """Raises ValueError unless adapters fit the files of their base.

    A must have the inputs and B the outputs of a matrix in the files, and the target names by which
    PEFT looks for modules must match these matrices and no others.
    """
    shapes = _shapes_by_module(base)
    adapted: set[str] = set()
    wrong: list[str] = []
    for tensor in tensors:
        module, part, _ = tensor.name.removeprefix(ROOT).rsplit(".", 2)
        adapted.add(module)
        side = 1 if part == "lora_A" else 0
        if len(shapes.get(module, ())) != 2 or tensor.shape[side] != shapes[module][side]:
            wrong.append(tensor.name)
    ends = tuple(f".{target}" for target in targets)
    elsewhere = {module for module in shapes if f".{module}".endswith(ends)} - adapted
    if wrong or elsewhere:
        raise ValueError(
            f"the adapters are not those of {base}: no matrix for"
            f" {files.listed(wrong) or 'none'}; targets without adapters:"
            f" {files.listed(elsewhere) or 'none'}; was that folder changed since the import?"
        )


def _shapes_by_module(folder: str | pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a checkpoint, by the name of their module in `transformers`."""
    config = files.read_config(folder)
    published, modules = hf_config.name_prefix(config) + MODULES, hf_config.module_prefix(config)
    shapes = {}
    for name, stored in files.read_headers(folder).items():
        name = hf_config.published_name(config, name).removesuffix(".weight")
        if name.startswith(published):
            name = modules + name.removeprefix(published)
        shapes[name] = stored.shape
    return shapes
