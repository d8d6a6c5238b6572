"""The host loop: what happens between two decode segments.

A slot holds one trajectory. Between two decode segments the loop reads the samples, submits the
calls of turns that ended, appends the observations of calls that returned, and refills the rows of
trajectories that ended. Rows in the middle of a turn go on meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gtpo_jax import tools
from gtpo_jax.language.grammar import AnyDialogue, violation_output
from gtpo_jax.rollout.calls import Calls
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.rows import Rows
from gtpo_jax.rollout.slots import Slot
from gtpo_jax.types import Request, StopReason, ToolResult, ToolStatus, Trajectory


class Loop:
    """One rollout under way."""

    def __init__(
        self,
        requests: Sequence[Request],
        prompts: Mapping[str, np.ndarray],
        rows: Rows,
        calls: Calls,
        dialogue: AnyDialogue,
        limits: RolloutLimits,
    ):
        """`prompts`: ids of the prompt of every problem, by its id."""
        self.requests = requests
        self.prompts = prompts
        self.rows = rows
        self.calls = calls
        self.dialogue = dialogue
        self.limits = limits
        self.started = 0  # how many of the requests

    def advance(self) -> None:
        """Refills rows, decodes one segment, serves tools, trades rows, appends observations."""
        self._refill()
        if self.rows.active.any():
            self._decode()
        self._call_tools()
        self.rows.trade(self.rows.trades(self._left))
        self.rows.append_observations()

    @property
    def done(self) -> bool:
        """Every trajectory has ended; verdicts may still be due."""
        return len(self.calls.finished) == len(self.requests)

    def progress(self) -> RolloutProgress:
        return RolloutProgress(
            finished=len(self.calls.finished),
            total=len(self.requests),
            sampled_tokens=self.rows.costs.sampled_tokens,
            active_rows=int(self.rows.active.sum()),
            tools_in_flight=sum(len(slot.calls) for slot in self.rows.under_way()),
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
        self.calls.cancel(self.rows.under_way())

    @property
    def _left(self) -> int:
        """Number of requests that have not begun."""
        return len(self.requests) - self.started

    def _refill(self) -> None:
        """Begins further requests in free rows."""
        if not self._left:
            return
        slots: dict[int, Slot] = {}
        for row in self.rows.free[: self._left]:
            request = self.requests[self.started]
            slot = slots[row] = Slot(self.started, request, self.prompts[request.problem.id])
            slot.limit = self.limits.turn_limit(slot.length)
            self.started += 1
        self.rows.admit(slots)

    def _decode(self) -> None:
        """One segment: turns go on, and some of them end."""
        rows = self.rows
        # Rows that have ended are worth a look before the others have, if anybody could use them.
        others = self._left > 0 or bool(rows.lot.slots)
        wanted = others or any(slot.waiting for slot in rows.slots.values())
        for slot, matched in rows.segment(early=wanted):
            self._end_turn(slot, matched=matched)

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
            self.calls.make(slot, parsed.codes)
        else:
            self._observe(slot, violation_output(parsed.violation or ""), ())

    def _call_tools(self) -> None:
        """Submits queued calls, and observes the turns whose calls have all returned.

        Older calls are only polled, unless there is nothing else to do but to wait for them.
        """
        rows, calls = self.rows, self.calls
        submitted = calls.submit(rows.under_way())
        if submitted:
            active = int(rows.active.sum())
            calls.wait_briefly(submitted, active=active, segment_seconds=rows.segment_seconds)
        waiting = [slot for slot in rows.under_way() if slot.waiting]
        if waiting and not rows.active.any() and not self._has_work():
            calls.wait_for_any(waiting)
        for slot, results in calls.returned(waiting):
            self._return_calls(slot, results)

    def _has_work(self) -> bool:
        """Something besides calls in flight can go on: rows to extend, to fill or to trade."""
        free = self._left > 0 and len(self.rows.slots) < self.limits.slots
        return free or self.rows.must_append or bool(self.rows.trades(self._left))

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
            slot.limit = self.limits.turn_limit(slot.length)

    def _finish(self, slot: Slot, stop: StopReason, answer: str | None) -> None:
        self.rows.remove(slot)
        self.calls.finish(slot, stop, answer)
