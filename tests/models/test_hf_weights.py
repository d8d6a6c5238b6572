"""Checkpoints on disk: bit for bit in both directions, in pieces, and refused with one message."""

import dataclasses
import json
import math
import pathlib
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gtpo_jax.devices import sharding
from models import decoder
from models.hf import config as hf_config
from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import names as hf_names
from models.hf import weights as hf_weights
from tests.models.variants import VARIANTS
from tests.rounding import converts_float16
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow

UNTIED = VARIANTS["one_kv_head_untied"]
MOE = dataclasses.replace(VARIANTS["experts"], experts=4)
CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
PATHS = {"host": None, "device": False}


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Arrays filled where NumPy has them, or piece by piece on the device as on an accelerator."""
    if request.param == "device":
        monkeypatch.setattr(hf_weights, "_in_host_memory", lambda devices: False)
    return request.param


def needs_float16(path):
    if path == "device" and not converts_float16():
        pytest.skip("this processor has no float16, and XLA no other way to convert it")


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of some rows of a matrix, of several norms, of two experts."""
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 6500)


def write_file(path, arrays, *, odd=False):
    """Safetensors by the letter of the format, sharing no code with the export."""
    header, data = {}, b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        code = CODES.get(str(array.dtype), str(array.dtype))
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * ((odd - len(text)) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write(folder, config, arrays, *, odd=False):
    """A folder with these tensors in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config.to_hf(config)))
    write_file(folder / "model.safetensors", arrays, odd=odd)
    return folder


def tensors(config, params=None):
    return dict(hf_names.export_params(config, make_params(config) if params is None else params))


def load(folder, **options):
    return hf_weights.load_params(hf_weights.open_checkpoint(folder), **options)


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def complaint(folder):
    with pytest.raises(ValueError) as error:
        hf_weights.open_checkpoint(folder)
    return str(error.value)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_import_export_and_import_again_change_no_bit(config, path, small_pieces, tmp_path):
    source = write(tmp_path / "source", config, tensors(config))
    checkpoint = hf_weights.open_checkpoint(source)
    assert checkpoint.config == config
    params = hf_weights.load_params(checkpoint)
    chex.assert_trees_all_equal_structs(params, make_params(config))
    chex.assert_trees_all_equal(params, make_params(config), strict=True)
    hf_export.save_checkpoint(tmp_path / "one", config, params)
    again = load(tmp_path / "one")
    chex.assert_trees_all_equal(again, params)
    hf_export.save_checkpoint(tmp_path / "two", config, again)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_file_with_an_odd_header_reads_the_same(path, tmp_path):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG), odd=True)
    assert int.from_bytes((source / "model.safetensors").read_bytes()[:8], "little") % 2 == 1
    chex.assert_trees_all_equal(load(source), make_params())


@pytest.mark.parametrize("there", CODES)
@pytest.mark.parametrize("here", CODES)
def test_every_dtype_becomes_every_other_as_numpy_rounds(there, here, path, small_pieces, tmp_path):
    if here != there and "float16" in (here, there):
        needs_float16(path)
    arrays = {name: a.astype(np.dtype(there)) for name, a in tensors(CONFIG).items()}
    source = write(tmp_path / "source", CONFIG, arrays)
    params = load(source, dtype=here)
    expected = {name: a.astype(np.dtype(here)) for name, a in arrays.items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(here)}
    chex.assert_trees_all_equal(tensors(CONFIG, params), expected)
    hf_export.save_checkpoint(tmp_path / "out", CONFIG, params, dtype=there)
    stored = hf_files.read_headers(tmp_path / "out")
    assert {at.dtype for at in stored.values()} == {CODES[there]}
    assert hf_weights.open_checkpoint(tmp_path / "out").config.param_dtype == there
    back = tensors(CONFIG, load(tmp_path / "out"))
    chex.assert_trees_all_equal(back, {k: a.astype(np.dtype(there)) for k, a in expected.items()})


def test_every_bit_pattern_of_bfloat16_survives(path, tmp_path):
    # Infinities, subnormals and each NaN: 65,536 of them in an embedding.
    config = dataclasses.replace(CONFIG, vocab_size=2048, param_dtype="bfloat16")
    arrays = {name: a.astype(jnp.bfloat16) for name, a in tensors(config).items()}
    patterns = np.arange(65_536, dtype=np.uint16).reshape(2048, 32)
    arrays["model.embed_tokens.weight"] = patterns.view(jnp.bfloat16)
    params = load(write(tmp_path / "source", config, arrays))
    np.testing.assert_array_equal(np.asarray(params["embedding"]).view(np.uint16), patterns)
    hf_export.save_checkpoint(tmp_path / "out", config, params)
    back = load(tmp_path / "out")["embedding"]
    np.testing.assert_array_equal(np.asarray(back).view(np.uint16), patterns)
    wide = load(tmp_path / "out", dtype="float32")["embedding"]
    np.testing.assert_array_equal(wide, patterns.view(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize("widest", CODES)
def test_layers_of_several_dtypes_are_one_leaf(widest, path, tmp_path):
    needs_float16(path)
    rng = np.random.default_rng(0)
    mixed = {k: a.astype(np.dtype(rng.choice([*CODES]))) for k, a in tensors(CONFIG).items()}
    pairs = [(a, mixed[k.replace("s.0.", "s.1.")]) for k, a in mixed.items() if "s.0." in k]
    assert len({(first.dtype, second.dtype) for first, second in pairs}) >= 6
    params = load(write(tmp_path / "source", CONFIG, mixed), dtype=widest)
    expected = {name: a.astype(np.float32).astype(np.dtype(widest)) for name, a in mixed.items()}
    chex.assert_trees_all_equal(tensors(CONFIG, params), expected)


MESHES = {
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 4, "tensor": 2},
    "both": {"data": 2, "fsdp": 2, "tensor": 2},
}


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(axes, id=name, marks=[pytest.mark.slow] if name != "both" else [])
        for name, axes in MESHES.items()
    ],
)
@pytest.mark.parametrize("config", [CONFIG, MOE], ids=["dense", "experts"])
def test_sharded_import_and_export_equal_unsharded_ones(axes, config, path, small_pieces, tmp_path):
    source = write(tmp_path / "source", config, tensors(config))
    shardings = sharding.param_shardings(decoder.logical_axes(config), sharding.make_mesh(**axes))
    params = load(source, shardings=shardings)
    chex.assert_trees_all_equal(params, make_params(config))
    jax.tree.map(
        lambda leaf, expected: chex.assert_equal(leaf.sharding, expected), params, shardings
    )
    hf_export.save_checkpoint(tmp_path / "sharded", config, params)
    hf_export.save_checkpoint(tmp_path / "plain", config, make_params(config))
    assert files(tmp_path / "sharded") == files(tmp_path / "plain")


def test_layers_themselves_may_be_sharded(path, small_pieces, tmp_path):
    source = write(tmp_path / "source", MOE, tensors(MOE))
    rules = {**sharding.LOGICAL_RULES, "layers": "data"}
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shardings = sharding.param_shardings(decoder.logical_axes(MOE), mesh, rules)
    params = load(source, shardings=shardings)
    gate = params["layers"]["experts"]["gate_proj"]["kernel"]
    assert gate.sharding.spec == PartitionSpec("data", "tensor", "fsdp", None)
    chex.assert_trees_all_equal(params, make_params(MOE))
    hf_export.save_checkpoint(tmp_path / "out", MOE, params)
    chex.assert_trees_all_equal(load(tmp_path / "out"), make_params(MOE))


def test_imported_parameters_may_be_donated(path, tmp_path):
    params = load(write(tmp_path / "source", CONFIG, tensors(CONFIG)))
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    expected = jax.tree.map(lambda x: 2 * x, make_params())
    chex.assert_trees_all_equal(double(params), expected)


# Memory.


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(7,), (3, 5), (40, 30), (9, 40, 30), (9, 3, 2), (3, 5, 6, 4)])
@pytest.mark.parametrize("limit", [8, 100, 999, 10**6])
def test_pieces_cover_every_number_once_and_keep_the_limit(sizes, transposed, limit, monkeypatch):
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", limit)
    for leading in range(max(0, len(sizes) - 2), len(sizes)):
        matrix = transposed and len(sizes) - leading == 2
        covered = np.zeros(sizes, int)
        rows = len(sizes) - 1 if matrix else leading
        row = math.prod(sizes[leading:]) // sizes[rows] * 4
        for box in hf_weights.pieces(sizes, leading, matrix, itemsize=4):
            covered[box] += 1
            assert covered[box].size * 4 <= max(limit, row)
        np.testing.assert_array_equal(covered, 1)


def big(tmp_path):
    """An embedding and a stack of 32 MB each, in tensors of 32 and 8 MB."""
    config = dataclasses.replace(
        CONFIG, vocab_size=2**16, width=128, layers=4, mlp_width=2**14, param_dtype="float32"
    )
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(lambda: decoder.init_params(config, jax.random.key(0))),
    )
    hf_export.save_checkpoint(tmp_path / "big", config, params)
    return config, params, tmp_path / "big"


def peak_of(call):
    """Most bytes that Python and NumPy held at a time within a call."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


SLACK = 6 * 2**20  # pieces of all threads, and what tracing a program takes


def test_import_to_a_device_holds_few_pieces_on_the_host(monkeypatch, tmp_path):
    _, _, folder = big(tmp_path)
    monkeypatch.setattr(hf_weights, "_in_host_memory", lambda devices: False)
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 2**18)
    peak, _ = peak_of(lambda: load(folder))
    assert peak < SLACK


def test_arrays_filled_on_the_host_are_taken_over_without_a_copy(monkeypatch, tmp_path):
    made, make = set(), hf_weights._aligned

    def recorded(*arguments):
        array = make(*arguments)
        made.add(array.ctypes.data)
        return array

    monkeypatch.setattr(hf_weights, "_aligned", recorded)
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    params = load(source)
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)} == made
    mesh = sharding.make_mesh(data=4, tensor=2)
    shardings = sharding.param_shardings(decoder.logical_axes(CONFIG), mesh)
    made.clear()
    shards = [x.addressable_shards for x in jax.tree.leaves(load(source, shardings=shardings))]
    # Devices with the same part share its memory.
    assert {s.data.unsafe_buffer_pointer() for each in shards for s in each} == made


def test_import_on_the_host_holds_the_arrays_and_few_pieces(monkeypatch, tmp_path):
    config, _, folder = big(tmp_path)
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 2**18)
    peak, params = peak_of(lambda: load(folder))
    arrays = 4 * config.parameters
    assert arrays < peak < arrays + SLACK
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(params)) == arrays


def test_export_holds_few_pieces_on_the_host(monkeypatch, tmp_path):
    config, params, _ = big(tmp_path)
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 2**18)
    peak, _ = peak_of(lambda: hf_export.save_checkpoint(tmp_path / "again", config, params))
    assert peak < SLACK


def resident(file: pathlib.Path) -> int:
    """Bytes of mappings of a file that are in memory of this process."""
    total, ours = 0, False
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def test_pages_of_the_files_are_given_back(path, monkeypatch, tmp_path):
    _, _, folder = big(tmp_path)
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 2**20)
    kept = []

    class Kept(hf_files.Reader):
        def __init__(self, stored):
            super().__init__(stored)
            kept.append(self)

    monkeypatch.setattr(hf_weights, "Reader", Kept)
    load(folder)
    left = resident(folder / "model.safetensors")
    assert left < 2**16
    kept[0].view("model.embed_tokens.weight").sum()
    assert resident(folder / "model.safetensors") > left + 2**24


# Several files.


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


# Tensors that are not those of the config.


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


# Files that are no safetensors, or not whole.


def damaged(tmp_path, change):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    file = source / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    message = complaint(source)
    assert str(file) in message
    return message


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


# Export.


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


# transformers.


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
