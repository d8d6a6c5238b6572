"""The rows of a rollout on the device, and the slots that record their trajectories."""

from __future__ import annotations

import dataclasses
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from gtpo_jax import decoding
from gtpo_jax.decoding.shapes import fitting, given
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.lot import Lot
from gtpo_jax.rollout.slots import Slot
from gtpo_jax.types import Params

EARLY_SHARE = 8
"""With `early`, a segment ends once one in so many rows has ended its turn."""

Keys = Callable[[np.ndarray, np.ndarray], jax.Array]
"""`(problems [B] uint32, samples [B] uint32) → [B]` random keys of trajectories."""


@dataclasses.dataclass
class RowCosts:
    """The device work of a rollout so far; the fields are those of `RolloutStats`."""

    sampled_tokens: int = 0
    row_steps: int = 0
    prefilled_tokens: int = 0
    extended_tokens: int = 0


class Rows:
    """Rows in which trajectories are decoded, and the lot in which others wait for their tools."""

    def __init__(
        self,
        programs: decoding.DecodePrograms,
        limits: RolloutLimits,
        lot: Lot,
        *,
        extend_sizes: tuple[int, ...],
        keys: Keys,
        params: Params,
        version: int,
    ):
        """`extend_sizes`: how many rows one extend call may have, ascending."""
        self.programs = programs
        self.limits = limits
        self.lot = lot
        self.extend_sizes = extend_sizes
        self.keys = keys
        self.params, self.version = params, version
        self.positions = limits.cache_lengths[0]
        self.state = programs.init(limits.slots, self.positions)
        self.slots: dict[int, Slot] = {}  # by row
        self.active = np.zeros(limits.slots, bool)
        self.holds: dict[int, str] = {}  # row → problem whose prompt its cache begins with
        self.costs = RowCosts()
        self.segment_seconds = 0.0  # duration of the last decode segment

    @property
    def free(self) -> list[int]:
        return [row for row in range(self.limits.slots) if row not in self.slots]

    def under_way(self) -> Iterator[Slot]:
        """Every trajectory that has begun and not ended, in a row or in the lot."""
        return itertools.chain(self.slots.values(), self.lot.slots.values())

    @property
    def must_append(self) -> bool:
        """Some observations are not on the device yet."""
        return any(len(slot.to_append) for slot in self.slots.values())

    def admit(self, slots: Mapping[int, Slot]) -> None:
        """Begins trajectories in free rows; the keys of the mapping are the rows."""
        self.slots.update(slots)
        rows = list(slots)
        while rows:
            rows = self._prefill(rows, begins=True)

    def segment(self, *, early: bool) -> list[tuple[Slot, bool]]:
        """Decodes one segment; returns the slots whose turns ended.

        The flag beside a slot says whether the turn ended with a stop string. With `early`, the
        segment ends once some turns have ended, so that their rows can be used.
        """
        limits, rows = self.limits, list(map(int, np.flatnonzero(self.active)))
        slots = [self.slots[row] for row in rows]
        self._make_room(max(min(s.limit, s.length + limits.segment_steps) for s in slots))
        floor = len(rows) - max(1, limits.slots // EARLY_SHARE) if early else 0
        begun = time.perf_counter()
        self.state, segment = self.programs.decode_segment(
            self.params, self.state, given(np.int32(max(floor, 0)))
        )
        sampled = jax.device_get(segment)
        self.segment_seconds = time.perf_counter() - begun
        self.costs.sampled_tokens += int(sampled.counts.sum())
        self.costs.row_steps += int(sampled.counts.max()) * limits.slots
        ended = []
        for row, slot in zip(rows, slots, strict=True):
            count = sampled.counts[row]
            slot.write(
                jax.tree.map(lambda x, r=row, n=count: x[r, :n], sampled.draws), self.version
            )
            if not sampled.active[row]:
                ended.append((slot, bool(sampled.matched[row])))
        self.active = np.array(sampled.active)
        return ended

    def append_observations(self) -> None:
        """Appends every observation that is not on the device yet; then their turns begin."""
        while self.must_append:
            chunks = {
                row: (slot.next_chunk(self.limits.extend_width), not len(slot.to_append))
                for row, slot in self.slots.items()
                if len(slot.to_append)
            }
            self._extend(chunks)

    def trades(self, new: int) -> list[tuple[int, int]]:
        """Pairs of a row and a place of the lot that should trade places.

        Rows that are free, or whose trajectories wait for tools, go to trajectories of the lot
        whose tools have returned. Then the `new` requests that have not begun may take the rows of
        other trajectories that wait.
        """
        free = self.free
        waiting = [row for row, slot in self.slots.items() if slot.waiting]
        pairs = list(zip([*free, *waiting], self.lot.ready, strict=False))
        new -= max(len(free) - len(pairs), 0)
        leaving = waiting[max(len(pairs) - len(free), 0) :]
        return pairs + list(zip(leaving[: max(new, 0)], self.lot.free, strict=False))

    def trade(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Moves the trajectory of each row to its place of the lot, and the one there to the row.

        Either may be empty.
        """
        if not pairs:
            return
        self.state = self.lot.exchange(self.state, pairs)
        for row, place in pairs:
            coming, leaving = self.lot.slots.pop(place, None), self.slots.pop(row, None)
            self.holds.pop(row, None)
            if coming is not None:
                self.slots[row] = coming
            if leaving is not None:
                self.lot.slots[place] = leaving

    def remove(self, slot: Slot) -> None:
        """Frees the row or the place of a trajectory that has ended."""
        for slots in (self.slots, self.lot.slots):
            for at in [at for at, other in slots.items() if other is slot]:
                del slots[at]

    def refresh(self, params: Params, version: int) -> None:
        """Goes on with other parameters; all caches are recomputed with them."""
        self.params, self.version = params, version
        self.holds.clear()
        self._recompute(self.slots)
        # Trajectories of the lot borrow rows for this, whose own come back as they were.
        active, parked = self.active.copy(), list(self.lot.slots)
        for begin in range(0, len(parked), self.limits.slots):
            pairs = list(enumerate(parked[begin : begin + self.limits.slots]))
            self.trade(pairs)
            self.active[: len(pairs)] = False
            self._recompute({row: self.slots[row] for row, _ in pairs})
            self.trade(pairs)
            self.active = active.copy()

    def _recompute(self, slots: Mapping[int, Slot]) -> None:
        """Recomputes the caches of these slots' rows from their tokens."""
        active = self.active.copy()
        histories = {row: slot.history() for row, slot in slots.items()}
        # A row goes on after its last token, which is the prompt's where nothing follows that.
        for begins in (False, True):
            rows = [row for row in slots if (active[row] and not len(histories[row])) == begins]
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

    def _prefill(self, rows: Sequence[int], *, begins: bool) -> list[int]:
        """Begins rows with the prompts of their slots; returns the rows that found no room.

        A prompt is computed once: other rows of the same problem copy it, in later calls too.
        """
        limits = self.limits
        holder = {problem: row for row, problem in self.holds.items()}
        placed, new = self._place(rows, holder)
        prompts = {problem: self.slots[row].prompt for row, problem in placed.items()}
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
            self.holds[row] = problem
            self.active[row] = begins
        arguments = decoding.Prompts(
            tokens=given(tokens),
            source=given(source),
            lengths=given(lengths),
            pending=given(pending),
            keys=self.keys(problems, samples),
            limits=given(row_limits),
            begins=given(np.bool_(begins)),
        )
        self.state = self.programs.prefill(self.params, self.state, arguments)
        self.costs.prefilled_tokens += count * width
        return [row for row in rows if row not in placed]

    def _place(
        self, rows: Sequence[int], holder: Mapping[str, int]
    ) -> tuple[dict[int, str], dict[str, int]]:
        """The rows of one prefill call with their problems, and the prompts that it computes.

        Prompts are given as problem → index in the call. `holder` maps the problems whose prompts
        are in the cache of a row to that row.
        """
        placed: dict[int, str] = {}
        new: dict[str, int] = {}
        for row in rows:
            problem = self.slots[row].request.problem.id
            if problem not in holder and problem not in new:
                if len(new) == self.limits.prefill_prompts:
                    continue
                new[problem] = len(new)
            placed[row] = problem
        return placed, new

    def _extend(self, chunks: Mapping[int, tuple[np.ndarray, bool]]) -> None:
        """Appends tokens to rows; the flag says whether the row goes on decoding after them."""
        limits = self.limits
        self._make_room(max(self.slots[row].length for row in chunks))
        size, width = fitting(self.extend_sizes, len(chunks)), limits.extend_width
        rows = np.full(size, limits.slots, np.int32)
        tokens = np.zeros((size, width), np.int32)
        counts, row_limits = (np.zeros(size, np.int32) for _ in range(2))
        begins = np.zeros(size, bool)
        for index, (row, (chunk, begin)) in enumerate(chunks.items()):
            at = row if size == limits.slots else index  # all rows: each at its own index
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
        self.state = self.programs.extend(self.params, self.state, appended)
        self.costs.extended_tokens += size * width

    def _make_room(self, needed: int) -> None:
        """Lengthens the cache, size by size, until it has the positions needed."""
        for positions in self.limits.cache_lengths:
            if self.positions < positions and self.positions < needed:
                self.positions = positions
                self.lot.grow(positions)
                self.state = self.programs.grow(self.state, positions)
