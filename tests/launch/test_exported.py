"""Our exports, loaded by the libraries that others read them with: transformers and PEFT.

A checkpoint of each family is written by `transformers`, imported into a run, given random
adapters, and exported both ways. `python -m pytest -m hf -s tests/launch/test_exported.py` prints
the largest difference between their logits and ours.
"""

from __future__ import annotations

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

pytest.importorskip("qwix", reason="needs the extra `lora`")
pytest.importorskip("torch", reason="needs the extra `parity`")
pytest.importorskip("transformers", reason="needs the extra `parity`")
pytest.importorskip("peft", reason="needs the extra `parity`")

import peft as library
import torch
import transformers
from safetensors import numpy as numpy_files

from gtpo_jax.learner.checkpoint import CheckpointStore
from launch import cli, convert
from launch.run import imported_model
from models import decoder, lora
from models.hf import weights as hf_weights
from tests.models.published import CASES, TEXT_TOKENS, random_model

pytestmark = [pytest.mark.hf, pytest.mark.filterwarnings("ignore")]

LORA = lora.LoraConfig(rank=3, alpha=7.0)
TOLERANCE = 1e-4  # of the largest logit, in float32
TOKENS = np.random.default_rng(1).integers(0, TEXT_TOKENS, (2, 17), np.int32)


class Run:
    """A run that began with a checkpoint of `transformers`, and has adapters."""

    def __init__(self, name, folder):
        self.base, self.folder = folder / "base", folder / "run"
        random_model(name).save_pretrained(self.base)
        convert.run(["import", str(self.base), "--run-dir", str(self.folder)])
        phase = self.folder / "train"
        model = imported_model.read_model_config(self.folder / "import" / "config.json")
        options = {"rank": LORA.rank, "alpha": LORA.alpha, "targets": []}
        cli.write_json(phase / "config.json", {"model": dataclasses.asdict(model), "lora": options})
        base = hf_weights.load_params(hf_weights.open_checkpoint(self.base))
        rng = np.random.default_rng(3)
        shapes = jax.eval_shape(lambda key: lora.init_adapters(model, LORA, key), jax.random.key(0))
        adapters = jax.tree.map(
            lambda leaf: jax.numpy.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), shapes
        )
        for store_name, part in (
            ("frozen", {lora.BASE: base}),
            ("checkpoints", {lora.ADAPTER: adapters}),
        ):
            with CheckpointStore(phase / store_name) as store:
                store.save_params(0, part)
        self.matrices = model.layers * len(lora.targets(model, LORA))
        params = lora.add(base, adapters)
        self.logits = ours(lora.forward_fn(model, LORA), params)
        self.plain = ours(decoder.forward_fn(model), base)

    def export(self, adapters):
        out = self.folder.parent / adapters
        convert.run(["export", str(self.folder), "--out", str(out), "--adapters", adapters])
        return out


def ours(forward, params):
    def run(params):
        positions = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
        return forward.logits(params, forward.hidden(params, TOKENS, positions)[0])

    return np.asarray(jax.jit(run)(params))


def theirs(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def assert_equal(what, found, expected):
    difference = np.abs(found - expected).max()
    print(
        f"{what}: largest |difference of logits| {difference:.1e} of {np.abs(expected).max():.2f}"
    )
    assert difference <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(scope="module", params=[*CASES, "gemma3_images"])
def run(request, tmp_path_factory):
    made = Run(request.param, tmp_path_factory.mktemp(request.param))
    made.name = request.param
    return made


def test_merged_export_is_our_model_in_transformers(run, capsys):
    out = run.export("merge")
    assert "read back and equal bit for bit" in capsys.readouterr().out
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        out, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    assert np.abs(run.logits - run.plain).max() > 0.05 * np.abs(run.plain).max()
    assert_equal(f"{run.name}, merged", theirs(model), run.logits)


def test_exported_adapters_are_our_model_in_peft(run, capsys):
    out = run.export("peft")
    printed = capsys.readouterr().out
    assert f"adapters of {run.matrices} matrices, read back and equal bit for bit" in printed
    assert f"names and sides are those of {run.base}" in printed
    base = transformers.AutoModelForCausalLM.from_pretrained(run.base, attn_implementation="eager")
    assert_equal(f"{run.name}, base", theirs(base), run.plain)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*adapter keys.*")
        model = library.PeftModel.from_pretrained(base, out)
    state = numpy_files.load_file(out / "adapter_model.safetensors")
    loading = library.set_peft_model_state_dict(
        model, {name: torch.tensor(array) for name, array in state.items()}
    )
    assert not loading.unexpected_keys
    assert not [name for name in loading.missing_keys if "lora" in name]
    found = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora" in n}
    assert found.keys() == state.keys() and len(found) == 2 * run.matrices
    for name, parameter in found.items():
        np.testing.assert_array_equal(parameter.detach().numpy(), state[name])
        assert "vision" not in name
    assert_equal(f"{run.name}, adapters", theirs(model), run.logits)


def test_files_with_the_names_of_modules_are_read_as_the_published_ones(tmp_path, capsys):
    source = tmp_path / "source"
    model = random_model("gemma3_images")
    model.save_pretrained(source)
    published = hf_weights.load_params(hf_weights.open_checkpoint(source))
    state = {name: weight.numpy() for name, weight in model.state_dict().items()}
    assert "model.language_model.norm.weight" in state and "lm_head.weight" in state
    numpy_files.save_file(state, source / "model.safetensors", {"format": "pt"})
    convert.run(["import", str(source), "--run-dir", str(tmp_path / "run")])
    assert "tensors of model are left out" in capsys.readouterr().out.replace("\n", " ")
    again = hf_weights.load_params(hf_weights.open_checkpoint(source))
    jax.tree.map(np.testing.assert_array_equal, again, published)
    assert json.loads((source / "config.json").read_text())["architectures"] == [
        "Gemma3ForConditionalGeneration"
    ]
