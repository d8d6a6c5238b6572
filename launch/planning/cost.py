"""The cost of one call of a compiled program for a device, read from the program's text.

- Operations: multiplications and additions of matrix products and of attention kernels. Elementwise
  work is left out, because other units do it in parallel.
- Bytes to and from HBM: operands and results of everything outside of fusions; of a slice, only the
  sliced part. Data in the fast memory of a chip is free.
- Traffic: bytes that a device sends for each collective with the best algorithm on a ring.
"""

from __future__ import annotations

import dataclasses
import math
import re

from launch.planning import groups, hlo, traffic
from launch.planning.hlo import Computation, Instruction, Module

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Number of products of `[T, H]` and `[T, S]` matrices that an attention kernel makes per head."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective of a program, summed over all its executions."""

    kind: str
    sent: float  # bytes per device
    group: tuple[int, ...]  # the first group, as positions in the mesh
    times: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one call, for one device."""

    operations: float
    bytes: float
    collectives: tuple[Collective, ...]
    guessed: int  # instructions counted once, in loops of unknown length
    unknown: tuple[str, ...]  # names of kernels whose operations are unknown

    @property
    def sent(self) -> float:
        return sum(one.sent for one in self.collectives)


def cost(module: Module, *, loops: int = 1, devices: int = 1) -> Cost:
    """The cost of a program on a mesh of `devices`; `loops` as in `hlo.executed`."""
    operations = moved = 0.0
    collectives: list[Collective] = []
    guessed, unknown = 0, set()
    for one in hlo.executed(module, loops):
        instruction = one.instruction
        work, strange = _operations(module, one.computation, instruction)
        operations += work * one.times
        moved += traffic.hbm_bytes(module, one.computation, instruction) * one.times
        guessed += one.guessed and (work > 0 or instruction.opcode == "fusion")
        unknown |= strange
        for computation, inner in _with_inner(module, one.computation, instruction):
            collective = _collective(computation, inner, one.times, devices)
            if collective is not None:
                collectives.append(collective)
    return Cost(
        operations=operations,
        bytes=moved,
        collectives=tuple(collectives),
        guessed=guessed,
        unknown=tuple(sorted(unknown)),
    )


def _with_inner(module: Module, computation: Computation, instruction: Instruction):
    """The instruction and, if it is a fusion, the instructions inside it."""
    yield computation, instruction
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        for one in inner.instructions.values():
            yield from _with_inner(module, inner, one)


def _operations(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[float, set[str]]:
    total, unknown = 0.0, set()
    for where, one in _with_inner(module, computation, instruction):
        if one.opcode == "dot":
            total += 2.0 * one.shapes[0].size * _contracted(where, one)
        elif one.opcode == "convolution":
            total += _convolution(where, one)
        elif one.opcode == "ragged-dot":
            rows = where.operands(one)[0][0]
            total += 2.0 * one.shapes[0].size * rows.dims[-1]
        elif one.opcode == "custom-call" and "tpu_custom_call" in one.attributes:
            kernel = _kernel(where, one)
            total += kernel or 0.0
            if kernel is None:
                unknown.add(re.sub(r"[.\d]+$", "", one.name))
    return total, unknown


def _contracted(computation: Computation, dot: Instruction) -> int:
    """Number of terms in the sum of each element of a product."""
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    left = computation.operands(dot)[0][0].dims
    return math.prod(left[int(axis)] for axis in match.group(1).split(",") if axis) if match else 1


def _convolution(computation: Computation, conv: Instruction) -> float:
    """Operations of a matrix product that a TPU writes as a convolution. A batch axis becomes an
    axis of the window, whose padding and dilation leave few positions where both factors are
    present.
    """
    (left,), (right,) = computation.operands(conv)[:2]
    match = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", conv.attributes)
    assert match is not None
    of_left, of_right, of_out = match.groups()
    out = conv.shapes[0]
    window = re.search(r"window=\{([^}]*)\}", conv.attributes)
    words = dict(re.findall(r"(\w+)=(\S+)", window.group(1))) if window else {}

    def part(word: str, axis: int, default: str) -> str:
        return words[word].split("x")[axis] if word in words else default

    pairs = 1
    for label in filter(str.isdigit, of_right):
        axis = int(label)
        base = left.dims[of_left.index(label)]
        size = right.dims[of_right.index(label)]
        low = int(part("pad", axis, "0_0").split("_")[0])
        stride, dilation, spread = (
            int(part(word, axis, "1")) for word in ("stride", "rhs_dilate", "lhs_dilate")
        )
        length = out.dims[of_out.index(label)]
        # Both factors are there where the place in the left one is none of its gaps or its padding.
        pairs *= sum(
            1
            for at in range(length)
            for tap in range(size)
            if (place := at * stride + tap * dilation - low) % spread == 0
            and 0 <= place // spread < base
        )
    features = out.dims[of_out.index("b")] * out.dims[of_out.index("f")]
    return 2.0 * features * right.dims[of_right.index("i")] * pairs


def _kernel(computation: Computation, call: Instruction) -> float | None:
    """Operations of a splash attention kernel, over the tiles that are not entirely masked."""
    products = next((n for name, n in KERNEL_PRODUCTS.items() if call.name.startswith(name)), None)
    if products is None:
        return None
    operands = [shapes[0] for shapes in computation.operands(call)]
    tiles = operands[0].dims[-2:]
    queries = next(one for one in operands if one.dtype != "s8" and len(one.dims) >= 3)
    rows, width = queries.dims[-2:]
    heads = math.prod(queries.dims[:-2])
    # Half of a causal grid, with the diagonal; a narrower grid has only the tiles of the window.
    most = max(tiles)
    share = (most + 1) / (2 * most) if tiles[0] == tiles[1] else min(tiles) / most
    return products * 2.0 * heads * rows * rows * width * share


def _collective(
    computation: Computation, instruction: Instruction, times: float, devices: int
) -> Collective | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None
    given = sum(s.bytes for shapes in computation.operands(instruction) for s in shapes)
    if instruction.opcode == "all-reduce":  # it may round its sums
        given = min(given, sum(s.bytes for s in instruction.shapes))
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", instruction.attributes)
        group = tuple(int(one) for one in pairs.groups()) if pairs else (0, 0)
        return Collective(kind=kind, sent=given * times, group=group, times=times)
    group = groups.replica_groups(instruction.attributes, devices)[0]
    n = len(group)
    shares = {"all-gather": n - 1.0, "all-reduce": 2 * (n - 1) / n}
    sent = given * shares.get(kind, (n - 1) / n)
    # XLA scatters what it reduced by a slice in the same fusion: half of it need not be sent.
    if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):
        kind, sent = "reduce-scatter", sent / 2
    return Collective(kind=kind, sent=sent * times, group=group, times=times)
