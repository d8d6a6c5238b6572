"""Converts Hugging Face checkpoints: inspects them, imports one into a run, exports one from a run.

python -m launch.convert inspect Qwen2.5-1.5B
python -m launch.convert import Qwen2.5-1.5B --run-dir runs/mine
python -m launch.convert export runs/mine --out mine-1.5B
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro
from jax.sharding import Mesh
from rich.table import Table

from configs.parts import make_lora
from configs.schema import MeshConfig
from gtpo_jax.devices import sharding
from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import END
from gtpo_jax.learner.checkpoint import CheckpointStore, has_checkpoint
from launch import cli, panels
from launch.run import display, imported_model
from launch.run.network import CHECKPOINTS, Network
from launch.run.session import find_tokenizer
from models.hf import config as hf_config
from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import weights as hf_weights

PHASES = ("train", "sft", imported_model.PHASE)
"""Phases of a run that have checkpoints, the latest first."""

SHARED = MeshConfig(data=1, fsdp=-1)
"""A mesh on which every device holds a part of the parameters."""

WITHOUT_TOKENIZER = "; without a tokenizer, so no run can talk to it"

Dtype = Literal["bfloat16", "float16", "float32"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Lists the tensors of a checkpoint, and checks its config, tokenizer and chat template."""

    folder: tyro.conf.Positional[pathlib.Path]
    """Folder with config.json and safetensors."""

    def run(self) -> None:
        stored = hf_files.read_headers(self.folder)
        display.CONSOLE.print(tensor_table(stored))
        try:
            config = hf_weights.open_checkpoint(self.folder).config
            tokenized = imported_model.check_dialogue(self.folder)
        except (ValueError, ImportError) as error:
            tell(f"cannot be imported: {error}")
        else:
            tell(
                f"{hf_config.family_of(config).architecture}, {config.parameters:,} parameters:"
                f" can be imported{'' if tokenized else WITHOUT_TOKENIZER}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """Imports a checkpoint as the beginning of a run."""

    folder: tyro.conf.Positional[pathlib.Path]
    """Folder with config.json and safetensors."""
    run_dir: pathlib.Path
    """Folder of the run."""
    dtype: Dtype | None = None
    """Type of the parameters. None: the type in config.json."""
    mesh: MeshConfig = SHARED
    """Devices that share the parameters during the import."""

    def run(self) -> None:
        phase = self.run_dir / imported_model.PHASE
        if has_checkpoint(phase / CHECKPOINTS):
            raise ValueError(f"{phase} holds a checkpoint; choose another --run-dir")
        checkpoint = hf_weights.open_checkpoint(self.folder)
        tokenized = imported_model.check_dialogue(self.folder)
        carried, config = hf_export.carried(self.folder), checkpoint.config
        if self.dtype is not None:
            config = dataclasses.replace(config, param_dtype=self.dtype)
        network = Network(config, make_mesh(self.mesh))
        params = hf_weights.load_params(
            checkpoint, shardings=network.shardings, dtype=config.param_dtype
        )
        source = phase / imported_model.SOURCE
        source.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "config.json", source / "config.json")
        for name, path in carried.items():
            shutil.copyfile(path, source / name)
        about = {"model": dataclasses.asdict(config), "folder": str(self.folder.absolute())}
        cli.write_json(phase / "config.json", about)
        with CheckpointStore(phase / CHECKPOINTS) as store:
            store.save_params(0, params)
        tell(
            f"{config.parameters:,} parameters in {phase}, {config.param_dtype}"
            f"{'' if tokenized else WITHOUT_TOKENIZER}"
        )
        if checkpoint.left_out:
            parts = sorted({name.partition(".")[0] for name in checkpoint.left_out})
            family = hf_config.family_of(config).architecture
            tell(
                f"{len(checkpoint.left_out):,} tensors of {', '.join(parts)} are left out: a run"
                f" has only the decoder, and its merged export is a {family}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Writes the newest checkpoint of a run as a folder that `transformers` loads."""

    run_dir: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""
    out: pathlib.Path
    """Folder to write; it appears once it is complete."""
    adapters: Literal["merge", "peft"] = "merge"
    """LoRA adapters: multiplied into the weights (merge), or written alone in the format of the
    PEFT library (peft)."""
    phase: Literal["train", "sft", "import"] | None = None
    """Phase whose checkpoint is exported. None: the latest that has one."""
    dtype: Dtype | None = None
    """Type of the weights. None: the type of the parameters."""
    source: pathlib.Path | None = None
    """Checkpoint from which tokenizer, generation config and further keys of config.json are
    copied. None: the imported one."""
    shard_gigabytes: float = 5.0
    """Largest size of one file, in GB (10⁹ bytes); a tensor is never divided."""
    overwrite: bool = False
    """Replace an existing checkpoint."""
    mesh: MeshConfig = SHARED
    """Devices that share the parameters during the export."""

    def run(self) -> None:
        phases = PHASES if self.phase is None else (self.phase,)
        saved = [p for p in phases if has_checkpoint(self.run_dir / p / CHECKPOINTS)]
        if not saved:
            raise ValueError(f"no checkpoint of {' or '.join(phases)} in {self.run_dir}")
        phase = self.run_dir / saved[0]
        config = imported_model.read_model_config(phase / "config.json")
        lora = make_lora(imported_model.read_adapters(phase / "config.json"))
        network = Network(config, make_mesh(self.mesh), lora=lora)
        export = self._export_adapters if self.adapters == "peft" else self._export_merged
        verified = export(network, phase)
        with CheckpointStore(phase / CHECKPOINTS) as store:
            step = store.latest_step
        tell(f"step {step} of {phase} in {self.out}")
        tell(verified)

    def _export_merged(self, network: Network, phase: pathlib.Path) -> str:
        """Writes the decoder; returns a line that says how it was verified."""
        imported = self.run_dir / imported_model.PHASE / imported_model.SOURCE
        source = imported if self.source is None and imported.exists() else self.source
        beside, others = ({}, {}) if source else own_tokenizer(self.run_dir, phase)
        written = hf_export.save_checkpoint(
            self.out,
            network.config,
            network.merged(network.load(phase)),
            dtype=self.dtype,
            source=source,
            beside=beside,
            others=others,
            shard_bytes=int(self.shard_gigabytes * 1e9),
            overwrite=self.overwrite,
        )
        if not imported_model.has_tokenizer(self.out):
            tell(
                f"{self.out} has no tokenizer, because {source or self.run_dir} has none; name a"
                " checkpoint with one by --source"
            )
        return (
            f"verified: {written.tensors:,} tensors, {written.nbytes:,} bytes, read back and equal"
            " bit for bit"
        )

    def _export_adapters(self, network: Network, phase: pathlib.Path) -> str:
        """Writes the adapters; returns a line that says how they were verified."""
        if network.lora is None:
            raise ValueError(f"{phase} has no adapters; leave out --adapters peft")
        from models import lora
        from models.hf import peft

        base = imported_model.read_folder(self.run_dir)
        source = self.run_dir / imported_model.PHASE / imported_model.SOURCE
        there = bool(base) and (pathlib.Path(base) / "config.json").is_file()
        matrices = peft.save(
            self.out,
            network.config,
            network.lora,
            network.load(phase)[lora.ADAPTER],
            base_model=base,
            modules=hf_config.module_prefix(hf_files.read_config(source) if base else {}),
            checked_against=base if there else None,
            overwrite=self.overwrite,
        )
        said = f"verified: adapters of {matrices:,} matrices, read back and equal bit for bit"
        if there:
            return f"{said}; names and sides are those of {base}"
        return f"{said}; their names follow from the config, because the base is missing"


Command = (
    Annotated[Inspect, tyro.conf.subcommand("inspect", description=Inspect.__doc__)]
    | Annotated[Import, tyro.conf.subcommand("import", description=Import.__doc__)]
    | Annotated[Export, tyro.conf.subcommand("export", description=Export.__doc__)]
)


def own_tokenizer(
    run_dir: pathlib.Path, phase: pathlib.Path
) -> tuple[dict[str, pathlib.Path], dict[str, Any]]:
    """Tokenizer of a model that was trained from scratch, as a file of its export, and the keys of
    config.json that go with it. Both are empty where the run has no tokenizer.
    """
    config = json.loads((phase / "config.json").read_text(encoding="utf-8"))
    path = find_tokenizer(run_dir, config.get("tokenizer", ""))
    if not path.is_file():
        return {}, {}
    end = tokenizers.SentencePieceTokenizer(path).control_symbols.get(END)
    return {imported_model.TOKENIZER: path}, {} if end is None else {"eos_token_id": end}


def tell(text: str) -> None:
    """Prints a line as it is."""
    display.CONSOLE.print(text, markup=False, highlight=False, soft_wrap=True)


def tensor_table(stored: dict[str, hf_files.Stored]) -> Table:
    """A table of tensors: one row for each kind, over all layers and experts."""
    kinds: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)
    for name, tensor in stored.items():
        shape = " × ".join(map(str, tensor.shape))
        kinds[re.sub(r"\.\d+\.", ".*.", name), shape, tensor.dtype].append(name)
    table = Table(show_footer=True)
    total = sum(tensor.nbytes for tensor in stored.values())
    table.add_column("tensor", "total", overflow="fold")
    table.add_column("shape")
    table.add_column("dtype", ", ".join(sorted({t.dtype for t in stored.values()})))
    table.add_column("count", f"{len(stored):,}", justify="right")
    table.add_column("bytes", f"{total:,}", justify="right")
    for (_, shape, dtype), names in kinds.items():
        size = sum(stored[name].nbytes for name in names)
        table.add_row(hf_files.listed(names), shape, dtype, f"{len(names):,}", f"{size:,}")
    return table


def make_mesh(config: MeshConfig) -> Mesh:
    return sharding.make_mesh(**dataclasses.asdict(config))


def run(argv: Sequence[str]) -> None:
    command = panels.parse(
        Command,
        argv,
        prog="python -m launch.convert",
        description="Inspects, imports and exports Hugging Face checkpoints.",
    )
    command.run()


if __name__ == "__main__":
    cli.main(run)
