"""The decode programs against one full forward pass, and what a row may depend on."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import decoding, learner
from gtpo_jax.decoding import sampling
from gtpo_jax.learner import packing
from gtpo_jax.testing import scripted_forward
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import BYTES, CONFIG, FORWARD, make_params, make_trajectory

pytestmark = pytest.mark.slow

ROWS, CONTEXT, STEPS, WIDTH, PROMPT = 4, 40, 5, 4, 6
DEPTH = decoder_depth(CONFIG, CONTEXT) + CONFIG.vocab_size
STOP = 260
VOCABULARY = BYTES.vocab_size
NONE = jnp.int32(0)  # a segment goes on until no row is active
SCRIPT = [261, 65, 259, *b"abc", STOP, *b"never", STOP]


def make(forward=FORWARD, sampler=sampling.categorical, vocab_size=VOCABULARY):
    return decoding.make_programs(
        forward,
        sampler,
        segment_steps=STEPS,
        stop_ids=(STOP,),
        vocab_size=vocab_size,
    )


@pytest.fixture(scope="module")
def programs():
    return make()


@pytest.fixture(scope="module")
def scripted():
    forward = scripted_forward([SCRIPT], vocab_size=VOCABULARY, otherwise=ord("?"))
    return make(forward, sampling.greedy)


@pytest.fixture(scope="module")
def params():
    return jax.device_put(make_params())


@pytest.fixture(scope="module")
def full_logprobs():
    """Log-probs of one row of ids in a forward pass without a cache."""

    @jax.jit
    def run(params, tokens):
        hidden, _ = FORWARD.hidden(params, tokens, jnp.arange(CONTEXT)[None])
        return jax.nn.log_softmax(FORWARD.logits(params, hidden)[0])

    def logprobs(params, ids):
        padded = np.zeros((1, CONTEXT), np.int32)
        padded[0, : len(ids)] = ids
        table = np.asarray(run(params, padded))
        return np.array([0.0, *(table[t - 1, ids[t]] for t in range(1, len(ids)))])

    return logprobs


def prompts(rows, limits, ids=None):
    """Prompts of a call; `rows[b]` is the prompt of row b. Its key comes from the prompt alone."""
    ids = PROMPTS if ids is None else ids
    tokens = np.zeros((len(ids), PROMPT), np.int32)
    for row, prompt in zip(tokens, ids, strict=True):
        row[: len(prompt)] = prompt
    seeds = np.array([max(row, 0) for row in rows])
    return decoding.Prompts(
        tokens=jnp.asarray(tokens),
        source=jnp.asarray(rows, jnp.int32),
        lengths=jnp.asarray([len(ids[max(row, 0)]) - 1 for row in rows], jnp.int32),
        pending=jnp.asarray([ids[max(row, 0)][-1] for row in rows], jnp.int32),
        keys=jax.jit(jax.vmap(jax.random.key))(seeds),
        limits=jnp.asarray(limits, jnp.int32),
        begins=jnp.asarray(True),
    )


def appended(pieces, limits, begins=None):
    tokens = np.zeros((ROWS, WIDTH), np.int32)
    for row, piece in zip(tokens, pieces, strict=True):
        row[: len(piece)] = piece
    counts = np.array([len(piece) for piece in pieces], np.int32)
    return decoding.Appended(
        rows=jnp.asarray(np.where(counts > 0, np.arange(ROWS), ROWS), jnp.int32),
        tokens=jnp.asarray(tokens),
        counts=jnp.asarray(counts),
        limits=jnp.asarray(limits, jnp.int32),
        begins=jnp.asarray(counts > 0 if begins is None else begins),
    )


PROMPTS = [[261, 65, 259], [261, 66, 67, 68, 260, 259]]


def start(programs):
    return programs.init(ROWS, CONTEXT)


def decode(programs, params, state, rows):
    """Decodes all turns to their end; adds what was sampled to `rows`, pairs (ids, log-probs)."""
    while bool(jnp.any(state.active)):
        state, segment = programs.decode_segment(params, state, NONE)
        segment = jax.device_get(segment)
        for row, (ids, logprobs) in enumerate(rows):
            ids += segment.draws.tokens[row, : segment.counts[row]].tolist()
            logprobs += segment.draws.logprobs[row, : segment.counts[row]].tolist()
    return state


def test_logprobs_of_ragged_turns_equal_one_full_forward(programs, params, full_logprobs):
    # Prompts and turns of different lengths, observations in one and two pieces.
    state = programs.prefill(
        params,
        start(programs),
        prompts([0, 1, 0, -1], limits=[3 + 7, 6 + 11, 3 + 2, 0]),
    )
    rows = [(list(PROMPTS[source]), [0.0] * len(PROMPTS[source])) for source in (0, 1, 0)]
    rows.append(([], []))
    state = decode(programs, params, state, rows)
    observations = [[262, 52, 260, 259], [262, *b"12345", 260, 259], [262, 260], []]
    for begin in (0, WIDTH):
        pieces = [observation[begin : begin + WIDTH] for observation in observations]
        begins = [begin < len(o) <= begin + WIDTH for o in observations]
        limits = [len(ids) + len(o) + 6 for (ids, _), o in zip(rows, observations, strict=True)]
        state = programs.extend(params, state, appended(pieces, limits, begins))
    for (ids, logprobs), observation in zip(rows, observations, strict=True):
        ids += observation
        logprobs += [0.0] * len(observation)
    decode(programs, params, state, rows)
    assert [len(ids) for ids, _ in rows] == [3 + 7 + 4 + 6, 6 + 11 + 8 + 6, 3 + 2 + 2 + 6, 0]
    for ids, logprobs in rows[:3]:
        recorded = np.array(logprobs)
        sampled = recorded != 0
        assert sampled.sum() >= 8
        expected = full_logprobs(params, ids)
        assert_same_sums(recorded[sampled], expected[sampled], depth=DEPTH)


def test_row_stops_at_its_limit_and_the_segment_ends_early(programs, params):
    state = programs.prefill(params, start(programs), prompts([0, 0, 1, -1], [5, 6, 8, 0]))
    state, segment = programs.decode_segment(params, state, NONE)
    np.testing.assert_array_equal(segment.counts, [2, 3, 2, 0])
    assert not np.any(segment.active)
    # Three of the five steps ran: a step writes its column for every row, also for idle ones.
    assert not np.any(segment.draws.tokens[:, 3:]) and not np.any(segment.draws.logprobs[:, 3:])
    assert np.all(segment.draws.logprobs[:, :3] != 0)
    np.testing.assert_array_equal(np.asarray(state.lengths)[:3] + 1, [5, 6, 8])


def test_row_goes_on_over_segments_until_its_limit(programs, params):
    state = programs.prefill(params, start(programs), prompts([0, -1, -1, -1], [3 + 12, 0, 0, 0]))
    counts = []
    for _ in range(3):
        state, segment = programs.decode_segment(params, state, NONE)
        counts.append(int(segment.counts[0]))
    assert counts == [5, 5, 2]


def test_row_stops_at_a_stop_id_which_is_sampled_and_kept(scripted):
    # The token that ends a turn is the row's own.
    state = scripted.prefill({}, start(scripted), prompts([0, 1, -1, -1], [CONTEXT] * ROWS))
    state, segment = scripted.decode_segment({}, state, NONE)
    assert segment.draws.tokens[0, :4].tolist() == [*b"abc", STOP]
    np.testing.assert_array_equal(segment.counts, [4, 5, 0, 0])
    np.testing.assert_array_equal(segment.active, [False, True, False, False])
    # Prompt 1 is none of the script's.
    assert segment.draws.tokens[1].tolist() == [ord("?")] * 5
    _, segment = scripted.decode_segment({}, state, NONE)
    np.testing.assert_array_equal(segment.counts, [0, 5, 0, 0])


def test_extended_row_that_does_not_begin_waits(scripted):
    state = scripted.prefill({}, start(scripted), prompts([0, -1, -1, -1], [CONTEXT] * ROWS))
    state, _ = scripted.decode_segment({}, state, NONE)
    pieces = [[*b"neve"], [], [], []]
    state = scripted.extend({}, state, appended(pieces, [CONTEXT] * ROWS, begins=[False] * ROWS))
    state, segment = scripted.decode_segment({}, state, NONE)
    assert int(segment.counts.max()) == 0
    # The next piece completes the observation: the script goes on only if every token arrived.
    state = scripted.extend({}, state, appended([[ord("r")], [], [], []], [CONTEXT] * ROWS))
    _, segment = scripted.decode_segment({}, state, NONE)
    assert segment.draws.tokens[0, : int(segment.counts[0])].tolist() == [STOP]


def test_idle_row_is_left_alone_by_every_program(programs, params):
    state = programs.prefill(params, start(programs), prompts([0, 1, -1, -1], [6, 30, 0, 0]))
    state, _ = programs.decode_segment(params, state, NONE)  # row 0 has ended, row 1 goes on
    before = jax.device_get(dataclasses.replace(state, keys=jax.random.key_data(state.keys)))
    length = int(before.lengths[0])
    state, _ = programs.decode_segment(params, state, NONE)
    state = programs.prefill(params, state, prompts([-1, -1, 1, 0], [9, 9, 9, 9]))
    state = programs.extend(params, state, appended([[], [1, 2], [], []], [9] * ROWS))
    after = jax.device_get(dataclasses.replace(state, keys=jax.random.key_data(state.keys)))
    for field in ("keys", "lengths", "pending", "limits", "active"):
        np.testing.assert_array_equal(getattr(after, field)[0], getattr(before, field)[0])
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[0, :, :length], after.cache),
        jax.tree.map(lambda x: x[0, :, :length], before.cache),
        atol=0,
    )


def test_rows_that_traded_places_go_on_where_they_were(programs, params):
    # Rows 0 and 3 rest in another state while row 1 goes on; the pairs beyond a state are nobody's.
    begun = prompts([0, 1, -1, 1], [25, 22, 0, 18])
    state = programs.prefill(params, start(programs), begun)
    rows = [([], []) for _ in range(ROWS)]
    decode(programs, params, state, rows)
    state, lot = programs.prefill(params, start(programs), begun), programs.init(2, CONTEXT)
    trade = programs.exchange
    state, lot = trade(state, lot, jnp.array([3, 0, ROWS, 2]), jnp.array([0, 1, 0, 2]))
    assert state.active.tolist() == [False, True, False, False]
    apart = [([], []) for _ in range(ROWS)]
    state = decode(programs, params, state, apart)
    assert [len(ids) for ids, _ in apart] == [0, len(rows[1][0]), 0, 0]
    state, lot = trade(state, lot, jnp.array([0, 2]), jnp.array([1, 0]))  # row 3 goes on in row 2
    assert not lot.active.any()
    decode(programs, params, state, apart)
    for now, before in {0: 0, 1: 1, 2: 3}.items():
        assert apart[now][0] == rows[before][0]
        assert_same_sums(np.array(apart[now][1]), np.array(rows[before][1]), depth=DEPTH)


def test_trajectory_does_not_depend_on_slot_or_neighbors(programs, params):
    # Prompt 1 in row 1 among others, in row 3 alone, and in row 0 after another one.
    def run(sources, limits, state=None):
        state = start(programs) if state is None else state
        state = programs.prefill(params, state, prompts(sources, limits))
        rows = [([], []) for _ in range(ROWS)]
        return decode(programs, params, state, rows), rows

    used, among = run([0, 1, 0, 1], [25, 18, 9, 18])
    _, alone = run([-1, -1, -1, 1], [0, 0, 0, 18])
    _, again = run([1, -1, -1, -1], [18, 0, 0, 0], used)
    for other in (among[3], alone[3], again[0]):
        assert other[0] == among[1][0]
        assert_same_sums(np.array(other[1]), np.array(among[1][1]), depth=DEPTH)
    assert among[0][0][:9] != among[1][0][:9]


def test_programs_compile_once_and_segments_move_nothing_to_or_from_the_host(params):
    programs = make()
    state = start(programs)
    limits = [CONTEXT] * ROWS
    first, second = prompts([0, 1, -1, -1], limits), prompts([-1, -1, 1, 0], limits)
    pieces = appended([[1, 2], [], [3], []], limits)
    for arguments in (first, second, first):
        state = programs.prefill(params, state, arguments)
        state = programs.extend(params, state, pieces)
        with jax.transfer_guard("disallow"):
            state, _ = programs.decode_segment(params, state, NONE)
            state, _ = programs.decode_segment(params, state, NONE)
    segment = programs.decode_segment.func
    sizes = [
        program._cache_size()
        for program in (programs.init, programs.prefill, programs.extend, segment)
    ]
    assert sizes == [1, 1, 1, 1]


def test_id_beyond_the_tokenizer_is_never_sampled():
    # The padded model prefers an id that the tokenizer does not have.
    padded = scripted_forward([[261, 65, 259, 290]], vocab_size=300, otherwise=291, sharpness=30.0)
    for sampler in (sampling.categorical, sampling.greedy):
        programs = make(padded, sampler)
        state = programs.prefill({}, start(programs), prompts([0, 0, 1, 1], [CONTEXT] * ROWS))
        _, segment = programs.decode_segment({}, state, NONE)
        assert int(segment.draws.tokens.max()) < VOCABULARY


def test_restricted_model_gives_the_learner_the_distribution_sampled_from():
    # Ids that cannot be sampled take no probability in the learner either.
    forward = decoding.restrict_vocabulary(FORWARD, 100)
    params = make_params()
    trajectory = make_trajectory(np.random.default_rng(0), [(5, 2), (3, 0)], vocab_size=100)
    batch = packing.pack([trajectory], np.ones((1, 2)), micro_batches=1, rows=1, row_length=16)
    batch = jax.tree.map(lambda x: x[0], batch)
    run = jax.jit(functools.partial(learner.batch_logprobs, forward))
    logprobs, entropies, _ = run(params, batch)

    @jax.jit
    def unrestricted(params, tokens, positions):
        return FORWARD.logits(params, FORWARD.hidden(params, tokens, positions)[0])

    kept = np.asarray(unrestricted(params, batch.tokens, batch.positions))[0, :, :100]
    reference = np.asarray(jax.nn.log_softmax(kept))
    trained = np.flatnonzero(batch.loss_mask[0])
    expected = reference[trained - 1, batch.tokens[0, trained]]
    assert_same_sums(logprobs[0, trained], expected, depth=DEPTH)
    assert np.all(entropies <= np.log(100) + 1e-5)


def test_token_is_drawn_with_the_key_of_its_position(programs, params):
    # Equal contents, so equal distributions: only keys can tell the rows apart.
    same = prompts([0, 0, 0, 0], [CONTEXT] * ROWS)
    keys = jax.random.wrap_key_data(jax.random.key_data(same.keys).at[1].set(7))
    state = programs.prefill(params, start(programs), dataclasses.replace(same, keys=keys))
    _, segment = programs.decode_segment(params, state, NONE)
    tokens = np.asarray(segment.draws.tokens)
    np.testing.assert_array_equal(tokens[0], tokens[2])
    assert tokens[0].tolist() != tokens[1].tolist()
    assert len(set(tokens[0].tolist())) > 1
