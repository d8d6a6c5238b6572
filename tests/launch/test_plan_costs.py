"""Figures that the planner reads from compiled programs, compared with counts by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gtpo_jax.devices import sharding
from launch.planning import cost, groups, hlo, traffic


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
