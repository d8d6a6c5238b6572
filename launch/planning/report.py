"""A plan as tables for people and as a record for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from launch.planning import estimate
from launch.planning.estimate import GIB, Report, Step
from launch.planning.topologies import Topology


def memory_table(reports: Sequence[Report], topology: Topology) -> Table:
    """Memory of a device while each program runs, in GiB: one column per program."""
    table = Table(title=f"memory of a device, GiB: {topology.name}", title_justify="left")
    table.add_column("")
    for report in reports:
        table.add_column(report.name, justify="right")
    parts = {
        "arguments": [report.memory.arguments for report in reports],
        "temporary": [report.memory.temporary for report in reports],
        "other": [report.memory.results + report.memory.code for report in reports],
        "beside it": [report.memory.resident for report in reports],
        "total": [report.memory.total for report in reports],
    }
    for name, sizes in parts.items():
        table.add_row(name, *(_short(size / GIB) for size in sizes))
    limit = f"{topology.chip.available / GIB:.2f}" if topology.chip else "unknown"
    table.add_row("available", *(limit for _ in reports))
    return table


def cost_table(reports: Sequence[Report]) -> Table:
    """The cost of one call for a device."""
    table = Table(title="one call, on a device", title_justify="left")
    table.add_column("program")
    for name in ("tokens", "TFLOP", "HBM GB", "sent GB"):
        table.add_column(name, justify="right")
    for report in reports:
        cost = report.cost
        costs = (cost.operations / 1e12, cost.bytes / 1e9, cost.sent / 1e9)
        table.add_row(report.name, f"{report.tokens:,}", *map(_short, costs))
    return table


def time_table(reports: Sequence[Report]) -> Table:
    """The shortest time of one call by what limits it, for programs on a known chip."""
    table = Table(title="least time of a call, milliseconds", title_justify="left")
    table.add_column("program")
    for name in ("compute", "HBM", "ICI"):
        table.add_column(name, justify="right")
    table.add_column("bound")
    for report in reports:
        if report.seconds:
            times = (report.seconds.compute, report.seconds.hbm, report.seconds.ici)
            shown = (_short(1000 * each) for each in times)
            table.add_row(report.name, *shown, report.seconds.bound)
    return table


def traffic_table(reports: Sequence[Report]) -> Table:
    """Bytes sent, by program, collective and size of the group."""
    table = Table(title="collectives, of a device and call", title_justify="left")
    table.add_column("program")
    table.add_column("collective")
    for name in ("devices", "times", "sent GB"):
        table.add_column(name, justify="right")
    for report in reports:
        for (kind, size), (times, sent) in collectives(report).items():
            if sent >= 1e6:
                row = (report.name, kind, str(size), f"{times:,.0f}", _short(sent / 1e9))
                table.add_row(*row)
    return table


def collectives(report: Report) -> dict[tuple[str, int], tuple[float, float]]:
    """Times and bytes sent, by kind and size of the group; the largest first."""
    totals: dict[tuple[str, int], tuple[float, float]] = {}
    for one in report.cost.collectives:
        key = (one.kind, len(one.group))
        times, sent = totals.get(key, (0.0, 0.0))
        totals[key] = (times + one.times, sent + one.sent)
    return dict(sorted(totals.items(), key=lambda item: -item[1][1]))


def step_lines(step: Step, topology: Topology, price: float | None) -> list[str]:
    """The estimate in sentences."""
    lines = [
        f"a step takes {step.seconds:.3g} s at the least: rollouts {step.rollout_seconds:.3g},"
        f" updates {step.update_seconds:.3g} at {step.mfu:.1%} MFU",
        f"{step.sampled_tokens:,.0f} tokens sampled a step,"
        f" {step.tokens_per_second:,.0f} a second while rollouts run",
    ]
    if price is not None:
        thousand = estimate.cost_of_steps(step, topology, price)
        hours = 1000 * step.seconds / 3600
        lines.append(
            f"1,000 steps: {hours:,.3g} hours of {topology.chips} chips, {thousand:,.0f} at"
            f" {price:g} a chip-hour"
        )
    return lines


def record(
    reports: Sequence[Report], topology: Topology, step: Step | None, price: float | None
) -> dict[str, Any]:
    """All figures of a plan; bytes, seconds and operations are those of one device."""
    plan: dict[str, Any] = {
        "topology": topology.name,
        "chips": topology.chips,
        "devices": len(topology.devices),
        "programs": {},
    }
    if topology.chip:
        plan["available_bytes"] = topology.chip.available
    for report in reports:
        program = {
            "tokens": report.tokens,
            "devices": report.devices,
            "calls": report.calls,
            "compile_seconds": report.compile_seconds,
            "memory": dataclasses.asdict(report.memory) | {"total": report.memory.total},
            "operations": report.cost.operations,
            "bytes": report.cost.bytes,
            "sent_bytes": report.cost.sent,
            "unknown_kernels": list(report.cost.unknown),
            "collectives": [
                {"kind": kind, "devices": size, "times": times, "sent_bytes": sent}
                for (kind, size), (times, sent) in collectives(report).items()
            ],
        }
        if report.seconds:
            program["seconds"] = dataclasses.asdict(report.seconds) | {
                "least": report.seconds.least,
                "bound": report.seconds.bound,
            }
        plan["programs"][report.name] = program
    if step is not None:
        plan["step"] = dataclasses.asdict(step) | {
            "seconds": step.seconds,
            "tokens_per_second": step.tokens_per_second,
        }
        if price is not None:
            plan["step"]["cost_of_1000"] = estimate.cost_of_steps(step, topology, price)
    return plan


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
