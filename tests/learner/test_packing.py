"""Trajectories to packed rows and to facts for credit."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from gtpo_jax.learner import packing
from gtpo_jax.parts import facts
from gtpo_jax.types import Candidates, StopReason, TokenBatch, Trajectory, Turn, Verdict
from tests import reference


def random_trajectories(seed: int, count: int = 12, **options) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    return [
        reference.trajectory(
            rng, turns=int(rng.integers(1, 5)), group=i // 4, sample=i % 4, **options
        )
        for i in range(count)
    ]


def excluded(trajectory: Trajectory) -> Trajectory:
    return dataclasses.replace(trajectory, stop_reason=StopReason.TOOL_FAILURE)


def written_out(trajectory: Trajectory, advantages) -> list[tuple]:
    """(token, position, trained, turn, log-prob, advantage) of every token, one by one."""
    out = [(int(token), False, -1, 0.0, 0.0) for token in trajectory.prompt]
    for index, turn in enumerate(trajectory.turns):
        for token, logprob in zip(turn.tokens, turn.logprobs, strict=True):
            out.append((int(token), True, index, float(logprob), float(advantages[index])))
        out += [(int(token), False, -1, 0.0, 0.0) for token in turn.observation]
    return [(token, position, *rest) for position, (token, *rest) in enumerate(out)]


def read_back(batch: TokenBatch) -> list[tuple[int, list[tuple]]]:
    """(trajectory id, its tokens) of every segment, in the order of rows and segments."""
    documents = []
    fields = (batch.tokens, batch.positions, batch.loss_mask, batch.turn_ids)
    fields += (batch.behavior_logprobs, batch.token_advantages)
    for row in np.ndindex(batch.tokens.shape[:-1]):
        segments = batch.segment_ids[row]
        for segment in range(1, segments.max(initial=0) + 1):
            (columns,) = np.nonzero(segments == segment)
            assert np.all(np.diff(columns) == 1), "a segment is one contiguous piece"
            (index,) = set(batch.trajectory_ids[row][columns].tolist())
            documents.append((index, [tuple(f[row][c].item() for f in fields) for c in columns]))
        # Segments are numbered from 1 without gaps, padding comes last and is neutral.
        present = segments[segments > 0]
        assert np.all(np.diff(present) >= 0) and len(set(present)) == segments.max(initial=0)
        padding = segments == 0
        assert np.all(np.diff(padding.astype(int)) >= 0)
        assert np.all(batch.trajectory_ids[row][padding] == -1)
        assert np.all(batch.turn_ids[row][padding] == -1)
        for field in (batch.loss_mask, batch.behavior_logprobs, batch.token_advantages):
            assert not np.any(field[row][padding])
    return documents


@pytest.mark.parametrize("seed", range(4))
def test_pack_puts_every_token_and_its_facts_exactly_once(seed):
    # The same facts as a walk over the trajectory, token by token.
    trajectories = random_trajectories(seed)
    trajectories[3] = excluded(trajectories[3])
    advantages = np.random.default_rng(seed).normal(size=(12, 4)).astype(np.float32)
    batch = packing.pack(trajectories, advantages, micro_batches=3, rows=3, row_length=48)
    assert batch.tokens.shape == (3, 3, 48)
    documents = read_back(batch)
    assert sorted(index for index, _ in documents) == [i for i in range(12) if i != 3]
    for index, tokens in documents:
        assert tokens == written_out(trajectories[index], advantages[index])
    trained = sum(len(u.tokens) for i, t in enumerate(trajectories) if i != 3 for u in t.turns)
    assert int(batch.loss_mask.sum()) == trained


def test_pack_of_turns_with_empty_observations_keeps_them_apart():
    (trajectory,) = random_trajectories(0, 1, observation=0)
    batch = packing.pack([trajectory], np.arange(4.0)[None], micro_batches=1, rows=1, row_length=64)
    lengths = [len(turn.tokens) for turn in trajectory.turns]
    ids = batch.turn_ids[0, 0]
    assert ids[ids >= 0].tolist() == np.repeat(np.arange(len(lengths)), lengths).tolist()
    assert batch.token_advantages[0, 0][ids >= 0].tolist() == ids[ids >= 0].tolist()


def test_pack_trains_the_token_that_ends_a_turn_and_nothing_around_the_turn():
    # Separators and earlier messages of the assistant are not sampled, so not trained.
    turn = Turn(
        tokens=np.array([11, 12, 2], np.int32),
        logprobs=np.array([-0.1, -0.2, -0.3], np.float32),
        text="",
        observation=np.array([2, 21], np.int32),
    )
    (base,) = random_trajectories(0, 1)
    trajectory = dataclasses.replace(base, prompt=np.array([2, 2], np.int32), turns=(turn,))
    batch = packing.pack([trajectory], np.ones((1, 1)), micro_batches=1, rows=1, row_length=8)
    assert batch.tokens[0, 0].tolist() == [2, 2, 11, 12, 2, 2, 21, 0]
    assert batch.loss_mask[0, 0].tolist() == [False, False, True, True, True, False, False, False]


def with_candidates(trajectory, count):
    rng = np.random.default_rng(0)

    def recorded(turn):
        shape = (len(turn.tokens), count)
        ids = rng.integers(0, 9, shape).astype(np.int32)
        return dataclasses.replace(
            turn, candidates=Candidates(ids, -rng.random(shape).astype(np.float32))
        )

    return dataclasses.replace(trajectory, turns=tuple(map(recorded, trajectory.turns)))


def test_pack_writes_candidates_beside_their_tokens_and_none_elsewhere():
    plain, other = random_trajectories(0, 2)
    trajectories = [with_candidates(plain, 3), other]  # nobody sampled the other
    room = dict(micro_batches=1, rows=2, row_length=64)
    batch = packing.pack(trajectories, np.ones((2, 4)), candidates=2, **room)
    ids, logprobs = batch.candidates
    assert ids.shape == logprobs.shape == (1, 2, 64, 2)
    sampled = batch.loss_mask & (batch.trajectory_ids == 0)
    for field, values in (("ids", ids), ("logprobs", logprobs)):
        parts = [getattr(turn.candidates, field)[:, :2] for turn in trajectories[0].turns]
        np.testing.assert_array_equal(values[sampled], np.concatenate(parts))
    assert not np.any(ids[~sampled]) and np.all(np.isneginf(logprobs[~sampled]))
    assert packing.pack(trajectories, np.ones((2, 4)), **room).candidates is None
    with pytest.raises(ValueError, match=r"needs 4 candidates .* recorded 3; .*count=4"):
        packing.pack(trajectories, np.ones((2, 4)), candidates=4, **room)


def test_pack_of_excluded_trajectories_only_is_all_padding():
    trajectories = [excluded(t) for t in random_trajectories(0)]
    batch = packing.pack(trajectories, np.ones((12, 4)), micro_batches=2, rows=2, row_length=4)
    empty = packing.empty_batch(4, 4)
    chex.assert_trees_all_equal(batch, jax.tree.map(lambda x: x.reshape(2, 2, 4), empty))


def test_pack_does_not_write_into_its_inputs():
    trajectories = random_trajectories(0, 2)
    advantages = np.full((2, 4), np.nan, np.float32)
    advantages[0, : len(trajectories[0].turns)] = 0.5
    advantages[1, : len(trajectories[1].turns)] = -0.5
    before = [t.prompt.copy() for t in trajectories]
    batch = packing.pack(trajectories, advantages, micro_batches=1, rows=2, row_length=64)
    batch.tokens[:] = 0
    for trajectory, prompt in zip(trajectories, before, strict=True):
        np.testing.assert_array_equal(trajectory.prompt, prompt)
    # NaN in the slots of turns that do not exist reaches no token.
    assert np.all(np.isfinite(batch.token_advantages))


def test_pack_of_an_oversize_trajectory_names_both_lengths_and_the_way_out():
    (trajectory,) = random_trajectories(0, 1)
    with pytest.raises(ValueError, match=rf"{trajectory.length} tokens.* 3.*context length"):
        packing.pack([trajectory], np.ones((1, 4)), micro_batches=1, rows=1, row_length=3)
    fitting = dict(micro_batches=1, rows=1, row_length=trajectory.length)
    assert packing.pack([trajectory], np.ones((1, 4)), **fitting).segment_ids.all()
    # One that is left out may have any length.
    packing.pack([excluded(trajectory)], np.ones((1, 4)), micro_batches=1, rows=1, row_length=3)


def test_pack_into_too_few_rows_names_what_to_raise():
    trajectories = random_trajectories(0)
    with pytest.raises(ValueError, match=r"12 trajectories .*micro-batches"):
        packing.pack(trajectories, np.ones((12, 4)), micro_batches=1, rows=1, row_length=48)


def test_first_fit_of_known_lengths_is_the_known_layout():
    assert packing.first_fit([5, 4, 3, 2, 1], 6) == [[0, 4], [1, 3], [2]]
    assert packing.first_fit([], 6) == []


def test_first_fit_of_random_lengths_places_each_item_once_within_the_row():
    lengths = np.random.default_rng(0).integers(1, 33, 200).tolist()
    layout = packing.first_fit(lengths, 32)
    assert sorted(item for row in layout for item in row) == list(range(200))
    loads = [sum(lengths[item] for item in row) for row in layout]
    assert max(loads) <= 32
    # First fit decreasing needs at most 11/9 of the best, plus one.
    assert len(loads) <= 11 / 9 * np.ceil(sum(lengths) / 32) + 1


@pytest.mark.parametrize("count, several", [(1, False), (2, False), (30, True)])
def test_pack_stream_loses_nothing_and_numbers_in_order_of_arrival(count, several):
    trajectories = random_trajectories(1, count)
    batches = list(packing.pack_stream(iter(trajectories), rows=2, row_length=48))
    assert (len(batches) > 3) == several
    arrived = 0
    for batch in batches:
        documents = dict(read_back(batch))
        assert sorted(documents) == list(range(len(documents)))
        for index in range(len(documents)):
            # Everything trained weighs the same: an advantage of one.
            assert documents[index] == written_out(trajectories[arrived], [1.0] * 4)
            arrived += 1
    assert arrived == count


def test_pack_stream_ends_a_batch_only_when_the_next_one_fits_nowhere():
    trajectories = random_trajectories(2, 30)
    batches = list(packing.pack_stream(trajectories, rows=2, row_length=48))
    arrived = 0
    for batch in batches[:-1]:
        arrived += int(batch.trajectory_ids.max()) + 1
        room = (batch.segment_ids == 0).sum(axis=1).max()
        assert trajectories[arrived].length > room


def test_pack_stream_leaves_excluded_trajectories_out():
    trajectories = random_trajectories(3, 4)
    kept = list(packing.pack_stream(trajectories[1:3], rows=2, row_length=200))
    broken = [excluded(trajectories[0]), *trajectories[1:3], excluded(trajectories[3])]
    chex.assert_trees_all_equal(list(packing.pack_stream(broken, rows=2, row_length=200)), kept)


def test_pack_stream_of_nothing_yields_nothing():
    assert list(packing.pack_stream([], rows=2, row_length=8)) == []


def test_pack_stream_of_an_oversize_trajectory_is_refused():
    (trajectory,) = random_trajectories(0, 1)
    with pytest.raises(ValueError, match="does not fit"):
        list(packing.pack_stream([trajectory], rows=4, row_length=trajectory.length - 1))


def test_episode_batch_of_ragged_trajectories_holds_their_facts():
    first, second, third = random_trajectories(0, 3)
    turn = first.turns[0]
    first = dataclasses.replace(
        first,
        turns=(
            dataclasses.replace(turn, codes=("x = 1",)),
            dataclasses.replace(turn, violation="no closing marker"),
            dataclasses.replace(turn, codes=("é",)),
        ),
    )
    second = dataclasses.replace(second, group=3, turns=(turn,), verdict=Verdict.WRONG)
    third = dataclasses.replace(excluded(third), group=1, turns=(turn, turn))
    batch = packing.episode_batch([first, second, third], max_turns=4, needs=[facts.CODE])
    assert batch.group_ids.tolist() == [0, 3, 1]
    assert batch.included.tolist() == [True, True, False]
    assert batch.success.tolist() == [True, False, True]
    assert batch.turn_mask.sum(axis=1).tolist() == [3, 1, 2]
    assert batch.turn_mask[:, 0].all()
    assert np.argwhere(batch.violations).tolist() == [[0, 1]]
    # Code of all turns, one under the other, as bytes.
    text = "x = 1\né".encode()
    code, lengths = batch.facts["code"]
    assert lengths.tolist() == [len(text), 0, 0]
    assert bytes(code[0, : len(text)].astype(np.uint8)) == text
    assert not np.any(code[1:]) and not np.any(code[0, len(text) :])


@pytest.mark.parametrize("length, width", [(1, 64), (64, 64), (65, 128), (300, 512)])
def test_episode_batch_code_axis_is_a_power_of_two(length, width):
    (trajectory,) = random_trajectories(0, 1)
    turn = dataclasses.replace(trajectory.turns[0], codes=("x" * length,))
    batch = packing.episode_batch(
        [dataclasses.replace(trajectory, turns=(turn,))], max_turns=1, needs=[facts.CODE]
    )
    assert batch.facts["code"].bytes.shape == (1, width)


@pytest.mark.parametrize("reason", StopReason)
def test_episode_batch_includes_only_trajectories_with_a_known_outcome(reason):
    (trajectory,) = random_trajectories(0, 1, stop_reason=reason)
    unverifiable = dataclasses.replace(trajectory, verdict=Verdict.UNVERIFIABLE)
    batch = packing.episode_batch([trajectory, unverifiable], max_turns=4)
    known = reason not in (StopReason.CONTEXT_FULL, StopReason.TOOL_FAILURE)
    assert batch.included.tolist() == [known, False]


def test_episode_batch_with_too_many_turns_is_refused():
    trajectories = random_trajectories(0)
    with pytest.raises(ValueError, match="max_turns is 1"):
        packing.episode_batch(trajectories, max_turns=1)
