"""Packs trajectories into arrays of fixed shape: rows of tokens, and facts for credit assignment.

Trajectories with equal prompts may share the prompt in a row (Prefix Grouper, arXiv 2506.05433):

    tokens        p1 p2 | p3 a1 a2 | p3 b1 b2 b3 | q1 q2 q3 c1
    segment_ids    1  1 |  2  2  2 |  3  3  3  3 |  4  4  4  4
    prefix_ids     0  0 |  1  1  1 |  1  1  1  1 |  0  0  0  0
    positions      0  1 |  2  3  4 |  2  3  4  5 |  0  1  2  3

Each trajectory keeps its own copy of the last prompt token, which predicts the first token of the
policy. So every token is predicted by the one before it in the row, as without sharing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import Candidates, EpisodeBatch, TokenBatch, Trajectory, Turn


def episode_batch(
    trajectories: Sequence[Trajectory], *, max_turns: int, needs: Iterable[Fact] = ()
) -> EpisodeBatch:
    """The inputs of credit assignment for trajectories, in order, as NumPy arrays.

    `needs`: further facts to gather, such as `method.facts`.
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
    # NumPy arrays; a jitted function converts them to JAX arrays.
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
    """Rows of item indices: items, longest first, go into the first row with room for them."""
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
    token_advantages: Sequence[np.ndarray] | None = None,
    candidates: int = 0,
    groups: bool = False,
    marks: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> TokenBatch:
    """Packs trajectories into `[micro_batches, rows, row_length]`; the rest is padding.

    `turn_advantages [M, K]` are broadcast to the tokens of their turns, unless `token_advantages`
    gives each trajectory one number per token that the policy wrote. Trajectories that are not
    `included` are skipped; the others are packed whole, and raise ValueError if they do not fit.
    Given tokens are like those of tool output. Turns that a trajectory shares with another are
    trained in both. Log-probs that nobody knows are NaN in `behavior_logprobs`.

    With `shared_prompts`, trajectories with equal prompts share one copy of it, as many as fit a
    row; the next row repeats it. Either way there are at most as many rows as trajectories.

    `candidates`: how many of the tokens that the sampler recorded beside each draw go along.
    `groups`: the groups and successes of trajectories go along.
    `marks`: by name, for each trajectory, one more number per token that the policy wrote.
    """
    marks = marks or {}
    included = [index for index, trajectory in enumerate(trajectories) if trajectory.included]
    pieces = _pieces(trajectories, included, row_length, shared_prompts=shared_prompts)
    layout = first_fit([_piece_length(trajectories, piece) for piece in pieces], row_length)
    if len(layout) > micro_batches * rows:
        raise ValueError(
            f"{len(included)} trajectories take {len(layout)} rows of {row_length} tokens, there"
            f" are {micro_batches} x {rows}; raise the number of micro-batches"
        )
    batch = empty_batch(
        micro_batches * rows,
        row_length,
        shared_prompts=shared_prompts,
        candidates=candidates,
        groups=groups,
        marks=tuple(marks),
    )
    numbers: dict[int, int] = {}
    for index in included:
        numbers.setdefault(trajectories[index].group, len(numbers))
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
                tokens = None if token_advantages is None else token_advantages[index]
                marked = {name: values[index] for name, values in marks.items()}
                end = _write(
                    batch, row, start, segment, *facts, prefix=prefix, tokens=tokens, marks=marked
                )
                if batch.group_ids is not None and batch.successes is not None:
                    batch.group_ids[row, start:end] = numbers[trajectories[index].group]
                    batch.successes[row, start:end] = trajectories[index].success
                start = end
                segment += 1
    return jax.tree.map(lambda x: x.reshape(micro_batches, rows, *x.shape[1:]), batch)


def row_shape(
    trajectories: Sequence[Trajectory],
    *,
    rows: int,
    row_length: int,
    buckets: int,
    shared_prompts: bool = False,
) -> tuple[int, int]:
    """Chooses the bucket of a micro-batch: the number of rows and their length.

    Attention over a row costs its length squared, so short trajectories get short rows. The buckets
    are `rows` of `row_length` tokens, twice as many rows of half the length, and so on: `buckets`
    shapes with equal numbers of tokens. The shortest is chosen that holds each included trajectory
    and, with `shared_prompts`, all that share a prompt in one row. One program is compiled for each
    bucket.
    """
    included = [index for index, trajectory in enumerate(trajectories) if trajectory.included]
    pieces = _pieces(trajectories, included, row_length, shared_prompts=shared_prompts)
    longest = max((_piece_length(trajectories, piece) for piece in pieces), default=1)
    for _ in range(buckets - 1):
        if row_length % 2 or row_length // 2 < longest:
            break
        rows, row_length = 2 * rows, row_length // 2
    return rows, row_length


def pack_stream(
    trajectories: Iterable[Trajectory], *, rows: int, row_length: int
) -> Iterator[TokenBatch]:
    """Yields batches `[rows, row_length]` filled in order of arrival, so lengths stay mixed.

    A batch ends when the next trajectory fits in none of its rows. The last batch may be partly
    empty. Trajectories that are not `included` are skipped.
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


def empty_batch(
    rows: int,
    row_length: int,
    *,
    shared_prompts: bool = False,
    candidates: int = 0,
    groups: bool = False,
    marks: Sequence[str] = (),
) -> TokenBatch:
    """A batch of padding, as NumPy arrays.

    It has `prefix_ids` only with `shared_prompts`, `candidates` and `marks` only if there are any,
    and `group_ids` and `successes` only with `groups`.
    """
    shape = (rows, row_length)
    recorded = Candidates(
        np.zeros((*shape, candidates), np.int32), np.full((*shape, candidates), -np.inf, np.float32)
    )
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
        "candidates": recorded if candidates else None,
        "group_ids": np.zeros(shape, np.int32) if groups else None,
        "successes": np.zeros(shape, bool) if groups else None,
        "marks": {name: np.zeros(shape, np.float32) for name in marks} if marks else None,
    }
    return TokenBatch(**fields)


def _pieces(
    trajectories: Sequence[Trajectory],
    included: Sequence[int],
    row_length: int,
    *,
    shared_prompts: bool,
) -> list[list[int]]:
    """Groups trajectories that go into a row together: as many with an equal prompt as fit."""
    _check_fits(max((trajectories[index].length for index in included), default=0), row_length)
    if not shared_prompts:
        return [[index] for index in included]
    families: dict[bytes, list[int]] = {}
    for index in included:
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
    """Number of prompt tokens that can be shared: all but the last."""
    return max(len(trajectory.prompt) - 1, 0)


def _write_prefix(batch: TokenBatch, row: int, start: int, segment: int, tokens: np.ndarray) -> int:
    """Writes a shared prompt as a segment of its own and returns the end of the segment."""
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
    tokens: np.ndarray | None = None,
    marks: Mapping[str, np.ndarray] | None = None,
) -> int:
    """Writes a trajectory into a row of a NumPy batch and returns the end of its segment.

    `tokens`: advantages of its tokens, in place of those of its turns. `marks`: further numbers of
    its tokens.
    `prefix`: segment that holds its prompt without the last token; the trajectory continues it.
    0: no shared prompt.
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
    before = 0
    for turn_index, turn in enumerate(trajectory.turns):
        batch.tokens[row, start : start + len(turn.tokens)] = turn.tokens
        written = (row, slice(start + turn.given, start + len(turn.tokens)))
        batch.loss_mask[written] = True
        batch.turn_ids[written] = turn_index
        unknown = len(turn.logprobs) == 0
        batch.behavior_logprobs[written] = np.nan if unknown else turn.logprobs[turn.given :]
        if batch.candidates is not None:
            _write_candidates(batch.candidates, written, turn)
        batch.token_advantages[written] = (
            1.0 if turn_advantages is None else turn_advantages[turn_index]
        )
        if tokens is not None:
            batch.token_advantages[written] = tokens[before : before + turn.own_tokens]
        for name, values in (marks or {}).items():
            assert batch.marks is not None
            batch.marks[name][written] = values[before : before + turn.own_tokens]
        before += turn.own_tokens
        start += len(turn.tokens)
        batch.tokens[row, start : start + len(turn.observation)] = turn.observation
        start += len(turn.observation)
    return end


def _write_candidates(candidates: Candidates, written: tuple[int, slice], turn: Turn) -> None:
    """Writes the candidates of a turn; a turn that nobody sampled has none."""
    if turn.candidates is None:
        return
    count = candidates.ids.shape[-1]
    if turn.candidates.ids.shape[-1] < count:
        raise ValueError(
            f"the loss needs {count} candidates of every token, the sampler recorded"
            f" {turn.candidates.ids.shape[-1]}; sample with sampling.recording(count={count})"
        )
    candidates.ids[written] = turn.candidates.ids[turn.given :, :count]
    candidates.logprobs[written] = turn.candidates.logprobs[turn.given :, :count]


def _check_fits(length: int, row_length: int) -> None:
    if length > row_length:
        raise ValueError(
            f"a trajectory of {length} tokens does not fit a row of {row_length};"
            " raise the context length"
        )
