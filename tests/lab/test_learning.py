"""Histories, batches, and training runs of the laboratory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.lab import agents, enumeration, episodes, history, learning, prompting, suite
from gtpo_jax.lab import facts as lab_facts
from gtpo_jax.lab.policies import recurrent, score, table
from gtpo_jax.lab.worlds import Event, Judgment, World, chain, many
from gtpo_jax.parts import credit, facts
from gtpo_jax.parts.facts import Fact

SETTINGS = learning.Settings(updates=12, groups=4, size=4, learning_rate=0.2)


def small():
    return chain(needed=1, turns=3)


@functools.cache
def curves(sign=1.0, seeds=(0, 1, 2, 3)):
    settings = dataclasses.replace(SETTINGS, sign=sign)
    return jax.device_get(learning.learn(small(), methods.rloo(), seeds=seeds, settings=settings))


def test_sampled_episodes_are_as_frequent_as_their_probability():
    world, count = small(), 4000
    params = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    sampled = history.sample(world, table(), params, jax.random.key(0), jnp.zeros(count, jnp.int32))
    paths = enumeration.enumerate_paths(world)
    expected = enumeration.path_probabilities(paths, table(), params)

    def key(rows):
        return [
            tuple(a[alive].tolist())
            for a, alive in zip(np.asarray(rows.actions), np.asarray(rows.alive), strict=True)
        ]

    drawn = key(sampled)
    for path, chance in zip(key(paths.history), np.asarray(expected), strict=True):
        share = drawn.count(path) / count
        assert abs(share - chance) < 5 * np.sqrt(chance * (1 - chance) / count) + 1e-9, path
    assert set(drawn) <= set(key(paths.history))


def test_the_policy_learns_and_its_mirror_does_not():
    learned, mirrored = curves(), curves(sign=-1.0)
    assert learned.solved[:, -1].mean() > learned.solved[:, 0].mean() + 0.2
    assert mirrored.solved[:, -1].mean() <= mirrored.solved[:, 0].mean() + 0.05


def test_a_seed_runs_alone_as_among_others():
    alone, among = curves(seeds=(2,)), curves()
    for name in ("solved", "turns", "entropy"):
        np.testing.assert_allclose(getattr(alone, name)[0], getattr(among, name)[2], atol=1e-5)
    assert not np.array_equal(among.solved[0], among.solved[1])


def test_epochs_move_the_ratio_and_a_recurrent_policy_learns_too():
    settings = dataclasses.replace(SETTINGS, epochs=2)
    twice = learning.learn(
        small(), methods.gtpo(), seeds=(0, 1), settings=settings, policy=recurrent(width=4)
    )
    assert np.isfinite(np.asarray(twice.solved)).all() and twice.solved.shape == (2, 12)
    assert float(twice.solved[:, -3:].mean()) > float(twice.solved[:, :3].mean())


def words(*, agents=1):
    """Turns of one to three tokens: token 1 ends a turn, 0 is a word; two turns end an episode."""

    def step(state, action, chance):
        del chance
        ends = action == 1
        turns = state["turns"] + ends
        return {"turns": turns, "words": state["words"] + ~ends}, Event(
            ends_turn=ends,
            done=turns >= 2,
            violation=state["words"] > 2,
            calls=ends.astype(jnp.int32),
            call_errors=(state["words"] > 1).astype(jnp.int32) * ends,
            facts={"hits": 1.0 * state["words"], "agent": state["turns"] % agents},
        )

    def judge(state, chance):
        del chance
        return Judgment(success=state["words"] > 1, solved=state["words"] > 1)

    return World(
        name="words",
        claim="Do tokens come together as turns?",
        actions=2,
        observations=3,
        tokens=6,
        turns=2,
        reset=lambda problem: {
            "turns": jnp.zeros((), jnp.int32),
            "words": jnp.zeros((), jnp.int32),
        },
        observe=lambda state: jnp.minimum(state["turns"], 2),
        step=step,
        judge=judge,
        rows=agents,
    )


HITS = Fact("hits", None, "[M, K], words before the end of the turn", "the world of words")
NEEDS = (
    *(HITS, facts.CALLS, facts.CALL_ERRORS, facts.TURN_TOKENS, facts.RESPONSE_TOKENS),
    *(facts.TURN_ENTROPIES, facts.TURN_LOGPROBS, facts.ANCHORS, facts.ACTIONS, facts.ANSWERS),
    *(facts.PROBLEMS, facts.STEP, facts.CODE, facts.POLICY_STATES),
)


def context(world, rows=64):
    params = jnp.zeros((3, 2))
    problems = jnp.zeros(rows, jnp.int32)
    sampled = history.sample(world, table(), params, jax.random.key(1), problems)
    scored = score(table(), params, sampled.observations, sampled.actions)
    return sampled, lab_facts.make_context(world, sampled, scored, scored, jnp.int32(5))


def test_facts_of_turns_are_those_of_their_tokens():
    sampled, made = context(words())
    batch = episodes.episode_batch(made, jnp.zeros(64, jnp.int32), NEEDS)
    batch, sampled = jax.device_get((batch, sampled))
    for row in range(64):
        alive = sampled.alive[row]
        turns, written, total = [[]], [], 0
        for action in sampled.actions[row][alive]:
            turns[-1].append(int(action))
            if action == 1:
                turns.append([])
        turns = [turn for turn in turns if turn]
        count = len(turns)
        assert batch.turn_mask[row].sum() == count
        assert batch.facts["response_tokens"][row] == alive.sum()
        for k, turn in enumerate(turns):
            before = total
            total += turn.count(0)
            written.append(len(turn))
            ended = turn[-1] == 1
            assert batch.facts["turn_tokens"][row, k] == len(turn)
            assert batch.facts["calls"][row, k] == ended
            assert batch.facts["call_errors"][row, k] == (ended and total > 1)
            last = total if ended else max(total - 1, before)
            assert batch.facts["hits"][row, k] == last
            assert batch.facts["turn_logprobs"][row, k] == pytest.approx(np.log(0.5), rel=1e-5)
        assert not batch.facts["turn_tokens"][row, count:].any()
    assert set(batch.facts["step"]) == {5}


def test_equal_turns_have_equal_ids_and_other_turns_others():
    sampled, made = context(words())
    ids = np.asarray(lab_facts.FACTS["actions"](made))
    seen = {}
    for row in range(64):
        alive = np.asarray(sampled.alive[row])
        for k in (0, 1):
            here = alive & (np.asarray(sampled.turn_ids[row]) == k)
            if here.any():
                seen.setdefault(tuple(np.asarray(sampled.actions[row])[here]), set()).add(
                    ids[row, k]
                )
    assert all(len(ids) == 1 for ids in seen.values())
    assert len({min(ids) for ids in seen.values()}) == len(seen)


def test_agents_have_trajectories_of_their_own():
    world = words(agents=2)
    sampled, _ = context(world, rows=8)
    rows = jax.device_get(agents.split(world, sampled))
    assert len(rows.problems) == 16
    assert rows.judgment.facts["agents"].tolist() == [0] * 8 + [1] * 8
    assert rows.judgment.facts["parents"].tolist() == [*range(8), *range(8)]
    whole = np.asarray(sampled.alive)
    np.testing.assert_array_equal(rows.alive[:8] | rows.alive[8:], whole)
    assert not (rows.alive[:8] & rows.alive[8:]).any()
    for row in range(16):
        ids = rows.turn_ids[row][rows.alive[row]]
        assert sorted(set(ids.tolist())) == list(range(len(set(ids.tolist()))))


def test_a_world_without_a_needed_fact_is_named_with_what_it_has():
    link = credit.stateless(lambda x, e: x + facts.read(e, HITS), needs=(HITS,))
    method = methods.add_link(methods.rloo(), link)
    assert suite.missing_facts(method, small()) == ("hits",)
    assert suite.missing_facts(method, words()) == ()
    with pytest.raises(ValueError, match=r"'hits' .* the world chain does not provide"):
        learning.learn(small(), method, seeds=(0,), settings=SETTINGS)


def test_prompts_choose_problems_and_divide_a_fixed_number_of_episodes():
    world = many(problems=12)
    prompts = methods.chain(methods.grpo(), methods.mmr1(every=1), methods.knapsack()).prompts
    state = prompts.init(12)

    def step(state, number):
        key = jax.random.fold_in(jax.random.key(0), number)
        chosen = prompting.choose(world, prompts, state, key, number, groups=4, size=4)
        sampled = history.sample(world, table(), table().init(world, key), key, chosen.problems)
        found = prompting.outcomes_of(world, prompts, chosen, sampled)
        return prompts.observe(state, found), (chosen, sampled, found)

    state, (chosen, sampled, found) = jax.lax.scan(step, state, jnp.arange(6))
    sizes = np.asarray(chosen.proposal.group_sizes)
    assert np.all(sizes.sum(1) == 16) and len(np.unique(sizes)) > 1
    for number in range(6):
        groups = np.asarray(chosen.group_ids[number])
        assert np.bincount(groups, minlength=4).tolist() == sizes[number].tolist()
        np.testing.assert_array_equal(
            chosen.problems[number], np.asarray(chosen.proposal.problems[number])[groups]
        )
        solved = np.asarray(sampled.judgment.success[number])
        for group in range(4):
            here = groups == group
            assert int(found.successes[number, group]) == solved[here].sum()
            pairs = {tuple(row) for row in np.asarray(sampled.actions[number])[here].tolist()}
            share = len(pairs) / here.sum()
            np.testing.assert_allclose(found.further["text_diversity"][number, group], share)


@pytest.mark.long
def test_choice_of_problems_is_judged_on_all_of_them():
    world = many(problems=12)
    settings = learning.Settings(updates=3, groups=4, size=4)
    method = methods.chain(methods.grpo(), methods.vade(), methods.overlong_filter())
    curves = learning.learn(world, method, seeds=range(64), settings=settings)
    assert abs(float(curves.learned[:, 0].mean()) - 0.39) < 0.06
    assert not np.array_equal(curves.learned, curves.solved)
