"""Plans: the links of a machine, the search for what fits, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
import types

import numpy as np
import pytest

from configs import schema
from configs.presets import PRESETS
from gtpo_jax.devices import sharding
from launch import cli, plan
from launch.planning import cost, estimate, programs, search, topologies
from launch.planning.chips import CHIPS, GIB
from tests.launch.planned import SMALL


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
UNSEEN = {"eval_every", "keep_every", "checkpoint_every", "gate", "pool"}
"""Settings of a run's files and problems, not of its programs."""


def planned(*options: str) -> dict[str, programs.Program]:
    arguments = cli.parse(plan.PlanArguments, ["tiny", *SHORT, *options], program="tests")
    mesh = search.make_mesh(arguments.config, topologies.find("cpu:2"))
    workload = arguments.workload(arguments.config)
    return {p.name: p for p in programs.build(arguments.config, mesh, mesh, workload)}


def test_every_training_option_is_one_of_the_plan():
    fields = {field.name for field in dataclasses.fields(schema.TrainConfig)}
    assert fields - UNSEEN - {"optimizer"} == set(OPTIONS)


SEEN_HERE = ("method",)
"""The option that adds most programs."""


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
