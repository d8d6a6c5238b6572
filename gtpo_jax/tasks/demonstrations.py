"""Plays demonstration scripts against the real tool, as trajectories for supervised training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gtpo_jax import tools
from gtpo_jax.dialogue import Dialogue, turn_violation, violation_output
from gtpo_jax.tasks.source import Answer, Call, Script
from gtpo_jax.types import Problem, StopReason, Tool, ToolResult, Trajectory, Turn, Verifier


class _Play:
    """One script on stage."""

    def __init__(self, problem: Problem, script: Script):
        self.problem = problem
        self.script = script
        self.action: Call | Answer = next(script)
        self.turns: list[Turn] = []

    def call(self, dialogue: Dialogue, result: ToolResult | None, budget: int) -> None:
        """Records the call and sends its observation to the script."""
        call = self.action
        assert isinstance(call, Call)
        if result is None:
            tokens = dialogue.unclosed_call(call.thought, call.code)
            output = violation_output(dialogue.parse(tokens).violation)
        else:
            tokens = dialogue.call(call.thought, call.code)
            output = tools.render_tool_result(result)
        observation, dropped = dialogue.observation(output, budget=budget)
        self._write(
            dialogue,
            tokens,
            result=result,
            observation=observation,
            observation_dropped=dropped,
        )
        self.action = self.script.send(output)

    def finish(self, dialogue: Dialogue, verifier: Verifier, group: int) -> Trajectory:
        answer = self.action
        assert isinstance(answer, Answer)
        self._write(dialogue, dialogue.answer(answer.thought, answer.text))
        return Trajectory(
            problem=self.problem,
            group=group,
            sample=0,
            prompt=dialogue.prompt(self.problem.question),
            turns=tuple(self.turns),
            stop_reason=StopReason.ANSWERED,
            verdict=verifier(self.problem, answer.text),
            answer=answer.text,
        )

    def _write(self, dialogue: Dialogue, tokens: np.ndarray, **observed) -> None:
        parsed = dialogue.parse(tokens)
        turn = Turn(
            tokens=tokens,
            logprobs=np.zeros(len(tokens), np.float32),
            text=parsed.text,
            code=parsed.code,
            violation=turn_violation(parsed, len(self.turns)),
            **observed,
        )
        self.turns.append(turn)


def demonstrate(
    scripts: Iterable[tuple[Problem, Script]],
    dialogue: Dialogue,
    tool: Tool,
    verifier: Verifier,
    *,
    max_observation_tokens: int,
) -> list[Trajectory]:
    """One trajectory per script. All first calls run at once, then all second calls, and so on.

    The turns carry log-probs 0: nobody sampled them.
    """
    plays = [_Play(problem, script) for problem, script in scripts]
    while calling := [play for play in plays if isinstance(play.action, Call)]:
        futures = [tool.submit(p.action.code) if p.action.closed else None for p in calling]
        for play, future in zip(calling, futures, strict=True):
            result = None if future is None else future.result()
            play.call(dialogue, result, max_observation_tokens)
    return [play.finish(dialogue, verifier, index) for index, play in enumerate(plays)]
