"""Worked numbers of the relatives that shape rewards."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit, facts, plans, rewards
from gtpo_jax.types import EpisodeBatch, Problem

close = functools.partial(np.testing.assert_allclose, atol=5e-5)  # the numbers have four digits


ROWS = 9  # all examples have one shape, so that they share compiled operations


def batch(success, *, groups=None, counts=None, broken=(), **given):
    """Episodes of up to three turns, and excluded successes behind them, whose facts are those of
    the first rows; `broken` rows have a violation in their first turn.
    """
    rows = len(success)

    def filled(values, kind=None):
        values = np.asarray(values, kind)
        return jnp.asarray(np.resize(values, (ROWS, *values.shape[1:])))

    violations = np.zeros((rows, 3), bool)
    violations[list(broken), 0] = True
    return EpisodeBatch(
        group_ids=filled(groups or [0] * rows, np.int32),
        included=jnp.arange(ROWS) < rows,
        success=filled(success, bool) | (jnp.arange(ROWS) >= rows),
        turn_mask=filled(np.arange(3) < np.array(counts or [1] * rows)[:, None]),
        violations=filled(violations),
        facts={name: filled(value) for name, value in given.items()},
    )


def turns(*rows):
    """Rows of numbers of turns, padded with 0 to three turns."""
    return np.array([[*row, *[0] * (3 - len(row))] for row in rows])


def assigned(modifier, episodes, state=None):
    """State, rewards of trajectories and advantages of turns of the included rows, with `eps` 0."""
    method = modifier
    if not isinstance(modifier, methods.Method):
        method = methods.chain(methods.grpo(eps=0.0), modifier)
    begin = method.credit.init() if state is None else state
    state, turn = jax.device_get(methods.assign(method, begin, episodes))
    rows = int(episodes.included.sum())
    return state, turn.rewards[:rows].sum(1), turn.advantages[:rows]


def test_otc_po():
    made = batch([1, 1, 0, 1], calls=turns([1], [2], [1], [4]))
    _, _, found = assigned(methods.otc_po(limit=4, memory=0), made)
    close(found[:, 0], [1.0063, 0.6575, -1.5970, -0.0668])
    m = jnp.array([0, 1, 2, 4])
    factors = functools.partial(credit.productivity_factors, m, limit=4)
    close(factors(jnp.zeros(4, int)), [1, 0.8660, 0.7071, 0.5])
    close(factors(jnp.full(4, 2)), [0, 0.8660, 1, 0.8660])


def test_otc_po_with_equal_calls_rewards_correctness():
    made = batch([1, 1, 0, 1], calls=turns([2], [2], [2], [2]))
    _, _, found = assigned(methods.otc_po(memory=0), made)
    _, _, plain = assigned(methods.grpo(eps=0.0), made)
    np.testing.assert_array_equal(found, plain)


def test_otc_po_remembers_the_fewest_calls_of_a_problem():
    modifier = methods.otc_po(memory=8)
    first = batch([1, 0, 0, 1], calls=turns([1], [0], [0], [3]), problems=np.full(4, 9))
    later = batch([1, 1, 1, 0], calls=turns([2], [2], [5], [0]), problems=np.full(4, 9))
    state, _, _ = assigned(modifier, first)
    assert state[0][1] == 1 and set(state[0][[0, 2, 3]]) == {2**30}
    after, _, found = assigned(modifier, later, state)
    r = np.array([np.sin(np.pi * 2 / 3), np.sin(np.pi * 2 / 3), np.sin(np.pi * 5 / 6), 0])
    close(found[:, 0], (r - r.mean()) / r.std())
    assert after[0][1] == 1


def test_e_grpo():
    made = batch(
        [1, 0, 0, 0],
        broken=[3],
        entity_hits=np.array([3, 2, 1, 0]),
        entity_count=np.full(4, 4),
        cut_off=np.zeros(4, bool),
    )
    made.facts["entity_hits"] = made.facts["entity_hits"].at[4:].set(4)  # of excluded rows
    _, reward, found = assigned(methods.e_grpo(), made)
    close(reward, [1, 0.2, 0.1, 0])
    close(found[:, 0], [1.7042, -0.3156, -0.5681, -0.8206])
    cut = {**made.facts, "cut_off": jnp.arange(ROWS) == 3}
    _, _, after = assigned(methods.e_grpo(), dataclasses.replace(made, facts=cut))
    close(after[:, 0], [1.7042, -0.3156, -0.5681, 0])


def test_tp_grpo():
    labels = turns([1, 0, 1], [1, 1, 1], [0, 1], [1, 1]).astype(bool)
    made = batch([1, 1, 0, 0], counts=[3, 3, 2, 2], thought_labels=labels)
    modifier = methods.tp_grpo(labels=lambda t: [True] * len(t.turns))
    _, _, found = assigned(modifier, made)
    close(found, [[1, 0.5, 1], [1, 1, 1], [0, -1, 0], [-1, -1, 0]])


def test_pta_grpo():
    plans = np.repeat([5, 7, 9], 3)
    made = batch([1, 1, 0, 0, 0, 0, 1, 1, 1], counts=[2] * 9, plans=plans)
    _, reward, found = assigned(methods.pta_grpo(eps=0.0), made)
    quality = np.repeat([2 / 3, 0, 1], 3)
    close(reward - np.asarray(made.success), quality)
    pool = np.array([2 / 3, 0, 1])
    close(found[:, 0], np.repeat((pool - pool.mean()) / pool.std(), 3))
    r = np.asarray(made.success) + quality
    close(found[:, 1], (r - r.mean()) / r.std())


def test_ws_grpo():
    likes = turns([0.6, 0.8], [0.5, 0.5, 0.2], [0.4])
    made = batch([1, 0, 1], counts=[2, 3, 1], prefix_preferences=likes)
    _, reward, found = assigned(methods.ws_grpo(), made)
    close(reward, [4.5, 2, 3])
    close(found[:, 0], [1.2978, -1.1355, -0.1622])


def test_ps_grpo():
    similarity = jnp.array([[1, 0, 1, 0.5], [0, 1, 0, 0.5], [1, 0, 1, 0], [0.5, 0.5, 0, 1]])
    groups, kept = jnp.array([0, 0, 1, 1]), jnp.ones(4, bool)
    scores = functools.partial(rewards.agreement_scores, lambda row: similarity[row])
    close(scores(jnp.zeros(4, int), kept, groups), [0.75, 0.25, 0.5, 0.5])
    assert not np.any(scores(jnp.arange(4), kept, groups)), "another family is not compared"
    made = batch([0] * 4, groups=[0, 0, 1, 1])
    agreed = jnp.pad(scores(jnp.zeros(4, int), kept, groups), (0, ROWS - 4))
    part = rewards.whole(lambda e: agreed)
    _, _, found = assigned(lambda m: methods.add_reward(m, "agreement", part), made)
    close(found[:, 0], [1, -1, 0, 0])


@pytest.mark.parametrize(
    ("own", "other", "order", "expected"),
    [
        ("the sum is four", "the sum is four", 2, 1.0),
        ("the sum is four", "the sum is five", 1, 3 / 4),
        ("the sum is four", "the sum is five", 2, np.sqrt(3 / 4 * 2 / 3)),
        ("the the the", "the sum", 1, 1 / 3),
        ("four", "the sum is four", 2, np.exp(-3)),
        ("four", "five", 2, 0.0),
        ("", "five", 2, 0.0),
        ("five", "", 1, 0.0),
    ],
)
def test_bleu_of_two_texts(own, other, order, expected):
    counts = [jnp.asarray(rewards.count_ngrams(text)) for text in (own, other)]
    found = rewards.bleu(counts[0], counts[1][None], order=order)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_multirole_r1():
    diversity = np.repeat([[0.2], [0.6], [0.9]], 8, axis=1)
    _, reward, found = assigned(methods.multirole_r1(), batch([1, 1, 0], diversity=diversity))
    close(reward, [0.84, 0.92, 0.18])
    close(found[:, 0], [0.5830, 0.8243, -1.4073])


def test_multi_objective():
    scores = np.array([[1, 0.5, 0.5, 0], [0.5, 0.5, 1, 1], [0, 1, 0, 1]])
    modifier = methods.multi_objective(scores=lambda t: [0.0] * 4, weights=[0.25] * 4)
    _, reward, found = assigned(modifier, batch([1, 0, 0], scores=scores))
    close(reward, [0.5, 0.75, 0.5])
    close(found[:, 0], [-0.7071, 1.4142, -0.7071])


def test_conciser_shortens_groups_that_are_all_right():
    tokens = np.array([10, 20, 30, 10, 20, 30])
    # The row without turns is no member of its group.
    made = batch(
        [1, 1, 1, 0, 1, 1, 0],
        groups=[0] * 4 + [1] * 3,
        counts=[1, 2, 3, 0, 1, 1, 1],
        response_tokens=np.insert(tokens, 3, 0),
    )
    _, reward, found = assigned(methods.conciser(longest=40), made)
    close(reward, [1.75, 1.5, 1.25, 0, 1, 1, 0])
    close(found[:, 0], [1.2247, 0, -1.2247, 0, 0.7071, 0.7071, -1.4142])
    with pytest.raises(ValueError, match="dynamic sampling drops them"):
        methods.conciser()(methods.dapo())


def test_length_curriculum():
    budget = functools.partial(rewards.token_budget, start=256, decay=0.7, every=150)
    close(budget(jnp.array([0, 150, 300, 450, 149])), [256, 179.2, 125.44, 87.808, 256])
    close(budget(jnp.array([10_000])), [1])
    tokens, peak = jnp.array([50, 100, 150, 200, 250]), jnp.full(5, 100.0)
    close(rewards.budget_rewards(tokens, peak), [0.5, 1, 0.5, 0, 0])
    close(rewards.budget_rewards(tokens, peak, band=True), [1, 1, 0.5, 0, 0])
    made = batch([1, 0, 1], broken=[2], response_tokens=np.array([50, 100, 250]), step=[0] * 3)
    _, reward, _ = assigned(methods.length_curriculum(start=100), made)
    close(reward, [0.6 + 0.15 + 0.1, 0.3 + 0.1, 0.6])


def test_length_curriculum_states_the_budget_of_the_step():
    problem = Problem(id="p", question="2 + {2}?", answer="4")
    method = methods.length_curriculum(template="{question} At most {budget}.")(methods.grpo())
    for step, tokens in {0: 256, 150: 179, 450: 88}.items():
        asked = next(plans.at_moment(method.plan, plans.Moment(step=step))(problem, 3, 2))
        assert {r.question for r in asked} == {f"2 + {{2}}? At most {tokens}."}
        assert [(r.group, r.sample) for r in asked] == [(3, 0), (3, 1)]
    assert list(method.plan.questions(problem)) == ["2 + {2}? At most 256."]
    with pytest.raises(ValueError, match=r"must hold \{question\} and \{budget\}"):
        methods.length_curriculum(template="{question}")
    with pytest.raises(ValueError, match="leave one of them out"):
        methods.igrpo()(method)


def test_grpo_care():
    logprobs = np.log([0.9, 0.6, 0.99])
    _, reward, _ = assigned(
        methods.grpo_care(), batch([1, 1, 0], reference_answer_logprobs=logprobs)
    )
    close(reward, [1.5, 1, 0])
    # Both are capped at .95, so that the likelier one does not lift the threshold.
    _, reward, _ = assigned(
        methods.grpo_care(), batch([1, 1, 0], reference_answer_logprobs=np.log([0.999, 0.95, 0.5]))
    )
    close(reward, [1.5, 1.5, 0])
    # The second is below the mean of .795, within the margin.
    _, reward, _ = assigned(
        methods.grpo_care(), batch([1, 1, 0], reference_answer_logprobs=np.log([0.8, 0.79, 0.95]))
    )
    close(reward, [1.5, 1.5, 0])


def test_consistency_rewards_candidates_only():
    # The third row is the likeliest, and less accurate than the mean of its group.
    bonuses = rewards.consistency_bonuses(
        jnp.array([1.0, 0.5, 0.25, 0.0]),
        jnp.log(jnp.array([0.25, 0.5, 0.75, 0.5])),
        jnp.ones(4, bool),
        jnp.zeros(4, int),
        coefficient=0.5,
    )
    close(bonuses, [0, 0.25, 0, 0])


def test_unlikeliness():
    logprobs = turns([-0.1], [-0.5], [-0.3], [-0.9]).astype(float)
    made = batch([1, 1, 0, 1], turn_logprobs=logprobs, turn_tokens=turns([5], [5], [5], [5]))
    _, _, found = assigned(methods.unlikeliness(), made)
    close(found[:, 0], [0.3105, 0.6209, -1.7075, 0.7762])


def test_earlier_of_two_equally_likely_successes_counts_as_less_likely():
    ranks = credit.likelihood_ranks(
        jnp.array([-0.5, -0.5, -0.1, -0.5]), jnp.array([True, True, True, False]), jnp.zeros(4, int)
    )
    assert ranks[:3].tolist() == [0, 1, 2]


def test_mean_logprob_of_a_row_is_that_of_its_tokens():
    logprobs = turns([-0.1, -0.9], [-0.4, -0.4]).astype(float)
    made = batch(
        [1, 1], counts=[2, 2], turn_logprobs=logprobs, turn_tokens=turns([1, 9], [1, 1])
    )  # means -.82 and -.4: the mean over turns would order them the other way
    _, _, found = assigned(methods.unlikeliness(), made)
    close(found[:, 0], [1, -1])


def test_craft_gui():
    made = batch([1, 0], counts=[2, 1], **{"reward judge": turns([0, 0.4], [0.6])})
    _, reward, _ = assigned(methods.craft_gui(judge=lambda t: 0.0, weight=0.5), made)
    close(reward, [1.2, 0.3])


def test_open_rs():
    lengths = np.array([0, 1792, 3584, 0, 1792, 3584])
    made = batch([1, 1, 1, 0, 0, 0], broken=[5], response_tokens=lengths)
    _, reward, _ = assigned(methods.open_rs(), made)
    close(reward, [3, 2.5, 2, 1, 0.5, -1])
    right, wrong = jnp.ones(1, bool), jnp.zeros(1, bool)
    beyond = functools.partial(rewards.cosine_rewards, tokens=jnp.array([7168]), longest=3584)
    close([*beyond(right), *beyond(wrong)], [0.5, -0.5])


def test_wireless_math():
    method = methods.wireless_math()
    _, reward, _ = assigned(method, batch([1, 0, 0], broken=[2]))
    close(reward, [1, 0.1, 0])
    policy, divergence = method.loss.terms
    assert (policy.surrogate.low, policy.surrogate.high) == (0.2, 0.2)
    assert divergence.weight == 0.01


def test_m_grpo():
    # A right main row with two subs, a wrong one with one, an invalid one with one.
    made = batch(
        [1, 0, 0, 0, 0, 1, 0],
        broken=[2, 5],
        agents=np.array([0, 1, 1, 0, 1, 0, 1]),
        parents=np.array([0, 0, 0, 3, 3, 5, 5]),
    )
    _, reward, found = assigned(methods.m_grpo(), made)
    close(reward, [1, 1, 0, 0.1, 0.1, 0, 0.1])
    main, sub = np.array([1, 0.1, 0]), np.array([1, 0, 0.1, 0.1])
    close(found[[0, 3, 5], 0], (main - main.mean()) / main.std())
    close(found[[1, 2, 4, 6], 0], (sub - sub.mean()) / sub.std())
    unknown = dataclasses.replace(made, included=made.included.at[0].set(False))
    _, reward, _ = assigned(methods.m_grpo(), unknown)
    close(reward, [0, 0.1, 0, 0.1, 0.1, 0])


def test_facts_that_nobody_records_name_their_provider():
    for modifier, words in (
        (methods.ws_grpo(), "prefer=my.module:function"),
        (methods.grpo_care(), "`training.Training` computes it"),
    ):
        with pytest.raises(ValueError, match=words):
            facts.check_provided(modifier(methods.grpo()).facts, ())
