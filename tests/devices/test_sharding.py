"""Meshes, and where parameters and rows are put on them."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gtpo_jax.devices import sharding
from models import decoder
from models.presets import MODELS
from tests.tiny import CONFIG, make_params


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({}, (8, 1, 1, 1)),
        ({"data": 2, "fsdp": -1}, (2, 4, 1, 1)),
        ({"fsdp": 2, "tensor": 2}, (2, 2, 1, 2)),
        ({"data": 1, "fsdp": 1, "tensor": -1}, (1, 1, 1, 8)),
        ({"data": 1, "fsdp": 2, "sequence": 4}, (1, 2, 4, 1)),
    ],
)
def test_mesh_takes_all_devices(axes, shape):
    mesh = sharding.make_mesh(**axes)
    assert tuple(mesh.shape[axis] for axis in sharding.MESH_AXES) == shape
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert sharding.row_count(mesh) == shape[0] * shape[1] * shape[2]
    assert sharding.row_count(mesh, sharding.BATCH_AXES) == shape[0] * shape[1]


def test_mesh_of_some_devices_holds_only_them():
    devices = jax.devices()[2:4]
    mesh = sharding.make_mesh(devices=devices)
    assert set(mesh.devices.ravel()) == set(devices)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": 3}, "do not multiply to the 8 devices present: data may be 8$"),
        ({"data": 4}, "do not multiply to the 8 devices present; set one of them to -1$"),
        ({"data": 16}, "data may be 8$"),
        ({"tensor": 3}, "tensor 3 do not multiply to .*: tensor may be 1, 2, 4, 8$"),
        ({"tensor": 16}, "tensor may be 1, 2, 4, 8$"),
        ({"data": 3, "fsdp": -1}, "data may be 1, 2, 4, 8$"),
        ({"fsdp": 2, "tensor": 3}, "tensor may be 1, 2, 4$"),
        ({"fsdp": 8, "tensor": 2}, "fsdp may be 1, 2, 4 or tensor may be 1$"),
        ({"fsdp": 3, "tensor": 5}, "their product must divide 8$"),
        ({"data": -1, "fsdp": -1}, "each must be at least 1, and one of them may be -1$"),
        ({"data": 0}, "each must be at least 1, and one of them may be -1$"),
        ({"data": -2, "fsdp": -4}, "each must be at least 1, and one of them may be -1$"),
    ],
)
def test_mesh_that_does_not_fit_the_devices_is_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(**axes)


def test_rows_that_devices_cannot_share_are_refused():
    mesh = sharding.make_mesh(data=4, fsdp=2)
    sharding.check_rows(16, mesh, "rows")
    with pytest.raises(ValueError, match=r"train\.rows is 12, which 8 devices.* multiple of 8"):
        sharding.check_rows(12, mesh, "train.rows")


@pytest.mark.parametrize("leading", [0, 1])
def test_rows_are_spread_over_data_and_fsdp_and_copied_over_tensor(leading):
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shape = (3,) * leading + (8, 5)
    array = np.arange(np.prod(shape)).reshape(shape)
    placed = jax.device_put(array, sharding.row_sharding(mesh, leading=leading))
    shards = [np.asarray(shard.data) for shard in placed.addressable_shards]
    assert {shard.shape for shard in shards} == {(3,) * leading + (2, 5)}
    assert len({shard.tobytes() for shard in shards}) == 4
    everywhere = jax.device_put(array, sharding.replicated(mesh))
    assert {s.data.shape for s in everywhere.addressable_shards} == {shape}


def test_key_heads_of_a_cache_are_spread_over_tensor_where_they_can_be():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shared = jax.ShapeDtypeStruct((8, 2, 16, 4), np.float32)
    alone = jax.ShapeDtypeStruct((8, 1, 16, 4), np.float32)
    other = jax.ShapeDtypeStruct((8, 16, 1), np.int32)
    shapes = [
        sharding.cache_sharding(mesh, leaf).shard_shape(leaf.shape)
        for leaf in (shared, alone, other)
    ]
    assert shapes == [(2, 1, 16, 4), (2, 1, 16, 4), (2, 16, 1)]


def test_parameters_are_placed_by_the_names_of_their_axes():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    placed = sharding.param_shardings(decoder.logical_axes(CONFIG), mesh)
    specs = jax.tree.map(lambda s: s.spec, placed)
    layers = specs["layers"]
    assert specs["embedding"] == PartitionSpec("tensor", "fsdp")
    assert layers["q_proj"]["kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert layers["q_proj"]["bias"] == PartitionSpec(None, "tensor")
    assert layers["o_proj"]["kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert layers["down_proj"]["kernel"] == PartitionSpec(None, "tensor", "fsdp")
    params = jax.device_put(make_params(), placed)
    kernel = params["layers"]["q_proj"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 16, 16)}
    chunk = np.asarray(kernel.addressable_shards[0].data)
    np.testing.assert_array_equal(chunk, make_params()["layers"]["q_proj"]["kernel"][:, :16, :16])


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_can_be_cut_in_two_along_both_axes(name):
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    placed = sharding.param_shardings(decoder.logical_axes(MODELS[name]), mesh)
    shapes = jax.eval_shape(lambda key: decoder.init_params(MODELS[name], key), jax.random.key(0))
    # Raises where a dimension is not divisible.
    jax.tree.map(lambda leaf, s: s.shard_shape(leaf.shape), shapes, placed)


def test_axis_without_a_rule_is_refused():
    mesh = sharding.make_mesh()
    with pytest.raises(ValueError, match=r"\['color'\]; known: \['embed', 'expert_mlp'"):
        sharding.param_shardings({"w": ("embed", "color")}, mesh)


# Which process drives each device of a mesh of two axes of rows and one of `tensor`.
A, B, C = 0, 1, 2


def with_sequence(owners):
    """The owners along all axes, of which `sequence` has one device."""
    return np.expand_dims(np.array(owners), 2)


@pytest.mark.parametrize(
    ("owners", "block"),
    [
        ([[[A]], [[A]], [[B]], [[B]]], (2, 1, 1)),
        ([[[A, A], [A, A]], [[B, B], [B, B]]], (1, 2, 2)),
        ([[[A, A], [B, B]]], (1, 1, 2)),
        # Blocks that lie apart in the order of the rows.
        ([[[A], [A], [B], [B]], [[A], [A], [B], [B]]], (2, 2, 1)),
        ([[[A]], [[B]], [[C]]], (1, 1, 1)),
    ],
)
def test_block_of_a_process(owners, block):
    data, fsdp, tensor = block
    assert sharding.process_block(with_sequence(owners)) == (data, fsdp, 1, tensor)


@pytest.mark.parametrize(
    ("owners", "told"),
    [
        # `tensor` leads from one process to another.
        ([[[A, B]]], "tensor has 2 devices, of which a process drives only 1.* divisor of the 1 "),
        ([[[A, A, B, B]]], "tensor has 4 .* only 2; set tensor to a divisor of the 2 devices"),
        # A process that turns a corner, along either axis.
        ([[[A, A, A], [A, B, B]], [[B, B, C], [C, C, C]]], "along tensor, of size 3"),
        (
            [[[A], [A], [A], [A], [B], [B]], [[B], [B], [C], [C], [C], [C]]],
            "along fsdp, of size 6, .* the 4 devices",
        ),
        ([[[A], [A], [B]], [[A], [B], [B]]], "along fsdp, of size 3, .* the 3 devices"),
        # Devices that are no neighbors, or no block of the size of the others.
        ([[[A], [B], [A], [B]]], "along fsdp, of size 4"),
        ([[[A], [B], [B], [A]]], "along fsdp"),
        ([[[A]], [[B]], [[B]], [[A]]], "along data"),
        ([[[A]], [[A]], [[B]]], "along data, of size 3"),
        ([[[A], [B], [B]]], "along fsdp, of size 3"),
    ],
)
def test_processes_that_drive_no_blocks_are_refused(owners, told):
    with pytest.raises(ValueError, match=told):
        sharding.process_block(with_sequence(owners))
