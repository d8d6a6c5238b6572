"""The rows of a rollout on the device, and the slots that record their trajectories."""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from gtpo_jax import decoding
from gtpo_jax.decoding import stops
from gtpo_jax.decoding.shapes import fitting, given
from gtpo_jax.rollout import prefixes
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.lot import Lot
from gtpo_jax.rollout.progress import RowCosts
from gtpo_jax.rollout.slots import Slot
from gtpo_jax.types import Params

EARLY_SHARE = 8
"""With `early`, a segment ends once one in so many rows has ended its turn."""

Keys = Callable[[np.ndarray, np.ndarray], jax.Array]
"""`(problems [B] uint32, samples [B] uint32) → [B]` random keys of trajectories."""


PromptKey = tuple[str, str | None]
"""Id of a problem, and the question in place of its own: equal for equal prompts."""


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
        stop_table: stops.StopTable | None = None,
    ):
        """`extend_sizes`: how many rows one extend call may have, ascending."""
        self.stop_table = stop_table
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
        self.holds: dict[int, PromptKey] = {}  # row → prompt that its cache begins with
        self.ended: dict[int, prefixes.Held] = {}  # free row → what it still holds
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

    def admit(self, slots: Sequence[Slot], later: Iterable[Slot]) -> None:
        """Begins trajectories in free rows; those of `later` will follow.

        What some row holds of the beginning of a trajectory is copied, and what several begin with
        is computed once, as far as the rows suffice: a row that is taken holds nothing of before.
        """
        continuing = [slot for slot in itertools.chain(slots, later) if not slot.plain]
        if not continuing:  # then prompts are shared, and nothing else
            placed = dict(zip(self.free, slots, strict=False))
            self._occupy(placed)
            self._prefill_all(placed, dict.fromkeys(placed, True))
            return
        held = self._held({slot.request.problem.id for slot in continuing})
        next_ones = itertools.islice(later, self.limits.slots)
        placed = prefixes.place(slots, self.free, held, next_ones)
        waves = prefixes.waves(placed, held)
        self._occupy(placed)
        for wave in waves:
            self._copy({row: source for row, source in wave.items() if source is not None})
            new = [row for row, source in wave.items() if source is None]
            rests = {row: placed[row].tokens()[len(self._head(row)) :] for row in new}
            self._prefill_all(new, {row: not len(rest) for row, rest in rests.items()})
            rests |= {row: placed[row].tokens()[s.shared :] for row, s in wave.items() if s}
            self._feed(rests, dict.fromkeys(rests, True))
            self.holds |= {row: placed[row].prompt_key for row in wave}

    def _occupy(self, slots: Mapping[int, Slot]) -> None:
        self.slots.update(slots)
        for row, slot in slots.items():
            self.ended.pop(row, None)
            slot.placed = True

    def _held(self, problems: set[str]) -> dict[int, prefixes.Held]:
        """What the rows hold of these problems."""
        held = {
            row: prefixes.Held(slot.request.problem.id, slot.tokens())
            for row, slot in self.slots.items()
            if slot.request.problem.id in problems
        }
        return held | {row: held for row, held in self.ended.items() if held.problem in problems}

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
            self.params, self.state, given(np.int32(max(floor, 0))), **self._factors(slots)
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

    def _factors(self, slots: Iterable[Slot]) -> dict[str, jax.Array]:
        """Factors on the temperature as an argument, if some of these rows have one."""
        if all(slot.request.temperature == 1 for slot in slots):
            return {}
        factors = np.ones(self.limits.slots, np.float32)
        for row, slot in self.slots.items():
            factors[row] = slot.request.temperature
        return {"factors": given(factors)}

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
            self.ended.pop(row, None)
            if coming is not None:
                self.slots[row] = coming
            if leaving is not None:
                self.lot.slots[place] = leaving

    def remove(self, slot: Slot) -> None:
        """Frees the row or the place of a trajectory that has ended."""
        for row in [row for row, other in self.slots.items() if other is slot]:
            del self.slots[row]
            self.ended[row] = prefixes.Held(slot.request.problem.id, slot.tokens())
        for place in [place for place, other in self.lot.slots.items() if other is slot]:
            del self.lot.slots[place]

    def refresh(self, params: Params, version: int) -> None:
        """Goes on with other parameters; all caches are recomputed with them."""
        self.params, self.version = params, version
        self.holds.clear()
        self.ended.clear()
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
        rests = {row: slot.tokens()[len(self._head(row)) :] for row, slot in slots.items()}
        # A row goes on after its last token, which is the prompt's where nothing follows that.
        for begins in (False, True):
            rows = [row for row in slots if (active[row] and not len(rests[row])) == begins]
            self._prefill_all(rows, dict.fromkeys(rows, begins))
        self._feed(rests, {row: bool(active[row]) for row in rests})

    def _feed(self, rests: Mapping[int, np.ndarray], begins: Mapping[int, bool]) -> None:
        """Appends tokens of any number to rows; the flag says whether a row then goes on."""
        width = self.limits.extend_width
        while rests := {row: tokens for row, tokens in rests.items() if len(tokens)}:
            self._extend(
                {
                    row: (tokens[:width], begins[row] and len(tokens) <= width)
                    for row, tokens in rests.items()
                }
            )
            rests = {row: tokens[width:] for row, tokens in rests.items()}

    def _head(self, row: int) -> np.ndarray:
        """The part of the prompt of a row that prefill computes: all of it, unless a plan made it
        longer than others.
        """
        return self.slots[row].prompt[: self.limits.prompt_tokens]

    def _prefill_all(self, rows: Iterable[int], begins: Mapping[int, bool]) -> None:
        """Begins rows with their prompts, in as many calls as it takes."""
        rows = list(rows)
        while rows:
            rows = self._prefill(rows, begins)

    def _prefill(self, rows: Sequence[int], begins: Mapping[int, bool]) -> list[int]:
        """Begins rows with the prompts of their slots; returns the rows that found no room.

        A prompt is computed once: other rows of the same problem copy it, in later calls too.
        """
        limits = self.limits
        holder = {key: row for row, key in self.holds.items()}
        placed, new = self._place(rows, holder)
        prompts = {key: self._head(row) for row, key in placed.items()}
        count = fitting(limits.prompt_counts, len(new))
        width = fitting(limits.prompt_widths, max(map(len, prompts.values())))
        tokens = np.zeros((count, width), np.int32)
        for key, index in new.items():
            tokens[index, : len(prompts[key])] = prompts[key]
            self.costs.fed_tokens += len(prompts[key])
        begun = {}
        for row, key in placed.items():
            source = new[key] if key in new else count + holder[key]
            begun[row] = (source, prompts[key], begins[row])
            self.holds[row] = key
        self._begin(tokens, begun)
        self.costs.prefilled_tokens += count * width
        return [row for row in rows if row not in placed]

    def _copy(self, sources: Mapping[int, prefixes.Source]) -> None:
        """Begins rows with what others hold, all of it read before any row is written."""
        if not sources:
            return
        # The last token that is shared becomes the pending one.
        needed = max(source.shared - 1 for source in sources.values())
        width = fitting((*self.limits.prompt_widths, self.positions), needed)
        begun = {}
        for row, source in sources.items():
            tokens = self.slots[row].tokens()
            whole = source.shared == len(tokens)
            begun[row] = (source.row, tokens[: source.shared], whole)
            self.holds.pop(row, None)
        self._begin(np.zeros((0, width), np.int32), begun)

    def _begin(self, prompts: np.ndarray, rows: Mapping[int, tuple[int, np.ndarray, bool]]) -> None:
        """One prefill call: row → its source as in `Prompts`, its tokens, and True if it goes on
        decoding after them.
        """
        slots = self.limits.slots
        source = np.full(slots, -1, np.int32)
        lengths, pending, row_limits, matching = (np.zeros(slots, np.int32) for _ in range(4))
        problems, samples = (np.zeros(slots, np.uint32) for _ in range(2))
        begins = np.zeros(slots, bool)
        for row, (origin, tokens, begin) in rows.items():
            slot = self.slots[row]
            source[row] = origin
            lengths[row], pending[row] = len(tokens) - 1, tokens[-1]
            row_limits[row] = slot.limit
            matching[row] = self._matching(slot)
            problems[row] = zlib.crc32(slot.request.problem.id.encode())
            samples[row] = slot.request.sample
            begins[row] = self.active[row] = begin
        arguments = decoding.Prompts(
            tokens=given(prompts),
            source=given(source),
            lengths=given(lengths),
            pending=given(pending),
            keys=self.keys(problems, samples),
            limits=given(row_limits),
            begins=given(begins),
            matching=None if self.stop_table is None else given(matching),
        )
        self.state = self.programs.prefill(self.params, self.state, arguments)

    def _matching(self, slot: Slot) -> int:
        """State of the automaton of stop strings after the tokens of the turn under way."""
        if self.stop_table is None:
            return stops.START
        return stops.advanced(self.stop_table, slot.current_turn())

    def _place(
        self, rows: Sequence[int], holder: Mapping[PromptKey, int]
    ) -> tuple[dict[int, PromptKey], dict[PromptKey, int]]:
        """The rows of one prefill call with their prompts, and those that it computes.

        The latter are given as prompt → index in the call. `holder` maps the prompts that are in
        the cache of a row to that row.
        """
        placed: dict[int, PromptKey] = {}
        new: dict[PromptKey, int] = {}
        for row in rows:
            key = self.slots[row].prompt_key
            if key not in holder and key not in new:
                if len(new) == self.limits.prefill_prompts:
                    continue
                new[key] = len(new)
            placed[row] = key
        return placed, new

    def _extend(self, chunks: Mapping[int, tuple[np.ndarray, bool]]) -> None:
        """Appends tokens to rows; the flag says whether the row goes on decoding after them."""
        limits = self.limits
        self._make_room(max(self.slots[row].length for row in chunks))
        size, width = fitting(self.extend_sizes, len(chunks)), limits.extend_width
        rows = np.full(size, limits.slots, np.int32)
        tokens = np.zeros((size, width), np.int32)
        counts, row_limits, matching = (np.zeros(size, np.int32) for _ in range(3))
        begins = np.zeros(size, bool)
        for index, (row, (chunk, begin)) in enumerate(chunks.items()):
            at = row if size == limits.slots else index  # all rows: each at its own index
            rows[at] = row
            tokens[at, : len(chunk)] = chunk
            counts[at] = len(chunk)
            row_limits[at] = self.slots[row].limit
            matching[at] = self._matching(self.slots[row])
            begins[at] = begin
            self.costs.fed_tokens += len(chunk)
            self.active[row] |= begin
        appended = decoding.Appended(
            rows=given(rows),
            tokens=given(tokens),
            counts=given(counts),
            limits=given(row_limits),
            begins=given(begins),
            matching=None if self.stop_table is None else given(matching),
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
