"""Checkpoints on disk: bit for bit in both directions, in pieces, and in bounded memory."""

import dataclasses
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
from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import weights as hf_weights
from tests.models.hf_checkpoints import CODES, MOE, files, load, tensors, write
from tests.models.variants import VARIANTS
from tests.rounding import converts_float16
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow


def needs_float16(path):
    if path == "device" and not converts_float16():
        pytest.skip("this processor has no float16, and XLA no other way to convert it")


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
        pytest.param(axes, id=name, marks=[pytest.mark.long] if name != "both" else [])
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
    monkeypatch.setattr(hf_weights, "in_host_memory", lambda devices: False)
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
