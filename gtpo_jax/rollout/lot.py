"""The lot: places where trajectories wait for slow tools, so that others can have their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gtpo_jax.decoding import DecodePrograms, DecodeState
from gtpo_jax.decoding.shapes import given
from gtpo_jax.rollout.slots import Slot


class Lot:
    """Places on the device beside the rows. Their caches are kept, and nothing is decoded."""

    def __init__(self, programs: DecodePrograms, places: int, positions: int, exchanged: int):
        """Room for `places` trajectories; one exchange call moves at most `exchanged` of them."""
        self.programs = programs
        self.places = places
        self.exchanged = exchanged
        self.slots: dict[int, Slot] = {}  # by place
        self.state = programs.init(places, positions) if places else None

    @property
    def free(self) -> list[int]:
        return [place for place in range(self.places) if place not in self.slots]

    @property
    def ready(self) -> list[int]:
        """Places of the trajectories whose tools have returned, the oldest calls first."""
        places = [place for place, slot in self.slots.items() if not slot.waiting]
        return sorted(places, key=lambda place: self.slots[place].called_at)

    def grow(self, positions: int) -> None:
        """Lengthens the cache, as `DecodePrograms.grow` does for the rows."""
        if self.state is not None:
            self.state = self.programs.grow(self.state, positions)

    def exchange(self, state: DecodeState, pairs: Sequence[tuple[int, int]]) -> DecodeState:
        """The contents of row r and of place p trade places, for all pairs (r, p)."""
        assert self.state is not None
        for begin in range(0, len(pairs), self.exchanged):
            # Padding: an index beyond the rows makes its pair stay.
            at = np.full((2, self.exchanged), len(state.lengths), np.int32)
            some = pairs[begin : begin + self.exchanged]
            at[:, : len(some)] = np.transpose(some)
            state, self.state = self.programs.exchange(
                state, self.state, given(at[0]), given(at[1])
            )
        return state
