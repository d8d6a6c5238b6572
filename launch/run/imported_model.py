"""The model, tokenizer and chat template that `launch.convert import` put into a run."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from configs.parts import make_protocol, template_variables
from configs.schema import AdapterConfig, DialogueConfig, RunConfig
from gtpo_jax.language import tokenizers
from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.grammar import CONTROL_SYMBOLS, AnyDialogue, Dialogue
from gtpo_jax.language.templates import ChatTemplate
from gtpo_jax.learner.checkpoint import has_checkpoint
from models.config import ModelConfig, RopeScaling

PHASE = "import"
SOURCE = "source"
"""Folder of an import with the config and the tokenizer of the checkpoint, which an export copies.
"""
TOKENIZER = "tokenizer.model"
"""Name of the SentencePiece model in the folder of a checkpoint."""
CHOSEN = ("compute_dtype", "attention", "remat")
"""Fields of a model config that the run decides, not the checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
    """A model that was imported."""

    model: ModelConfig
    source: pathlib.Path  # folder of its tokenizer and chat template


def of_run(run_dir: pathlib.Path) -> Imported | None:
    """The model that was imported into a run, or None."""
    phase = run_dir / PHASE
    if not has_checkpoint(phase / "checkpoints"):
        return None
    return Imported(model=read_model_config(phase / "config.json"), source=phase / SOURCE)


def read_model_config(path: pathlib.Path) -> ModelConfig:
    """The model of a phase of a run, from its saved config."""
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        scaling, pattern = RopeScaling(**model["rope_scaling"]), tuple(model["window_pattern"])
        return ModelConfig(**{**model, "rope_scaling": scaling, "window_pattern": pattern})
    except (OSError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} does not describe a model ({type(error).__name__}: {error}); was it written by"
            " another version?"
        ) from None


def read_folder(run_dir: pathlib.Path) -> str:
    """Folder that the model of a run was imported from; empty if it was not imported."""
    path = run_dir / PHASE / "config.json"
    return json.loads(path.read_text(encoding="utf-8"))["folder"] if path.exists() else ""


def read_adapters(path: pathlib.Path) -> AdapterConfig:
    """The adapters of a phase of a run, from its saved config."""
    adapters = json.loads(path.read_text(encoding="utf-8")).get("lora", {})
    return AdapterConfig(**{**adapters, "targets": tuple(adapters.get("targets", ()))})


def with_model(config: RunConfig, found: Imported | None) -> RunConfig:
    """The config with the imported model, if any, in place of its own. Raises ValueError if model
    and dialogue do not fit together.
    """
    chat = config.dialogue.protocol != "markers"
    own = found is not None and speaks_markers(found.source)
    if found is None:
        if chat:
            raise ValueError(
                f"dialogue.protocol {config.dialogue.protocol} is that of an imported model, and"
                " the run has none; run `python -m launch.convert import FOLDER --run-dir RUN`"
            )
        if config.dialogue.template_variables:
            raise ValueError(
                "dialogue.template_variables are those of a chat template, and the built-in"
                " dialogue has none; leave them out"
            )
        return config
    if chat and own:
        raise ValueError(
            f"the model of {found.source} was trained from scratch and knows the built-in dialogue"
            " alone; take the preset tiny, or --dialogue.protocol markers"
        )
    if not chat and not own:
        raise ValueError(
            "an imported model does not know the built-in dialogue; take the preset chat, or"
            " --dialogue.protocol fenced, tags or hermes"
        )
    chosen = {name: getattr(config.model, name) for name in CHOSEN}
    return dataclasses.replace(config, model=dataclasses.replace(found.model, **chosen))


def speaks_markers(source: pathlib.Path) -> bool:
    """True if the model in a folder was trained from scratch: its tokenizer has the control symbols
    of the built-in dialogue.
    """
    path = source / TOKENIZER
    if not path.is_file() or (source / "tokenizer.json").is_file():
        return False
    return {*CONTROL_SYMBOLS} <= tokenizers.SentencePieceTokenizer(path).control_symbols.keys()


def has_tokenizer(folder: pathlib.Path) -> bool:
    """True if a checkpoint's folder has the file of a tokenizer."""
    return any((folder / name).is_file() for name in ("tokenizer.json", TOKENIZER))


def check_dialogue(folder: pathlib.Path) -> bool:
    """Tells whether a checkpoint's folder has a tokenizer. Raises `ValueError` if it has one that
    no run could use, or no chat template that goes with it.
    """
    if not has_tokenizer(folder):
        return False
    protocol = "markers" if speaks_markers(folder) else "fenced"
    make_dialogue(DialogueConfig(protocol=protocol), folder).prompt("What is 2 + 2?")
    return True


def make_dialogue(config: DialogueConfig, source: pathlib.Path) -> AnyDialogue:
    """A dialogue in the chat template of a checkpoint's folder, or the built-in dialogue with the
    checkpoint's tokenizer.
    """
    if config.protocol == "markers":
        tokenizer = tokenizers.SentencePieceTokenizer(source / TOKENIZER)
        return Dialogue(tokenizer, most_calls=config.most_calls)
    return ChatDialogue(
        tokenizers.load(source),
        ChatTemplate.load(source, variables=template_variables(config)),
        make_protocol(config),
        system_prompt=config.system_prompt,
        most_calls=config.most_calls,
    )
