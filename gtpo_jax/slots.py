"""The host's record of one row of a rollout: the trajectory that the row is busy with."""

from __future__ import annotations

import dataclasses
from concurrent import futures

import numpy as np

from gtpo_jax.dialogue import NO_ACTION, Dialogue, ParsedTurn, turn_violation
from gtpo_jax.types import Problem, StopReason, ToolResult, Trajectory, Turn, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One trajectory to produce."""

    problem: Problem
    group: int
    sample: int


class Slot:
    """The trajectory that a row is busy with."""

    def __init__(self, number: int, request: Request, prompt: np.ndarray):
        self.number = number  # index of the request
        self.request = request
        self.prompt = prompt
        self.length = len(prompt)
        self.turns: list[Turn] = []
        self.written: list[tuple[np.ndarray, np.ndarray]] = []  # the turn under way
        self.call: futures.Future[ToolResult] | None = None
        self.to_append = np.zeros(0, np.int32)  # observation not yet on the device

    def write(self, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Adds what a decode segment sampled."""
        self.written.append((tokens, logprobs))
        self.length += len(tokens)

    def end_turn(self, dialogue: Dialogue) -> ParsedTurn:
        """Closes the turn under way."""
        tokens = np.concatenate([tokens for tokens, _ in self.written])
        parsed = dialogue.parse(tokens)
        turn = Turn(
            tokens=tokens,
            logprobs=np.concatenate([logprobs for _, logprobs in self.written]),
            text=parsed.text,
            code=parsed.code,
            violation=turn_violation(parsed, len(self.turns)),
        )
        self.turns.append(turn)
        self.written = []
        return parsed

    def stop_reason(
        self, parsed: ParsedTurn, *, stop_ids: tuple[int, ...], turn_tokens: int, max_turns: int
    ) -> StopReason | None:
        """Why the trajectory ends with the turn just closed, if it does."""
        turn = self.turns[-1].tokens
        if turn[-1] not in stop_ids:
            # A turn that had its whole budget is at fault; one that the context cut short is not.
            whole = len(turn) >= turn_tokens
            return StopReason.TURN_LIMIT if whole else StopReason.CONTEXT_FULL
        if parsed.answer is not None:
            return StopReason.ANSWERED
        if parsed.violation == NO_ACTION:
            return StopReason.NO_ACTION
        if len(self.turns) == max_turns:
            return StopReason.MAX_TURNS
        return None

    def observe(self, observation: np.ndarray, dropped: int, result: ToolResult | None) -> None:
        """Gives the last turn its observation."""
        self.turns[-1] = dataclasses.replace(
            self.turns[-1], observation=observation, observation_dropped=dropped, result=result
        )
        self.length += len(observation)
        self.to_append = observation

    def end_unobserved(self, result: ToolResult | None) -> None:
        """Keeps the result of the last call; the policy never reads of it."""
        self.observe(np.zeros(0, np.int32), 0, result)

    def next_chunk(self, width: int) -> np.ndarray:
        """Takes at most `width` tokens from the observation not yet on the device."""
        chunk, self.to_append = self.to_append[:width], self.to_append[width:]
        return chunk

    def trajectory(self, stop: StopReason, verdict: Verdict, answer: str | None) -> Trajectory:
        """The finished record."""
        return Trajectory(
            problem=self.request.problem,
            group=self.request.group,
            sample=self.request.sample,
            prompt=self.prompt,
            turns=tuple(self.turns),
            stop_reason=stop,
            verdict=verdict,
            answer=answer,
        )
