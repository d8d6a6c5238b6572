"""One of several processes that roll out and update together; started by `test_rollout_hosts`.

    python -m tests.hosts_worker 127.0.0.1:PORT PROCESSES PROCESS FOLDER

Every process writes what it saw to FOLDER/PROCESS.pickle.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import pickle
import sys
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gtpo_jax import learner, methods
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import processes as hosts
from gtpo_jax.devices import sharding
from gtpo_jax.language import grammar
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits, RolloutProgress, sharing
from gtpo_jax.testing import ByteTokenizer, FakeTool
from gtpo_jax.types import ForwardFn, Params, Problem, TokenBatch, Trajectory, Verdict
from models import decoder
from models.config import ModelConfig

NO_COLLECTIVES = 77
"""Exit status where JAX has no collectives between processes on CPU."""

MESHES = {
    "data_across": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp_across": {"data": 1, "fsdp": 4, "tensor": 2},
}
BYTES = ByteTokenizer()
DIALOGUE = grammar.Dialogue(BYTES)
MODEL = ModelConfig(
    vocab_size=BYTES.vocab_size,
    width=32,
    layers=1,
    query_heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    qkv_bias=True,
    rope_theta=1e4,
    init_scale=0.3,
)
LIMITS = RolloutLimits(
    slots=8,
    context=48,
    prompt_tokens=12,
    max_turns=3,
    turn_tokens=10,
    observation_tokens=11,
    segment_steps=4,
    prefill_prompts=1,
    extend_width=4,
)
# Of unequal size. On a process that gets some of them, their numbers are not below the number of
# its trajectories.
GROUPS = {0: 4, 5: 3, 9: 4, 12: 3, 16: 3}
REQUESTS = [
    Request(problem=Problem(id=f"p{g}", question=f"{g}+1", answer="1"), group=g, sample=sample)
    for g, size in GROUPS.items()
    for sample in range(size)
]
ROWS = 8  # of a micro-batch, all processes together
OPTIMIZER = optax.sgd(0.5)


@functools.cache
def make_forward() -> ForwardFn:
    """The decoder with markers made likely, which random weights seldom write.

    A function: what asks for devices has to wait until the processes know of each other.
    """
    bonus = np.zeros(MODEL.vocab_size, np.float32)
    for marker, value in {grammar.END: 4.0, grammar.CODE: 4.0, grammar.CODE_END: 3.5}.items():
        bonus[BYTES.control_id(marker)] = value
    forward = decoder.forward_fn(MODEL)
    return dataclasses.replace(
        forward, logits=lambda params, hidden: 0.3 * forward.logits(params, hidden) + bonus
    )


def output(code: str) -> str:
    """Some text that only the code determines."""
    return str(zlib.crc32(code.encode()) % 10 ** (1 + len(code) % 9))


def judge(problem: Problem, answer: str | None) -> Verdict:
    """About every second answer is right."""
    if answer is None:
        return Verdict.NO_ANSWER
    return Verdict.RIGHT if zlib.crc32(answer.encode()) % 2 else Verdict.WRONG


@functools.cache
def make_engine(mesh: Mesh) -> RolloutEngine:
    return RolloutEngine(
        make_forward(), DIALOGUE, FakeTool(output), judge, LIMITS, sampling.categorical, mesh=mesh
    )


def init_params(mesh: Mesh) -> Params:
    placed = sharding.param_shardings(decoder.logical_axes(MODEL), mesh)
    init = functools.partial(decoder.init_params, MODEL)
    return jax.jit(init, out_shardings=placed)(jax.random.key(0))


METHOD = methods.gtpo(discount=0.9, silence_equal=False)


@functools.cache
def assign():
    return jax.jit(lambda episodes: methods.assign(METHOD, METHOD.credit.init(), episodes)[1])


def pack(trajectories: list[Trajectory], turn_advantages: np.ndarray, *, rows: int) -> TokenBatch:
    """A batch with no more micro-batches than these trajectories may need."""
    return packing.pack(
        trajectories,
        turn_advantages,
        micro_batches=-(-len(trajectories) // rows),
        rows=rows,
        row_length=LIMITS.context,
    )


def update(params: Params, batch: TokenBatch) -> tuple[Params, dict[str, float]]:
    """One update of the policy; it takes `params`."""
    state = learner.init_state(params, OPTIMIZER)
    loss = losses.clipped(low=0.2, high=0.28)
    step = learner.make_update(make_forward(), OPTIMIZER, loss, reductions.token_mean)
    state, metrics = learner.CompiledUpdate(step, state)(state, batch)
    metrics.pop("nonfinite")
    return state.params, {name: float(value) for name, value in metrics.items()}


def pointers(params: Params) -> list[dict[int, int]]:
    """For every parameter: device → address of its shard."""
    return [
        {s.device.id: s.data.unsafe_buffer_pointer() for s in leaf.addressable_shards}
        for leaf in jax.tree.leaves(params)
    ]


def whole(params: Params) -> Params:
    """Parameters as NumPy arrays, wherever they lie."""
    return multihost_utils.process_allgather(params, tiled=True)


def step(axes: dict[str, int]) -> dict[str, Any]:
    """A rollout on every process, and an update of them all; what became of it."""
    mesh = sharding.make_mesh(**axes)
    local_mesh = sharding.local_mesh(mesh)
    params = init_params(mesh)
    local = sharding.localize(params, mesh)
    leaves = jax.tree.leaves(local)
    record: dict[str, Any] = {
        "local_shape": local_mesh.devices.shape,
        "local_owners": sorted({d.process_index for d in local_mesh.devices.flat}),
        "copied": [a != b for a, b in zip(pointers(params), pointers(local), strict=True)],
        "local_equal": [
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(local), jax.tree.leaves(whole(params)), strict=True)
        ],
        # Of all devices here: as much as the local mesh has to hold, and not more.
        "local_bytes": sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards),
    }
    engine = make_engine(local_mesh)
    own = len(sharing.deal(REQUESTS))
    run = functools.partial(engine.run, local, seed=1, step=5)
    trajectories, _ = sharing.share(run, REQUESTS)
    record |= {"trajectories": trajectories, "own": own}
    episodes = packing.episode_batch(trajectories, max_turns=LIMITS.max_turns, needs=METHOD.facts)
    turn_credit = jax.device_get(assign()(episodes))
    batch = sharding.distribute(
        pack(trajectories, turn_credit.advantages, rows=ROWS),
        sharding.batch_sharding(mesh, leading=1),
    )
    record["documents"] = np.unique(whole(batch.trajectory_ids))
    updated, record["metrics"] = update(params, batch)
    record["deleted"] = [leaf.is_deleted() for leaf in jax.tree.leaves(local)]
    record["params"] = whole(updated)
    from tests.tiny import compilations  # importing it asks for devices

    with compilations() as compiled:
        again = sharding.localize(updated, mesh)
    record["compiled"] = compiled
    record["localized_again"] = [
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(record["params"]), strict=True)
    ]
    return record


SPECS = [
    PartitionSpec(),
    PartitionSpec("fsdp"),
    PartitionSpec("data", "fsdp"),
    PartitionSpec(None, ("data", "fsdp")),
]


def layout(kind: AxisType) -> dict[str, Any]:
    """Arrays of every spec, and rows, on a mesh where no process has rows that lie together."""
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    devices = np.array(jax.devices())[order].reshape(2, 4, 1, 1)
    mesh = Mesh(devices, sharding.MESH_AXES, axis_types=(kind,) * 4)
    local_mesh = sharding.local_mesh(mesh)
    array = np.arange(64).reshape(8, 8)
    params = [
        jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), array.__getitem__)
        for spec in SPECS
    ]
    local = sharding.localize(params, mesh)
    batch = packing.empty_batch(8, 8)
    batch.tokens[:] = np.arange(8)[:, None]
    shared = sharding.distribute(
        jax.tree.map(lambda leaf: leaf[None], batch), sharding.batch_sharding(mesh, leading=1)
    )
    return {
        "shape": local_mesh.devices.shape,
        "kinds": set(local_mesh.axis_types),
        "equal": [np.array_equal(leaf, array) for leaf in local],
        "placed": [
            leaf.sharding == NamedSharding(local_mesh, spec)
            for leaf, spec in zip(local, SPECS, strict=True)
        ],
        "rows": whole(shared.tokens)[:, :, 0].tolist(),
    }


def failures(mesh: Mesh) -> dict[str, str]:
    """Errors that this process sees: its own and those of process 1."""
    process = jax.process_index()
    seen: dict[str, str] = {}

    def caught(name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            seen[name] = f"{type(error).__name__}: {error}"

    def fail(progress: RolloutProgress) -> None:
        if process == 1:
            raise RuntimeError("the executor is gone")

    local = sharding.local_mesh(mesh)
    engine = make_engine(local)
    params = sharding.localize(init_params(mesh), mesh)

    def roll_out() -> None:
        with hosts.together("the rollout"):
            engine.run(params, sharing.deal(REQUESTS), seed=1, step=5, on_progress=fail)

    def interrupt() -> None:
        with hosts.together("the rollout"):
            if process == 1:
                raise KeyboardInterrupt

    caught("rollout", roll_out)
    caught("interrupt", interrupt)
    caught("mesh", lambda: sharding.local_mesh(sharding.make_mesh(data=1, tensor=8)))
    return seen


def main(address: str, processes: int, process: int, folder: pathlib.Path) -> int:
    jax.config.update("jax_num_cpu_devices", 8 // processes)
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, processes, process)
        hosts.gather_objects(process)
    except Exception as error:
        unknown = isinstance(error, AttributeError | ValueError) and "gloo" in str(error)
        if unknown or "aren't implemented" in str(error):
            print(f"JAX has no collectives between processes on CPU here: {error}", file=sys.stderr)
            return NO_COLLECTIVES
        raise
    seen: dict[str, Any] = {name: step(axes) for name, axes in MESHES.items()}
    seen |= {kind.name: layout(kind) for kind in (AxisType.Auto, AxisType.Explicit)}
    seen["failures"] = failures(sharding.make_mesh())
    (folder / f"{process}.pickle").write_bytes(pickle.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4])))
