"""Rollouts on several hosts: the dealing, the joining, and two processes against one."""

import collections
import itertools
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType

from gtpo_jax.devices import processes as hosts
from gtpo_jax.devices import sharding
from gtpo_jax.learner import packing
from gtpo_jax.rollout import Request, sharing
from gtpo_jax.types import Problem
from tests import hosts_worker
from tests.tiny import make_params

ROOT = Path(__file__).parents[2]
PROCESSES = 2
SECONDS = 240
"""After so long the processes hang."""


def make_requests(groups):
    problem = Problem(id="p", question="q", answer="a")
    samples = collections.Counter()
    requests = []
    for group in groups:
        requests.append(Request(problem=problem, group=group, sample=samples[group]))
        samples[group] += 1
    return requests


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_whole_groups_are_dealt_evenly_and_in_order(groups, processes):
    requests = make_requests(groups)
    dealt = [sharing.deal(requests, processes=processes, process=p) for p in range(processes)]
    # Each request once, and in the order that it came in.
    number = {id(request): index for index, request in enumerate(requests)}
    numbers = [[number[id(request)] for request in part] for part in dealt]
    assert sorted(itertools.chain(*numbers)) == list(range(len(requests)))
    assert all(part == sorted(part) for part in numbers)
    # A group on one process, and no process with more than it has to have.
    homes = [{request.group for request in part} for part in dealt]
    assert sum(map(len, homes)) == len(set(groups))
    largest = max(collections.Counter(groups).values(), default=0)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= largest


@pytest.mark.parametrize(
    ("groups", "dealt"),
    [
        ([3, 3, 1, 1, 7, 7, 0, 0, 5, 5], [[3, 3, 7, 7, 5, 5], [1, 1, 0, 0]]),
        ([1, 2, 3, 0, 0, 0], [[0, 0, 0], [1, 2, 3]]),
        ([4, 4], [[4, 4], []]),
    ],
)
def test_largest_groups_are_dealt_first_each_to_the_process_with_the_least(groups, dealt):
    requests = make_requests(groups)
    for process, expected in enumerate(dealt):
        part = sharing.deal(requests, processes=2, process=process)
        assert [request.group for request in part] == expected


@pytest.mark.parametrize("process", [-1, 2])
def test_process_that_is_none_of_them_is_refused(process):
    with pytest.raises(ValueError, match=f"process {process} is none of 2"):
        sharing.deal([], processes=2, process=process)


def test_one_process_exchanges_nothing():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    assert sharding.local_mesh(mesh) is mesh
    params = make_params()
    assert sharding.localize(params, mesh) is params
    value = object()
    assert hosts.gather_objects(value)[0] is value
    assert sharing.share(lambda requests: (requests, None), [1, 2]) == ([1, 2], None)
    requests = make_requests([0, 0, 1])
    assert sharing.deal(requests) == requests
    with pytest.raises(KeyError, match="as it is"), hosts.together("the rollout"):
        raise KeyError("as it is")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two processes of four devices each, at work; with the folder that they write to."""
    folder = tmp_path_factory.mktemp("hosts")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    cache = os.path.join(os.environ["JAX_COMPILATION_CACHE_DIR"], "hosts")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    running = []
    try:
        for process in range(PROCESSES):
            command = ["-m", "tests.hosts_worker", address, PROCESSES, process, folder]
            with (folder / f"{process}.log").open("w") as log:
                running.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        cwd=ROOT,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        yield running, folder
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def alone(processes):
    """Trajectories, credit, parameters and metrics of one process of eight devices."""
    del processes  # which are at work meanwhile
    mesh = sharding.make_mesh()
    params = hosts_worker.init_params(mesh)
    engine = hosts_worker.make_engine(mesh)
    trajectories, _ = engine.run(params, hosts_worker.REQUESTS, seed=1, step=5)
    episodes = packing.episode_batch(
        trajectories,
        max_turns=hosts_worker.LIMITS.max_turns,
        needs=hosts_worker.METHOD.facts,
    )
    credit = jax.device_get(hosts_worker.assign()(episodes))
    batch = hosts_worker.pack(trajectories, credit.advantages, rows=hosts_worker.ROWS)
    shared = jax.device_put(batch, sharding.batch_sharding(mesh, leading=1))
    updated, metrics = hosts_worker.update(params, shared)
    return trajectories, credit, jax.device_get(updated), metrics


@pytest.fixture(scope="module")
def records(processes, alone):
    """The record of every process."""
    running, folder = processes
    deadline = time.monotonic() + SECONDS
    while any(process.poll() is None for process in running):
        if any(process.poll() for process in running) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    codes = [process.poll() for process in running]
    logs = [(folder / f"{process}.log").read_text()[-3000:] for process in range(PROCESSES)]
    if hosts_worker.NO_COLLECTIVES in codes:
        pytest.skip(logs[codes.index(hosts_worker.NO_COLLECTIVES)].splitlines()[-1])
    assert codes == [0] * PROCESSES, "\n\n".join(logs)  # None: it hangs
    return [
        pickle.loads((folder / f"{process}.pickle").read_bytes()) for process in range(PROCESSES)
    ]


MESHES = pytest.mark.parametrize("mesh", hosts_worker.MESHES)


@pytest.mark.slow
@MESHES
def test_processes_produce_the_trajectories_of_one(records, alone, mesh):
    # Beside others, on other devices, in another process.
    expected = {(t.group, t.sample): t for t in alone[0]}
    assert len({t.stop_reason for t in alone[0]}) >= 3
    assert max(len(t.turns) for t in alone[0]) > 1
    produced = records[0][mesh]["trajectories"]
    assert len(produced) == len(expected)
    for t in produced:
        one = expected.pop((t.group, t.sample))
        assert t.stop_reason is one.stop_reason and t.answer == one.answer
        for turn, other in zip(t.turns, one.turns, strict=True):
            np.testing.assert_array_equal(turn.tokens, other.tokens)
            np.testing.assert_array_equal(turn.observation, other.observation)
            np.testing.assert_allclose(turn.logprobs, other.logprobs, atol=1e-5)
    # Each process sampled a part, and has the whole.
    parts = [record[mesh]["own"] for record in records]
    assert all(parts) and sum(parts) == len(produced)
    chex.assert_trees_all_equal(*(tokens_of(record[mesh]["trajectories"]) for record in records))


def tokens_of(trajectories):
    return [[turn.tokens for turn in t.turns] for t in trajectories]


@pytest.mark.slow
@MESHES
def test_processes_update_as_one(records, alone, mesh):
    _, _, params, metrics = alone
    assert metrics["grad_norm"] > 0.1 and abs(metrics["loss"]) > 1e-3
    for record in (record[mesh] for record in records):
        assert record["metrics"]["trained_tokens"] == metrics["trained_tokens"]
        assert record["metrics"] == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        chex.assert_trees_all_close(record["params"], params, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@MESHES
def test_batch_on_the_devices_of_all_holds_every_document(records, alone, mesh):
    included = [index for index, t in enumerate(alone[0]) if t.included]
    for record in (record[mesh] for record in records):
        assert record["documents"].tolist() == [-1, *included]


@pytest.mark.slow
@MESHES
def test_a_process_drives_its_own_devices_with_the_parameters_of_all(records, mesh):
    for process, record in enumerate(record[mesh] for record in records):
        assert record["local_shape"] == (1, 2, 1, 2)
        assert record["local_owners"] == [process]
        assert all(record["local_equal"])
        # After the update, too, and by the program that was there.
        assert all(record["localized_again"]) and record["compiled"] == []


@pytest.mark.slow
@MESHES
def test_parameters_are_copied_only_from_other_processes(records, mesh):
    for record in (record[mesh] for record in records):
        assert any(record["copied"]) == (mesh == "fsdp_across")
        # What is no copy goes with the state that an update overwrites.
        assert record["deleted"] == [not copied for copied in record["copied"]]
    # Gathered across processes alone: within one, parameters stay sharded.
    across = {name: records[0][name]["local_bytes"] for name in hosts_worker.MESHES}
    copied = 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(records[0][mesh]["params"]))
    assert across["fsdp_across"] == across["data_across"] < copied / 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_rows_and_parameters_of_blocks_that_lie_apart(records, kind):
    for record in (record[kind.name] for record in records):
        assert record["shape"] == (2, 2, 1, 1)
        assert record["kinds"] == {kind}
        assert all(record["equal"]) and all(record["placed"])
        assert record["rows"] == [list(range(8))]


@pytest.mark.slow
def test_failure_of_one_process_is_one_of_all(records):
    first, second = (record["failures"] for record in records)
    told = (
        "ProcessFailure: process 1 of 2 failed in the rollout: RuntimeError: the executor is gone"
    )
    assert first["rollout"] == second["rollout"] == told
    assert first["interrupt"].startswith(
        "ProcessFailure: process 1 of 2 failed in the rollout: Keyb"
    )
    assert second["interrupt"].startswith("KeyboardInterrupt")


@pytest.mark.slow
def test_what_does_not_fit_together_is_refused_everywhere(records):
    first, second = (record["failures"] for record in records)
    told = "tensor has 8 devices, of which a process drives only 4; set tensor to a divisor"
    assert told in first["mesh"] and first["mesh"] == second["mesh"]
