"""Trajectories for reports, made of the real records of the real types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gtpo_jax.language.grammar import (
    ANSWER,
    ANSWER_END,
    CODE,
    CODE_END,
    CONTROL_SYMBOLS,
    END,
    Dialogue,
)
from gtpo_jax.report.evaluations import HeldOut
from gtpo_jax.results import records
from gtpo_jax.results.evaluation import Outcome
from gtpo_jax.testing import ByteTokenizer
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Trajectory, Turn, Verdict

TOKENIZER = ByteTokenizer()
DIALOGUE = Dialogue(TOKENIZER)


def make_turn(*parts: str, **fields) -> Turn:
    """A turn of texts and markers; its probabilities fall and its entropies rise."""
    tokens: list[int] = []
    for part in parts:
        control = part in CONTROL_SYMBOLS
        tokens += [TOKENIZER.control_id(part)] if control else TOKENIZER.encode(part)
    ramp = np.linspace(0, 2, len(tokens), dtype=np.float32)
    return Turn(
        tokens=np.array(tokens, np.int32),
        logprobs=-ramp,
        entropies=ramp / 2,
        text=TOKENIZER.decode(tokens),
        **fields,
    )


def make_problem(number: int, **fields) -> Problem:
    told = {"question": f"What is {number} + 2?", "answer": str(number + 2)}
    told |= {"id": f"sum-{number}", "family": ("sums", "products")[number % 2]}
    return Problem(**(told | fields))


def make_trajectory(
    problem: Problem,
    group: int,
    sample: int,
    *,
    right: bool = True,
    violation: str | None = None,
    code: str = "for i in range(2):  # two\n    print('é', i)",
    stdout: str = "4\n",
    stderr: str = "",
    answer: str | None = None,
) -> Trajectory:
    """A call, what it printed, and an answer."""
    answer = answer or (problem.answer if right else "0")
    status = ToolStatus.ERROR if stderr else ToolStatus.OK
    result = ToolResult(status=status, stdout=stdout, stderr=stderr, wall_seconds=0.0125)
    return Trajectory(
        problem=problem,
        group=group,
        sample=sample,
        prompt=DIALOGUE.prompt(problem.question),
        turns=(
            make_turn(
                *("so ", CODE, code, CODE_END, END),
                codes=(code,),
                results=(result,),
                observation=DIALOGUE.observation(stdout, budget=500)[0],
            ),
            make_turn("It is ", ANSWER, answer, ANSWER_END, END, violation=violation),
        ),
        stop_reason=StopReason.ANSWERED if violation is None else StopReason.NO_ACTION,
        verdict=Verdict.RIGHT if right else Verdict.WRONG,
        answer=answer,
    )


def make_record(trajectory: Trajectory, step: int) -> dict:
    """The record of a trajectory with credit for its outcome; advantages have both signs."""
    sign = 1.0 if trajectory.success else -1.0
    credit = {
        "reward": np.array([0.0, float(trajectory.success)]),
        "return": np.array([0.9, 1.0]) * trajectory.success,
        "advantage": np.array([0.5, 1.0]) * sign,
        "outcome": np.array([0.0, float(trajectory.success)]),
    }
    facts = {"response_tokens": np.int32(30), "turn_entropies": np.array([0.25, 0.5])}
    return records.trajectory_record(trajectory, TOKENIZER, step=step, credit=credit, facts=facts)


def make_step(step: int, groups: int = 4, samples: int = 3) -> list[dict]:
    """Group g has g right samples; the last sample of group 1 breaks a rule."""
    return [
        make_record(
            make_trajectory(
                *(make_problem(10 * step + group), group, sample),
                right=sample < group,
                violation="no call" if (group, sample) == (1, samples - 1) else None,
            ),
            step,
        )
        for group in range(groups)
        for sample in range(samples)
    ]


def make_metrics(steps: int) -> list[dict]:
    return [
        {
            "step": step,
            "rollout/success": step / steps / 2,
            "credit/reward": step / steps,
            "update/loss": -1.0 / step,
        }
        | ({"eval/sampled_success": step / steps} if step % 5 == 0 else {})
        for step in range(1, steps + 1)
    ]


def make_held_out(name: str, *, sampled: Sequence[Outcome], greedy: Sequence[Outcome]) -> HeldOut:
    """An evaluation of problems whose texts are made of their ids."""
    ids = {outcome.problem for outcome in (*sampled, *greedy)}
    return HeldOut(
        name=name,
        outcomes={"sampled": sampled, "greedy": greedy},
        texts={id: (f"What is {id}?", f"{id}!") for id in ids},
    )
