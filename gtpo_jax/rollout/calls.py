"""Tool calls in flight, and verdicts on trajectories that have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

from gtpo_jax import tools, verifiers
from gtpo_jax.rollout.slots import Finished, Slot
from gtpo_jax.types import StopReason, Tool, ToolResult, Trajectory, Verifier

TOOL_GRACE_SECONDS = 0.05
"""Longest wait between two segments for calls that were just made."""

WAIT_SECONDS = 0.2
"""Longest wait between two reports of progress while only tools are at work."""


class Calls:
    """The calls and the verdicts of one rollout."""

    def __init__(self, tool: Tool, verifier: Verifier, *, lockstep: bool):
        self.tool = tool
        self.verifier = verifier
        self.lockstep = lockstep
        self.made = 0
        self.seconds = 0.0  # wall seconds inside tools, summed over calls
        self.finished: dict[int, Finished] = {}  # by number of the request

    def make(self, slot: Slot, codes: Sequence[str]) -> None:
        """Queues the calls of a turn."""
        slot.to_submit = list(codes)
        slot.called_at = self.made
        self.made += len(codes)

    def submit(self, slots: Iterable[Slot]) -> list[futures.Future[ToolResult]]:
        """Submits queued calls, the oldest first, until the tool is busy; returns those it took."""
        submitted: list[futures.Future[ToolResult]] = []
        for slot in sorted(slots, key=lambda slot: slot.called_at):
            while slot.to_submit:
                try:
                    call = self.tool.submit(slot.to_submit[0])
                except tools.ExecutorBusy:
                    return submitted
                slot.to_submit.pop(0)
                slot.calls.append(call)
                submitted.append(call)
        return submitted

    def wait_briefly(
        self,
        submitted: Sequence[futures.Future[ToolResult]],
        *,
        active: int,
        segment_seconds: float,
    ) -> None:
        """Gives calls that were just made a moment to return, so that rows re-enter together.

        `active` rows idle meanwhile; a segment takes about `segment_seconds`.
        """
        begun, left = time.perf_counter(), set(submitted)
        while left:
            grace = self._grace(len(left), active, segment_seconds)
            time_left = begun + grace - time.perf_counter()
            if time_left <= 0:
                return
            _, left = futures.wait(left, time_left, return_when=futures.FIRST_COMPLETED)

    def _grace(self, calls: int, active: int, segment_seconds: float) -> float:
        """Seconds after they were made for which so many calls are worth waiting for.

        Waiting idles the active rows; not waiting idles the callers for one segment. Wait until the
        two costs are equal: that costs at most twice the better choice, however long the calls
        take. In lockstep every call is waited for.
        """
        if self.lockstep:
            return threading.TIMEOUT_MAX / 2
        even = segment_seconds * calls / active if active else TOOL_GRACE_SECONDS
        return min(even, TOOL_GRACE_SECONDS)

    def wait_for_any(self, waiting: Sequence[Slot]) -> None:
        """Waits a while for the first call to return: there is nothing else to do."""
        calls = [call for slot in waiting for call in slot.calls]
        futures.wait(calls, timeout=WAIT_SECONDS, return_when=futures.FIRST_COMPLETED)
        if not calls:
            time.sleep(TOOL_GRACE_SECONDS)  # the tool is busy with calls of others

    def returned(self, waiting: Sequence[Slot]) -> Iterator[tuple[Slot, tuple[ToolResult, ...]]]:
        """The slots whose calls have all returned, the oldest first, with their results."""
        for slot in sorted(waiting, key=lambda slot: slot.called_at):
            if not slot.to_submit and all(call.done() for call in slot.calls):
                results = slot.results()
                self.seconds += sum(result.wall_seconds for result in results)
                yield slot, results

    def finish(self, slot: Slot, stop: StopReason, answer: str | None) -> None:
        """Records that a trajectory has ended, and submits its answer to the verifier."""
        verdict = verifiers.submit(self.verifier, slot.request.problem, answer)
        self.finished[slot.number] = Finished(slot, stop, answer, verdict)

    def trajectories(self) -> list[Trajectory]:
        """All finished trajectories in the order of the requests; waits for their verdicts."""
        return [self.finished[number].trajectory() for number in sorted(self.finished)]

    def cancel(self, under_way: Iterable[Slot]) -> None:
        """Cancels the calls and the verdicts still in flight."""
        for slot in under_way:
            slot.cancel()
        for finished in self.finished.values():
            finished.verdict.cancel()
