"""The host loop: what happens between two decode segments.

A slot holds one trajectory. Between two decode segments the loop reads the samples, submits the
calls of turns that ended, appends the observations of calls that returned, and refills the rows of
trajectories that ended. Rows in the middle of a turn go on meanwhile. Turns of a script are played
on the host, and need no row.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from gtpo_jax import tools
from gtpo_jax.language.grammar import AnyDialogue, ParsedTurn, violation_output
from gtpo_jax.rollout.calls import Calls
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.rows import Rows
from gtpo_jax.rollout.slots import Slot
from gtpo_jax.types import StopReason, ToolResult, ToolStatus, Trajectory


class Loop:
    """One rollout under way."""

    def __init__(
        self,
        slots: Sequence[Slot],
        rows: Rows,
        calls: Calls,
        dialogue: AnyDialogue,
        limits: RolloutLimits,
    ):
        """`slots`: the trajectories to produce, in order."""
        self.total = len(slots)
        self.rows = rows
        self.calls = calls
        self.dialogue = dialogue
        self.limits = limits
        self.queue = deque(slot for slot in slots if not slot.script)  # in want of a row
        self.playing = [slot for slot in slots if slot.script]  # in the middle of their scripts
        self.unplayed = list(self.playing)

    def advance(self) -> None:
        """Plays scripts, fills rows, decodes a segment, serves tools, trades and extends rows."""
        for slot in self.unplayed:
            self._play(slot)
        self.unplayed = []
        self._refill()
        if self.rows.active.any():
            self._decode()
        self._call_tools()
        self.rows.trade(self.rows.trades(self._left))
        self.rows.append_observations()

    @property
    def done(self) -> bool:
        """Every trajectory has ended; verdicts may still be due."""
        return len(self.calls.finished) == self.total

    def progress(self) -> RolloutProgress:
        return RolloutProgress(
            finished=len(self.calls.finished),
            total=self.total,
            sampled_tokens=self.rows.costs.sampled_tokens,
            active_rows=int(self.rows.active.sum()),
            tools_in_flight=sum(len(slot.calls) for slot in self._under_way()),
        )

    def stats(self) -> RolloutStats:
        return RolloutStats(
            **dataclasses.asdict(self.rows.costs),
            tool_calls=self.calls.made,
            tool_seconds=self.calls.seconds,
        )

    def trajectories(self) -> list[Trajectory]:
        """All trajectories in the order of the requests; waits for their verdicts."""
        return self.calls.trajectories()

    def cancel(self) -> None:
        """Cancels the calls and the verdicts still in flight."""
        self.calls.cancel(self._under_way())

    def _under_way(self) -> Iterator[Slot]:
        """Every trajectory that may have calls in flight."""
        return itertools.chain(self.rows.under_way(), self.playing)

    @property
    def _left(self) -> int:
        """Number of trajectories that wait for their first row."""
        return len(self.queue)

    def _play(self, slot: Slot) -> None:
        """Writes the next turn of a script."""
        parsed = slot.play_turn(self.dialogue)
        if slot.length > self.limits.context:
            slot.turns.pop()
            self._finish(slot, StopReason.CONTEXT_FULL, None)
        else:
            self._go_on(slot, parsed, whole=True)

    def _refill(self) -> None:
        """Begins further trajectories in free rows."""
        slots, room = [], len(self.rows.free)
        while self.queue and len(slots) < room:
            slot = self.queue.popleft()
            slot.open_turn(self.limits.turn_limit)
            if slot.length < self.limits.context:
                slots.append(slot)
            else:  # as in `_observe`
                self._finish(slot, StopReason.CONTEXT_FULL, None)
        if slots:
            self.rows.admit(slots, self.queue)

    def _decode(self) -> None:
        """One segment: turns go on, and some of them end."""
        rows = self.rows
        # Rows that have ended are worth a look before the others have, if anybody could use them.
        others = self._left > 0 or bool(rows.lot.slots or self.playing)
        wanted = others or any(slot.waiting for slot in rows.slots.values())
        for slot, matched in rows.segment(early=wanted):
            self._end_turn(slot, matched=matched)

    def _end_turn(self, slot: Slot, *, matched: bool) -> None:
        parsed = slot.end_turn(self.dialogue)
        self._go_on(slot, parsed, whole=slot.ended or matched)

    def _go_on(self, slot: Slot, parsed: ParsedTurn, *, whole: bool) -> None:
        """Ends the trajectory after a turn, or does what the turn asks for."""
        stop = slot.stop_reason(
            parsed,
            whole=whole,
            turn_tokens=self.limits.turn_tokens,
            max_turns=self.limits.max_turns,
        )
        if stop is not None:
            self._finish(slot, stop, parsed.answer)
        elif parsed.codes:
            self.calls.make(slot, parsed.codes)
        else:
            self._observe(slot, violation_output(parsed.violation or ""), ())

    def _call_tools(self) -> None:
        """Submits queued calls, and observes the turns whose calls have all returned.

        Older calls are only polled, unless there is nothing else to do but to wait for them.
        """
        rows, calls = self.rows, self.calls
        submitted = calls.submit(self._under_way())
        if submitted:
            active = int(rows.active.sum())
            calls.wait_briefly(submitted, active=active, segment_seconds=rows.segment_seconds)
        waiting = [slot for slot in self._under_way() if slot.waiting]
        if waiting and not rows.active.any() and not self._has_work():
            calls.wait_for_any(waiting)
        for slot, results in calls.returned(waiting):
            self._return_calls(slot, results)

    def _has_work(self) -> bool:
        """Something besides calls in flight can go on: rows to extend, to fill or to trade."""
        free = self._left > 0 and len(self.rows.slots) < self.limits.slots
        return (
            free
            or bool(self.unplayed)
            or self.rows.must_append
            or bool(self.rows.trades(self._left))
        )

    def _return_calls(self, slot: Slot, results: tuple[ToolResult, ...]) -> None:
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
            if slot.script:
                self.unplayed.append(slot)
            elif slot in self.playing:
                self.playing.remove(slot)
                self.queue.append(slot)
            else:
                slot.open_turn(self.limits.turn_limit)

    def _finish(self, slot: Slot, stop: StopReason, answer: str | None) -> None:
        self.rows.remove(slot)
        if slot in self.playing:
            self.playing.remove(slot)
        self.calls.finish(slot, stop, answer)
