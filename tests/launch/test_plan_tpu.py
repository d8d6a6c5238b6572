"""Plans for TPUs, by their own compiler; it is in the wheel `libtpu` and needs no TPU."""

from __future__ import annotations

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs.presets import PRESETS
from gtpo_jax.devices import sharding
from launch import plan
from launch.planning import cost, estimate, hlo, programs, search, topologies

pytestmark = [
    pytest.mark.tpu_aot,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu-plan`"
    ),
]

SMALL = search.apply(
    PRESETS["chat"],
    {
        **{"model.width": 128, "model.layers": 2, "model.query_heads": 2, "model.kv_heads": 1},
        **{"model.head_dim": 128, "model.mlp_width": 256, "model.vocab_size": 512},
        **{"model.remat": "none", "model.param_dtype": "bfloat16"},
        **{"rollout.slots": 8, "rollout.parked": 0, "rollout.context": 512},
        **{"rollout.prompt_tokens": 128, "rollout.first_cache": 512, "train.rows": 4},
        **{"train.prompts": 4, "train.group_size": 4, "train.logprob_chunk": None},
    },
)


@functools.cache
def topology(name: str) -> topologies.Topology:
    return topologies.find(name)


def built(config, mesh, name: str) -> list[programs.Program]:
    """The programs of a config on a mesh of a topology."""
    host = topology(name).rollout_mesh(mesh)
    return programs.build(config, mesh, host, programs.Workload.longest(config))


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [("v5e:4x4", 16, 16), ("v5p:4x4x4", 64, 64), ("v6e:2x4", 8, 8), ("tpu7x:2x2x1", 4, 8)],
)
def test_topologies_are_described(name, chips, devices):
    found = topology(name)
    assert (found.chips, len(found.devices), found.processes) == (chips, devices, chips // 4)
    assert {device.platform for device in found.devices} == {"tpu"}


def test_processes_drive_blocks_of_a_mesh():
    for axes in ({"fsdp": 64}, {"data": 4, "fsdp": 4, "tensor": 4}, {"fsdp": 16, "tensor": 4}):
        mesh = sharding.make_mesh(**{"data": 1, **axes}, devices=topology("v5p:4x4x4").devices)
        host = topologies.process_mesh(mesh)
        assert host.size == 4
        assert len({device.process_index for device in host.devices.flat}) == 1
        assert host.shape["tensor"] == mesh.shape["tensor"]


def test_operations_of_a_batched_product():
    mesh = sharding.make_mesh(devices=topology("v5e:2x2").devices)
    place = NamedSharding(mesh, PartitionSpec())
    left, right = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
        for shape in ((64, 1024, 512), (64, 512, 1024))
    )
    product = jax.jit(lambda a, b: jnp.einsum("bmk,bkn->bmn", a, b))
    text = product.lower(left, right).compile().as_text()
    found = cost.cost(hlo.parse(text), devices=4)
    assert found.operations == 2 * 64 * 1024 * 512 * 1024
    # More than the fast memory holds: every factor and the product pass once.
    assert found.bytes == pytest.approx(2 * 64 * (2 * 1024 * 512 + 1024 * 1024), rel=0.1)


def test_update_of_a_small_model_runs_on_splash_attention_and_costs_what_it_should():
    mesh = search.make_mesh(SMALL, topology("v5e:2x2"))
    update, *_ = built(SMALL, mesh, "v5e:2x2")
    report = estimate.compile_program(update, topology("v5e:2x2"))
    assert "splash_mha_fwd" in update.lower().as_text()
    assert report.cost.unknown == () and report.cost.guessed == 0
    model, context = SMALL.model, SMALL.rollout.context
    # Without remat: 6 per weight. The kernels compute the tiles on and below the diagonal alone, of
    # 512 tokens here, so the whole of it; 2 products forward, 3 and 4 backward.
    weights = model.width * model.head_dim * 2 * (model.query_heads + model.kv_heads)
    weights = model.layers * (weights + 3 * model.width * model.mlp_width)
    weights += model.vocab_size * model.width
    pairs = 9 * 2 * model.query_heads * model.head_dim * context * model.layers
    assert report.tokens == 2 * 4 * 512
    expected = report.tokens * (6 * weights + pairs) / 4
    assert report.cost.operations == pytest.approx(expected, rel=0.05)
    assert report.seconds is not None and report.seconds.least > 0


def test_a_run_that_does_not_fit_is_refused_with_what_is_missing():
    config = plan.choose_model(
        plan.PlanArguments(config=PRESETS["chat"], model_preset="qwen2.5-7b")
    )
    config = search.apply(config, {"mesh.data": 1, "mesh.fsdp": 4})
    planner = search.Planner(topology("v5e:2x2"), programs.Workload.longest)
    with pytest.raises(estimate.DoesNotFitError, match=r"update does not fit: .* GiB are missing"):
        planner.reports(config)


def test_the_compiler_refuses_what_only_it_can_see():
    config = search.apply(
        SMALL,
        {"model.vocab_size": 2**17, "model.layers": 1, "train.rows": 256, "train.prompts": 128},
    )
    mesh = search.make_mesh(config, topology("v5e:2x2"))
    update, *_ = built(config, mesh, "v5e:2x2")
    with pytest.raises(estimate.DoesNotFitError) as error:
        estimate.compile_program(update, topology("v5e:2x2"))
    assert error.value.told and 15 < error.value.available / 2**30 < 16
    assert error.value.needed > error.value.available


def test_rollouts_of_a_large_slice_are_compiled_for_one_host():
    config = search.apply(SMALL, {"mesh.data": 1, "mesh.fsdp": 32, "mesh.tensor": 2})
    config = search.apply(config, {"train.rows": 32, "model.width": 256, "model.layers": 1})
    mesh = search.make_mesh(config, topology("v6e:8x8"))
    _, decode, _ = built(config, mesh, "v6e:8x8")
    assert (decode.mesh.size, decode.mesh.shape["fsdp"], decode.mesh.shape["tensor"]) == (4, 2, 2)
    # Gathered from 16 machines, so in addition to the train state.
    weights = programs.tree_bytes(decode.arguments[0])
    assert decode.resident > weights / 16 * 6
    report = estimate.compile_program(decode, topology("v6e:8x8"))
    assert report.cost.sent > 0 and report.seconds is not None


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "axes"),
    [("v5p:4x4x4", {"fsdp": 16, "tensor": 4}), ("v6e:8x8", {"fsdp": 16, "tensor": 4})],
)
def test_seven_billion_parameters_fit(name, axes):
    config = plan.choose_model(
        plan.PlanArguments(config=PRESETS["chat"], model_preset="qwen2.5-7b")
    )
    changes = {f"mesh.{axis}": size for axis, size in {"data": 1, **axes}.items()}
    config = search.apply(config, changes | {"train.rows": 64, "train.prompts": 128})
    mesh = search.make_mesh(config, topology(name))
    update, *_ = built(config, mesh, name)
    report = estimate.compile_program(update, topology(name))
    # Remat computes the layers' products once more: 8 per weight instead of 6.
    useful = estimate.model_operations(config.model, report.tokens, config.rollout.context)
    assert 1.15 < report.cost.operations * 64 / useful < 1.5


@pytest.mark.slow
@pytest.mark.long
def test_command_line_finds_what_fits(tmp_path):
    options = [
        *("chat", "--model-preset", "qwen2.5-0.5b", "--topology", "v5e:2x2", "--price", "1.2"),
        *("--mesh.data", "1", "--mesh.fsdp", "4", "--train.rows", "64", "--rollout.slots", "32"),
        *("--rollout.parked", "0", "--json", str(tmp_path / "plan.json")),
    ]
    with pytest.raises(SystemExit) as stop:
        plan.run(options)
    assert stop.value.code == plan.EXIT_DOES_NOT_FIT
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["step"]["cost_of_1000"] > 0
