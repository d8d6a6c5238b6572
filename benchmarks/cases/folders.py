"""Small model folders made here: checkpoints, configs, and dialogues in chat templates."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import jax
import numpy as np

from benchmarks.cases.row import Adapter, Outcome, attempt
from configs.schema import DialogueConfig
from gtpo_jax.language import chat
from launch.run import imported_model
from models.hf import config as hf_config
from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import weights as hf_weights
from models.presets import TINY

ROOT = pathlib.Path(__file__).parents[2]

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 2336927\n"

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
SYMBOLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapters of areas whose cases are model folders."""
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = pathlib.Path(temporary) / "checkpoint"
        _write_checkpoint(checkpoint)
        yield {
            "checkpoints": _open,
            "models.hf_config": functools.partial(_config, checkpoint),
            "launch.convert import": functools.partial(_import, checkpoint),
            "chat dialogue": _dialogue,
        }


def _write_checkpoint(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for leaf in hf_weights.leaves_of(TINY):
        *parents, last = leaf.path
        node = functools.reduce(lambda node, key: node.setdefault(key, {}), parents, params)
        node[last] = jax.numpy.asarray(rng.normal(size=leaf.shape), "float32")
    hf_export.save_checkpoint(folder, TINY, params)


def _open(given: Mapping[str, Any]) -> Outcome | None:
    """Opens a checkpoint in which one file is a Git LFS pointer instead of its contents."""
    [(name, contents)] = given.items()
    if not str(contents).startswith("version https://git-lfs"):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        (pathlib.Path(temporary) / name).write_text(POINTER, encoding="utf-8")
        return attempt(lambda: [hf_files.read_headers(temporary)])


def _config(checkpoint: pathlib.Path, given: Mapping[str, Any]) -> Outcome:
    """A config.json in which the given keys replace the usual ones."""
    usual = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    if "rope_scaling" in given:
        usual.pop("rope_parameters", None)
    # Published models say so; a run of this project has no such limit.
    usual["max_position_embeddings"] = 32768
    return attempt(lambda: [hf_config.from_hf({**usual, **given})])


def _import(checkpoint: pathlib.Path, given: Mapping[str, Any]) -> Outcome | None:
    """Runs `launch.convert import` on a folder whose config.json has the given keys."""
    if not isinstance(given.get("config.json"), Mapping):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "model"
        folder.mkdir()
        for file in checkpoint.iterdir():
            (folder / file.name).hardlink_to(file)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").unlink()
        changed = json.dumps({**config, **given["config.json"]})
        (folder / "config.json").write_text(changed, encoding="utf-8")
        return launch("convert", "import", folder, "--run-dir", f"{temporary}/run")


def launch(launcher: str, *options: object) -> Outcome:
    """Runs a launcher as a user does: an error of one line is a refusal, a traceback a crash."""
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{launcher}", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    crashed = done.returncode != 0 and "Traceback" in done.stderr
    text = done.stderr if done.returncode else done.stdout
    return Outcome(accepted=done.returncode == 0, text=text[-500:], crashed=crashed)


def _dialogue(given: Mapping[str, Any]) -> Any:
    """The ends of turns, a turn, or an output that is longer than its budget."""
    ends = given.get("generation_config.json", {}).get("eos_token_id", SYMBOLS[::2])
    if "output" in given:
        written = re.fullmatch(r"(\d+) lines, then (.*)", given["output"])
        return None if written is None else _shown(int(written[1]), written[2], given["budget"])
    if "turn" in given:
        dialogue = make_dialogue(ends)
        read = dialogue.parse(with_symbols(dialogue, given["turn"]))
        return {"codes": [*read.codes], "answer": read.answer, "violation": read.violation}
    if "generation_config.json" in given:
        dialogue = make_dialogue(ends)
        found = {*dialogue.stop_ids} == {dialogue.tokenizer.control_id(end) for end in ends}
        return "stop_ids has both" if found else f"stop_ids is {dialogue.stop_ids}"
    return None


def _shown(lines: int, last: str, budget: int) -> str:
    """Describes what an observation of the budget shows of this many lines and a last one."""
    dialogue = make_dialogue(SYMBOLS[::2])
    output = "".join(f"line {number}\n" for number in range(lines)) + last
    ids, _ = dialogue.observation(output, budget=budget)
    text = dialogue.tokenizer.decode(ids.tolist())
    if last not in text:
        return f"the last line is gone: {text[-100:]!r}"
    if len(ids) > budget or "truncated" not in text:
        return "the text is longer than its budget, or cut without a mark"
    reason = "the reason of the failure is shown"
    return reason if "Error" in last else "the last line is shown, and a mark where text was cut"


def make_dialogue(ends: Any) -> chat.ChatDialogue:
    """ChatML with a tokenizer of bytes; the first end marker is that of tokenizer_config.json."""
    from tokenizers import (  # pyright: ignore[reportMissingImports]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: at for at, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SYMBOLS])
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        tokenizer.save(str(folder / "tokenizer.json"))
        settings: dict[str, dict[str, Any]] = {
            "tokenizer_config.json": {"chat_template": CHATML, "eos_token": "<|im_end|>"},
            "generation_config.json": {"eos_token_id": [*map(tokenizer.token_to_id, ends)]},
        }
        for name, value in settings.items():
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
        made = imported_model.make_dialogue(DialogueConfig(protocol="fenced"), folder)
        return cast(chat.ChatDialogue, made)


def with_symbols(dialogue: chat.ChatDialogue, text: str) -> list[int]:
    """Token ids of a text whose control symbols are meant as such."""
    pieces = re.split(f"({'|'.join(map(re.escape, SYMBOLS))})", text)
    return [
        token
        for piece in pieces
        for token in (
            [dialogue.tokenizer.control_id(piece)]
            if piece in SYMBOLS
            else dialogue.tokenizer.encode(piece)
        )
    ]
