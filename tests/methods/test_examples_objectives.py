"""Worked examples of the objectives that choose rows and tokens, and of their schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit, facts, plans, schedules, spreads
from gtpo_jax.types import EpisodeBatch
from tests.learner.test_learner import TOY_VOCABULARY
from tests.methods.test_token_relatives import spread_of, trajectories
from tests.tiny import make_trajectory


def rows_of(tokens, entropies, advantages, **more):
    """One group of trajectories of one turn."""
    shape = np.shape(tokens)
    mask = np.ones((shape[0], 1), bool)
    zeros = np.zeros(shape[0], np.int32)
    episodes = EpisodeBatch(
        group_ids=zeros,
        included=mask[:, 0],
        success=mask[:, 0],
        turn_mask=mask,
        violations=~mask,
        facts={"contexts": zeros[:, None], "step": zeros, **more},
    )
    ids = np.zeros(shape, np.int32)
    entropies = np.broadcast_to(np.float32(entropies), shape)
    written = spreads.Written(
        np.array(tokens, np.int32), ids, entropies, np.zeros(shape, np.float32)
    )
    return np.array(advantages, np.float32)[:, None], written, episodes


def test_worked_example_of_prefix_shares():
    args = rows_of([[1, 2, 3], [1, 2, 4], [1, 5, 6]], 0, [1] * 3)
    found = jax.jit(spread_of(methods.lambda_grpo()))(*args)
    third, half = 1 / 3, 1 / 2
    np.testing.assert_allclose(found, [[third, half, 1], [third, half, 1], [third, 1, 1]])


def test_worked_example_of_rows_of_most_variance():
    values, kept = jnp.array([1.5, 0.5, -0.5, -1.5, 0.0, 0.0]), jnp.ones(6, bool)
    keys = jnp.arange(6)
    most_varied = jax.jit(credit.most_varied)
    chosen = most_varied(values, kept, 4, keys)
    assert chosen.tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(np.var(values[:4]), 1.25)
    for number in range(7):
        assert int(jnp.sum(most_varied(values, kept, number, keys))) == number
    assert not np.any(most_varied(values, jnp.zeros(6, bool), 4, keys))


def test_worked_example_of_tokens_of_large_steps():
    args = rows_of([[0] * 4], [[0.1, 0.8, 0.5, 0.2]], [1.5])
    half = methods.d3s(rows=1.0, last_rows=1.0, tokens=0.5, last_tokens=0.5)
    np.testing.assert_allclose(jax.jit(spread_of(half))(*args), [[0, 1.5, 1.5, 0]])


def test_worked_examples_of_schedules():
    steps = jnp.array([0, 15, 30, 65, 100, 200])
    geometry = schedules.DownAndUp(lowest=0.0, highest=0.02, turn=30.0, steps=100.0)
    counting = schedules.DownAndUp(lowest=0.04, highest=0.1, turn=30.0, steps=100.0)
    np.testing.assert_allclose(geometry(steps), [0.01, 0.005, 0, 0.01, 0.02, 0.02], atol=1e-8)
    np.testing.assert_allclose(counting(steps), [0.07, 0.055, 0.04, 0.07, 0.1, 0.1], atol=1e-8)
    rows = schedules.Linear(first=8.0, last=16.0, steps=4.0)
    tokens = schedules.Linear(first=10.0, last=50.0, steps=4.0)
    assert (float(rows(jnp.array(1))), float(tokens(jnp.array(1)))) == (10, 20)
    with pytest.raises(ValueError, match="must turn before its end"):
        schedules.DownAndUp(lowest=0.0, highest=0.1, turn=10.0, steps=10.0)


def test_worked_examples_of_baselines():
    args = rows_of([[0]] * 3, 0, [0] * 3, response_tokens=np.array([10, 20, 30]))
    rewards = jnp.array([[1.0], [0.0], [0.0]])

    def advantages(link):
        return np.asarray(jax.jit(link.apply)(link.init(), rewards, args[2])[1])[:, 0]

    soft = advantages(credit.minus_log_mean_exp(1.0))
    np.testing.assert_allclose(soft, [0.5472, -0.4528, -0.4528], atol=5e-5)
    mean = methods.opmd().credit.links[1]
    np.testing.assert_allclose(advantages(mean), [0.6667, -0.3333, -0.3333], atol=5e-5)
    asymre = credit.chain(mean, credit.raised(0.1))
    np.testing.assert_allclose(advantages(asymre), [0.7667, -0.2333, -0.2333], atol=5e-5)
    weighted = advantages(credit.minus_weighted_mean())
    np.testing.assert_allclose(weighted, [5 / 6, -1 / 6, -1 / 6], atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(credit.positive().apply((), jnp.array([[1.0], [-1.0]]), args[2])[1])[:, 0],
        [1, 0],
    )


def test_contexts_tell_prompts_turns_and_tool_output_apart():
    rng = np.random.default_rng(0)
    one = make_trajectory(rng, [(3, 2), (2, 0)], vocab_size=TOY_VOCABULARY)
    turns = one.turns
    reply = dataclasses.replace(turns[0], observation=turns[0].observation + 1)
    longer = dataclasses.replace(
        turns[0],
        tokens=np.append(turns[0].tokens, turns[0].observation[:1]),
        observation=turns[0].observation[1:],
    )
    others = [
        one,
        dataclasses.replace(one, prompt=one.prompt + 1),
        dataclasses.replace(one, turns=(reply, turns[1])),
        dataclasses.replace(one, turns=(longer, turns[1])),
    ]
    ids = facts.gather_contexts([one, *others], 3)
    assert ids[0].tolist() == ids[1].tolist() and not np.any(ids[:, 2])
    assert len(set(ids[1:, 0].tolist())) == 2 and len(set(ids[1:, 1].tolist())) == 4


def test_options_out_of_range_and_marks_that_differ_are_refused():
    for wrong in (
        lambda: methods.high_entropy(share=1.5),
        lambda: methods.d3s(rows=-0.1),
        lambda: methods.kl_cov(weight=-1.0),
        lambda: methods.llds(weight=-1.0),
        lambda: methods.sapo_gate(positive=0.0),
        lambda: methods.gmpo(low=-0.1),
        lambda: methods.opmd(tau=0.0, baseline="log_mean_exp"),
        lambda: methods.kl_schedule(lowest=-0.1),
    ):
        with pytest.raises(ValueError):
            wrong()
    twice = methods.chain(methods.grpo(), methods.kl_cov(share=0.1), methods.kl_cov(share=0.2))
    with pytest.raises(ValueError, match="different marks named 'covariant'"):
        _ = twice.loss.marks
    with pytest.raises(ValueError, match="before the mean of their turn or sequence"):
        dataclasses.replace(methods.gmpo().loss.terms[0], unit="token")


def test_worked_examples_of_temperatures():
    steps, smooth = plans.Temperatures(), plans.Temperatures(smooth=True)
    assert (steps(0.4), steps(0.6)) == (1.2, 0.8)
    np.testing.assert_allclose([smooth(h) for h in (0.4, 0.1, 2.0)], [1.1, 1.2, 0.8])
    with pytest.raises(ValueError, match="low <= 1 <= high"):
        plans.Temperatures(low=1.1)


def test_more_rollouts_are_asked_for_at_the_temperature_of_their_entropy():
    plan = plans.retempered(share=0.5, temperatures=plans.Temperatures())
    made = trajectories()  # entropies around .35
    episodes = plan(made[0].problem, 0, 4)
    assert [r.temperature for r in next(episodes)] == [1.0] * 4
    asked = episodes.send(made)
    assert [(r.sample, r.temperature) for r in asked] == [(4, 1.2), (5, 1.2)]
    with pytest.raises(StopIteration) as end:
        episodes.send(made[:2])
    assert [t.facts.get("resampled", 0) for t in end.value.value] == [0, 0, 0, 0, 1, 1]
    assert (plan.returned(4), plan.sampled(4)) == (6, 6)
    assert plans.retempered(share=0.25, temperatures=plans.Temperatures()).sampled(6) == 8


def test_resampled_successes_alone_are_marked():
    [mark] = methods.chain(methods.grpo(), methods.aepo_arbitrary()).loss.marks
    _, written, episodes = rows_of([[0, 0]] * 3, 0, [1.0] * 3, resampled=np.array([1, 0, 1]))
    episodes = dataclasses.replace(episodes, success=np.array([True, True, False]))
    found = jax.jit(mark.function)(np.ones((3, 2), np.float32), written, episodes)
    np.testing.assert_array_equal(found, [[1, 1], [0, 0], [0, 0]])
