"""The host loop: what happens between two decode segments.

Every slot holds one trajectory. Between two decode segments the loop reads what was sampled,
submits the calls of turns that ended, appends the observations of calls that returned, and refills
the slots of trajectories that ended. Rows in the middle of a turn go on meanwhile.
"""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING

import jax
import numpy as np

from gtpo_jax import decoding, tools, verifiers
from gtpo_jax.language.grammar import violation_output
from gtpo_jax.rollout.limits import fitting, given
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.slots import Finished, Request, Slot
from gtpo_jax.types import Params, Problem, StopReason, ToolResult, ToolStatus, Trajectory

if TYPE_CHECKING:
    from gtpo_jax.rollout.engine import RolloutEngine

TOOL_GRACE_SECONDS = 0.05
"""How long a segment boundary waits at most for the calls that were made at it."""

WAIT_SECONDS = 0.2
"""How often progress is told while there is nothing to do but to wait for tools."""

EARLY_SHARE = 8
"""A segment ends early once one in so many slots has ended its turn, and others wait."""


class Loop:
    """One rollout under way."""

    def __init__(
        self,
        engine: RolloutEngine,
        params: Params,
        requests: Sequence[Request],
        prompts: dict[str, np.ndarray],
        *,
        seed: int,
        step: int,
        version: int,
    ):
        self.engine = engine
        self.limits = engine.limits
        self.dialogue = engine.dialogue
        self.params, self.version = params, version
        self.requests = requests
        self.prompts = prompts
        self.seed, self.step = np.uint32(seed % 2**32), np.uint32(step)
        self.positions = self.limits.cache_lengths[0]
        self.state = engine.programs.init(self.limits.slots, self.positions)
        self.lot = engine.make_lot()
        self.slots: dict[int, Slot] = {}  # by row
        self.active = np.zeros(self.limits.slots, bool)
        self.holds: dict[int, str] = {}  # row → problem whose prompt its cache begins with
        self.started = 0
        self.finished: dict[int, Finished] = {}  # by number of the request
        self.sampled_tokens = self.row_steps = self.tool_calls = 0
        self.prefilled_tokens = self.extended_tokens = 0
        self.tool_seconds = 0.0
        self.segment_seconds = 0.0  # what the last decode segment took

    def advance(self) -> None:
        """Refill, one decode segment, tools, rows for those who can use them, observations."""
        while self.started < len(self.requests) and len(self.slots) < self.limits.slots:
            self._refill()
        if self.active.any():
            self._decode()
        self._collect_calls(self._submit_calls())
        self._exchange(self._moves())
        while any(len(slot.to_append) for slot in self.slots.values()):
            chunks = {
                row: (slot.next_chunk(self.limits.extend_width), not len(slot.to_append))
                for row, slot in self.slots.items()
                if len(slot.to_append)
            }
            self._extend(chunks)

    def refresh(self, params: Params, version: int) -> None:
        """Goes on with other parameters: no key or value of the old ones is used again."""
        self.params, self.version = params, version
        self.holds.clear()
        self._compute_anew(self.slots)
        # Those in the lot have their turn in the rows of others, who come back as they were.
        active, parked = self.active.copy(), list(self.lot.slots)
        for begin in range(0, len(parked), self.limits.slots):
            moves = list(enumerate(parked[begin : begin + self.limits.slots]))
            self._exchange(moves)
            self.active[: len(moves)] = False
            self._compute_anew({row: self.slots[row] for row, _ in moves})
            self._exchange(moves)
            self.active = active.copy()

    def _compute_anew(self, slots: dict[int, Slot]) -> None:
        """Computes the caches of the rows of these slots from the tokens that they stand for."""
        active = self.active.copy()
        histories = {row: slot.history() for row, slot in slots.items()}
        for begins in (False, True):  # a row goes on behind its last token, the prompt's perhaps
            rows = {
                row: slot.request.problem
                for row, slot in slots.items()
                if (active[row] and not len(histories[row])) == begins
            }
            while rows:
                rows = self._prefill(rows, begins=begins)
        width = self.limits.extend_width
        while histories := {row: tokens for row, tokens in histories.items() if len(tokens)}:
            self._extend(
                {
                    row: (tokens[:width], bool(active[row]) and len(tokens) <= width)
                    for row, tokens in histories.items()
                }
            )
            histories = {row: tokens[width:] for row, tokens in histories.items()}

    @property
    def done(self) -> bool:
        """Every trajectory has ended; verdicts may still be due."""
        return len(self.finished) == len(self.requests)

    def trajectories(self) -> list[Trajectory]:
        """All of them in the order of the requests, once their verdicts are there."""
        return [self.finished[number].trajectory() for number in range(len(self.requests))]

    def cancel(self) -> None:
        """Gives up the calls and the verdicts still in flight."""
        for slot in self._under_way():
            slot.cancel()
        for finished in self.finished.values():
            finished.verdict.cancel()

    def progress(self) -> RolloutProgress:
        return RolloutProgress(
            finished=len(self.finished),
            total=len(self.requests),
            sampled_tokens=self.sampled_tokens,
            active_rows=int(self.active.sum()),
            tools_in_flight=sum(len(slot.calls) for slot in self._under_way()),
        )

    def stats(self) -> RolloutStats:
        return RolloutStats(
            sampled_tokens=self.sampled_tokens,
            row_steps=self.row_steps,
            prefilled_tokens=self.prefilled_tokens,
            extended_tokens=self.extended_tokens,
            tool_calls=self.tool_calls,
            tool_seconds=self.tool_seconds,
        )

    def _under_way(self) -> Iterator[Slot]:
        """Every trajectory that has begun and not ended."""
        return itertools.chain(self.slots.values(), self.lot.slots.values())

    def _moves(self) -> list[tuple[int, int]]:
        """Pairs of a row and a place of the lot that should trade places.

        Rows that are free, or whose trajectories wait for tools, go to trajectories of the lot
        whose tools have returned; then new requests may take those of others that wait.
        """
        free = [row for row in range(self.limits.slots) if row not in self.slots]
        waiting = [row for row, slot in self.slots.items() if slot.waiting]
        moves = list(zip([*free, *waiting], self.lot.ready, strict=False))
        new = len(self.requests) - self.started - max(len(free) - len(moves), 0)
        leaving = waiting[max(len(moves) - len(free), 0) :]
        return moves + list(zip(leaving[: max(new, 0)], self.lot.free, strict=False))

    def _exchange(self, moves: list[tuple[int, int]]) -> None:
        if not moves:
            return
        self.state = self.lot.exchange(self.state, moves)
        for row, place in moves:
            coming, leaving = self.lot.slots.pop(place, None), self.slots.pop(row, None)
            self.holds.pop(row, None)
            if coming is not None:
                self.slots[row] = coming
            if leaving is not None:
                self.lot.slots[place] = leaving

    def _refill(self) -> None:
        """Puts waiting requests into free rows."""
        rows: dict[int, Problem] = {}
        for row in sorted(set(range(self.limits.slots)) - set(self.slots)):
            if self.started == len(self.requests):
                break
            request = self.requests[self.started]
            slot = Slot(self.started, request, self.prompts[request.problem.id])
            slot.limit = self._turn_limit(slot)
            self.slots[row] = slot
            self.started += 1
            rows[row] = request.problem
        while rows:
            rows = self._prefill(rows, begins=True)

    def _prefill(self, rows: dict[int, Problem], *, begins: bool) -> dict[int, Problem]:
        """Begins rows with the prompts of their slots; returns those that found no room.

        A prompt is computed once: a row of the same problem, of whatever call, gets a copy.
        """
        limits = self.limits
        holder = {problem: row for row, problem in self.holds.items()}
        new: dict[str, int] = {}  # problem → its index among the prompts of the call
        placed: dict[int, str] = {}
        for row, problem in rows.items():
            if problem.id not in holder and problem.id not in new:
                if len(new) == limits.prefill_prompts:
                    continue
                new[problem.id] = len(new)
            placed[row] = problem.id
        prompts = {problem: self.prompts[problem] for problem in {*placed.values()}}
        count = fitting(limits.prompt_counts, len(new))
        width = fitting(limits.prompt_widths, max(map(len, prompts.values())))
        tokens = np.zeros((count, width), np.int32)
        for problem, index in new.items():
            tokens[index, : len(prompts[problem])] = prompts[problem]
        source = np.full(limits.slots, -1, np.int32)
        lengths, pending, row_limits = (np.zeros(limits.slots, np.int32) for _ in range(3))
        problems, samples = (np.zeros(limits.slots, np.uint32) for _ in range(2))
        for row, problem in placed.items():
            slot, prompt = self.slots[row], prompts[problem]
            source[row] = new[problem] if problem in new else count + holder[problem]
            lengths[row], pending[row] = len(prompt) - 1, prompt[-1]
            row_limits[row] = slot.limit
            problems[row] = zlib.crc32(problem.encode())
            samples[row] = slot.request.sample
        self.state = self.engine.programs.prefill(
            self.params,
            self.state,
            decoding.Prompts(
                tokens=given(tokens),
                source=given(source),
                lengths=given(lengths),
                pending=given(pending),
                keys=self.engine.trajectory_keys(self.seed, self.step, problems, samples),
                limits=given(row_limits),
                begins=given(np.bool_(begins)),
            ),
        )
        self.prefilled_tokens += count * width
        for row, problem in placed.items():
            self.holds[row] = problem
            self.active[row] = begins
        return {row: problem for row, problem in rows.items() if row not in placed}

    def _decode(self) -> None:
        """One segment: turns go on, and some of them end."""
        limits, rows = self.limits, list(map(int, np.flatnonzero(self.active)))
        slots = [self.slots[row] for row in rows]
        self._make_room(max(min(s.limit, s.length + limits.segment_steps) for s in slots))
        # Rows that have ended are worth a look before the others have, if anybody could use them.
        others = self.started < len(self.requests) or self.lot.slots
        wanted = others or any(slot.waiting for slot in self.slots.values())
        floor = len(rows) - max(1, limits.slots // EARLY_SHARE) if wanted else 0
        begun = time.perf_counter()
        self.state, segment = self.engine.programs.decode_segment(
            self.params, self.state, given(np.int32(max(floor, 0)))
        )
        sampled = jax.device_get(segment)
        self.segment_seconds = time.perf_counter() - begun
        self.sampled_tokens += int(sampled.counts.sum())
        self.row_steps += int(sampled.counts.max()) * limits.slots
        for row, slot in zip(rows, slots, strict=True):
            count = sampled.counts[row]
            slot.write(
                jax.tree.map(lambda x, r=row, n=count: x[r, :n], sampled.draws), self.version
            )
            if not sampled.active[row]:
                self._end_turn(slot, matched=bool(sampled.matched[row]))
        self.active = np.array(sampled.active)

    def _end_turn(self, slot: Slot, *, matched: bool) -> None:
        parsed = slot.end_turn(self.dialogue)
        stop = slot.stop_reason(
            parsed,
            whole=slot.ended or matched,
            turn_tokens=self.limits.turn_tokens,
            max_turns=self.limits.max_turns,
        )
        if stop is not None:
            self._finish(slot, stop, parsed.answer)
        elif parsed.codes:
            slot.to_submit = list(parsed.codes)
            slot.called_at = self.tool_calls
            self.tool_calls += len(parsed.codes)
        else:
            self._observe(slot, violation_output(parsed.violation or ""), ())

    def _submit_calls(self) -> list[futures.Future[ToolResult]]:
        """Hands the tool its calls, the oldest first, as many as it takes; returns those."""
        submitted: list[futures.Future[ToolResult]] = []
        for slot in sorted(self._under_way(), key=lambda slot: slot.called_at):
            while slot.to_submit:
                try:
                    call = self.engine.tool.submit(slot.to_submit[0])
                except tools.ExecutorBusy:
                    return submitted
                slot.to_submit.pop(0)
                slot.calls.append(call)
                submitted.append(call)
        return submitted

    def _collect_calls(self, submitted: Sequence[futures.Future[ToolResult]]) -> None:
        """Observes the turns whose calls have all returned, the oldest first.

        Calls just made get a moment to return, so that rows re-enter together; older ones are only
        polled. With nothing else to do, waits for whichever call returns first.
        """
        begun, left = time.perf_counter(), set(submitted)
        while left and (time_left := begun + self._grace(len(left)) - time.perf_counter()) > 0:
            _, left = futures.wait(left, time_left, return_when=futures.FIRST_COMPLETED)
        waiting = [slot for slot in self._under_way() if slot.waiting]
        if waiting and not self.active.any() and not self._has_work():
            calls = [call for slot in waiting for call in slot.calls]
            futures.wait(calls, timeout=WAIT_SECONDS, return_when=futures.FIRST_COMPLETED)
            if not calls:
                time.sleep(TOOL_GRACE_SECONDS)  # the tool is busy with others' calls
        for slot in sorted(waiting, key=lambda slot: slot.called_at):
            if not slot.to_submit and all(call.done() for call in slot.calls):
                self._return_calls(slot, slot.results())

    def _grace(self, calls: int) -> float:
        """Seconds after they were made that so many calls are worth waiting for.

        Whoever is not waited for idles for a segment, and all active rows idle while they wait: the
        wait is as long as makes both losses equal. It costs at most twice what the better of the
        two would have, however long the calls take. In lockstep every call is worth it.
        """
        if self.limits.lockstep:
            return threading.TIMEOUT_MAX / 2
        active = int(self.active.sum())
        even = self.segment_seconds * calls / active if active else TOOL_GRACE_SECONDS
        return min(even, TOOL_GRACE_SECONDS)

    def _has_work(self) -> bool:
        """Something besides calls in flight can go on: rows to extend, to fill or to exchange."""
        free = len(self.slots) < self.limits.slots and self.started < len(self.requests)
        extend = any(len(slot.to_append) for slot in self.slots.values())
        return free or extend or bool(self._moves())

    def _return_calls(self, slot: Slot, results: tuple[ToolResult, ...]) -> None:
        self.tool_seconds += sum(result.wall_seconds for result in results)
        if any(result.status is ToolStatus.INFRA_ERROR for result in results):
            slot.end_unobserved(results)
            self._finish(slot, StopReason.TOOL_FAILURE, None)
        else:
            self._observe(slot, [*map(tools.render_tool_result, results)], results)

    def _observe(
        self, slot: Slot, output: str | Sequence[str], results: tuple[ToolResult, ...]
    ) -> None:
        """Queues the observation of the last turn, or ends the trajectory when it has no room."""
        budget = self.limits.observation_tokens
        observation, dropped = self.dialogue.observation(output, budget=budget, ended=slot.ended)
        if slot.length + len(observation) >= self.limits.context:
            slot.end_unobserved(results)
            self._finish(slot, StopReason.CONTEXT_FULL, None)
        else:
            slot.observe(observation, dropped, results)
            slot.limit = self._turn_limit(slot)

    def _extend(self, chunks: dict[int, tuple[np.ndarray, bool]]) -> None:
        """Appends to each row its tokens; the row goes on decoding behind them where so told."""
        limits = self.limits
        self._make_room(max(self.slots[row].length for row in chunks))
        size, width = fitting(self.engine.extend_sizes, len(chunks)), limits.extend_width
        rows = np.full(size, limits.slots, np.int32)
        tokens = np.zeros((size, width), np.int32)
        counts, row_limits = (np.zeros(size, np.int32) for _ in range(2))
        begins = np.zeros(size, bool)
        for index, (row, (chunk, begin)) in enumerate(chunks.items()):
            at = row if size == limits.slots else index  # all rows: everyone at its own place
            rows[at] = row
            tokens[at, : len(chunk)] = chunk
            counts[at] = len(chunk)
            row_limits[at] = self.slots[row].limit
            begins[at] = begin
            self.active[row] |= begin
        appended = decoding.Appended(
            rows=given(rows),
            tokens=given(tokens),
            counts=given(counts),
            limits=given(row_limits),
            begins=given(begins),
        )
        self.state = self.engine.programs.extend(self.params, self.state, appended)
        self.extended_tokens += size * width

    def _make_room(self, needed: int) -> None:
        """Makes the cache longer, length by length, when it has to be."""
        for positions in self.limits.cache_lengths:
            if self.positions < positions and self.positions < needed:
                self.positions = positions
                self.lot.grow(positions)
                self.state = self.engine.programs.grow(self.state, positions)

    def _turn_limit(self, slot: Slot) -> int:
        """Length at which the turn that begins now must have ended."""
        return min(slot.length + self.limits.turn_tokens, self.limits.context)

    def _finish(self, slot: Slot, stop: StopReason, answer: str | None) -> None:
        for held in (self.slots, self.lot.slots):
            for at in [at for at, other in held.items() if other is slot]:
                del held[at]
        verdict = verifiers.submit(self.engine.verifier, slot.request.problem, answer)
        self.finished[slot.number] = Finished(slot, stop, answer, verdict)
