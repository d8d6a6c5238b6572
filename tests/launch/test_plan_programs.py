"""Programs of a small run: their operations and their memory, beside those of a real one."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from configs.parts import make_optimizer
from gtpo_jax import learner
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from launch.planning import estimate, programs, search, topologies
from launch.run.network import Network
from models import presets
from tests.launch.planned import SMALL


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
