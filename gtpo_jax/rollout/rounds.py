"""Rounds: the rollouts of one collection, whose later requests go on from earlier trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.rollout.calls import Calls
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.loop import Loop
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats, RowCosts
from gtpo_jax.rollout.rows import Rows
from gtpo_jax.rollout.starts import make_slots
from gtpo_jax.types import Params, Request, Trajectory

Refresh = Callable[[], tuple[Params, int] | None]
"""Called between two segments; returns newer parameters and their version, or None."""


class Rounds:
    """Rollouts with the same parameters, seed and step, as `RolloutEngine.rounds` makes them.

    The rows keep their caches from one call to the next, so that a request whose beginning a row
    still holds computes only the rest. They are made anew for a call whose requests begin with
    nothing but prompts: those never depend on calls before. The caches are freed with this object.
    """

    def __init__(
        self,
        make_rows: Callable[[], Rows],
        make_calls: Callable[[], Calls],
        dialogue: AnyDialogue,
        limits: RolloutLimits,
        refresh: Refresh | None = None,
    ):
        self._make_rows = make_rows
        self._make_calls = make_calls
        self._dialogue = dialogue
        self._limits = limits
        self._refresh = refresh
        self._rows: Rows | None = None
        self._newest: tuple[Params, int] | None = None

    def __call__(
        self,
        requests: Sequence[Request],
        *,
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> tuple[list[Trajectory], RolloutStats]:
        """One trajectory per request, in their order."""
        slots = make_slots(requests, self._dialogue, self._limits)
        rows = self._rows_for(requests)
        self._rows = None  # an error on the way leaves them in no known state
        loop = Loop(slots, rows, self._make_calls(), self._dialogue, self._limits)
        try:
            while not loop.done:
                newer = self._refresh() if self._refresh is not None else None
                if newer is not None:
                    self._newest = newer
                    rows.refresh(*newer)
                loop.advance()
                if on_progress is not None:
                    on_progress(loop.progress())
            trajectories = loop.trajectories()
        finally:
            loop.cancel()
        self._rows = rows
        return trajectories, loop.stats()

    def _rows_for(self, requests: Sequence[Request]) -> Rows:
        rows = self._rows
        if rows is not None and not all(request.plain for request in requests):
            rows.costs = RowCosts()
            return rows
        self._rows = rows = None  # two caches would not fit beside each other
        rows = self._make_rows()
        if self._newest is not None:
            rows.params, rows.version = self._newest
        return rows
