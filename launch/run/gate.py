"""The gate before reinforcement learning: has the model learned to copy digits into a call?"""

from __future__ import annotations

from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.types import Params
from launch.run.evaluator import Evaluator
from launch.run.session import Session

FAMILY = "arithmetic"
PROBLEMS = 64


def arithmetic_success(session: Session, evaluator: Evaluator, params: Params) -> float | None:
    """Greedy success on plain arithmetic; None if the task has no such family."""
    source = session.source
    if not isinstance(source, GeneratedTask) or FAMILY not in source.families:
        return None
    task = GeneratedTask(seed=source.seed, families=(FAMILY,), level=source.level)
    return evaluator.on(task.held_out(PROBLEMS), params, "greedy")[0].success


def check_gate(session: Session, evaluator: Evaluator, params: Params, go_on: str) -> float | None:
    """Greedy success on plain arithmetic. It is an error if it is below `train.gate`; the message
    names the command `go_on`, which trains the cold start longer.

    Without copying, no rollout ever succeeds and there is nothing to reinforce. None if the task
    has no such family.
    """
    gate, success = session.config.train.gate, arithmetic_success(session, evaluator, params)
    if success is not None and success < gate:
        raise ValueError(
            f"after the cold start, greedy success on {FAMILY} is {success:.2f}, the gate is"
            f" {gate:.2f}: the model cannot copy digits yet, and reinforcement cannot teach it;"
            f" train it longer by `{go_on} --sft.steps {2 * session.config.sft.steps}`, or begin"
            " anew in another --run-dir, with more --sft.steps or another --seed"
        )
    return success
