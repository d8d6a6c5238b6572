"""The programs of a run over abstract arrays: shapes, dtypes and placements.

They are the programs that `launch.train` and its rollout engine jit, for a mesh of existing devices
or of a topology. Rollouts run on the devices of one process, in each process separately.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from configs.methods import make_method
from configs.parts import make_lora
from configs.schema import RunConfig
from configs.training import make_sampler, make_training
from gtpo_jax import decoding, learner
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.training import Training
from gtpo_jax.types import ForwardFn, GoldAnswer, Problem
from launch.run.network import Network

ROLLOUT_PROGRAMS = ("decode segment", "prefill")
"""Names of the programs of a rollout; all others belong to a training step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A jitted function with abstract arguments, and facts that its text does not contain."""

    name: str
    function: Any  # has `.lower`
    arguments: tuple[Any, ...]
    mesh: Mesh
    loops: int  # trips of its outer loop, which depend on the run
    tokens: int  # tokens per call, on all devices of the mesh
    resident: int  # bytes per device held during the call by other arrays
    calls: int = 0  # calls per training step; 0 for rollouts and for shorter rows

    @property
    def held(self) -> tuple[int, int]:
        """Bytes of a device before the program has computed anything: arguments, and resident
        arrays.
        """
        return tree_bytes(self.arguments), self.resident

    def lower(self) -> jax.stages.Lowered:
        return self.function.lower(*self.arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """Mean lengths of trajectories, in tokens, which the shapes of a run leave open."""

    trajectory: int  # prompt, turns and tool outputs
    sampled: int  # tokens among them that the policy samples

    @classmethod
    def longest(cls, config: RunConfig) -> Workload:
        """The most expensive workload: full contexts, with as many full turns as fit."""
        limits = config.rollout
        room = limits.context - limits.prompt_tokens
        sampled = min(room, limits.max_turns * limits.turn_tokens)
        return cls(trajectory=limits.context, sampled=sampled)


def build(config: RunConfig, mesh: Mesh, local: Mesh, workload: Workload) -> list[Program]:
    """The passes and updates of a step, decode segment and prefill of a run, at the longest cache.

    `local` is the part of `mesh` that one process drives.
    """
    sharding.check_rows(config.train.rows, mesh, "train.rows", sharding.BATCH_AXES)
    sharding.check_rows(config.rollout.slots, local, "rollout.slots")
    network = Network(config.model, mesh, lora=make_lora(config.lora))
    forward = _forward(config, mesh)
    method = make_method(config.train.method)
    training = make_training(config, forward, method, answer_tokens=_unwritten)
    state = abstract_state(network, training.optimizer)
    here = Network(config.model, local, lora=make_lora(config.lora)).abstract
    # Rollouts read the parameters of the state, unless they are gathered from other processes.
    held = tree_bytes(state)
    if tree_bytes(here) == tree_bytes(state.params):
        held -= tree_bytes(state.params)
    return [
        *_training(config, mesh, training, state, workload),
        *_rollout(config, make_sampler(config, method), local, here, resident=held),
    ]


def abstract_state(network: Network, optimizer: optax.GradientTransformation) -> learner.TrainState:
    """The abstract train state, each leaf placed as by `learner.init_state`."""
    mesh = jax.tree.leaves(network.shardings)[0].mesh
    init = functools.partial(learner.init_state, optimizer=optimizer, trained=network.trained)
    state = jax.eval_shape(init, network.abstract)
    places = network.shardings
    trained = {name: places[name] for name in state.trained}
    home = sharding.replicated(mesh)
    placed = dataclasses.replace(
        jax.tree.map(lambda _: home, state),
        trained=trained,
        frozen={name: places[name] for name in state.frozen},
        optimizer_state=_like_parameters(state.optimizer_state, trained, home),
    )
    return jax.tree.map(_placed, state, placed)


def _like_parameters(tree: Any, places: Any, home: NamedSharding) -> Any:
    """Placements of optimizer state: moments and copies are placed as their parameters, which the
    ends of their paths name; counters are replicated.
    """
    known = dict(jax.tree_util.tree_flatten_with_path(places)[0])

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        ends = (path[start:] for start in range(len(path)))
        return next((known[end] for end in ends if end in known and leaf.ndim), home)

    return jax.tree_util.tree_map_with_path(place, tree)


def tree_bytes(tree: Any) -> int:
    """Bytes that each device holds of a tree of placed arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _unwritten(problem: Problem) -> GoldAnswer:
    """Programs depend on the shapes of batches, which no gold answer changes."""
    raise NotImplementedError(f"a plan runs no step, so it does not answer {problem.id!r}")


def _forward(config: RunConfig, mesh: Mesh) -> ForwardFn:
    """The forward pass of a session, with the model's vocabulary in place of the tokenizer's."""
    forward = Network(config.model, mesh, lora=make_lora(config.lora)).forward
    return decoding.restrict_vocabulary(forward, forward.vocab_size)


def _training(
    config: RunConfig,
    mesh: Mesh,
    training: Training,
    state: learner.TrainState,
    workload: Workload,
) -> Iterator[Program]:
    """The programs of `training.Training`, at every shape that a minibatch may have."""
    place = sharding.batch_sharding(mesh, leading=1)
    trained, whole = tree_bytes(state.trained), tree_bytes(state)
    reference = trained if training.needs_reference else 0
    programs = training.programs(
        state, lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    )
    for program in programs:
        micro_batches, rows, length = program.shape
        members = training.layout.group_size
        packed = training.layout.minibatch_trajectories * _row_tokens(config, workload, members)
        filled = min(-(-math.ceil(packed / length) // rows), micro_batches)
        updates = program.name == "update"
        beside = reference if updates else whole + reference - tree_bytes(state.params)
        first = length == training.layout.row_tokens
        yield Program(
            name=program.name if first else f"{program.name}, rows of {length}",
            function=program.function,
            arguments=program.arguments,
            mesh=mesh,
            loops=filled,
            tokens=filled * rows * length,
            resident=beside,
            calls=program.calls if first else 0,
        )


def _row_tokens(config: RunConfig, workload: Workload, members: int) -> float:
    """Tokens of a packed row that a trajectory uses, including its share of a prompt that
    `members` trajectories share."""
    if not config.train.shared_prompts:
        return workload.trajectory
    prompt = min(config.rollout.prompt_tokens, workload.trajectory)
    return workload.trajectory - prompt * (1 - 1 / members)


def _rollout(
    config: RunConfig, sampler: sampling.Sampler, mesh: Mesh, params: Any, *, resident: int
) -> list[Program]:
    limits = config.rollout
    forward = _forward(config, mesh)
    programs = decoding.make_programs(
        forward,
        sampler,
        segment_steps=limits.segment_steps,
        stop_ids=(0,),
        vocab_size=forward.vocab_size,
        mesh=mesh,
    )
    rows, home = sharding.row_sharding(mesh), sharding.replicated(mesh)

    def given(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=home)

    def state_of(count: int) -> decoding.DecodeState:
        shapes = jax.eval_shape(lambda: programs.init(count, limits.context))
        cache = _place(shapes.cache, functools.partial(sharding.cache_sharding, mesh))
        return dataclasses.replace(_place(shapes, lambda _: rows), cache=cache)

    state = state_of(limits.slots)
    count, width = limits.prompt_counts[-1], limits.prompt_widths[-1]
    each = given((limits.slots,), jnp.int32)
    prompts = decoding.Prompts(
        tokens=given((count, width), jnp.int32),
        source=each,
        lengths=each,
        pending=each,
        keys=given(state.keys.shape, state.keys.dtype),
        limits=each,
        begins=given((limits.slots,), jnp.bool_),
    )
    segment = programs.decode_segment
    assert isinstance(segment, functools.partial)
    if limits.parked:  # parked rows have caches too
        resident += tree_bytes(state_of(limits.parked))
    common = {"mesh": mesh, "resident": resident}
    return [
        Program(
            name="decode segment",
            function=segment.func,
            arguments=(params, state, given((), jnp.int32), *segment.keywords.values()),
            loops=limits.segment_steps,
            tokens=limits.slots * limits.segment_steps,
            **common,
        ),
        Program(
            name="prefill",
            function=programs.prefill,
            arguments=(params, state, prompts),
            loops=1,
            tokens=count * width,
            **common,
        ),
    ]


def _place(tree: Any, place: Callable[[Any], NamedSharding]) -> Any:
    return jax.tree.map(lambda leaf: _placed(leaf, place(leaf)), tree)


def _placed(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
