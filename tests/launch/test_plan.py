"""Figures that the planner reads from compiled programs, compared with counts by hand."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import schema
from configs.parts import make_optimizer
from configs.presets import PRESETS
from gtpo_jax import learner
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from launch import cli, plan
from launch.planning import cost, estimate, groups, hlo, programs, search, topologies, traffic
from launch.planning.chips import CHIPS, GIB
from launch.run.network import Network
from models import presets

TINY = PRESETS["tiny"]
SMALL = search.apply(
    TINY,
    {
        **{"model.width": 32, "model.mlp_width": 48, "model.head_dim": 8, "model.layers": 3},
        **{"rollout.slots": 8, "rollout.context": 64, "rollout.first_cache": 64},
        **{"train.rows": 8, "train.prompts": 4, "train.group_size": 8},
    },
)


def cost_of(function, *arguments, loops: int = 1, devices: int = 1) -> cost.Cost:
    compiled = jax.jit(function).lower(*arguments).compile()
    return cost.cost(hlo.parse(compiled.as_text()), loops=loops, devices=devices)


def chain(x, weights):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]


def test_operations_of_a_loop_are_those_of_its_trips_written_out():
    x, weights = jnp.ones((4, 16)), jnp.ones((5, 16, 16))

    def unrolled(x, weights):
        for weight in weights:
            x = x @ weight
        return x

    assert cost_of(chain, x, weights).operations == 5 * 2 * 4 * 16 * 16
    assert cost_of(unrolled, x, weights).operations == 5 * 2 * 4 * 16 * 16
    said = jax.jit(unrolled).lower(x, weights).compile().cost_analysis()
    assert said is not None and said["flops"] == 5 * 2 * 4 * 16 * 16
    # XLA counts the body once, which is why the module reads the text.
    said = jax.jit(chain).lower(x, weights).compile().cost_analysis()
    assert said is not None and said["flops"] < 2 * 2 * 4 * 16 * 16


def test_a_loop_of_unknown_length_runs_as_often_as_the_caller_says():
    x, weight = jnp.ones((4, 16)), jnp.ones((3, 16, 16))

    def outer(x, weights, count):
        return jax.lax.fori_loop(0, count, lambda _, x: chain(x, weights), x)

    one = 3 * 2 * 4 * 16 * 16
    arguments = (x, weight, jnp.int32(3))
    assert cost_of(outer, *arguments, loops=7).operations == 7 * one
    once = cost_of(outer, *arguments)
    assert once.operations == one and once.guessed > 0
    assert cost_of(outer, *arguments, loops=7).guessed == 0


COUNTED = """HloModule hand

%body (p: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {{
  %p = (s32[], f32[4,4]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,4]{{1,0}} get-tuple-element(%p), index=1
  %two = s32[] constant({step})
  %next = s32[] add(%i, %two)
  %y = f32[4,4]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %out = (s32[], f32[4,4]{{1,0}}) tuple(%next, %y)
}}

%until (q: (s32[], f32[4,4])) -> pred[] {{
  %q = (s32[], f32[4,4]{{1,0}}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %last = s32[] constant(9)
  ROOT %more = pred[] compare(%j, %last), direction=LT
}}

ENTRY %main (a: f32[4,4]) -> (s32[], f32[4,4]) {{
  %a = f32[4,4]{{1,0}} parameter(0)
  %zero = s32[] constant({first})
  %start = s32[] copy(%zero)
  %both = (s32[], f32[4,4]{{1,0}}) tuple(%start, %a)
  ROOT %loop = (s32[], f32[4,4]{{1,0}}) while(%both), condition=%until, body=%body
}}
"""


@pytest.mark.parametrize(("first", "step", "times"), [(0, 1, 9), (0, 2, 5), (1, 2, 4), (5, 1, 4)])
def test_a_loop_counts_from_where_it_begins_in_its_own_steps(first, step, times):
    module = hlo.parse(COUNTED.format(first=first, step=step))
    assert cost.cost(module).operations == times * 2 * 4 * 4 * 4


@pytest.mark.parametrize(
    ("name", "collective", "sent", "size"),
    [
        # A shard [2, 6] of float32 has 48 bytes; `tensor` has 4 devices, `data` 2.
        ("all-gather", lambda x: jax.lax.all_gather(x, "tensor", tiled=True), 3 * 48, 4),
        ("all-reduce", lambda x: jax.lax.psum(x, "tensor"), 2 * 48 * 3 / 4, 4),
        ("all-reduce", lambda x: jax.lax.psum(x, "data"), 2 * 48 / 2, 2),
        (
            "reduce-scatter",
            lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
            48 / 2,
            2,
        ),
        (
            "collective-permute",
            lambda x: jax.lax.ppermute(x, "tensor", [(i, (i + 1) % 4) for i in range(4)]),
            48,
            2,
        ),
        (
            "all-to-all",
            lambda x: jax.lax.all_to_all(x, "data", 0, 1, tiled=True),
            48 / 2,
            2,
        ),
    ],
)
def test_traffic_of_each_collective_is_what_was_counted_by_hand(name, collective, sent, size):
    mesh = sharding.make_mesh(data=2, tensor=4)
    both = PartitionSpec(("data", "tensor"))
    run = jax.shard_map(collective, mesh=mesh, in_specs=both, out_specs=both, check_vma=False)
    x = jax.device_put(jnp.ones((16, 6)), NamedSharding(mesh, both))
    [found] = cost_of(run, x, devices=8).collectives
    assert (found.kind, found.sent, len(found.group)) == (name, sent, size)


def test_traffic_of_a_sharded_product_in_a_loop():
    mesh = sharding.make_mesh(data=1, fsdp=2, tensor=4)
    rows = jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))
    whole = NamedSharding(mesh, PartitionSpec(None, "tensor", None))
    weights = jax.device_put(jnp.ones((5, 16, 16)), whole)
    found = cost_of(chain, rows, weights, devices=8)
    # Each of 5 products is summed over 4 devices: [4, 16] of float32, or its share of it.
    assert {one.kind for one in found.collectives} <= {"all-reduce", "reduce-scatter", "all-gather"}
    assert found.sent == pytest.approx(5 * 2 * (4 * 16 * 4) * 3 / 4, rel=0.5)
    assert found.operations == 5 * 2 * (4 * 16 * 16) / 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,1},{2,3}}, use", [(0, 1), (2, 3)]),
        ("replica_groups={{0,2,4}}", [(0, 2, 4)]),
        ("replica_groups=[2,2]<=[4]", [(0, 1), (2, 3)]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['data'=2,'tensor'=2] {'tensor'}", [(0, 1), (2, 3)]),
        ("replica_groups=mesh['data'=2,'tensor'=2] {'data'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [(0, 1, 2, 3)]),
        (
            "replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}, use",
            [(0, 2), (1, 3)],
        ),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=(3,2,1,0) {'y'}", [(3, 2), (1, 0)]),
        ("replica_groups=mesh['x'=4] {'x':(1)2}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['x'=4] {'x':(2)2}", [(0, 1), (2, 3)]),
        ("replica_groups={}", [(0, 1, 2, 3)]),
        ("channel_id=1", [(0, 1, 2, 3)]),
    ],
)
def test_groups_are_read_in_each_notation(text, expected):
    assert groups.replica_groups(text, 4) == expected


def test_groups_in_an_unknown_notation_are_an_error():
    with pytest.raises(ValueError, match=r"unknown way: replica_groups=<some"):
        groups.replica_groups("replica_groups=<something new>", 4)


TEXT = """HloModule hand

%sliced (p0: f32[5,16,16], p1: s32[], p2: f32[8,16,16]) -> f32[8,16,16] {
  %p0 = f32[5,16,16]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[8,16,16]{2,1,0} parameter(2)
  %z = s32[] constant(0)
  %piece = f32[1,16,16]{2,1,0} dynamic-slice(%p0, %p1, %z, %z), dynamic_slice_sizes={1,16,16}
  ROOT %put = f32[8,16,16]{2,1,0} dynamic-update-slice(%p2, %piece, %p1, %z, %z)
}

ENTRY %main (a: f32[5,16,16], i: s32[], b: f32[8,16,16]) -> f32[8,16,16] {
  %a = f32[5,16,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1), metadata={op_name="with a
}}, line break"}
  %b = f32[8,16,16]{2,1,0} parameter(2)
  %near = f32[5,16,16]{2,1,0:T(8,128)S(1)} copy(%a)
  ROOT %fused = f32[8,16,16]{2,1,0} fusion(%near, %i, %b), kind=kLoop, calls=%sliced
}
"""


def test_bytes_of_slices_are_those_of_the_slice():
    module = hlo.parse(TEXT)
    main = module.computations[module.entry]
    moved = functools.partial(traffic.hbm_bytes, module, main)
    whole, piece = 5 * 16 * 16 * 4, 16 * 16 * 4
    # The copy lands in fast memory, so it is only read.
    assert moved(main.instructions["near"]) == whole
    # Read from there for nothing, written where it is updated, beside the index.
    assert moved(main.instructions["fused"]) == piece + 4
    slow = hlo.parse(TEXT.replace("S(1)", ""))
    fused = slow.computations[slow.entry].instructions["fused"]
    assert traffic.hbm_bytes(slow, slow.computations[slow.entry], fused) == 2 * piece + 4


def test_bytes_of_a_cache_that_is_written_into_are_those_of_what_is_written():
    put = "dynamic-update-slice(%p2, %piece, %p1, %z, %z)"
    spots = put.replace("dynamic-update-slice(%p2, %piece, %p1", "scatter(%p2, %p1, %piece")
    text = TEXT.replace(put, spots.replace(", %z, %z", "")).replace("S(1)", "")
    module = hlo.parse(text)
    main = module.computations[module.entry]
    piece = 16 * 16 * 4
    found = traffic.hbm_bytes(module, main, main.instructions["fused"])
    assert found == 2 * piece + 4


def test_products_in_the_words_of_a_tpu():
    text = """HloModule hand

ENTRY %main (a: bf16[8,64,32], b: bf16[8,32,16]) -> bf16[8,64,16] {{
  %a = bf16[8,64,32]{{2,1,0}} parameter(0)
  %b = bf16[8,32,16]{{2,1,0}} parameter(1)
  ROOT %c = {out} convolution(%a, %b), {words}
}}
"""
    batched = "window={size=8 pad=0_0 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf"
    # Eight taps over an axis of which every eighth place is filled: one product for each.
    module = hlo.parse(text.format(out="bf16[8,64,16]{2,1,0}", words=batched))
    assert cost.cost(module).operations == 8 * 2 * 64 * 32 * 16
    summed = "window={size=8}, dim_labels=0bf_0io->0bf"
    module = hlo.parse(text.format(out="bf16[1,64,16]{2,1,0}", words=summed))
    assert cost.cost(module).operations == 8 * 2 * 64 * 32 * 16


def test_axes_of_a_product_go_by_their_labels():
    text = """HloModule hand

ENTRY %main (a: bf16[4,64,2,32,1], b: bf16[7,16,2,32,1]) -> bf16[4,64,7,16,1] {
  %a = bf16[4,64,2,32,1]{4,3,2,1,0} parameter(0)
  %b = bf16[7,16,2,32,1]{4,3,2,1,0} parameter(1)
  ROOT %c = bf16[4,64,7,16,1]{4,3,2,1,0} convolution(%a, %b), WORDS
}
"""
    words = "window={size=1x7x2 pad=0_0x6_6x0_0 rhs_reversal=0x1x0}"
    words += ", dim_labels=0b2f1_1o2i0->0b1f2"
    # [4 · 64, 2 · 32] times [2 · 32, 7 · 16]: seven places of the window meet the single key.
    found = cost.cost(hlo.parse(text.replace("WORDS", words))).operations
    assert found == 2 * (4 * 64) * (2 * 32) * (7 * 16)


@pytest.fixture(scope="module")
def small_reports():
    topology = topologies.find("cpu:8")
    planner = search.Planner(topology, programs.Workload.longest)
    config = search.apply(SMALL, {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2})
    return config, {report.name: report for report in planner.reports(config)}


@pytest.mark.slow
def test_operations_of_an_update_are_those_of_its_model(small_reports):
    config, reports = small_reports
    update, model = reports["update"], config.model
    weights = model.width * model.head_dim * 2 * (model.query_heads + model.kv_heads)
    weights = model.layers * (weights + 3 * model.width * model.mlp_width)
    weights += model.vocab_size * model.width
    # Plain attention computes what it masks, too: all pairs of tokens.
    pairs = 4 * model.query_heads * model.head_dim * config.rollout.context * model.layers
    assert update.tokens == 2 * 8 * 64
    expected = update.tokens * (6 * weights + 3 * pairs) / 8
    assert update.cost.operations == pytest.approx(expected, rel=0.15)
    assert update.cost.operations >= expected
    assert update.cost.guessed == 0 and update.cost.unknown == ()


@pytest.mark.slow
def test_operations_of_a_decode_segment_are_those_of_its_tokens(small_reports):
    config, reports = small_reports
    model, segment = config.model, reports["decode segment"]
    weights = model.width * model.head_dim * 2 * (model.query_heads + model.kv_heads)
    weights = model.layers * (weights + 3 * model.width * model.mlp_width)
    weights += model.vocab_size * model.width
    pairs = 4 * model.query_heads * model.head_dim * config.rollout.context * model.layers
    expected = 8 * config.rollout.segment_steps * (2 * weights + pairs) / 8
    assert segment.cost.operations == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
@pytest.mark.slow
def test_memory_of_arguments_is_that_of_a_real_state(small_reports):
    config, reports = small_reports
    mesh = search.make_mesh(config, topologies.find("cpu:8"))
    network = Network(config.model, mesh)
    optimizer = make_optimizer(config.train.optimizer, steps=config.train.steps)
    state = learner.init_state(network.random(), optimizer, trained=network.trained)
    batch = packing.empty_batch(2 * 8, 64)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) // 4  # rows are shared by 4 devices
    first = mesh.devices.flat[0]
    for leaf in jax.tree.leaves(state):
        held += sum(s.data.nbytes for s in leaf.addressable_shards if s.device == first)
    # What a loss does not read is no argument of its program.
    unread = (batch.turn_ids.nbytes + batch.trajectory_ids.nbytes) // 4
    assert held - unread <= reports["update"].memory.arguments <= held


@pytest.mark.parametrize(("kind", "dtype"), [("adam", "bfloat16"), ("muon", "float32")])
@pytest.mark.slow
def test_abstract_state_lies_where_a_real_one_does(kind, dtype):
    config = search.apply(SMALL, {"model.param_dtype": dtype})
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    network = Network(config.model, mesh)
    settings = dataclasses.replace(config.train.optimizer, kind=kind)
    optimizer = make_optimizer(settings, steps=10)
    real = learner.init_state(network.random(), optimizer, trained=network.trained)
    abstract = programs.abstract_state(network, optimizer)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for (path, leaf), shape in zip(
        jax.tree_util.tree_leaves_with_path(real), jax.tree.leaves(abstract), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype), path
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim), path


def test_operations_of_models():
    model, tokens, context = presets.QWEN2_5_7B, 1000, 4096
    # 7.616 billion parameters, of which the embedding is looked up, not multiplied with.
    met = 7_615_616_512 - 152_064 * 3584
    attention = 12 * 28 * 28 * 128 * context / 2
    found = estimate.model_operations(model, tokens, context)
    assert found == pytest.approx(tokens * (6 * met + attention), rel=1e-12)
    experts = presets.QWEN3_30B_A3B  # 3.3 billion active
    active = estimate.model_operations(experts, 1, 2) / 6
    assert 2.9e9 < active < 3.1e9  # without the embedding
    # A window of w tokens shows w − w²/2T of them in the mean of a row of T.
    local = dataclasses.replace(model, window=1024)
    seen = np.mean([min(at + 1, 1024) for at in range(context)])
    less = tokens * 12 * 28 * 28 * 128 * (context / 2 - seen)
    found -= estimate.model_operations(local, tokens, context)
    assert found == pytest.approx(less, rel=1e-3)


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space"
            " hbm. Used 25.50G of 15.75G hbm. Exceeded hbm capacity by 9.75G.",
            25.5 * GIB,
            15.75 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total"
            " memory required for HLO temporaries (256.00G) exceeds available HBM (95.73G).",
            256 * GIB,
            95.73 * GIB,
        ),
    ],
)
def test_refusals_of_the_compiler_are_read(message, needed, available):
    assert estimate.read_refusal(message) == (needed, available)
    assert estimate.read_refusal(message.replace("RESOURCE_EXHAUSTED", "INTERNAL")) is None


def grid_topology(kind: str, grid: tuple[int, ...]) -> topologies.Topology:
    """Chips of a grid, four per machine, in a row."""
    cells = list(np.ndindex(*grid))
    devices = [
        types.SimpleNamespace(coords=cell, process_index=index // 4, id=index)
        for index, cell in enumerate(cells)
    ]
    return topologies.Topology(name="hand", devices=devices, chip=CHIPS[kind], grid=grid)


def test_bandwidth_of_a_group_is_that_of_the_links_along_it():
    topology = grid_topology("v5p", (4, 4, 4))
    mesh = types.SimpleNamespace(devices=np.array(topology.devices, object))
    link = 600e9 / 6
    line = [0, 1, 2, 3]  # along the last axis, all around
    assert topology.sent_per_second(mesh, line) == 2 * link
    assert topology.sent_per_second(mesh, line[:2]) == link  # no ring
    assert topology.sent_per_second(mesh, range(16)) == 4 * link
    assert topology.sent_per_second(mesh, range(64)) == 600e9
    open_grid = grid_topology("v5e", (4, 4))
    mesh = types.SimpleNamespace(devices=np.array(open_grid.devices, object))
    assert open_grid.sent_per_second(mesh, range(16)) == 2 * 200e9 / 4


@dataclasses.dataclass(frozen=True)
class Device:
    """The attributes of a device that a mesh looks at."""

    id: int
    process_index: int
    platform: str = "tpu"
    device_kind: str = "hand"


def test_each_process_drives_a_block_of_a_mesh_whatever_the_order_of_devices():
    # Listed in the order of a walk around the torus: the machines alternate.
    devices = [Device(id=index, process_index=index % 4) for index in range(16)]
    mesh = sharding.make_mesh(data=1, fsdp=8, tensor=2, devices=devices)
    owners = np.vectorize(lambda device: device.process_index)(mesh.devices)
    assert sharding.process_block(owners) == (1, 2, 1, 2)
    assert sharding.platform(mesh) == "tpu"
    host = topologies.process_mesh(mesh)
    assert host.devices.shape == (1, 2, 1, 2)
    assert {device.process_index for device in host.devices.flat} == {0}


@pytest.mark.parametrize("name", ["v5p", "v5p:4x4", "h100:8", "v5e:4x4x4", "cpu:0x", "cpu:4096"])
def test_bad_topology_is_an_error_that_says_what_to_give(name):
    with pytest.raises(ValueError, match=r"topology|devices"):
        topologies.find(name)


def fake_planner(monkeypatch, needs) -> search.Planner:
    """A planner that takes memory from `needs(config, program)` instead of a compiler."""

    @dataclasses.dataclass(frozen=True)
    class Fake:
        name: str
        config: object
        loops: int = 1

    def build(config, mesh, host, workload):
        return [Fake(name, config) for name in ("update", "decode segment", "prefill")]

    def compile_program(program, topology):
        needed = needs(program.config, program.name)
        if needed > 100:
            raise estimate.DoesNotFitError(program.name, needed, 100, "refused")
        return program

    monkeypatch.setattr(search.programs, "build", build)
    monkeypatch.setattr(search, "compile_program", compile_program)
    return search.Planner(topologies.find("cpu:8"), lambda config: None)


def test_search_finds_the_first_change_that_fits_and_goes_on_to_the_next_program(monkeypatch):
    def needs(config, program):
        if program == "update":
            return 80 if config.train.rows <= 16 and config.model.remat == "full" else 300
        return config.rollout.slots

    planner = fake_planner(monkeypatch, needs)
    config = search.apply(
        SMALL, {"train.rows": 64, "rollout.slots": 128, "train.logprob_chunk": 64}
    )
    with pytest.raises(estimate.DoesNotFitError, match="update does not fit") as error:
        planner.reports(config)
    tried = list(planner.search(config, error.value, 8))
    assert [one.failure and one.failure.program for one in tried] == [
        *("update", "update", "decode segment"),
        None,
    ]
    assert tried[-1].changes == {
        **{"model.remat": "full", "train.rows": 16},
        **{"rollout.slots": 64, "rollout.parked": 0},
    }
    planner.reports(search.apply(config, tried[-1].changes))


def test_search_is_bounded_and_tries_other_meshes(monkeypatch):
    planner = fake_planner(monkeypatch, lambda config, program: 1000)
    config = search.apply(SMALL, {"train.rows": 16, "mesh.data": 8})
    failure = estimate.DoesNotFitError("update", 1000, 100, "refused")
    assert len(list(planner.search(config, failure, 2))) == 2
    tried = list(planner.search(config, failure, 100))
    assert all(one.failure is not None for one in tried)
    meshes = [(one.changes.get("mesh.fsdp"), one.changes.get("mesh.tensor")) for one in tried]
    assert meshes[-2:] == [(8, 1), (4, 2)]
    for one in tried:  # each is a valid config of a run
        changed = search.apply(config, one.changes)
        mesh = search.make_mesh(changed, planner.topology)
        sharding.check_rows(changed.train.rows, mesh, "train.rows")
        sharding.check_rows(changed.rollout.slots, mesh, "rollout.slots")


def test_step_and_its_cost():
    topology = grid_topology("v5e", (2, 2))
    config = search.apply(
        SMALL,
        {"train.prompts": 8, "train.group_size": 4, "rollout.slots": 16, "train.minibatches": 2},
    )
    workload = programs.Workload(trajectory=50, sampled=20)
    memory = estimate.Memory(arguments=0, results=0, temporary=0, code=0, resident=0)
    nothing = cost.Cost(operations=0, bytes=0, collectives=(), guessed=0, unknown=())

    def report(name, least, tokens, calls):
        seconds = estimate.Seconds(compute=least, hbm=0.0, ici=least / 2)
        return estimate.Report(
            name=name,
            memory=memory,
            cost=nothing,
            seconds=seconds,
            tokens=tokens,
            devices=4,
            calls=calls,
            compile_seconds=0.0,
        )

    reports = [
        report("update", 3.0, 1024, 2),
        report("log-prob gap", 1.0, 1024, 1),
        report("decode segment", 0.5, 1, 0),
        report("prefill", 1.0, 96, 0),
    ]
    step = estimate.step(config, topology, workload, reports)
    # 32 trajectories of 20 tokens in 16 rows: 40 decode steps in segments of 16.
    prompts = 8 * config.rollout.prompt_tokens
    assert step.rollout_seconds == pytest.approx(3 * 0.5 + prompts / 96)
    assert step.update_seconds == 7.0
    assert step.sampled_tokens == 640
    useful = estimate.model_operations(config.model, 1024, 64)
    assert step.mfu == pytest.approx(useful / (3 * 4 * 197e12))
    assert estimate.cost_of_steps(step, topology, 2.0) == pytest.approx(
        1000 * step.seconds * 4 * 2 / 3600
    )


SHORT = [
    *("--model.width", "16", "--model.layers", "1", "--model.head-dim", "8"),
    *("--model.mlp-width", "32", "--rollout.slots", "8", "--rollout.context", "64"),
    *("--rollout.first-cache", "64", "--train.rows", "8"),
]


@pytest.mark.slow
def test_command_line_writes_a_plan(tmp_path, capsys):
    path = tmp_path / "plan.json"
    plan.run(["tiny", *SHORT, "--topology", "cpu:8", "--json", str(path)])
    record = json.loads(path.read_text())
    assert list(record["programs"]) == [*("update", "log-prob gap", "decode segment", "prefill")]
    assert record["chips"] == 8 and "step" not in record  # an unknown chip
    for program in record["programs"].values():
        assert program["operations"] > 0 and program["bytes"] > 0
        parts = [size for name, size in program["memory"].items() if name != "total"]
        assert program["memory"]["total"] == sum(parts) > 0
        sent = sum(one["sent_bytes"] for one in program["collectives"])
        assert math.isclose(sent, program["sent_bytes"])
    shown = capsys.readouterr().out
    assert "compiling the prefill" in shown and "decode segment" in shown


OPTIONS = {  # option → the programs that it adds, and whether the update then takes other tokens
    "steps": ("7", (), False),
    "prompts": ("32", (), True),
    "group_size": ("16", (), True),
    "temperature": ("0.7", (), False),
    "method": (
        "gtpo + importance limit=2 + kl weight=0.01 + tests.launch.test_train:asking",
        ("proximal log-probs", "reference log-probs", "policy states", "answer log-probs"),
        False,
    ),
    "epochs": ("3", (), False),
    "minibatches": ("4", (), True),
    "rows": ("4", (), False),
    "row_tokens": ("128", (), False),
    "row_buckets": ("2", ("update, rows of 32", "log-prob gap, rows of 32"), False),
    "shared_prompts": ("", (), True),
    "logprob_chunk": ("16", (), False),
}
UNSEEN = {"eval_every", "keep_every", "checkpoint_every", "gate"}
"""Settings of a run's files, not of its programs."""


def planned(*options: str) -> dict[str, programs.Program]:
    arguments = cli.parse(plan.PlanArguments, ["tiny", *SHORT, *options], program="tests")
    mesh = search.make_mesh(arguments.config, topologies.find("cpu:2"))
    workload = arguments.workload(arguments.config)
    return {p.name: p for p in programs.build(arguments.config, mesh, mesh, workload)}


def test_every_training_option_is_one_of_the_plan():
    fields = {field.name for field in dataclasses.fields(schema.TrainConfig)}
    assert fields - UNSEEN - {"optimizer"} == set(OPTIONS)


SEEN_HERE = ("method", "row_buckets", "shared_prompts", "minibatches", "epochs")
"""Options that change which programs there are; the others change a number of one of them."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SEEN_HERE else pytest.mark.long)
        for name in OPTIONS
    ],
)
def test_plan_counts_what_a_training_option_changes(name):
    value, added, other_tokens = OPTIONS[name]
    before, after = planned(), planned(f"--train.{name.replace('_', '-')}", *value.split())
    assert set(after) - set(before) == set(added)
    assert (after["update"].tokens != before["update"].tokens) == other_tokens
    for program in after.values():
        assert program.lower().compile() is not None
    reference = after["update"].resident - before["update"].resident
    assert (reference > 0) == (name == "method")
    calls = {"epochs": 3, "minibatches": 2}.get(name, 1)
    assert after["update"].calls == calls * before["update"].calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model-preset", "qwen9"], "model preset 'qwen9' is unknown; the known ones are tiny"),
        (["--model-preset", "tiny", "--model", "there"], "name two models; give one"),
        (["--model", "nowhere"], "nowhere/config.json cannot be read"),
        (["--train.rows", "7"], "train.rows is 7, which 8 devices cannot share evenly"),
    ],
)
def test_bad_input_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        plan.run(["tiny", *options, "--topology", "cpu:8"])


def test_model_of_a_folder(tmp_path):
    described = {
        **{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96},
        **{"vocab_size": 300, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e4},
        **{"tie_word_embeddings": True, "torch_dtype": "bfloat16"},
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    arguments = plan.PlanArguments(config=PRESETS["chat"], model=tmp_path)
    model = plan.choose_model(arguments).model
    assert (model.width, model.layers, model.param_dtype) == (64, 2, "bfloat16")
    assert model.remat == "full"  # the preset's own
