"""Slots: the host's records of the trajectories that are under way."""

from __future__ import annotations

import dataclasses
from concurrent import futures

import jax
import numpy as np

from gtpo_jax.decoding import sampling
from gtpo_jax.language.grammar import AnyDialogue, ParsedTurn, turn_violation
from gtpo_jax.types import (
    Request,
    StopReason,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    Verdict,
)


class Slot:
    """One trajectory under way, in a row or in the lot."""

    def __init__(self, number: int, request: Request, prompt: np.ndarray):
        self.number = number  # index of the request
        self.request = request
        self.prompt = prompt
        self.length = len(prompt)
        self.limit = 0  # length at which the current turn must have ended
        self.turns: list[Turn] = []
        self.read: ParsedTurn | None = None  # the last turn, parsed
        self.written: list[sampling.Draw] = []  # the current turn, segment by segment
        self.version = 0  # of the oldest parameters that sampled the current turn
        self.ended = True  # the last turn sampled its own end marker
        self.to_submit: list[str] = []  # codes that the tool had no room for yet
        self.calls: list[futures.Future[ToolResult]] = []
        self.called_at = 0  # how many calls the rollout had made before
        self.to_append = np.zeros(0, np.int32)  # observation not yet on the device

    @property
    def waiting(self) -> bool:
        """The last turn has calls whose results are not observed yet."""
        return bool(self.calls or self.to_submit)

    def write(self, draws: sampling.Draw, version: int) -> None:
        """Adds the samples of a decode segment; `version` is that of its parameters."""
        self.version = min(self.version, version) if self.written else version
        self.written.append(draws)
        self.length += len(draws.tokens)

    def history(self) -> np.ndarray:
        """The tokens after the prompt that the cache has, or had before it was dropped."""
        parts = [part for turn in self.turns for part in (turn.tokens, turn.observation)]
        parts += [draws.tokens for draws in self.written]
        tokens = np.concatenate([*parts, np.zeros(0, np.int32)])
        return tokens[: len(tokens) - len(self.to_append)]

    def end_turn(self, dialogue: AnyDialogue) -> ParsedTurn:
        """Closes the current turn."""
        draws = jax.tree.map(lambda *parts: np.concatenate(parts), *self.written)
        parsed = self.read = dialogue.parse(
            draws.tokens, before=self.read, unmarked=self.request.problem.unit_tests is not None
        )
        turn = Turn(
            tokens=draws.tokens,
            logprobs=draws.logprobs,
            sampled_logprobs=draws.sampled_logprobs,
            entropies=draws.entropies,
            candidates=draws.candidates,
            version=self.version,
            text=parsed.text,
            codes=parsed.codes,
            violation=turn_violation(parsed, len(self.turns)),
        )
        self.turns.append(turn)
        self.written = []
        self.ended = bool(draws.tokens[-1] in dialogue.stop_ids)
        return parsed

    def stop_reason(
        self, parsed: ParsedTurn, *, whole: bool, turn_tokens: int, max_turns: int
    ) -> StopReason | None:
        """Why the trajectory ends with the turn just closed; None: it goes on.

        `whole`: the turn ended by itself, with its marker or a stop string.
        """
        if not whole:
            # A turn that used its whole budget is at fault; one that the context cut short is not.
            full = len(self.turns[-1].tokens) >= turn_tokens
            return StopReason.TURN_LIMIT if full else StopReason.CONTEXT_FULL
        if parsed.answer is not None:
            return StopReason.ANSWERED
        if not parsed.acts:
            return StopReason.NO_ACTION
        if len(self.turns) == max_turns:
            return StopReason.MAX_TURNS
        return None

    def results(self) -> tuple[ToolResult, ...]:
        """Results of the calls of the last turn, all done. A tool that raises counts as broken."""
        return tuple(map(_result, self.calls))

    def observe(
        self, observation: np.ndarray, dropped: int, results: tuple[ToolResult, ...]
    ) -> None:
        """Adds the observation and the results of its calls to the last turn."""
        self.turns[-1] = dataclasses.replace(
            self.turns[-1], observation=observation, observation_dropped=dropped, results=results
        )
        self.calls = []
        self.length += len(observation)
        self.to_append = observation

    def end_unobserved(self, results: tuple[ToolResult, ...]) -> None:
        """Keeps the results of the last calls, which the policy never reads."""
        self.observe(np.zeros(0, np.int32), 0, results)

    def next_chunk(self, width: int) -> np.ndarray:
        """Takes up to `width` tokens of the observation that is not on the device yet."""
        chunk, self.to_append = self.to_append[:width], self.to_append[width:]
        return chunk

    def cancel(self) -> None:
        """Cancels the calls still in flight."""
        for call in self.calls:
            call.cancel()

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


@dataclasses.dataclass(frozen=True)
class Finished:
    """A trajectory that has ended, and the verdict on it, which may still be due."""

    slot: Slot
    stop: StopReason
    answer: str | None
    verdict: futures.Future[Verdict]

    def trajectory(self) -> Trajectory:
        """The finished record; waits for the verdict."""
        return self.slot.trajectory(self.stop, self.verdict.result(), self.answer)


def _result(call: futures.Future[ToolResult]) -> ToolResult:
    try:
        return call.result()
    except Exception as error:
        return ToolResult(status=ToolStatus.INFRA_ERROR, stderr=f"{type(error).__name__}: {error}")
