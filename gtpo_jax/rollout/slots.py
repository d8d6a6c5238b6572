"""Slots: the host's records of the trajectories that are under way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent import futures

import jax
import numpy as np

from gtpo_jax.decoding import sampling
from gtpo_jax.language.grammar import AnyDialogue, ParsedTurn, turn_violation
from gtpo_jax.types import (
    Candidates,
    Request,
    StopReason,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    Verdict,
)


class Slot:
    """One trajectory under way: in a row, in the lot, or in neither as long as its script goes on.

    `lead` is the beginning of its first sampled turn, if there is one.
    """

    def __init__(
        self, number: int, request: Request, prompt: np.ndarray, *, lead: Turn | None = None
    ):
        self.number = number  # index of the request
        self.request = request
        self.prompt = prompt
        self.lead = lead
        self.turns: list[Turn] = list(request.turns)
        self.script = list(request.script)  # texts of turns that it still has to write
        self.length = len(prompt) + sum(len(t.tokens) + len(t.observation) for t in self.turns)
        self.limit = 0  # length at which the current turn must have ended
        self.placed = False  # it has begun in a row
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

    @property
    def plain(self) -> bool:
        """True if nothing but the prompt of its problem stands before what it samples."""
        return self.request.plain and not self.turns

    @property
    def prompt_key(self) -> tuple[str, str | None]:
        """Equal for slots with the same prompt."""
        return self.request.problem.id, self.request.question

    def open_turn(self, turn_limit: Callable[[int], int]) -> None:
        """Begins the next turn, with the lead if it is the first that is sampled."""
        self.limit = turn_limit(self.length)
        if self.lead is not None:
            self.length += len(self.lead.tokens)

    def write(self, draws: sampling.Draw, version: int) -> None:
        """Adds the samples of a decode segment; `version` is that of its parameters."""
        self.version = min(self.version, version) if self.written else version
        self.written.append(draws)
        self.length += len(draws.tokens)

    def tokens(self) -> np.ndarray:
        """The tokens that the cache has, or had before it was dropped, and the pending one."""
        parts = [part for turn in self.turns for part in (turn.tokens, turn.observation)]
        tokens = np.concatenate([self.prompt, *parts, self.current_turn()])
        return tokens[: len(tokens) - len(self.to_append)].astype(np.int32)

    def current_turn(self) -> np.ndarray:
        """The tokens of the turn under way, those of its lead included."""
        parts = [draws.tokens for draws in self.written]
        lead = [] if self.lead is None else [self.lead.tokens]
        return np.concatenate([*lead, *parts, np.zeros(0, np.int32)]).astype(np.int32)

    def read_turns(self, dialogue: AnyDialogue) -> None:
        """Parses the turns that it begins with, as the next one may depend on them."""
        for turn in self.turns:
            self.read = self._parse(dialogue, turn.tokens)

    def _parse(self, dialogue: AnyDialogue, tokens: np.ndarray) -> ParsedTurn:
        unmarked = self.request.problem.unit_tests is not None
        return dialogue.parse(tokens, before=self.read, unmarked=unmarked)

    def end_turn(self, dialogue: AnyDialogue) -> ParsedTurn:
        """Closes the current turn."""
        draws = jax.tree.map(lambda *parts: np.concatenate(parts), *self.written)
        version, given = self.version, 0
        if self.lead is not None:
            draws, given = _led(self.lead, draws), self.lead.given
            version = version if given else min(version, self.lead.version)
        self.lead, self.written = None, []
        return self._close(
            dialogue,
            Turn(
                tokens=draws.tokens,
                logprobs=draws.logprobs,
                sampled_logprobs=draws.sampled_logprobs,
                entropies=draws.entropies,
                candidates=draws.candidates,
                version=version,
                given=given,
                text="",
            ),
        )

    def play_turn(self, dialogue: AnyDialogue) -> ParsedTurn:
        """Writes the next turn of the script."""
        tokens = dialogue.turn(self.script.pop(0), before=self.read)
        self.length += len(tokens)
        nothing = np.zeros(0, np.float32)
        return self._close(dialogue, Turn(tokens=tokens, logprobs=nothing, text=""))

    def _close(self, dialogue: AnyDialogue, turn: Turn) -> ParsedTurn:
        """Adds a turn, with its text, codes and violation."""
        parsed = self.read = self._parse(dialogue, turn.tokens)
        self.ended = bool(turn.tokens[-1] in dialogue.stop_ids)
        violation = turn_violation(parsed, len(self.turns))
        self.turns.append(
            dataclasses.replace(turn, text=parsed.text, codes=parsed.codes, violation=violation)
        )
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
        if self.placed:
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
            shared_turns=len(self.request.turns),
            off_policy=bool(self.request.script),
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


def _led(lead: Turn, draws: sampling.Draw) -> sampling.Draw:
    """The draws of a turn after those of its lead; 0, or no candidate, where the lead has none."""
    count = len(lead.tokens)

    def after(values: np.ndarray, drawn: np.ndarray, blank: float = 0.0) -> np.ndarray:
        if len(values) != count:
            values = np.full((count, *drawn.shape[1:]), blank, drawn.dtype)
        return np.concatenate([values, drawn]).astype(drawn.dtype)

    candidates = draws.candidates
    if candidates is not None:
        none = Candidates(np.zeros(0), np.zeros(0))
        known = lead.candidates or none
        candidates = Candidates(
            after(known.ids, candidates.ids), after(known.logprobs, candidates.logprobs, -np.inf)
        )
    return sampling.Draw(
        tokens=after(lead.tokens, draws.tokens),
        logprobs=after(lead.logprobs, draws.logprobs),
        sampled_logprobs=after(lead.sampled_logprobs, draws.sampled_logprobs),
        entropies=after(lead.entropies, draws.entropies),
        candidates=candidates,
    )


def _result(call: futures.Future[ToolResult]) -> ToolResult:
    try:
        return call.result()
    except Exception as error:
        return ToolResult(status=ToolStatus.INFRA_ERROR, stderr=f"{type(error).__name__}: {error}")
