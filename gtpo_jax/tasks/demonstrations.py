"""Plays demonstration scripts with the real tool, and writes them as trajectories for SFT."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from gtpo_jax import tools, verifiers
from gtpo_jax.language.grammar import AnyDialogue, turn_violation, violation_output
from gtpo_jax.tasks.source import Answer, Call, Script
from gtpo_jax.types import (
    Problem,
    StopReason,
    Tool,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    Verdict,
    Verifier,
)


@dataclasses.dataclass(frozen=True)
class PlayedCall:
    """A call, the result of the tool, and the output that the demonstrator read."""

    call: Call
    result: ToolResult | None  # None if the call was not well formed
    output: str


@dataclasses.dataclass(frozen=True)
class Played:
    """A script that was played to its end."""

    problem: Problem
    calls: tuple[PlayedCall, ...]
    answer: Answer


@dataclasses.dataclass
class _Stage:
    """A script that is being played."""

    problem: Problem
    script: Script
    action: Call | Answer
    calls: list[PlayedCall] = dataclasses.field(default_factory=list)


def play(
    scripts: Iterable[tuple[Problem, Script]], dialogue: AnyDialogue, tool: Tool
) -> list[Played]:
    """Runs scripts with the tool: all first calls at once, then all second calls, and so on.

    The reply to a call that is not closed is its violation of the dialogue. Raises `RuntimeError`
    if the tool itself breaks: that is nothing to imitate.
    """
    stages = [_Stage(problem, script, next(script)) for problem, script in scripts]
    while calling := [(stage, stage.action) for stage in stages if isinstance(stage.action, Call)]:
        futures = [
            tools.submit_when_free(tool, call.code) if call.closed else None for _, call in calling
        ]
        for (stage, call), future in zip(calling, futures, strict=True):
            if future is None:
                result = None
                unclosed = dialogue.parse(dialogue.unclosed_call(call.thought, call.code))
                output = violation_output(unclosed.violation or "")
            else:
                result = future.result()
                if result.status is ToolStatus.INFRA_ERROR:
                    raise RuntimeError(
                        f"the tool broke in the demonstration of problem {stage.problem.id!r}:"
                        f" {result.stderr or 'no reason given'}"
                    )
                output = tools.render_tool_result(result)
            stage.calls.append(PlayedCall(call, result, output))
            stage.action = stage.script.send(output)
    return [
        Played(stage.problem, tuple(stage.calls), stage.action)
        for stage in stages
        if isinstance(stage.action, Answer)
    ]


def demonstrate(
    scripts: Iterable[tuple[Problem, Script]],
    dialogue: AnyDialogue,
    tool: Tool,
    verifier: Verifier,
    *,
    max_observation_tokens: int,
) -> list[Trajectory]:
    """One trajectory per script. Log-probs of turns are 0, since they were not sampled."""
    episodes = play(scripts, dialogue, tool)
    # Submit all answers before waiting for the first verdict.
    verdicts = [
        verifiers.submit(verifier, played.problem, played.answer.text) for played in episodes
    ]
    return [
        _trajectory(index, played, dialogue, verdict.result(), max_observation_tokens)
        for index, (played, verdict) in enumerate(zip(episodes, verdicts, strict=True))
    ]


def _trajectory(
    index: int, played: Played, dialogue: AnyDialogue, verdict: Verdict, budget: int
) -> Trajectory:
    turns: list[Turn] = []
    parsed = None

    def write(tokens: np.ndarray, **observed) -> None:
        nonlocal parsed
        parsed = dialogue.parse(tokens, before=parsed)
        turns.append(
            Turn(
                tokens=tokens,
                logprobs=np.zeros(len(tokens), np.float32),
                text=parsed.text,
                codes=parsed.codes,
                violation=turn_violation(parsed, len(turns)),
                **observed,
            )
        )

    for step in played.calls:
        render = dialogue.call if step.call.closed else dialogue.unclosed_call
        tokens = render(step.call.thought, step.call.code, before=parsed)
        ended = bool(tokens[-1] in dialogue.stop_ids)
        observation, dropped = dialogue.observation(step.output, budget=budget, ended=ended)
        write(
            tokens,
            results=() if step.result is None else (step.result,),
            observation=observation,
            observation_dropped=dropped,
        )
    write(dialogue.answer(played.answer.thought, played.answer.text, before=parsed))
    return Trajectory(
        problem=played.problem,
        group=index,
        sample=0,
        prompt=dialogue.prompt(played.problem.question),
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
        verdict=verdict,
        answer=played.answer.text,
    )
