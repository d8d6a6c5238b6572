"""Time and cost of compiled programs, by roofline.

A program takes no less time than its operations, its traffic to HBM and its traffic between chips
take, each at the peak that the vendor states.

Real programs are slower, so these times are bounds for comparing plans. They leave out the tools,
the Python process and credit assignment.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence

import jax

from configs.schema import RunConfig
from launch.planning import cost, hlo
from launch.planning.programs import Program, Workload
from launch.planning.topologies import Topology
from models.config import ModelConfig

GIB = 2**30
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
REFUSALS = (  # of several compiler releases: memory needed, memory available
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm"),
    re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
)


class DoesNotFitError(ValueError):
    """A program needs more memory than a device has; both in bytes.

    `told` is the compiler's own message, if it was asked.
    """

    def __init__(self, program: str, needed: float, available: float, told: str = ""):
        self.program, self.needed, self.available, self.told = program, needed, available, told
        least = "" if told else "at least "
        super().__init__(
            f"{program} does not fit: it needs {least}{needed / GIB:.2f} GiB of each device, which"
            f" has {available / GIB:.2f}; {(needed - available) / GIB:.2f} GiB are missing"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of memory of a device while a program runs."""

    arguments: int
    results: int  # without those written over arguments
    temporary: int
    code: int
    resident: int

    @property
    def total(self) -> int:
        return self.arguments + self.results + self.temporary + self.code + self.resident


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """Shortest time of a call, by what limits it."""

    compute: float
    hbm: float
    ici: float

    @property
    def least(self) -> float:
        return max(self.compute, self.hbm, self.ici)

    @property
    def bound(self) -> str:
        return max(("compute", "hbm", "ici"), key=lambda name: getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Everything known about one program, for one device."""

    name: str
    memory: Memory
    cost: cost.Cost
    seconds: Seconds | None  # None: nothing is known of the chip
    tokens: int  # per call, on all devices of its mesh
    devices: int  # devices of its mesh
    calls: int  # calls per training step
    compile_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the run: rollouts, then updates."""

    rollout_seconds: float
    update_seconds: float
    sampled_tokens: float
    mfu: float  # in an update: operations of the model over the chips' peak

    @property
    def seconds(self) -> float:
        return self.rollout_seconds + self.update_seconds

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens per second while rollouts run."""
        return self.sampled_tokens / self.rollout_seconds


def compile_program(program: Program, topology: Topology) -> Report:
    """Compiles a program and reads its memory and cost; raises DoesNotFitError."""
    available = topology.chip.available if topology.chip else math.inf
    held = sum(program.held)
    if held > available:  # too large whatever the compiler does
        raise DoesNotFitError(program.name, held, available)
    began = time.monotonic()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = read_refusal(str(error))
        if refusal is None:
            raise
        needed, limit = refusal
        raise DoesNotFitError(
            program.name, needed + program.resident, limit, str(error).split("\n")[0]
        ) from None
    taken = time.monotonic() - began
    stats, text = compiled.memory_analysis(), compiled.as_text()
    assert stats is not None and text is not None
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        results=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        resident=program.resident,
    )
    if memory.total > available:
        told = "it compiles, but not beside the rest of the train state"
        raise DoesNotFitError(program.name, memory.total, available, told)
    module = hlo.parse(text)
    found = cost.cost(module, loops=program.loops, devices=program.mesh.size)
    return Report(
        name=program.name,
        memory=memory,
        cost=found,
        seconds=roofline(found, program, topology) if topology.chip else None,
        tokens=program.tokens,
        devices=program.mesh.size,
        calls=program.calls,
        compile_seconds=taken,
    )


def read_refusal(message: str) -> tuple[float, float] | None:
    """Bytes needed and bytes available, from the compiler's message; None if it is about something
    else.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in REFUSALS:
        match = pattern.search(message)
        if match:
            needed, unit, limit, other = match.groups()
            return float(needed) * UNITS[unit], float(limit) * UNITS[other]
    return None


def roofline(found: cost.Cost, program: Program, topology: Topology) -> Seconds:
    """Shortest times of a call on a device of the topology."""
    chip = topology.chip
    assert chip is not None
    ici = sum(
        one.sent / topology.sent_per_second(program.mesh, one.group) for one in found.collectives
    )
    return Seconds(
        compute=found.operations / (chip.flops / chip.devices),
        hbm=found.bytes / (chip.hbm_bandwidth / chip.devices),
        ici=ici,
    )


def model_operations(model: ModelConfig, tokens: int, context: int) -> float:
    """Operations of training on `tokens` in rows of `context`: 6 per weight that a token uses, plus
    causal attention, one forward and two backward passes. Recomputation does not count.
    """
    met = model.parameters - (0 if model.tied_embeddings else model.vocab_size * model.width)
    if model.experts:
        idle = model.experts - model.experts_per_token
        met -= model.layers * idle * 3 * model.width * model.mlp_width
    seen = sum(
        min(context, model.window) - min(context, model.window) ** 2 / (2 * context)
        if local and model.window
        else context / 2
        for local in model.local_layers
    )
    attention = 12.0 * model.query_heads * model.head_dim * seen
    return tokens * (6.0 * met + attention)


def step(
    config: RunConfig, topology: Topology, workload: Workload, reports: Sequence[Report]
) -> Step:
    """Shortest time of a step, from the reports of its programs."""
    assert topology.chip is not None
    by_name = {report.name: report for report in reports}
    least = {name: report.seconds.least for name, report in by_name.items() if report.seconds}
    train, limits = config.train, config.rollout
    plan = make_method(train.method).plan
    trajectories = train.prompts * plan.sampled(train.group_size)
    each = -(-trajectories // topology.processes)
    # Rows are filled again as they end; at the least they run as long as the longest trajectory.
    steps = max(workload.sampled, each * workload.sampled / limits.slots)
    decode = math.ceil(steps / limits.segment_steps) * least["decode segment"]
    prompts = -(-train.prompts // topology.processes)
    observed = max(workload.trajectory - limits.prompt_tokens - workload.sampled, 0)
    fed = prompts * limits.prompt_tokens + each * observed
    prefill = fed / by_name["prefill"].tokens * least["prefill"]
    update = by_name["update"]
    peak = topology.chip.flops * topology.chips
    useful = model_operations(config.model, update.tokens, limits.context)
    return Step(
        rollout_seconds=decode + prefill,
        update_seconds=sum(report.calls * least[report.name] for report in reports),
        sampled_tokens=trajectories * workload.sampled,
        mfu=useful / (least["update"] * peak),
    )


def cost_of_steps(step: Step, topology: Topology, price: float, count: int = 1000) -> float:
    """Cost of `count` steps at a price per chip and hour, in the currency of the price."""
    return count * step.seconds / 3600 * topology.chips * price
