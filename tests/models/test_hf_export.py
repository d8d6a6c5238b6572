"""Exported checkpoints: whole or not there, and read back by other libraries."""

import dataclasses
import json

import chex
import numpy as np
import pytest

from models import decoder
from models.hf import export as hf_export
from tests.models.hf_checkpoints import (
    CODES,
    MOE,
    files,
    load,
    tensors,
    write,
)
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow


def test_export_takes_over_tokenizer_and_generation_config(tmp_path):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    config = json.loads((source / "config.json").read_text())
    config |= {"max_position_embeddings": 77, "eos_token_id": [5, 6]}
    (source / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "generation_config.json", "README.md"):
        (source / name).write_text(name)
    hf_export.save_checkpoint(tmp_path / "out", CONFIG, make_params(), source=source)
    found = files(tmp_path / "out")
    assert found.keys() == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
    }
    assert found["tokenizer.json"] == b"tokenizer.json"
    written = json.loads(found["config.json"])
    assert written["max_position_embeddings"] == 77 and written["eos_token_id"] == [5, 6]


def test_export_replaces_a_checkpoint_only_when_it_may(tmp_path):
    out = tmp_path / "out"
    hf_export.save_checkpoint(out, CONFIG, make_params())
    before = files(out)
    with pytest.raises(ValueError, match=r"out exists; choose another folder, or pass overwrite"):
        hf_export.save_checkpoint(out, CONFIG, make_params(seed=1))
    assert files(out) == before
    hf_export.save_checkpoint(out, CONFIG, make_params(seed=1), overwrite=True)
    chex.assert_trees_all_equal(load(out), make_params(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_never_replaces_what_is_no_checkpoint(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("kept")
    with pytest.raises(ValueError, match="home exists and is no checkpoint"):
        hf_export.save_checkpoint(tmp_path / "home", CONFIG, make_params(), overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "kept"


def test_export_that_breaks_off_leaves_what_was_there(monkeypatch, tmp_path):
    out = tmp_path / "out"
    hf_export.save_checkpoint(out, CONFIG, make_params())
    before = files(out)

    def full_disk(path, *_):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(hf_export, "write_tensors", full_disk)
    with pytest.raises(OSError, match="no space left"):
        hf_export.save_checkpoint(out, CONFIG, make_params(seed=1), overwrite=True)
    assert files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("shard_bytes", [20_000, 10**9], ids=["files", "file"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "of other values: model.norm.weight"),
        (lambda raw: raw[:-200] + bytes(4) + raw[-196:], "of other values: model."),
        (lambda raw: raw[:-1], "it is cut short or damaged"),
        (lambda raw: raw.replace(b"model.norm.w", b"model.morn.w"), "model.morn.weight"),
        (
            lambda raw: raw.replace(b'{"dtype":"F32","shape":[32]', b'{"dtype":"I32","shape":[32]'),
            "I32",
        ),
        (lambda raw: raw.replace(b'"shape":[32]', b'"shape":[64]', 1), "of shape (64,) takes"),
    ],
    ids=["bit", "run", "end", "name", "dtype", "shape"],
)
def test_export_that_does_not_read_back_is_not_kept(
    damage, message, shard_bytes, monkeypatch, tmp_path
):
    write = hf_export.write_tensors

    def damaged(path, tensors, *arguments):
        write(path, tensors, *arguments)
        if any(tensor.name == "model.norm.weight" for tensor in tensors):
            path.write_bytes(damage(path.read_bytes()))

    monkeypatch.setattr(hf_export, "write_tensors", damaged)
    with pytest.raises(ValueError) as error:
        hf_export.save_checkpoint(tmp_path / "out", CONFIG, make_params(), shard_bytes=shard_bytes)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", CODES)
def test_export_is_compared_in_the_dtype_that_it_is_written_in(dtype, small_pieces, tmp_path):
    # A NaN is no number that equals itself: bits are compared.
    params = make_params(MOE)
    params["final_norm"]["scale"][3] = np.nan
    written = hf_export.save_checkpoint(tmp_path / "out", MOE, params, dtype=dtype)
    expected = tensors(MOE)
    assert written.tensors == len(expected)
    size = np.dtype(dtype).itemsize
    assert written.nbytes == sum(array.size for array in expected.values()) * size


def test_export_refuses_parameters_of_another_config_and_other_dtypes(tmp_path):
    wider = dataclasses.replace(CONFIG, mlp_width=64, qkv_bias=False)
    with pytest.raises(ValueError) as error:
        hf_export.save_checkpoint(tmp_path / "out", wider, make_params())
    assert "layers/up_proj/kernel is (2, 32, 48) instead of (2, 32, 64)" in str(error.value)
    assert "layers/q_proj/bias is (2, 32) instead of absent" in str(error.value)
    with pytest.raises(
        ValueError, match="dtype must be one of bfloat16, float16, float32, got int8"
    ):
        hf_export.save_checkpoint(tmp_path / "out", CONFIG, make_params(), dtype="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.hf
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_exported_folder_loads_in_transformers_with_the_same_logits(config, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")
    if config.query_scalar is not None:
        config = dataclasses.replace(config, query_scalar=int(config.query_scalar))
    params = make_params(config)
    hf_export.save_checkpoint(tmp_path / "out", config, params, shard_bytes=30_000)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 11), np.int32)
    forward = decoder.forward_fn(config)
    hidden, _ = forward.hidden(params, tokens, np.broadcast_to(np.arange(11), tokens.shape))
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(tokens)).logits.numpy()
    ours = np.asarray(forward.logits(params, hidden))
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))

    model.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    chex.assert_trees_all_equal(load(tmp_path / "theirs"), params)


@pytest.mark.hf
def test_exported_file_reads_the_same_with_the_library_of_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    hf_export.save_checkpoint(tmp_path / "out", CONFIG, make_params())
    chex.assert_trees_all_equal(
        numpy.load_file(tmp_path / "out" / "model.safetensors"), tensors(CONFIG)
    )
