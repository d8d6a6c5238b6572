"""Checkpoints that are refused with one message: several files, other tensors, damage."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import weights as hf_weights
from tests.models.hf_checkpoints import complaint, damaged, load, tensors, write, write_file
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow

UNTIED = VARIANTS["one_kv_head_untied"]


def test_export_divides_tensors_among_files_of_the_size_asked_for(tmp_path):
    out, limit = tmp_path / "out", 20_000
    hf_export.save_checkpoint(out, UNTIED, make_params(UNTIED), shard_bytes=limit)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * UNTIED.parameters
    found = sorted(file.name for file in out.glob("*.safetensors"))
    assert len(found) > 3
    assert found == [
        f"model-{i:05}-of-{len(found):05}.safetensors" for i in range(1, len(found) + 1)
    ]
    for name in found:
        held = hf_files.read_header(out / name)
        assert sum(at.nbytes for at in held.values()) <= limit or len(held) == 1
        assert {tensor for tensor, file in index["weight_map"].items() if file == name} == {*held}
    chex.assert_trees_all_equal(load(out), make_params(UNTIED))


def split(tmp_path):
    folder = tmp_path / "split"
    hf_export.save_checkpoint(folder, CONFIG, make_params(), shard_bytes=20_000)
    return folder, folder / "model.safetensors.index.json"


def test_file_that_the_index_names_and_that_is_missing_is_named(tmp_path):
    folder, _ = split(tmp_path)
    (folder / "model-00002-of-00005.safetensors").unlink()
    message = complaint(folder)
    assert "index.json points to files that are not in" in message
    assert "model-00002-of-00005.safetensors" in message and "00001" not in message


def test_index_that_leads_out_of_the_folder_is_refused(tmp_path):
    folder, index = split(tmp_path)
    (folder / "model-00002-of-00005.safetensors").rename(tmp_path / "outside.safetensors")
    text = index.read_text().replace("model-00002-of-00005", "../outside")
    index.write_text(text)
    assert "outside.safetensors" in complaint(folder)


def test_index_that_speaks_of_other_tensors_is_refused(tmp_path):
    folder, index = split(tmp_path)
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = "model-00001-of-00005.safetensors"
    index.write_text(json.dumps(content))
    assert "does not say where these tensors are: model.norm.weight" in complaint(folder)
    index.write_text('{"weight_map": []}')
    assert "has no weight_map" in complaint(folder)


def test_same_tensor_in_two_files_is_refused(tmp_path):
    folder, _ = split(tmp_path)
    for file in folder.glob("*.safetensors"):
        write_file(file, {"model.norm.weight": np.ones(32, np.float32)})
    assert "has tensors that another file has too: model.norm.weight" in complaint(folder)


def test_folder_without_files_or_with_several_and_no_index_is_refused(tmp_path):
    folder, index = split(tmp_path)
    index.unlink()
    assert "5 files *.safetensors and no model.safetensors.index.json" in complaint(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert "has no files *.safetensors" in complaint(folder)
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in complaint(folder)
    (folder / "config.json").write_text("[]")
    assert "holds list instead of an object" in complaint(folder)
    (folder / "config.json").unlink()
    assert "cannot read" in complaint(folder)


def test_missing_surplus_and_misshapen_tensors_are_in_one_message(monkeypatch, tmp_path):
    arrays = tensors(CONFIG)
    for layer in range(2):
        del arrays[f"model.layers.{layer}.mlp.up_proj.weight"]
    arrays["model.layers.2.mlp.up_proj.weight"] = np.zeros(3, np.float32)
    arrays["model.norm.weight"] = np.zeros(31, np.float32)
    arrays["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.int64)
    monkeypatch.setattr(hf_weights, "Reader", None)  # no weights are read
    message = complaint(write(tmp_path / "source", CONFIG, arrays))
    assert "missing: model.layers.{0-1}.mlp.up_proj.weight;" in message
    assert "not of this model: model.layers.2.mlp.up_proj.weight;" in message
    assert "of another shape: model.norm.weight (31,) instead of (32,);" in message
    assert "BF16, F16, F32: model.layers.0.self_attn.q_proj.bias int64;" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("model.norm.weight"), "missing: model.norm.weight;"),
        (lambda a: a.update(extra=a["model.norm.weight"]), "not of this model: extra;"),
        (
            lambda a: a.update({"model.norm.weight": np.ones((1, 32), np.float32)}),
            "of another shape: model.norm.weight (1, 32) instead of (32,);",
        ),
        (
            lambda a: a.update({"lm_head.weight": a["model.embed_tokens.weight"] + 1}),
            "not tied, though config.json says so: lm_head.weight and model.embed_tokens.weight",
        ),
    ],
    ids=["missing", "surplus", "shape", "head"],
)
def test_each_fault_by_itself_is_the_only_one_named(change, message, small_pieces, tmp_path):
    arrays = tensors(CONFIG)
    change(arrays)
    found = complaint(write(tmp_path / "source", CONFIG, arrays))
    assert message.split(":")[0] + ":" in found and message in found + ";"
    assert found.count(": ") == 2 + message.count(": ") - 1


def test_copy_of_a_tied_embedding_as_head_is_ignored(small_pieces, tmp_path):
    arrays = tensors(CONFIG)
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]
    chex.assert_trees_all_equal(load(write(tmp_path / "s", CONFIG, arrays)), make_params())
    last = arrays["lm_head.weight"].copy()
    last[-1, -1] += 1e-3
    assert "differ" in complaint(write(tmp_path / "s", CONFIG, {**arrays, "lm_head.weight": last}))
    half = arrays["lm_head.weight"].astype(np.float16)
    assert "differ" in complaint(write(tmp_path / "s", CONFIG, {**arrays, "lm_head.weight": half}))
    arrays["model.embed_tokens.weight"] = half.view(jnp.bfloat16)
    assert "differ" in complaint(write(tmp_path / "s", CONFIG, {**arrays, "lm_head.weight": half}))


def test_untied_model_needs_its_head(tmp_path):
    arrays = tensors(UNTIED)
    del arrays["lm_head.weight"]
    assert "missing: lm_head.weight;" in complaint(write(tmp_path / "source", UNTIED, arrays))


def test_rotary_buffers_are_ignored_and_nothing_like_them(tmp_path):
    arrays = tensors(CONFIG)
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    arrays["model.rotary_emb_local.inv_freq"] = np.ones(4, np.float32)
    chex.assert_trees_all_equal(load(write(tmp_path / "s", CONFIG, arrays)), make_params())
    arrays["model.layers.0.self_attn.rotary_scale"] = np.ones(4, np.float32)
    message = complaint(write(tmp_path / "s", CONFIG, arrays))
    assert "not of this model: model.layers.0.self_attn.rotary_scale;" in message


def test_decoder_is_taken_out_of_a_model_for_text_and_images(tmp_path):
    config = VARIANTS["two_ropes"]
    arrays = {f"language_model.{name}": array for name, array in tensors(config).items()}
    arrays["vision_tower.patches.weight"] = np.zeros((3, 3), np.float32)
    source = write(tmp_path / "source", config, arrays)
    text = json.loads((source / "config.json").read_text()) | {"max_position_embeddings": 99}
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (source / "config.json").write_text(json.dumps(outer))
    params = load(source)
    chex.assert_trees_all_equal(params, make_params(config))
    hf_export.save_checkpoint(tmp_path / "out", config, params, source=source)
    assert hf_weights.open_checkpoint(tmp_path / "out").config == config
    assert hf_files.read_config(tmp_path / "out")["max_position_embeddings"] == 99
    del arrays["language_model.model.norm.weight"]
    write_file(source / "model.safetensors", arrays)
    assert "missing: language_model.model.norm.weight;" in complaint(source)


def test_decoder_is_read_by_the_names_of_modules_too(tmp_path):
    # As newer libraries name it in memory, and some write it.
    config = VARIANTS["two_ropes"]
    arrays = {
        name.replace("model.", "model.language_model.", 1): array
        for name, array in tensors(config).items()
    }
    arrays["lm_head.weight"] = arrays["model.language_model.embed_tokens.weight"]
    arrays["model.vision_tower.patches.weight"] = np.zeros((3, 3), np.float32)
    source = write(tmp_path / "source", config, arrays)
    text = json.loads((source / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (source / "config.json").write_text(json.dumps(outer))
    chex.assert_trees_all_equal(load(source), make_params(config))
    assert hf_weights.open_checkpoint(source).left_out == ["model.vision_tower.patches.weight"]


@pytest.mark.parametrize("said", [None, "auto"])
@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("bfloat16",), "bfloat16"),
        (("float16",), "float16"),
        (("bfloat16", "float16"), "float32"),
        (("bfloat16", "float32"), "float32"),
    ],
)
def test_dtype_that_the_config_leaves_open_is_that_of_the_tensors(there, expected, said, tmp_path):
    arrays = {
        name: array.astype(np.dtype(there[index % len(there)]))
        for index, (name, array) in enumerate(tensors(CONFIG).items())
    }
    source = write(tmp_path / "source", CONFIG, arrays)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "torch_dtype": said}))
    assert hf_weights.open_checkpoint(source).config.param_dtype == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(load(source))} == {np.dtype(expected)}


def test_unknown_architecture_is_named_with_those_known(tmp_path):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    known = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**known, "architectures": ["GPT2LMHeadModel"]}))
    message = complaint(source)
    assert "'GPT2LMHeadModel'" in message and "Qwen2ForCausalLM" in message


def test_names_are_listed_by_ranges_of_layers_and_experts():
    names = [f"l.{layer}.e.{expert}.w" for layer in (0, 1, 2, 7) for expert in range(3)]
    assert hf_files.listed([*names, "norm", "l.4.bias"]) == "l.{0-2,7}.e.{0-2}.w, l.4.bias, norm"
    assert hf_files.listed([]) == ""


def with_header(change):
    """Replaces entries of the header."""

    def apply(raw):
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        text = json.dumps(change(header)).encode()
        return len(text).to_bytes(8, "little") + text + raw[8 + length :]

    return apply


def entry(**changes):
    """Changes the entry of the final norm, the last tensor of the file."""

    def apply(header):
        return {**header, "model.norm.weight": {**header["model.norm.weight"], **changes}}

    return with_header(apply)


END = 4 * CONFIG.parameters  # bytes of all tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], "it is cut short or damaged"),
        (lambda raw: raw + b"\0", "it is cut short or damaged"),
        (lambda raw: raw[:100], "cut short or not a safetensors file: it has 100 bytes"),
        (lambda raw: raw[:5], "cut short or not a safetensors file: it has 5 bytes"),
        (lambda raw: b"", "cut short or not a safetensors file: it has 0 bytes"),
        (lambda raw: b"\xff" * 8 + raw[8:], "should take 18,446,744,073,709,551,615"),
        (lambda raw: raw[:8] + b"}" + raw[9:], "is not a safetensors header (JSONDecodeError"),
        (
            lambda raw: raw[:9] + b"\xff" + raw[10:],
            "is not a safetensors header (UnicodeDecodeError",
        ),
        (with_header(lambda header: 3), "is not a safetensors header (AttributeError"),
        (with_header(lambda header: {"a": 1}), "is not a safetensors header (TypeError"),
        (
            with_header(lambda header: {"a": {"dtype": "F32"}}),
            "is not a safetensors header (KeyError",
        ),
        (entry(data_offsets=[END - 128]), "is not a safetensors header (ValueError"),
        (entry(data_offsets=[END - 128.0, END]), "is not a safetensors header (TypeError"),
        (entry(shape=["many"]), "is not a safetensors header (TypeError"),
        (entry(data_offsets=[END - 132, END]), "must not overlap"),
        (entry(data_offsets=[END - 124, END]), "must not overlap"),
        (entry(data_offsets=[END - 128, END - 256]), "must not overlap"),
        (entry(shape=[33]), "has 128 bytes, and F32 of shape (33,) takes 132"),
        (entry(shape=[-4, -8]), "of shape (-4, -8)"),
        (entry(dtype="BF16"), "has 128 bytes, and BF16 of shape (32,) takes 64"),
    ],
)
def test_damaged_file_is_named_with_its_damage(change, message, tmp_path):
    assert message in damaged(tmp_path, change)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", hf_files.INDEX])
def test_pointer_of_git_lfs_is_named_with_the_way_out(name, tmp_path):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    (source / name).write_text(pointer)
    message = complaint(source)
    assert f"{source / name} is a pointer of Git LFS" in message and "git lfs pull" in message
