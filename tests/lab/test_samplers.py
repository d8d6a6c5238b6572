"""Samplers that are old or noisy, the candidates they record, and runs with them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.lab import agents, audit, history, learning, samplers
from gtpo_jax.lab.policies import recurrent, score, table
from gtpo_jax.lab.worlds import agents as two_agents
from gtpo_jax.lab.worlds import chain
from gtpo_jax.parts import reductions

WORLD = chain(needed=1, turns=3)
SETTINGS = learning.Settings(updates=6, groups=4, size=4, learning_rate=0.2)
KEY = jax.random.key(7)


def params_of(world, seed=0):
    size = (world.observations, world.actions)
    return jnp.asarray(np.random.default_rng(seed).normal(size=size), jnp.float32)


def noise(lasts, *, version=3, number=5, world=WORLD, episodes=6, key=KEY):
    if lasts == 0:
        key = jax.random.fold_in(key, number)
        return samplers.noise_of_draws(world, 0.7, key, episodes=episodes)
    return samplers.noise_of(world, 0.7, key, lasts=lasts, version=jnp.int32(version))


def values(made, *, world=WORLD, episodes=6):
    rows, places = jnp.arange(episodes)[:, None], jnp.arange(world.tokens)
    seen = jnp.tile(places % world.observations, (episodes, 1))
    return np.asarray(made(rows, places, seen))


@pytest.mark.parametrize("lasts", [0, 1, 4])
def test_noise_stays_for_as_long_as_it_lasts(lasts):
    one = values(noise(lasts))
    assert np.array_equal(one, values(noise(lasts)))
    assert not np.array_equal(one, values(noise(lasts, key=jax.random.key(8))))
    assert np.array_equal(one, values(noise(lasts, version=2))) == (lasts != 1)
    assert np.array_equal(one, values(noise(lasts, version=4))) == (lasts == 0)
    assert np.array_equal(one, values(noise(lasts, number=6))) == (lasts != 0)
    # Places 0 and 2 have the same observation, and so have all episodes at a place.
    assert np.array_equal(one[:, 0], one[:, 2]) == (lasts != 0)
    assert np.array_equal(one[0], one[1]) == (lasts != 0)


def test_noise_has_the_deviation_it_is_given():
    assert values(noise(0, episodes=500), episodes=500).std() == pytest.approx(0.7, rel=0.05)
    drawn = [values(noise(1, version=version))[0, :2] for version in range(200)]
    assert np.std(drawn) == pytest.approx(0.7, rel=0.05)


def test_versions_are_those_of_some_steps_ago():
    kept = samplers.begin({"w": jnp.float32(100.0)}, 4)
    for number in range(9):
        kept = samplers.keep(kept, {"w": jnp.float32(number)}, jnp.int32(number))
        for age in range(4):
            expected = number - age if number >= age else 100.0
            assert samplers.of_version(kept, jnp.int32(number - age))["w"] == expected


@functools.cache
def written(lasts):
    """Episodes of two agents by a noisy sampler, their context, and the sampler's log-probs."""
    world = two_agents(needed=1, turns=4)
    old, learner, first = (params_of(world, seed) for seed in range(3))
    made = noise(lasts, world=world, episodes=64)
    sampler = samplers.Sampler(old, jnp.int32(3), made)
    sampled = history.sample(world, table(), old, KEY, jnp.zeros(64, jnp.int32), noise=made)
    rows = agents.split(world, sampled)
    found = samplers.make_context(
        world, table(), sampler, rows, jnp.int32(5), learner=learner, first=first, candidates=2
    )
    seen = rows.observations
    # Trajectory r is of episode r modulo 64.
    added = [made(jnp.int32(r % 64), jnp.arange(4), seen[r]) for r in range(128)]
    logits = np.asarray(old, np.float64)[np.asarray(seen)] + np.stack(added)
    return found, logits - np.log(np.exp(logits).sum(-1, keepdims=True)), learner


@pytest.mark.parametrize("lasts", [0, 1])
def test_a_noisy_sampler_is_scored_as_it_drew(lasts):
    found, log_probs, learner = written(lasts)
    rows = found.history
    actions = np.asarray(rows.actions)[..., None]
    drawn = np.take_along_axis(log_probs, actions, -1)[..., 0]
    np.testing.assert_allclose(found.scored.logprobs, drawn, atol=1e-5)
    own = score(table(), learner, rows.observations, rows.actions)
    np.testing.assert_array_equal(found.proximal.logprobs, own.logprobs)
    ids, recorded = jax.device_get(found.candidates)
    best = -np.sort(-log_probs, axis=-1)[..., :2]
    np.testing.assert_allclose(recorded, best, atol=1e-5)
    np.testing.assert_allclose(recorded, np.take_along_axis(log_probs, ids, -1), atol=1e-5)
    assert int(found.version) == 3 and int(found.step) == 5


def test_noise_decides_a_draw_by_its_episode_its_place_and_what_is_seen():
    def strong(row, place, observation):
        return 99.0 * jax.nn.one_hot((row + place + observation) % 4, 4)

    problems = jnp.zeros(8, jnp.int32)
    rows = history.sample(WORLD, table(), params_of(WORLD), KEY, problems, noise=strong)
    expected = (np.arange(8)[:, None] + np.arange(3) + np.asarray(rows.observations)) % 4
    np.testing.assert_array_equal(rows.actions, expected)


def by_hand(seed, settings, method):
    """The parameters of each step of a run, each step sampled by those of `staleness` ago."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = table().init(WORLD, init_key)
    optimizer = learning.optax.adam(settings.learning_rate)
    state = optimizer.init(params)
    versions, solved = [params], []

    @jax.jit
    def step(params, state, old, number):
        carry = learning.Carry(params, state, method.credit.init())
        sampler = samplers.Sampler(old, number)
        credited, measured = learning.run_step(
            WORLD,
            method,
            settings,
            table(),
            carry,
            sampler,
            versions[0],
            jax.random.fold_in(key, number),
            number,
        )
        for _ in range(settings.epochs):
            slope = jax.grad(learning.loss_of)(params, method, table(), credited)
            updates, state = optimizer.update(slope, state, params)
            params = learning.optax.apply_updates(params, updates)
        return params, state, measured.solved

    for number in range(settings.updates):
        old = versions[max(number - settings.staleness, 0)]
        params, state, share = step(params, state, old, number)
        versions.append(params)
        solved.append(float(share))
    return solved


METHOD = methods.chain(methods.rloo(), methods.importance(), methods.score_centering(count=8))
POINTS = [
    dataclasses.replace(SETTINGS, epochs=2, staleness=s, noise=n, learning_rate=rate)
    for s, n, rate in [(2, 0.5, 0.2), (3, 0.0, 0.1)]
]


@functools.cache
def swept():
    return jax.device_get(learning.sweep(WORLD, METHOD, POINTS, seeds=(0, 1)))


def test_a_stale_run_samples_with_the_versions_it_says():
    np.testing.assert_allclose(swept().solved[1, 0], by_hand(0, POINTS[1], METHOD), atol=1e-6)
    assert not np.array_equal(swept().solved, swept().learned)


@pytest.mark.long
def test_points_of_a_sweep_are_runs_of_their_own():
    alone = learning.learn(WORLD, METHOD, seeds=(0, 1), settings=POINTS[0])
    np.testing.assert_allclose(swept().solved[0], alone.solved, atol=1e-5)
    np.testing.assert_allclose(swept().learned[0], alone.learned, atol=1e-5)
    other = dataclasses.replace(POINTS[0], epochs=1)
    with pytest.raises(ValueError, match="may differ in learning_rate, staleness"):
        learning.sweep(WORLD, METHOD, [POINTS[0], other], seeds=(0,))


def test_recurrent_policies_have_states_and_candidates():
    policy = recurrent(width=3)
    params = policy.init(WORLD, KEY)
    seen = jnp.array([[0, 1, 0], [1, 1, 1]], jnp.int32)
    found = score(
        policy,
        params,
        seen,
        seen,
        needs=("state_norms", "candidate_logprobs"),
        candidates=seen[..., None],
    )
    np.testing.assert_allclose(
        found.extras["candidate_logprobs"][..., 0], found.logprobs, atol=1e-6
    )
    assert (np.asarray(found.extras["state_norms"]) >= 1.0).all()
    plain = score(table(), params_of(WORLD), seen, seen, needs=("state_norms",))
    np.testing.assert_array_equal(plain.extras["state_norms"], np.ones((2, 3)))


@pytest.mark.long
def test_centering_leaves_an_unbiased_method_unbiased_on_policy():
    method = methods.chain(methods.rloo(), methods.recompute(), methods.score_centering(count=2))
    method = method._replace(reduce=reductions.over_length(8.0))
    report = audit.audit(chain(needed=1, turns=2), method, size=2)
    assert report.bias < 1e-10
