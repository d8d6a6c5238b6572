"""Renders trajectories and evaluations in color for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gtpo_jax import tools
from gtpo_jax.results.evaluation import Estimate, Evaluation
from gtpo_jax.types import ToolResult, Trajectory


def render_turn(text: str, violation: str | None) -> Text:
    """The text of a turn, and its violation."""
    rendered = Text(text.strip() + "\n", style="red" if violation else "cyan")
    if violation:
        rendered.append(f"  {violation}\n", style="italic red")
    return rendered


def render_output(result: ToolResult) -> Text:
    """The result of a call, as shown to the policy."""
    return Text(f"  {tools.render_tool_result(result)}\n", style="yellow")


def render_trajectory(trajectory: Trajectory, *, title: str = "") -> Panel:
    """One episode: the question, the turns, the outputs of the tool, and the verdict."""
    text = Text()
    text.append(trajectory.problem.question + "\n", style="bold")
    for turn in trajectory.turns:
        text.append_text(render_turn(turn.text, turn.violation))
        for result in turn.results:
            text.append_text(render_output(result))
    right = trajectory.success
    text.append(
        f"{trajectory.verdict}; the answer is {trajectory.problem.answer}",
        style="green" if right else "red",
    )
    return Panel(text, title=title, title_align="left", border_style="green" if right else "red")


def render_results(rows: Mapping[str, Mapping[str, Evaluation]]) -> Table:
    """A table of evaluations: `rows[name]["sampled" | "greedy"]`."""
    table = Table(title="held-out problems")
    table.add_column("policy")
    for column in ("sampled", "greedy", "violations", "turns", "tool errors"):
        table.add_column(column, justify="right")
    for name, modes in rows.items():
        sampled = modes["sampled"]
        table.add_row(
            name,
            f"{sampled.success:.3f} ± {sampled.success_error:.3f}",
            f"{modes['greedy'].success:.3f}",
            f"{sampled.violations:.3f}",
            f"{sampled.turns:.2f}",
            f"{sampled.tool_errors:.3f}",
        )
    return table


def render_evaluations(evaluations: Mapping[str, Evaluation], *, title: str) -> Table:
    """A table with one column per evaluation; 95 % confidence intervals are in parentheses."""
    table = Table(title=title)
    table.add_column("")
    rows: dict[str, dict[str, str]] = {}
    for name, evaluation in evaluations.items():
        table.add_column(name, justify="right")
        for figure, cell in _cells(evaluation).items():
            rows.setdefault(figure, {})[name] = cell
    for figure, cells in rows.items():
        table.add_row(figure, *(cells.get(name, "") for name in evaluations))
    return table


def _cells(evaluation: Evaluation) -> dict[str, str]:
    """Name of a row → its cell."""
    scores = evaluation.scores
    cells = {
        "problems": str(scores.problems),
        "problems left out": str(scores.left_out),
        "samples (k)": str(scores.samples),
        "samples excluded": str(evaluation.excluded),
        "avg@k": _interval(scores.average),
    }
    cells |= {f"pass@{k}": _interval(estimate) for k, estimate in scores.pass_at.items()}
    cells |= {f"maj@{k}": _interval(estimate) for k, estimate in scores.maj_at.items()}
    cells |= {
        "turns": f"{evaluation.turns:.2f}",
        "tool calls": f"{evaluation.tool_calls:.2f}",
        "tool error rate": f"{evaluation.tool_errors:.3f}",
        "format violations": f"{evaluation.violations:.3f}",
        "cut by a limit": f"{evaluation.truncated:.3f}",
        "tokens": f"{evaluation.tokens:,.0f}",
    }
    return cells | {
        f"avg@k, {family or 'no family'}": _interval(estimate)
        for family, estimate in scores.families.items()
    }


def _interval(estimate: Estimate) -> str:
    if not estimate.problems:
        return "none"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
