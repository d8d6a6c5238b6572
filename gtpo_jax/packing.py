"""Trajectories to arrays of fixed shape: packed token rows, and per-trajectory facts for credit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gtpo_jax.types import EpisodeBatch, TokenBatch, Trajectory


def episode_batch(trajectories: Sequence[Trajectory], *, max_turns: int) -> EpisodeBatch:
    """Facts of trajectories, in their order. The code axis is a power of two, so shapes are few."""
    count = len(trajectories)
    longest = max((len(t.turns) for t in trajectories), default=0)
    if longest > max_turns:
        raise ValueError(f"a trajectory has {longest} turns, max_turns is {max_turns}")
    codes = [
        "\n".join(turn.code for turn in t.turns if turn.code is not None).encode()
        for t in trajectories
    ]
    width = 64
    while width < max(map(len, codes), default=0):
        width *= 2
    code = np.zeros((count, width), np.int32)
    turn_mask = np.zeros((count, max_turns), bool)
    violations = np.zeros((count, max_turns), bool)
    for row, (trajectory, text) in enumerate(zip(trajectories, codes, strict=True)):
        code[row, : len(text)] = np.frombuffer(text, np.uint8)
        turn_mask[row, : len(trajectory.turns)] = True
        violations[row, : len(trajectory.turns)] = [
            turn.violation is not None for turn in trajectory.turns
        ]
    # NumPy here, arrays of JAX once they enter a jitted function.
    fields: dict[str, Any] = {
        "group_ids": np.array([t.group for t in trajectories], np.int32),
        "included": np.array([t.included for t in trajectories], bool),
        "success": np.array([t.success for t in trajectories], bool),
        "turn_mask": turn_mask,
        "violations": violations,
        "code": code,
        "code_lengths": np.array([len(text) for text in codes], np.int32),
    }
    return EpisodeBatch(**fields)


def first_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Rows of item indices, longest items first, each in the first row with room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        _check_fits(lengths[item], row_length)
        target = next((r for r, left in enumerate(room) if lengths[item] <= left), None)
        if target is None:
            rows.append([])
            room.append(row_length)
            target = len(rows) - 1
        rows[target].append(item)
        room[target] -= lengths[item]
    return rows


def pack(
    trajectories: Sequence[Trajectory],
    turn_advantages: np.ndarray,
    *,
    micro_batches: int,
    rows: int,
    row_length: int,
) -> TokenBatch:
    """Packs trajectories into `[micro_batches, rows, row_length]`; what is not
    needed stays padding.

    `turn_advantages [M, K]` are broadcast to the tokens of their turns. A trajectory that is not
    `included` is left out; every other one is packed whole, and not fitting is an error.
    """
    kept = [index for index, trajectory in enumerate(trajectories) if trajectory.included]
    layout = first_fit([trajectories[index].length for index in kept], row_length)
    if len(layout) > micro_batches * rows:
        raise ValueError(
            f"{len(kept)} trajectories take {len(layout)} rows of {row_length} tokens, there are"
            f" {micro_batches} x {rows}; raise the number of micro-batches"
        )
    batch = empty_batch(micro_batches * rows, row_length)
    for row, items in enumerate(layout):
        start = 0
        for segment, item in enumerate(items, 1):
            index = kept[item]
            advantages = turn_advantages[index]
            start = _write(batch, row, start, segment, index, trajectories[index], advantages)
    return jax.tree.map(lambda x: x.reshape(micro_batches, rows, row_length), batch)


def pack_stream(
    trajectories: Iterable[Trajectory], *, rows: int, row_length: int
) -> Iterator[TokenBatch]:
    """Batches `[rows, row_length]` filled in the order of arrival, so lengths stay mixed.

    A batch ends when the next trajectory fits in none of its rows. The last one may be part empty.
    Trajectories that are not `included` are left out.
    """
    batch, room, segments = empty_batch(rows, row_length), [row_length] * rows, [0] * rows
    count = 0
    for trajectory in trajectories:
        if not trajectory.included:
            continue
        length = trajectory.length
        _check_fits(length, row_length)
        target = next((r for r, left in enumerate(room) if length <= left), None)
        if target is None:
            yield batch
            batch, room, segments = empty_batch(rows, row_length), [row_length] * rows, [0] * rows
            target = count = 0
        segments[target] += 1
        _write(batch, target, row_length - room[target], segments[target], count, trajectory, None)
        room[target] -= length
        count += 1
    if count:
        yield batch


def empty_batch(rows: int, row_length: int) -> TokenBatch:
    """All padding, as NumPy arrays."""
    shape = (rows, row_length)
    fields: dict[str, Any] = {
        "tokens": np.zeros(shape, np.int32),
        "positions": np.zeros(shape, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "loss_mask": np.zeros(shape, bool),
        "turn_ids": np.full(shape, -1, np.int32),
        "trajectory_ids": np.full(shape, -1, np.int32),
        "behavior_logprobs": np.zeros(shape, np.float32),
        "token_advantages": np.zeros(shape, np.float32),
    }
    return TokenBatch(**fields)


def _write(
    batch: TokenBatch,
    row: int,
    start: int,
    segment: int,
    index: int,
    trajectory: Trajectory,
    turn_advantages: np.ndarray | None,
) -> int:
    """Writes a trajectory into the row of a NumPy batch and returns where it ends."""
    end = start + trajectory.length
    here = (row, slice(start, end))
    batch.positions[here] = np.arange(end - start)
    batch.segment_ids[here] = segment
    batch.trajectory_ids[here] = index
    batch.tokens[row, start : start + len(trajectory.prompt)] = trajectory.prompt
    start += len(trajectory.prompt)
    for turn_index, turn in enumerate(trajectory.turns):
        written = (row, slice(start, start + len(turn.tokens)))
        batch.tokens[written] = turn.tokens
        batch.loss_mask[written] = True
        batch.turn_ids[written] = turn_index
        batch.behavior_logprobs[written] = turn.logprobs
        batch.token_advantages[written] = (
            1.0 if turn_advantages is None else turn_advantages[turn_index]
        )
        start += len(turn.tokens)
        batch.tokens[row, start : start + len(turn.observation)] = turn.observation
        start += len(turn.observation)
    return end


def _check_fits(length: int, row_length: int) -> None:
    if length > row_length:
        raise ValueError(
            f"a trajectory of {length} tokens does not fit a row of {row_length};"
            " raise the context length"
        )
