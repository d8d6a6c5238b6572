"""Worked numbers of the relatives with other sets of turns or other baselines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import credit, rewards
from gtpo_jax.types import ToolResult, ToolStatus
from tests.methods.examples import advantages, episodes, exactly, plain, scores, values
from tests.methods.rows_weights import turn_credit
from tests.tiny import make_trajectory

THREE = dict(success=[True, False, False], turns=[2, 2, 1])


def test_gigpo_compares_turns_that_begin_in_the_same_state():
    batch = episodes(**THREE, anchors=[[0, 1], [0, 2], [0, 0]])
    expected = [[1.3, 0.66667], [-0.65, -0.33333], [-0.65, 0]]
    exactly(advantages(methods.gigpo(), batch), expected, 1e-5)


def test_gigpo_is_grpo_where_no_state_recurs():
    batch = episodes(**THREE, anchors=np.arange(6).reshape(3, 2))
    parent = methods.grpo(divide_by_std=False)
    exactly(advantages(methods.gigpo(), batch), advantages(parent, batch), 1e-6)


def test_salt_shares_the_advantage_of_a_common_transition():
    batch = episodes(**THREE, anchors=[[0, 1], [0, 1], [0, 9]], actions=[[5, 6], [5, 7], [8, 0]])
    expected = [[0.353553, 1.414214], [0.353553, -0.707107], [-0.707107, 0]]
    exactly(advantages(methods.chain(plain(), methods.salt()), batch), expected, 1e-5)


def test_salt_counts_a_repeated_transition_each_time_and_tells_next_states_apart():
    same = dict(anchors=[[0, 0, 1], [0, 2, 0]], actions=[[3, 3, 0], [3, 0, 0]])
    batch = episodes([True, False], [3, 2], **same)
    found = advantages(methods.chain(plain(), methods.salt()), batch)
    exactly(found, [[1, 1, 1], [-1, -1, 0]], 1e-6)  # into 0, into 1, into 2
    looping = dict(anchors=[[0, 0, 0], [0, 0, 0]], actions=[[3, 3, 0], [3, 0, 0]])
    batch = episodes([True, False], [3, 2], **looping)
    found = advantages(methods.chain(plain(), methods.salt()), batch)
    exactly(found, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0]], 1e-6)  # twice 1, once −1; both end alike


def test_salt_keeps_the_sum_over_equal_transitions():
    ids = dict(anchors=np.zeros((2, 3), int), actions=[[3, 3, 0], [3, 0, 0]])
    batch = episodes([True, False], [3, 2], **ids)
    before = advantages(plain(), batch)
    after = advantages(methods.chain(plain(), methods.salt()), batch)
    shared = np.array([[True, True, False], [True, False, False]])
    for place in (shared, ~shared):
        exactly(after[place].sum(), before[place].sum(), 1e-6)
    assert np.any(before != after)


@pytest.mark.parametrize("parent", ["grpo", "gtpo", "rloo"])
def test_salt_is_its_parent_where_no_transition_recurs(parent):
    method = methods.METHODS[parent]()
    if parent == "gtpo":
        method = turn_credit()
    ids = np.arange(6).reshape(3, 2)
    batch = episodes(**THREE, anchors=ids, actions=ids)
    changed = methods.chain(method, methods.salt())
    exactly(advantages(changed, batch), advantages(method, batch), 1e-6)


def test_flow_grpo_broadcasts_the_outcome_to_turns():
    batch = episodes([True, False, False, True], [2, 1, 3, 2])
    method = methods.flow_grpo(eps=0.0)
    found = advantages(method, batch)[np.asarray(batch.turn_mask)]
    exactly(np.sort(found), [-0.8660254] * 4 + [0.8660254] * 4, 1e-5)
    over_turns = methods.flow_grpo(eps=0.0, normalize=credit.group)
    exactly(np.abs(advantages(over_turns, batch))[np.asarray(batch.turn_mask)], 0.9354143, 1e-5)
    assert method.loss.needs == {"reference_logprobs"}


def test_rank_grpo_discounts_by_position_and_compares_at_the_same_rank():
    batch = episodes([False, False], [3, 3])
    hits = jnp.asarray([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    mask = batch.turn_mask
    exactly(credit.rank_returns(hits, mask), [[1.5, 0.5, 0.5], [0.6309298, 0.6309298, 0]], 1e-6)
    link = credit.chain(credit.ranked(), credit.standardized_by_rank(ddof=0, eps=0.0))
    exactly(values(link, batch, hits), [[1, -1, 1], [-1, 1, -1]], 1e-5)


def test_rank_grpo_counts_a_missing_turn_as_nothing_earned():
    batch = episodes([True, True, False], [2, 1, 2])
    zero, skip = (
        advantages(methods.rank_grpo(missing=missing, ddof=0, eps=0.0), batch)
        for missing in ("zero", "skip")
    )
    exactly(zero[:, 1], [1.414214, 0, -0.707107], 1e-5)  # of .6309, 0, 0
    exactly(skip[:, 1], [1, 0, -1], 1e-5)
    exactly(zero[:, 0], skip[:, 0], 1e-6)


def test_brpo_rewards_every_budget():
    scores_after = [[0.0, 9.0], [1.0, 9.0], [0.0, 9.0]]  # of last turns: the outcome
    batch = episodes([True, True, False], [2, 2, 2], budget_scores=scores_after)
    expected = [[0, 0.333333], [0.5, 0.083333], [-0.5, -0.166667]]
    exactly(advantages(methods.brpo(), batch), expected, 1e-5)


def test_brpo_of_a_row_that_ends_early_keeps_its_last_score():
    early = episodes([True] * 2, [1, 2], budget_scores=[[1.0, 7.0], [0.0, 1.0]])
    late = episodes([True] * 2, [2, 2], budget_scores=[[1.0, 1.0], [0.0, 1.0]])
    found, expected = (advantages(methods.brpo(), batch) for batch in (early, late))
    exactly(found[1], expected[1], 1e-6)
    exactly(found[0], [expected[0, 0], 0], 1e-6)


def test_answer_after_a_turn_is_the_last_line_printed():
    made = make_trajectory(np.random.default_rng(0), [(2, 1)] * 5)
    printed = ["", "12\n  Seven  x\n\n", None, "8", "seven x"]
    turns = tuple(
        dataclasses.replace(
            turn, results=() if text is None else (ToolResult(status=ToolStatus.OK, stdout=text),)
        )
        for turn, text in zip(made.turns, printed, strict=True)
    )
    problem = dataclasses.replace(made.problem, answer="seven X")
    right = dataclasses.replace(made, turns=turns, problem=problem)
    assert rewards.shown_answers(right) == [0, 1, 1, 0, 1]
    assert rewards.shown_answers(dataclasses.replace(right, turns=())) == []
    batch = packing.episode_batch([right], max_turns=6, needs=methods.brpo().facts)
    assert batch.facts["budget_scores"].tolist() == [[0, 1, 1, 0, 1, 0]]


def test_brpo_takes_a_function_of_a_trajectory():
    given = [make_trajectory(np.random.default_rng(0), [(2, 1)] * turns) for turns in (1, 2)]
    method = methods.brpo(scores=lambda t: [0.25] * len(t.turns))
    batch = packing.episode_batch(given, max_turns=2, needs=method.facts)
    found = methods.assign(method, (), jax.tree.map(jnp.asarray, batch))[1]
    exactly(found.parts["scores"], [[0, 0], [0.25, 0]], 0)


def test_step_grpo_never_pools_two_contexts():
    batch = episodes(
        [True] * 4, anchors=np.full((4, 1), 3), actions=np.arange(4)[:, None], group_ids=[0] * 4
    )
    link = credit.among_histories(eps=0.0)
    earned = jnp.asarray([0.2, 0.6, 0.9, 0.1])[:, None]
    pooled = values(link, batch, earned)
    assert np.all(np.abs(pooled) != 1)
    apart = dataclasses.replace(
        batch, facts=batch.facts | {"anchors": jnp.asarray([[3], [3], [4], [4]])}
    )
    exactly(values(link, apart, earned)[:, 0], [-1, 1, 1, -1], 1e-5)


def test_step_grpo_compares_turns_after_equal_states_and_actions_only():
    same = dict(anchors=[[0, 1], [0, 1], [0, 1]], actions=[[5, 0], [5, 0], [6, 0]])
    batch = episodes([True, False, False], [2, 2, 2], **same)
    exactly(advantages(methods.step_grpo(), batch), [[0, 1], [0, -1], [0, 0]], 1e-5)


def test_histories_are_equal_only_for_equal_paths():
    rng = np.random.default_rng(0)
    anchors, actions = rng.integers(0, 2, (2, 400, 5)).astype(np.int32)
    found = np.asarray(credit.histories(jnp.asarray(anchors), jnp.asarray(actions)))
    assert found.min() >= 0
    paths = {}
    for i, k in np.ndindex(found.shape):
        paths.setdefault((k, *anchors[i, : k + 1], *actions[i, :k]), set()).add(found[i, k])
    assert all(len(ids) == 1 for ids in paths.values())
    assert len({min(ids) for ids in paths.values()}) == len(paths)


def test_eapo_discounts_the_outcome_over_rounds():
    batch = episodes([True, False], [3, 2])
    found = advantages(methods.eapo(discount=0.9, eps=0.0), batch)
    expected = scores([0.81, 0.9, 1, 0, 0])
    exactly(expected, [0.6001, 0.8016, 1.0255, -1.2136, -1.2136])
    exactly(found[np.asarray(batch.turn_mask)], expected, 1e-5)
    assert methods.eapo().loss.terms[0].unit == "turn"


def test_eapo_is_gtpo_of_a_terminal_reward():
    batch = episodes([True, False, True], [3, 2, 1])
    exactly(advantages(methods.eapo(discount=0.9), batch), advantages(turn_credit(), batch), 1e-7)


def test_leave_one_out_is_the_mean_over_all_pairs():
    success = [True, False, False]
    pairs = [[(a - b) / 2 for b in success] for a in map(int, success)]
    expected = np.sum(pairs, axis=1)  # P3O over all pairs: each row against every other
    exactly(advantages(methods.rloo(), episodes(success))[:, 0], expected, 1e-6)
