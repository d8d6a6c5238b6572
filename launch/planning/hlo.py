"""The text of a compiled program as data: its computations, their instructions, and how often a
device executes each.

XLA's own `cost_analysis` counts the body of a loop once. Here it counts as often as it runs: the
number of trips is in the text or in the loop's condition. If it is known only at run time, the
caller has to give it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

WIDTHS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}  # bits
SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
START = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = ")
HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
TRUTHS = ("true", "false")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array. `fast`: in fast memory on the chip, not in its HBM."""

    dtype: str
    dims: tuple[int, ...]
    fast: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        bits = WIDTHS.get(self.dtype, int(digits.group()) if digits else 8)
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    shapes: tuple[Shape, ...]  # shapes of its result; of a tuple, in order
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        match = re.search(rf"\b{attribute}=%?([\w.-]+)", self.attributes)
        return match.group(1) if match else None


@dataclasses.dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.root)

    def operands(self, instruction: Instruction) -> list[tuple[Shape, ...]]:
        """Shapes of the operands."""
        return [self.instructions[name].shapes for name in instruction.operands]


@dataclasses.dataclass(frozen=True)
class Module:
    computations: dict[str, Computation]
    entry: str


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction outside of fusions, and how many times a device executes it."""

    instruction: Instruction
    computation: Computation
    times: float
    guessed: bool  # counted once, in a loop of unknown length


def parse(text: str) -> Module:
    """Parses the text of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, name, lines = "", "", []
    for line in text.splitlines():
        head = HEAD.match(line)
        if head and " = " not in line.split("(")[0]:
            name, lines = head.group(2), []
            entry = name if head.group(1) else entry
        elif line.rstrip() == "}" and name:
            parsed = [_instruction(one) for one in lines]
            computations[name] = Computation(name, {one.name: one for one in parsed})
            name = ""
        elif name and START.match(line):
            lines.append(line)
        elif name and lines:  # an attribute with a line break inside
            lines[-1] += line
    if not entry:
        raise ValueError("the text is no HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def shapes(text: str) -> tuple[Shape, ...]:
    """All arrays of a result type, which may be a tuple."""
    arrays = []
    for dtype, dims, layout in SHAPE.findall(text):
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        arrays.append(Shape(dtype, sizes, bool(re.search(r"S\([1-9]", layout))))
    return tuple(arrays)


def executed(module: Module, loops: int = 1) -> Iterator[Executed]:
    """The instructions that a device executes, from the entry on; a fusion is one instruction.

    `loops` are the trips of each outermost loop whose number only the run knows. Each branch of a
    conditional counts for an equal share.
    """
    yield from _walk(module, module.entry, 1.0, loops, False)


def trips(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """How often the body of a while loop runs; None if that is known only at run time.

    It is in the text, or the loop counts from one constant to another in constant steps.
    """
    match = TRIPS.search(loop.attributes)
    if match:
        return int(match.group(1))
    condition = module.computations[loop.called("condition") or ""]
    compare, operands = condition.root, condition.root.operands
    if compare.opcode in ("fusion", "call"):
        # The comparison by itself, its constant handed in.
        inner = module.computations[compare.called("calls") or compare.called("to_apply") or ""]
        values = dict(zip(parameters(inner), operands, strict=True))
        compare = inner.root
        operands = tuple(values.get(name, name) for name in compare.operands)
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
        return None
    bound = _constant(condition, operands[1])
    counter = condition.instructions.get(operands[0])
    if bound is None or counter is None or counter.opcode != "get-tuple-element":
        return None
    place = int(counter.attributes.split("index=")[1].split(",")[0])
    first, step = 0, 1
    start = computation.instructions[loop.operands[0]]
    if start.opcode == "tuple":
        first = _constant(computation, start.operands[place]) or 0
    body = module.computations[loop.called("body") or ""]
    if body.root.opcode == "tuple":
        step = _step(module, body, body.instructions[body.root.operands[place]])
    return max(-(-(bound - first) // step), 0)


def _constant(computation: Computation, name: str) -> int | None:
    """The value of a constant; None for any other instruction."""
    instruction = computation.instructions.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "convert"):
        instruction = computation.instructions[instruction.operands[0]]
    if (
        instruction is None
        or instruction.opcode != "constant"
        or not instruction.attributes.lstrip("-").isdigit()
    ):
        return None
    return int(instruction.attributes)


def _step(module: Module, computation: Computation, after: Instruction) -> int:
    """The increment of a counter; unrolled loops count in steps larger than 1."""
    if after.opcode == "copy":
        return _step(module, computation, computation.instructions[after.operands[0]])
    if after.opcode in ("fusion", "call"):
        inner = module.computations[after.called("calls") or after.called("to_apply") or ""]
        numbers = [_constant(computation, name) for name in after.operands]
        numbers += [_constant(inner, name) for name in inner.root.operands]
    else:
        numbers = [_constant(computation, name) for name in after.operands]
    return next((number for number in numbers if number), 1)


def parameters(computation: Computation) -> list[str]:
    """Names of the parameters, by their numbers."""
    arguments = [i for i in computation.instructions.values() if i.opcode == "parameter"]
    return [i.name for i in sorted(arguments, key=lambda i: int(i.attributes))]


def _walk(module: Module, name: str, times: float, loops: int, guessed: bool) -> Iterator[Executed]:
    computation = module.computations[name]
    for instruction in computation.instructions.values():
        inside: list[tuple[str, float, int, bool]] = []
        if instruction.opcode == "while":
            body, count = instruction.called("body") or "", trips(module, computation, instruction)
            if count is None:
                inside = [(body, times * loops, 1, guessed or loops == 1)]
            else:
                inside = [(body, times * count, loops, guessed)]
        elif instruction.opcode == "conditional":
            names = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            branches = (
                [one.strip().lstrip("%") for one in names.group(1).split(",")]
                if names
                else [instruction.called(f"{which}_computation") or "" for which in TRUTHS]
            )
            inside = [(branch, times / len(branches), loops, guessed) for branch in branches]
        elif instruction.opcode == "call":
            inside = [(instruction.called("to_apply") or "", times, loops, guessed)]
        elif instruction.opcode == "async-start":
            inside = [(instruction.called("calls") or "", times, loops, guessed)]
        for branch, count, left, unsure in inside:
            yield from _walk(module, branch, count, left, unsure)
        if not inside:
            yield Executed(instruction, computation, times, guessed)


def _instruction(line: str) -> Instruction:
    start = START.match(line)
    assert start is not None
    rest = line[start.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inner, attributes = rest[opening + 1 : closing], rest[closing + 1 :]
    opcode = rest[:opening]
    operands = tuple(re.findall(r"%([\w.-]+)", inner))
    if opcode in ("constant", "parameter"):
        operands, attributes = (), inner
    return Instruction(
        start.group(2), shapes(kind), opcode, operands, attributes, bool(start.group(1))
    )


def _closing(text: str, opening: int) -> int:
    """Index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is not closed: {text[opening : opening + 80]!r}")
