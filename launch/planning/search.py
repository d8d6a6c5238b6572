"""Searches, by compiling, for changes of a run's options that make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from configs.schema import RunConfig
from gtpo_jax.devices import sharding
from launch.planning import programs, topologies
from launch.planning.estimate import DoesNotFitError, Report, compile_program
from launch.planning.programs import ROLLOUT_PROGRAMS, Workload
from launch.planning.topologies import Topology

Changes = Mapping[str, Any]
"""Values of options by their dotted names, such as `train.rows`."""

CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Try:
    """A set of changes and its outcome."""

    changes: Changes
    failure: DoesNotFitError | None


class Planner:
    """Compiles the programs of configs for one topology; no program twice.

    `on_compile` is called with the name of every program before it is compiled.
    """

    def __init__(
        self,
        topology: Topology,
        workload: Callable[[RunConfig], Workload],
        on_compile: Callable[[str], None] = lambda name: None,
    ):
        self.topology, self.workload, self.on_compile = topology, workload, on_compile
        self._known: dict[Any, Report | DoesNotFitError] = {}

    def reports(self, config: RunConfig) -> list[Report]:
        """Reports of all programs; raises the DoesNotFitError of the first that does not fit."""
        mesh = make_mesh(config, self.topology)
        reports = []
        local = self.topology.rollout_mesh(mesh)
        for program in programs.build(config, mesh, local, self.workload(config)):
            key = (program.name, program.loops, *_determinants(program.name, config))
            if key not in self._known:
                self.on_compile(program.name)
                try:
                    self._known[key] = compile_program(program, self.topology)
                except DoesNotFitError as error:
                    self._known[key] = error
            known = self._known[key]
            if isinstance(known, DoesNotFitError):
                raise known
            reports.append(known)
        return reports

    def search(self, config: RunConfig, failure: DoesNotFitError, tries: int) -> Iterator[Try]:
        """Tries changes until all programs fit, at most `tries` that a compiler has to judge."""
        changes: dict[str, Any] = {}
        rest = remedies(config, failure.program, self.topology)
        while tries > 0:
            more = next(rest, None)
            if more is None:
                return
            changed = apply(config, changes | more)
            try:
                self.reports(changed)
            except DoesNotFitError as error:
                tries -= bool(error.told)
                yield Try(changes=changes | more, failure=error)
                if error.program != failure.program:  # this program fits, continue with the next
                    failure, changes = error, changes | more
                    rest = remedies(changed, error.program, self.topology)
            else:
                yield Try(changes=changes | more, failure=None)
                return


def make_mesh(config: RunConfig, topology: Topology):
    """The mesh of a run on a topology."""
    return sharding.make_mesh(**dataclasses.asdict(config.mesh), devices=topology.devices)


def remedies(config: RunConfig, program: str, topology: Topology) -> Iterator[dict[str, Any]]:
    """Changes that lower the memory of a program, each including those before it, the cheapest
    first.
    """
    changes: dict[str, Any] = {}
    mesh = make_mesh(config, topology)
    if program not in ROLLOUT_PROGRAMS:
        if config.model.remat != "full":
            changes = changes | {"model.remat": "full"}
            yield changes
        if config.train.logprob_chunk is None or config.train.logprob_chunk > CHUNK:
            changes = changes | {"train.logprob_chunk": CHUNK}
            yield changes
        rows, least = config.train.rows, sharding.row_count(mesh)
        while rows > least:
            rows = max(rows // 2 // least * least, least)
            changes = changes | {"train.rows": rows}
            yield changes
    else:
        slots, least = config.rollout.slots, sharding.row_count(topologies.process_mesh(mesh))
        for _ in range(3):
            if slots > least:
                slots = max(slots // 2 // least * least, least)
                changes = changes | {"rollout.slots": slots, "rollout.parked": 0}
                yield changes
    tensor = mesh.shape["tensor"]
    count = mesh.shape["data"] * mesh.shape["fsdp"] * tensor  # the sequence axis stays as it is
    each = max(count // topology.processes, 1)
    sizes = [tensor, *(size for size in (2, 4, 8) if tensor < size <= each and each % size == 0)]
    for tensor in sizes:
        fsdp = count // tensor
        same = (mesh.shape["fsdp"], mesh.shape["tensor"]) == (fsdp, tensor)
        if same or config.model.query_heads % tensor:
            continue
        axes = {"mesh.data": 1, "mesh.fsdp": fsdp, "mesh.tensor": tensor}
        rows = changes.get("train.rows", config.train.rows)
        if program not in ROLLOUT_PROGRAMS or rows % fsdp:
            axes["train.rows"] = (
                fsdp if program not in ROLLOUT_PROGRAMS else -(-rows // fsdp) * fsdp
            )
        slots, shards = changes.get("rollout.slots", config.rollout.slots), each // tensor
        if slots % shards:
            axes["rollout.slots"] = -(-slots // shards) * shards
        yield changes | axes


def apply(config: Any, changes: Changes) -> Any:
    """The config with options changed, all options of one part at once."""
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        field, _, rest = name.partition(".")
        if rest:
            inner.setdefault(field, {})[rest] = value
        else:
            values[field] = value
    parts = {field: apply(getattr(config, field), part) for field, part in inner.items()}
    return dataclasses.replace(config, **values, **parts)


def as_options(changes: Changes) -> str:
    """Changes as options of a command line."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())


def _determinants(program: str, config: RunConfig) -> tuple[Any, ...]:
    """The settings that a program depends on."""
    common = (config.model, config.lora, config.mesh, config.train.optimizer)
    if program not in ROLLOUT_PROGRAMS:
        return (*common, config.train, config.rollout.context)
    return (*common, config.rollout, config.train.temperature)
