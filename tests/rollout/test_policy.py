"""Rollouts of a real decoder: what the sampler says of a token is what the learner says of it."""

import contextlib
import dataclasses
import functools
import itertools
import zlib

import jax
import numpy as np
import optax
import pytest

from gtpo_jax import learner
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.language import grammar
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.testing import FakeTool
from gtpo_jax.types import Problem
from gtpo_jax.verifiers import numeric_or_exact
from models import decoder
from tests.models.variants import VARIANTS
from tests.rounding import assert_same_sums, decoder_depth
from tests.tiny import BYTES, CONFIG, DIALOGUE, FORWARD, compilations, make_params

pytestmark = pytest.mark.slow

LIMITS = RolloutLimits(
    slots=4,
    context=80,
    prompt_tokens=12,
    max_turns=4,
    turn_tokens=12,
    observation_tokens=11,
    segment_steps=4,
    prefill_prompts=2,
    extend_width=4,
)
TEMPERATURE = 0.9
# Random weights repeat themselves and seldom write a marker; flatter, and with this much added to
# the logits of markers, turns end and calls
# are opened and closed often enough for several turns.
LIKELY = {grammar.END: 4.0, grammar.CODE: 4.0, grammar.CODE_END: 3.5}
BONUS = np.zeros(CONFIG.vocab_size, np.float32)
for marker, bonus in LIKELY.items():
    BONUS[BYTES.control_id(marker)] = bonus


def talkative(forward):
    return dataclasses.replace(
        forward, logits=lambda params, hidden: 0.3 * forward.logits(params, hidden) + BONUS
    )


TALKATIVE = talkative(FORWARD)
REQUESTS = [
    Request(
        problem=Problem(id=f"p{group}", question=f"{group}+1", answer="1"), group=group, sample=s
    )
    for group in range(3)
    for s in range(4)
]


def output(code):
    """Some text that only the code determines."""
    return str(zlib.crc32(code.encode()) % 10 ** (1 + len(code) % 9))


SAMPLER = functools.partial(sampling.categorical, temperature=TEMPERATURE)
CANDIDATES = 3


def make_engine(tool=None, mesh=None, forward=TALKATIVE, sampler=SAMPLER, **changes):
    return RolloutEngine(
        forward,
        DIALOGUE,
        FakeTool(output) if tool is None else tool,
        numeric_or_exact,
        dataclasses.replace(LIMITS, **changes),
        sampler,
        mesh=mesh,
    )


def run(engine, params, requests=REQUESTS, *, seed=1, step=5):
    return engine.run(params, requests, seed=seed, step=step)[0]


def same(first, second):
    """True if two trajectories hold the same tokens; their log-probs must then be close."""
    if [t.tokens.tolist() for t in first.turns] != [t.tokens.tolist() for t in second.turns]:
        return False
    for a, b in zip(first.turns, second.turns, strict=True):
        np.testing.assert_array_equal(a.observation, b.observation)
        depth = decoder_depth(CONFIG, LIMITS.context) + CONFIG.vocab_size
        assert_same_sums(a.logprobs, b.logprobs, depth=depth)
    return first.stop_reason is second.stop_reason


def pack(trajectories, candidates=0):
    advantages = np.ones((len(trajectories), LIMITS.max_turns), np.float32)
    return packing.pack(
        trajectories,
        advantages,
        micro_batches=2,
        rows=6,
        row_length=LIMITS.context,
        candidates=candidates,
    )


@functools.cache
def gap_of():
    return jax.jit(functools.partial(learner.logprob_gap, TALKATIVE, temperature=TEMPERATURE))


def gaps(forward, params, batch):
    """`|behavior − learner's log-prob|` of every trained token."""
    logprobs = jax.jit(functools.partial(learner.batch_logprobs, forward, temperature=TEMPERATURE))
    gaps = []
    for index in range(2):
        part = jax.tree.map(lambda x, i=index: x[i], batch)
        gap = np.abs(np.asarray(logprobs(params, part)[0]) - part.behavior_logprobs)
        gaps.append(gap[part.loss_mask])
    return np.concatenate(gaps)


@contextlib.contextmanager
def slow_tool(engine, seconds):
    """For a while the engine's tool takes so long, in three threads."""
    usual = engine.tool
    try:
        with FakeTool(output, seconds=seconds, threads=3) as engine.tool:
            yield
    finally:
        engine.tool = usual


@pytest.fixture(scope="module")
def engine():
    """An engine that records candidates; the others of this file do not, and draw the same."""
    return make_engine(
        sampler=sampling.recording(SAMPLER, count=CANDIDATES, temperature=TEMPERATURE)
    )


@pytest.fixture(scope="module")
def params():
    return jax.device_put(make_params())


@pytest.fixture(scope="module")
def trajectories(engine, params):
    return run(engine, params)


def test_trajectories_under_test_are_varied(trajectories):
    # The premise of the tests below.
    assert len({t.stop_reason for t in trajectories}) >= 3
    assert sum(len(t.turns) > 1 for t in trajectories) >= 4
    assert any(turn.code is not None for t in trajectories for turn in t.turns)
    assert len({t.turns[0].tokens.tobytes() for t in trajectories}) == len(trajectories)
    # What was written would not survive decoding and encoding.
    ids = [turn.tokens.tolist() for t in trajectories for turn in t.turns]
    assert any(BYTES.encode(BYTES.decode(i)) != i for i in ids)


def test_behavior_logprobs_equal_the_learners(trajectories, params):
    # Multi-turn, packed, at the sampling temperature.
    batch = pack(trajectories)
    difference = gaps(TALKATIVE, params, batch)
    assert difference.size > 100 and difference.max() < 1e-4
    assert float(gap_of()(params, batch)) < 1e-4
    # The measure is not blind: other parameters disagree with the record.
    assert float(gap_of()(make_params(seed=3), batch)) > 0.1


def test_candidates_are_the_likeliest_tokens_and_scored_as_the_learner_does(trajectories, params):
    part = jax.tree.map(lambda x: x[0], pack(trajectories, CANDIDATES))
    found = jax.jit(
        functools.partial(
            learner.batch_logprobs,
            TALKATIVE,
            temperature=TEMPERATURE,
            needs=("candidate_logprobs",),
        )
    )(params, part)
    ids, recorded = (np.asarray(x)[part.loss_mask] for x in part.candidates)
    scored = np.asarray(found.extras["candidate_logprobs"])[part.loss_mask]
    assert len(ids) > 50 and np.abs(scored - recorded).max() < 1e-4
    drawn = ids == part.tokens[part.loss_mask][:, None]  # a draw among them has their log-prob
    behavior = part.behavior_logprobs[part.loss_mask]
    places, _ = np.nonzero(drawn)
    np.testing.assert_allclose(recorded[drawn], behavior[places], atol=1e-5)
    assert len(places) > 10 and np.all(np.diff(recorded, axis=-1) <= 0)
    # Sampler and learner agree, so that nothing is left to be centered.
    center = losses.score_centering(*jax.device_put((scored, recorded)))
    assert np.abs(center).max() < 1e-3


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("family", ["soft_caps", "two_ropes", "experts"])
def test_behavior_logprobs_equal_the_learners_in_every_family(family):
    # Windows, soft caps, two kinds of positions, experts.
    config = VARIANTS[family]
    forward, params = talkative(decoder.forward_fn(config)), make_params(config)
    produced = run(make_engine(forward=forward, first_cache=32), params)
    assert max(len(t.turns) for t in produced) > 1
    difference = gaps(forward, params, pack(produced))
    assert difference.size > 50 and difference.max() < 1e-4


@pytest.mark.slow
def test_behavior_logprobs_in_bfloat16_are_close_to_the_learners():
    # At most 0.01 nats on average and 0.05 anywhere.
    low = talkative(decoder.forward_fn(dataclasses.replace(CONFIG, compute_dtype="bfloat16")))
    params = make_params()
    difference = gaps(low, params, pack(run(make_engine(forward=low), params)))
    assert 1e-6 < difference.mean() < 0.01 and difference.max() < 0.05


def test_trajectory_depends_on_seed_step_problem_and_sample_alone(trajectories, params):
    # Other slots, another order of refill, other neighbors, slow and uneven tools.
    rng = np.random.default_rng(0)
    latencies = iter(rng.uniform(0, 0.08, 1000))
    shuffled = [REQUESTS[i] for i in rng.permutation(len(REQUESTS))][:9]
    with FakeTool(output, seconds=lambda code: next(latencies), threads=3) as tool:
        again = run(
            make_engine(tool, slots=3, segment_steps=3, prefill_prompts=1), params, shuffled
        )
    expected = {(t.group, t.sample): t for t in trajectories}
    assert all(same(t, expected[t.group, t.sample]) for t in again)


@pytest.mark.slow
def test_in_lockstep_the_last_bits_do_not_depend_on_how_long_tools_take(params):
    # A run that is resumed finds the tool slower or faster.
    runs, engine = [], make_engine(slots=6, first_cache=40, lockstep=True)
    for slowest in (0.0, 0.06):
        latencies = iter(np.random.default_rng(1).uniform(0, slowest, 1000))
        with slow_tool(engine, lambda code, new=latencies: next(new)):
            runs.append(engine.run(params, REQUESTS, seed=1, step=5))
    (fast, fast_stats), (slow, slow_stats) = runs
    assert slow_stats.row_steps == fast_stats.row_steps
    for first, second in zip(fast, slow, strict=True):
        for a, b in zip(first.turns, second.turns, strict=True):
            np.testing.assert_array_equal(a.tokens, b.tokens)
            np.testing.assert_array_equal(a.logprobs, b.logprobs)


def test_other_seed_step_or_sample_gives_another_trajectory(engine, trajectories, params):
    for other in ({"seed": 2}, {"step": 6}):
        changed = run(engine, params, REQUESTS[:4], **other)
        assert not any(map(same, changed, trajectories[:4]))


@pytest.mark.long
@pytest.mark.slow
def test_trajectories_do_not_depend_on_how_the_cache_grows(trajectories, params):
    engine = make_engine(first_cache=16)
    assert engine.limits.cache_lengths == (16, 32, 64, 80)
    assert all(map(same, run(engine, params), trajectories))


@pytest.mark.slow
def test_warmed_up_engine_grows_its_cache_without_compiling(params):
    engine = make_engine(first_cache=40)
    assert engine.limits.cache_lengths == (40, 80)
    engine.warm_up(params)
    with compilations() as compiled:
        run(engine, params, REQUESTS)
        engine.run(params, REQUESTS, seed=1, step=5, refresh=updates({3: (params, 1)}))
    assert compiled == []


def updates(at):
    """A `refresh` that hands out parameters at some of the looks, counted from 0."""
    looks = itertools.count()
    return lambda: at.get(next(looks))


def test_refresh_with_equal_parameters_changes_nothing_but_the_versions(
    engine, trajectories, params
):
    # Caches dropped in the middle of turns, between them and while a tool is busy.
    latencies = iter(np.random.default_rng(0).uniform(0, 0.05, 1000))
    refresh = updates({look: (params, 10 + look) for look in (1, 2, 5, 9)})
    with slow_tool(engine, lambda code: next(latencies)):
        again, _ = engine.run(params, REQUESTS, seed=1, step=5, version=7, refresh=refresh)
    assert all(map(same, again, trajectories))
    versions = [[turn.version for turn in t.turns] for t in again]
    assert all(v == sorted(v) for v in versions)
    assert {7, 11, 19} <= {version for v in versions for version in v}
    assert {turn.version for t in trajectories for turn in t.turns} == {0}


def test_tokens_after_a_refresh_are_those_of_the_new_parameters(engine, params):
    # Nothing that the old parameters left in a cache is looked at again.
    other = jax.device_put(make_params(seed=3))
    sampled, _ = engine.run(params, REQUESTS, seed=1, step=5, refresh=updates({0: (other, 1)}))
    assert all(map(same, sampled, run(engine, other)))
    mixed, _ = engine.run(params, REQUESTS, seed=1, step=5, refresh=updates({2: (other, 1)}))
    batch = pack(mixed)
    assert float(gap_of()(params, batch)) > 1e-2 and float(gap_of()(other, batch)) > 1e-2
    whole = [t for t in mixed if all(turn.version == 1 for turn in t.turns)]
    assert whole and float(gap_of()(other, pack(whole))) < 1e-4


def test_every_token_has_both_logprobs_and_the_entropy(trajectories, params):
    sampler = functools.partial(sampling.truncated, temperature=TEMPERATURE, top_k=20, top_p=0.8)
    engine = RolloutEngine(TALKATIVE, DIALOGUE, FakeTool(output), numeric_or_exact, LIMITS, sampler)
    cut = run(engine, params)
    for t, truncated in [*((t, False) for t in trajectories), *((t, True) for t in cut)]:
        for turn in t.turns:
            assert len(turn.sampled_logprobs) == len(turn.entropies) == len(turn.tokens)
            assert np.all(turn.entropies > 0)
            if not truncated:
                np.testing.assert_array_equal(turn.sampled_logprobs, turn.logprobs)
    more = np.concatenate([u.sampled_logprobs - u.logprobs for t in cut for u in t.turns])
    assert np.all(more >= 0) and more.max() > 0.1
    # The learner agrees with the log-probs of the whole distribution.
    assert float(gap_of()(params, pack(cut))) < 1e-4


@pytest.mark.slow
def test_updated_policy_is_the_one_that_samples(engine, trajectories, params):
    # After an update the sampler moves with the learner, and nothing stale is attended.
    optimizer = optax.sgd(0.5)
    loss = losses.clipped(low=0.2, high=0.28)
    update = jax.jit(
        learner.make_update(
            TALKATIVE, optimizer, loss, reductions.token_mean, temperature=TEMPERATURE
        )
    )
    batch = pack(trajectories)
    state, metrics = update(learner.init_state(params, optimizer), batch)
    assert float(metrics["behavior_kl"]) < 1e-6 and float(metrics["clip_fraction"]) == 0.0
    after = run(engine, state.params)
    assert float(gap_of()(state.params, pack(after))) < 1e-4
    assert float(gap_of()(state.params, batch)) > 1e-2
    assert all(map(same, run(make_engine(), state.params), after))


@pytest.mark.slow
def test_zero_learning_rate_leaves_the_gap_where_it_was(engine, trajectories, params):
    optimizer = optax.sgd(0.0)
    update = jax.jit(
        learner.make_update(TALKATIVE, optimizer, losses.imitation(), reductions.token_mean)
    )
    state = learner.init_state(params, optimizer)
    for _ in range(3):
        state, _ = update(state, pack(trajectories))
    assert all(map(same, run(engine, state.params), trajectories))


def test_repeated_rollouts_compile_nothing(engine, params):
    engine.warm_up(params)
    with compilations() as compiled:
        for requests in (REQUESTS[:1], REQUESTS[2:9], REQUESTS * 2):
            run(engine, params, requests, seed=9, step=0)
    assert compiled == []
    with compilations() as compiled:
        jax.jit(lambda x: x + 1.5)(np.float32(9))
    assert compiled  # the measure is not blind


@pytest.mark.slow
@pytest.mark.parametrize(
    "axes",
    [pytest.param({"data": 8}, marks=pytest.mark.long), {"data": 2, "fsdp": 2, "tensor": 2}],
)
def test_trajectories_do_not_depend_on_the_mesh(trajectories, axes):
    mesh = sharding.make_mesh(**axes)
    placed = sharding.param_shardings(decoder.logical_axes(CONFIG), mesh)
    engine = make_engine(mesh=mesh, slots=8)
    params = jax.device_put(make_params(), placed)
    assert all(map(same, run(engine, params), trajectories))
    with compilations() as compiled:
        run(engine, params, REQUESTS[:5])
    assert compiled == []


def test_slots_that_devices_cannot_share_are_refused():
    with pytest.raises(ValueError, match="rollout slots is 4, which 8 devices"):
        make_engine(mesh=sharding.make_mesh(data=8))
