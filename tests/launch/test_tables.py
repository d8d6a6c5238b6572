"""Tables on a terminal of 80 columns with the widest figures that occur: nothing is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from gtpo_jax.report import bands, terminal
from gtpo_jax.results.evaluation import summarize
from launch import compare
from launch.planning import report
from launch.planning.chips import CHIPS, GIB
from launch.planning.cost import Collective, Cost
from launch.planning.estimate import Memory, Report, Seconds
from launch.planning.topologies import Topology

WIDTH = 80


def shown(table: Table) -> str:
    written = io.StringIO()
    Console(width=WIDTH, file=written).print(table)
    return written.getvalue()


TOPOLOGY = Topology(name="v5p:16x16x16", devices=(), chip=CHIPS["v5p"], grid=(16, 16, 16))


def reports() -> list[Report]:
    collectives = (
        Collective(kind="collective-permute", sent=1.5e12, group=(0,) * 4096, times=12_345),
        Collective(kind="reduce-scatter", sent=2e6, group=(0, 1), times=1),
    )
    cost = Cost(operations=9e17, bytes=1.2e8, collectives=collectives, guessed=0, unknown=())
    sizes = {"arguments": 12_345 * GIB, "results": 1, "temporary": 123, "code": 2**20}
    return [
        Report(
            calls=1,
            name=name,
            memory=Memory(**sizes, resident=14 * GIB),
            cost=cost,
            seconds=Seconds(compute=1234.5, hbm=0.00001234, ici=98.7),
            tokens=123_456_789,
            devices=4096,
            compile_seconds=1.0,
        )
        for name in ("update", "decode segment", "prefill")
    ]


def comparison() -> dict:
    names = ("sampled_success", "greedy_success", "sampled_violations", "sampled_turns")
    summary = {name: {"mean": 12.3456, "std": 0.1234} for name in (*names, "sampled_tool_errors")}
    return {"summary": {"gtpo": summary, "grpo": summary}}


def runs() -> dict[str, list[bands.Run]]:
    records = [
        {"step": step, "rollout/success": 0.5, "rollout/violations": 0.1, "eval/sampled": 0.5}
        for step in (1, 1000)
    ]
    made = [bands.Run(name=str(n), settings={"seed": n}, metrics=records) for n in range(3)]
    return {"gtpo, discount 0.95": made, "grpo": made[:2]}


TABLES = {
    "memory": lambda: report.memory_table(reports(), TOPOLOGY),
    "cost": lambda: report.cost_table(reports()),
    "time": lambda: report.time_table(reports()),
    "traffic": lambda: report.traffic_table(reports()),
    "compare": lambda: compare.table(comparison()),
    "results": lambda: terminal.render_results(
        {name: dict.fromkeys(("sampled", "greedy"), summarize([])) for name in ("cold start", "G")}
    ),
    "evaluations": lambda: terminal.render_evaluations(
        dict.fromkeys(("sampled", "greedy"), summarize([])), title="runs/mine"
    ),
    "bands": lambda: bands.comparison_table(runs()),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_cell_is_cut_at_80_columns(name):
    table = TABLES[name]()
    text = shown(table)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    words = {word for column in table.columns for word in str(column.header).split()}
    assert all(word in text for word in words), text


def test_memory_is_told_of_every_program_in_gib():
    lines = shown(report.memory_table(reports(), TOPOLOGY)).splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    found = {name: figures for name, *figures in cells if figures}
    assert found["beside it"] == ["14"] * 3
    assert found["total"] == ["12,359"] * 3
    assert found["available"] == [f"{CHIPS['v5p'].available / GIB:.2f}"] * 3


def test_comparison_has_a_column_for_each_method():
    text = shown(compare.table(comparison()))
    [line] = [line for line in text.splitlines() if "sampled violations" in line]
    assert line.count("12.346 ± 0.123") == 2
