"""Trajectories to arrays of fixed shape: packed token rows, and per-trajectory facts for credit.

Trajectories with equal prompts may share it within a row (Prefix Grouper, arXiv 2506.05433):

    tokens        p1 p2 | p3 a1 a2 | p3 b1 b2 b3 | q1 q2 q3 c1
    segment_ids    1  1 |  2  2  2 |  3  3  3  3 |  4  4  4  4
    prefix_ids     0  0 |  1  1  1 |  1  1  1  1 |  0  0  0  0
    positions      0  1 |  2  3  4 |  2  3  4  5 |  0  1  2  3

The last token of the prompt stays with each trajectory: it predicts what the policy wrote first. So
every token is predicted by the one before it in the row, as it is without sharing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, TokenBatch, Trajectory


def episode_batch(
    trajectories: Sequence[Trajectory], *, max_turns: int, needs: Iterable[Fact] = ()
) -> EpisodeBatch:
    """Trajectories as credit assignment sees them, in their order, as NumPy arrays.

    `needs` are the facts to gather besides, `method.facts` for those of a method.
    """
    count = len(trajectories)
    longest = max((len(t.turns) for t in trajectories), default=0)
    if longest > max_turns:
        raise ValueError(f"a trajectory has {longest} turns, max_turns is {max_turns}")
    turn_mask = np.zeros((count, max_turns), bool)
    violations = np.zeros((count, max_turns), bool)
    for row, trajectory in enumerate(trajectories):
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
        "facts": {
            fact.name: fact.gather(trajectories, max_turns)
            for fact in needs
            if fact.gather is not None
        },
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
    shared_prompts: bool = False,
) -> TokenBatch:
    """Packs trajectories into `[micro_batches, rows, row_length]`; what is not
    needed stays padding.

    `turn_advantages [M, K]` are broadcast to the tokens of their turns. A trajectory that is not
    `included` is left out; every other one is packed whole, and not fitting is an error.

    With `shared_prompts`, trajectories with equal prompts share it, as many as fit a row; the
    others repeat it in the next. Either way there are at most as many rows as trajectories.
    """
    kept = [index for index, trajectory in enumerate(trajectories) if trajectory.included]
    pieces = _pieces(trajectories, kept, row_length, shared_prompts=shared_prompts)
    layout = first_fit([_piece_length(trajectories, piece) for piece in pieces], row_length)
    if len(layout) > micro_batches * rows:
        raise ValueError(
            f"{len(kept)} trajectories take {len(layout)} rows of {row_length} tokens, there are"
            f" {micro_batches} x {rows}; raise the number of micro-batches"
        )
    batch = empty_batch(micro_batches * rows, row_length, shared_prompts=shared_prompts)
    for row, items in enumerate(layout):
        start, segment = 0, 1
        for piece in (pieces[item] for item in items):
            prompt = trajectories[piece[0]].prompt[:-1]
            prefix = segment if len(piece) > 1 and len(prompt) else 0
            if prefix:
                start = _write_prefix(batch, row, start, segment, prompt)
                segment += 1
            for index in piece:
                facts = index, trajectories[index], turn_advantages[index]
                start = _write(batch, row, start, segment, *facts, prefix=prefix)
                segment += 1
    return jax.tree.map(lambda x: x.reshape(micro_batches, rows, row_length), batch)


def row_shape(
    trajectories: Sequence[Trajectory],
    *,
    rows: int,
    row_length: int,
    buckets: int,
    shared_prompts: bool = False,
) -> tuple[int, int]:
    """Rows of a micro-batch and their length, for short trajectories: attention over a row costs
    its length squared.

    `rows` of `row_length` tokens, or twice as many of half the length, and so on, up to `buckets`
    shapes of equal tokens: the shortest that holds each included trajectory, with `shared_prompts`
    all of those that share a prompt, if they fit a row at all. A program is compiled for each.
    """
    kept = [index for index, trajectory in enumerate(trajectories) if trajectory.included]
    pieces = _pieces(trajectories, kept, row_length, shared_prompts=shared_prompts)
    longest = max((_piece_length(trajectories, piece) for piece in pieces), default=1)
    for _ in range(buckets - 1):
        if row_length % 2 or row_length // 2 < longest:
            break
        rows, row_length = 2 * rows, row_length // 2
    return rows, row_length


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


def empty_batch(rows: int, row_length: int, *, shared_prompts: bool = False) -> TokenBatch:
    """All padding, as NumPy arrays; `prefix_ids` among them only with `shared_prompts`."""
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
        "prefix_ids": np.zeros(shape, np.int32) if shared_prompts else None,
    }
    return TokenBatch(**fields)


def _pieces(
    trajectories: Sequence[Trajectory],
    kept: Sequence[int],
    row_length: int,
    *,
    shared_prompts: bool,
) -> list[list[int]]:
    """Trajectories that go into a row together: those that share a prompt, as many as fit."""
    _check_fits(max((trajectories[index].length for index in kept), default=0), row_length)
    if not shared_prompts:
        return [[index] for index in kept]
    families: dict[bytes, list[int]] = {}
    for index in kept:
        families.setdefault(trajectories[index].prompt.tobytes(), []).append(index)
    pieces = []
    for family in families.values():
        shared = _shared_tokens(trajectories[family[0]])
        own = [trajectories[index].length - shared for index in family]
        pieces += [[family[i] for i in items] for items in first_fit(own, row_length - shared)]
    return pieces


def _piece_length(trajectories: Sequence[Trajectory], piece: Sequence[int]) -> int:
    shared = _shared_tokens(trajectories[piece[0]])
    return shared + sum(trajectories[index].length - shared for index in piece)


def _shared_tokens(trajectory: Trajectory) -> int:
    """All of the prompt but its last token."""
    return max(len(trajectory.prompt) - 1, 0)


def _write_prefix(batch: TokenBatch, row: int, start: int, segment: int, tokens: np.ndarray) -> int:
    """Writes a segment of no trajectory and returns where it ends."""
    end = start + len(tokens)
    here = (row, slice(start, end))
    batch.tokens[here] = tokens
    batch.positions[here] = np.arange(len(tokens))
    batch.segment_ids[here] = segment
    return end


def _write(
    batch: TokenBatch,
    row: int,
    start: int,
    segment: int,
    index: int,
    trajectory: Trajectory,
    turn_advantages: np.ndarray | None,
    *,
    prefix: int = 0,
) -> int:
    """Writes a trajectory into the row of a NumPy batch and returns where it ends.

    Behind the segment `prefix`, which holds its prompt but for the last token, it goes on from it.
    """
    skipped = _shared_tokens(trajectory) if prefix else 0
    prompt = trajectory.prompt[skipped:]
    end = start + trajectory.length - skipped
    here = (row, slice(start, end))
    batch.positions[here] = np.arange(skipped, trajectory.length)
    batch.segment_ids[here] = segment
    batch.trajectory_ids[here] = index
    if batch.prefix_ids is not None:
        batch.prefix_ids[here] = prefix
    batch.tokens[row, start : start + len(prompt)] = prompt
    start += len(prompt)
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
