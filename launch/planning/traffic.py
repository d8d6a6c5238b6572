"""Bytes that an instruction of a compiled program moves to and from HBM.

Operands are read and results written once. A slice counts instead of the array that it is taken
from, an update instead of the array that it updates in place. Data that never leaves the fast
memory of a chip does not count.
"""

from __future__ import annotations

from launch.planning.hlo import Computation, Instruction, Module, Shape, parameters

FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "domain"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "while", "conditional"),
    *("call", "async-update"),
}
SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes of one execution, without what the instruction calls unless it is a fusion."""
    opcode = instruction.opcode
    if opcode in FREE:
        return 0
    operands = computation.operands(instruction)
    read, written = sum(map(in_hbm, operands)), in_hbm(instruction.shapes)
    if opcode.endswith("-start"):  # the -done instruction writes its result
        return read
    if opcode.endswith("-done"):
        return written
    if opcode in SLICES:
        # Slices begin in the first operand; a gather has indices besides.
        return (written if in_hbm(operands[0]) else 0) + sum(map(in_hbm, operands[1:2])) + written
    if opcode == "dynamic-update-slice":
        return in_hbm(operands[1]) + (_bytes(operands[1]) if written else 0)
    if opcode == "scatter":
        updates = _updates(operands)
        put = sum(map(_bytes, updates)) if written else 0
        return put + sum(map(in_hbm, [*updates, operands[len(updates)]]))
    if opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        read = 0
        for shapes, name in zip(operands, parameters(inner), strict=True):
            part, escapes = _read(module, inner, name)
            read += in_hbm(shapes) if escapes else min(in_hbm(shapes), part)
        written = min(written, _written(module, inner, inner.root))
    return read + written


def in_hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes if not shape.fast)


def _updates(operands: list[tuple[Shape, ...]]) -> list[tuple[Shape, ...]]:
    """Updates of a scatter, one for each of its arrays; they follow the arrays and one array of
    indices.
    """
    return operands[len(operands) // 2 + 1 :]


def _bytes(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes)


def _read(module: Module, computation: Computation, name: str) -> tuple[int, bool]:
    """Bytes that a fused computation reads of its value `name`, and whether that value, or a view
    of it, is also its result, which its caller reads.
    """
    whole = _bytes(computation.instructions[name].shapes)
    total, escapes = 0, computation.instructions[name].root
    for user in computation.instructions.values():
        if name not in user.operands:
            continue
        first = user.operands[0] == name and user.operands.count(name) == 1
        if first and user.opcode in SLICES:
            total += _bytes(user.shapes)
        elif first and user.opcode in ("dynamic-update-slice", "scatter"):
            pass  # overwritten in place, not read
        elif user.opcode in ("bitcast", "fusion"):
            views = user.opcode == "bitcast"
            if user.opcode == "fusion":
                inner = module.computations[user.called("calls") or ""]
                for ours, theirs in zip(user.operands, parameters(inner), strict=True):
                    if ours == name:
                        part, out = _read(module, inner, theirs)
                        total, views = total + part, views or out
            if views:
                part, out = _read(module, computation, user.name)
                total, escapes = total + part, escapes or out
        else:
            return whole, False
    return min(total, whole), escapes


def _written(module: Module, computation: Computation, result: Instruction) -> int:
    """Bytes that a fused computation writes for `result`."""
    if result.opcode == "tuple":
        return sum(
            _written(module, computation, computation.instructions[name])
            for name in result.operands
        )
    if result.opcode == "bitcast":
        return _written(module, computation, computation.instructions[result.operands[0]])
    if result.opcode == "dynamic-update-slice":
        return _bytes(computation.operands(result)[1])
    if result.opcode == "scatter":
        return sum(map(_bytes, _updates(computation.operands(result))))
    if result.opcode == "fusion":
        inner = module.computations[result.called("calls") or ""]
        return _written(module, inner, inner.root)
    return _bytes(result.shapes)
