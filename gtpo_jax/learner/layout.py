"""The layout of a step: its trajectories as minibatches of fixed shapes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from gtpo_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The division of a step's trajectories into batches of fixed shape."""

    groups: int
    """Largest number of groups per step."""
    group_size: int
    """Trajectories per group, on average if groups differ in size."""
    max_turns: int
    row_tokens: int
    """Tokens per packed row, at least the tokens of the longest trajectory."""
    rows: int = 16
    """Rows per micro-batch."""
    minibatches: int = 1
    """Updates per pass, among which the trajectories are divided."""
    epochs: int = 1
    """Passes over the trajectories."""
    row_buckets: int = 1
    """Number of row lengths: `row_tokens`, half of it with twice the rows, and so on."""
    shared_prompts: bool = False
    """Trajectories of a group share their prompt within a row; minibatches consist of whole groups.
    """
    whole_groups: bool = False
    """Minibatches consist of whole groups, as a loss over groups needs them."""
    largest_group: int = 0
    """Trajectories of the largest group, if groups differ in size. 0: `group_size`."""

    @property
    def trajectories(self) -> int:
        """Largest number of trajectories per step."""
        return self.groups * self.group_size

    @property
    def dealt_together(self) -> int:
        """Number of trajectories that must go into the same minibatch."""
        return self.group_size if self.shared_prompts or self.whole_groups else 1

    @property
    def minibatch_deals(self) -> int:
        """Largest number of deals of `dealt_together` trajectories per minibatch."""
        return -(-self.trajectories // (self.minibatches * self.dealt_together))

    @property
    def minibatch_trajectories(self) -> int:
        """Largest number of trajectories per minibatch."""
        share = self.minibatch_deals * self.dealt_together
        # A minibatch must hold any group that is dealt as a whole.
        return max(share, self.largest_group) if self.dealt_together > 1 else share

    def micro_batches(self, rows: int) -> int:
        """Number of micro-batches of this many rows that hold any minibatch."""
        return -(-self.minibatch_trajectories // rows)

    def shapes(self) -> list[tuple[int, int, int]]:
        """Shapes `[A, B, T]` that a minibatch may have, the longest rows first."""
        shapes = []
        rows, length = self.rows, self.row_tokens
        for _ in range(self.row_buckets):
            shapes.append((self.micro_batches(rows), rows, length))
            if length % 2:
                break
            rows, length = 2 * rows, length // 2
        return shapes

    def minibatches_of(self, trajectories: Sequence[Trajectory], *, seed: str) -> list[list[int]]:
        """Indices of the trajectories of each minibatch, dealt at random, in whole groups if they
        share prompts or the loss needs them.

        There are as few minibatches as hold them at the size of a full step, and at least one,
        which may be empty. Groups of unequal sizes may need one or two more.
        """
        dealt = [[index] for index in range(len(trajectories))]
        if self.shared_prompts or self.whole_groups:
            groups: dict[int, list[int]] = {}
            for index, trajectory in enumerate(trajectories):
                groups.setdefault(trajectory.group, []).append(index)
            dealt = list(groups.values())
        random.Random(seed).shuffle(dealt)
        return [
            [index for deal in part for index in deal]
            for part in _divided(dealt, most=self.minibatch_trajectories)
        ]


def _divided(deals: Sequence[Sequence[int]], *, most: int) -> list[list[Sequence[int]]]:
    """Divides deals, in order, into parts of at most `most` items and of about equal size.

    Raises `ValueError` if one deal has more.
    """
    sizes = [len(deal) for deal in deals]
    if max(sizes, default=0) > most:
        raise ValueError(
            f"a group has {max(sizes)} trajectories, and a minibatch holds {most}, in whole groups;"
            " use fewer minibatches, or smaller groups"
        )
    count = max(-(-sum(sizes) // most), 1)
    while True:
        share = -(-sum(sizes) // count)
        parts: list[list[Sequence[int]]] = [[]]
        filled = 0
        for deal in deals:
            if parts[-1] and (filled >= share or filled + len(deal) > most):
                parts.append([])
                filled = 0
            parts[-1].append(deal)
            filled += len(deal)
        if len(parts) <= count:
            return parts + [[] for _ in range(count - len(parts))]
        count = len(parts)
