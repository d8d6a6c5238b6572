"""Relatives of GRPO compared with numbers from public implementations (`tests/golden`).

Rewards go straight into the credit of a method, at the options of the implementation: all of them
divide by the std with ddof 1, and by an eps of their own. Where ours differs on purpose, the test
pins both numbers and says whom we follow.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.igpo import igpo_credit
from gtpo_jax.methods.mt_grpo import mt_grpo_credit
from gtpo_jax.parts import credit, spreads
from gtpo_jax.parts.credit.tracked import Tracker, retention
from gtpo_jax.parts.credit.value_head import gae
from gtpo_jax.parts.spreads.conflicts import conflicts
from gtpo_jax.parts.spreads.entropy_shares import token_rewards
from gtpo_jax.parts.spreads.spread import Written
from tests.golden.batches import (
    ROWS,
    close,
    column,
    counted,
    credited,
    each,
    entropies_of,
    episodes,
    on_last,
    one_turn,
    padded,
    runs,
    succeeding,
)
from tests.golden.loader import floats, golden, integers

pytestmark = pytest.mark.slow


# Advantages of turns


def gigpo_case(case):
    inputs, outputs = golden("gigpo", case)
    mask = counted(inputs["turn_counts"])
    options = {"divide_by_std": inputs["mode"] == "mean_std_norm", "ddof": 1, "eps": 1e-6}
    batch = episodes(mask, inputs["index"], anchors=inputs["anchor_obs"])
    return inputs, batch, options, outputs["advantages"]


@each("gigpo", without=("single_trajectory", "statistics_over_steps"))
def test_gigpo_matches_its_authors(case):
    inputs, batch, options, expected = gigpo_case(case)
    method = methods.gigpo(
        step_weight=inputs["step_advantage_w"], discount=inputs["gamma"], **options
    )
    close(credited(method.credit, inputs["rewards"], batch), expected)


def test_gigpo_gives_a_group_of_one_nothing_where_its_authors_give_the_reward():
    inputs, batch, options, expected = gigpo_case("single_trajectory")
    ours = credited(methods.gigpo(**options).credit, inputs["rewards"], batch)
    close(ours[1:], expected[1:])
    close(expected[0], [0.975, 1.025])  # both turns begin in one state, with returns .95 and 1
    close(ours[0], [-0.025, 0.025])


def test_gigpo_counts_trajectories_where_its_authors_by_default_count_steps():
    inputs, batch, options, expected = gigpo_case("statistics_over_steps")
    ours = credited(methods.gigpo(**options).credit, inputs["rewards"], batch)
    assert np.max(np.abs(ours[:8, :4] - expected)) > 0.1
    episode = credit.chain(credit.total(), credit.standardized(credit.group, **options))
    step = credit.chain(credit.discounted(inputs["gamma"]), credit.among_anchors(**options))
    close(credited(credit.add(episode, step), inputs["rewards"], batch), expected)


@each("flow_grpo")
def test_flow_grpo_over_turns_matches_agentflow(case):
    # It normalizes over the rows of its batch, which are turns; our default counts trajectories.
    inputs, outputs = golden("flow_grpo", case)
    mask = counted(inputs["turn_counts"])
    method = methods.flow_grpo(normalize=credit.group, ddof=1, eps=inputs["epsilon"])
    rewards = on_last(inputs["outcomes"], mask)
    ours = credited(method.credit, rewards, episodes(mask, inputs["index"]))
    close(ours, mask * column(outputs["advantages"]))


@each("mt_grpo")
def test_mt_grpo_matches_its_authors(case):
    inputs, outputs = golden("mt_grpo", case)
    rewards = np.stack([inputs["turn_rewards"], inputs["outcome_rewards"]], axis=1)
    groups = runs(len(rewards), inputs["num_generations"])
    link = mt_grpo_credit(turn_weight=inputs["turn_advantage_coef"], ddof=1, eps=inputs["epsilon"])
    ours = credited(link, rewards, episodes(np.ones_like(rewards), groups))
    close(ours, outputs["advantages"])


@each("step_grpo")
def test_step_grpo_matches_easy_r1(case):
    # The context of a step is the prompt and the steps before it. Here the states tell the prompts
    # apart, in one group.
    inputs, outputs = golden("step_grpo", case)
    contexts = np.asarray(inputs["contexts"])
    facts = {"anchors": contexts, "actions": np.zeros_like(contexts)}
    batch = episodes(counted(inputs["turn_counts"]), [0] * len(contexts), **facts)
    method = methods.step_grpo(ddof=1, eps=inputs["epsilon"])
    close(credited(method.credit, inputs["step_rewards"], batch), outputs["advantages"])


@each("areal_turn_gae")
def test_turn_level_gae_matches_areal(case):
    inputs, outputs = golden("areal_turn_gae", case)
    ours = gae(
        floats(padded(inputs["rewards"])),
        floats(padded(inputs["values"])),
        jnp.asarray(padded(counted(inputs["turn_counts"]))),
        discount=inputs["discount"],
        trace=inputs["gae_lambda"],
    )
    close(ours, outputs["advantages"])


@each("gdpo", where=lambda inputs: inputs["function"] == "trl")
def test_decoupled_matches_gdpo(case):
    inputs, outputs = golden("gdpo", case)
    parts = np.asarray(inputs["rewards_per_func"])
    names = [f"part {i}" for i in range(parts.shape[1])]
    check_decoupled(
        {name: parts[:, i : i + 1] for i, name in enumerate(names)},
        one_turn(runs(len(parts), inputs["num_generations"])),
        dict(zip(names, inputs["reward_weights"], strict=True)),
        inputs["epsilon"],
        column(outputs["advantages"]),
    )


@each("gdpo", where=lambda inputs: inputs["function"] == "verl")
def test_decoupled_over_tokens_matches_gdpo_for_verl(case):
    # With a token for a turn: the last normalization counts tokens there, and turns here.
    inputs, outputs = golden("gdpo", case)
    mask = counted(inputs["lengths"])
    parts = {key: on_last(inputs[key], mask) for key in ("correctness", "format")}
    expected = mask * column(outputs["advantages"])
    check_decoupled(parts, episodes(mask, inputs["index"]), {}, inputs["epsilon"], expected)


def check_decoupled(parts, batch, weights, eps, expected):
    modifier = methods.decoupled(weights=weights, ddof=1, eps=eps)
    method = methods.chain(methods.grpo(ddof=1, eps=eps), modifier)
    given = {name: floats(padded(part)) for name, part in parts.items()}
    batch = dataclasses.replace(batch, facts={"reward_parts": given})
    close(credited(method.credit, sum(parts.values()), batch), expected)


@each("igpo", where=lambda inputs: "turn_counts" in inputs)
def test_released_advantage_of_igpo_is_centered_at_each_turn(case):
    # Neither divided by a std nor discounted, and an absent turn counts as a return of 0. The paper
    # normalizes both kinds of rewards and discounts them, and so do we.
    inputs, outputs = golden("igpo", case)
    mask = counted(inputs["turn_counts"])
    centered = credit.chain(
        credit.discounted(1.0), credit.standardized(credit.turn_index, divide_by_std=False)
    )
    ours = credited(centered, inputs["turn_rewards"], episodes(mask, inputs["index"]))
    if mask.all():
        close(ours, outputs["advantages"])
    else:
        close(ours[:2, 2], [0.0, 0.0])
        close(outputs["advantages"][:, 2], [0.0, 0.5])
    paper = credited(igpo_credit(), inputs["turn_rewards"], episodes(mask, inputs["index"]))
    assert np.max(np.abs(paper[tuple(map(slice, mask.shape))] - outputs["advantages"])) > 0.1


@each("rank_grpo")
def test_rank_grpo_matches_its_authors(case):
    inputs, outputs = golden("rank_grpo", case)
    hits = np.asarray(inputs["hits"])
    batch = episodes(np.ones_like(hits), runs(len(hits), inputs["num_generations"]))
    close(credited(credit.ranked(), hits, batch), outputs["rewards"])
    by_rank = methods.rank_grpo(ddof=1, eps=inputs["epsilon"]).credit
    if not inputs["scale_rewards"]:
        centered = credit.standardized(credit.turn_index, divide_by_std=False)
        by_rank = credit.chain(credit.ranked(), centered)
    close(credited(by_rank, hits, batch), outputs["advantages"])


def brpo_case(case, prior):
    inputs, outputs = golden("brpo", case)
    scores = np.asarray(inputs["summary_scores"])
    scores = scores.reshape(len(scores), inputs["S"], -1).mean(axis=2)  # answers at a budget
    batch = episodes(np.ones_like(scores), runs(len(scores), inputs["G"]))
    return credited(methods.brpo(prior=prior).credit, scores, batch), outputs


@pytest.mark.parametrize(
    "case, prior",
    [
        ("hand", "uniform"),
        ("one_budget", "uniform"),
        ("random", "uniform"),
        ("linear_two_answers", "linear"),
        ("last_budget_only", "base"),
    ],
)
def test_brpo_matches_its_authors(case, prior):
    ours, outputs = brpo_case(case, prior)
    close(ours, outputs["cot_advantages"])


def test_brpo_has_no_group_baseline_for_one_member_where_its_authors_have_zero():
    ours, outputs = brpo_case("single_member", "uniform")
    close(outputs["cot_advantages"][:, 0], [0.5, 0.5])  # the return itself
    close(ours[:, 0], [0.0, 0.0])


@each("spo", without=("initial",))
def test_spo_matches_its_recipe(case):
    inputs, outputs = golden("spo", case)
    outcomes = inputs["r"]
    batch = one_turn(np.zeros(len(outcomes), int))
    facts = {"problems": integers(padded(np.arange(len(outcomes)), fill=3))}
    batch = dataclasses.replace(batch, facts=facts)
    tracker = Tracker(*(floats(padded(inputs[key], fill=1)) for key in ("alpha", "beta")))
    # Our drift is a number of the step; theirs is measured for each problem. Row 0 tells.
    link = methods.spo(slots=ROWS, drift=outputs["D"][0], ddof=1, eps=1e-8).credit
    state = tuple(tracker if isinstance(part, Tracker) else part for part in link.init())
    rewards = floats(padded(column(outcomes), fill=100))
    state, advantages, _ = credit.trace(link, state, rewards, batch)
    close(advantages[:, 0], outputs["advantages"])
    (after,) = (part for part in state if isinstance(part, Tracker))
    close([after.right[0], after.wrong[0]], [outputs["alpha"][0], outputs["beta"][0]])
    close(retention(floats(outputs["D"])), outputs["rho"])


# Weights of rewards and advantages


def lead_case(case):
    inputs, outputs = golden("grpo_lead", case)
    rewards = np.asarray(inputs["rewards"])
    method = methods.chain(methods.grpo(ddof=1, eps=inputs["epsilon"]), methods.grpo_lead())
    batch = succeeding(one_turn(inputs["index"]), rewards > 0)
    return credited(method.credit, column(rewards), batch)[:, 0], outputs["advantages"]


DIFFICULTY = ["hand", "all_right", "all_wrong", "random"]


@pytest.mark.parametrize("case", DIFFICULTY)
def test_grpo_lead_weighs_as_its_authors(case):
    ours, expected = lead_case(f"difficulty_{case}")
    close(ours, expected)


def unlikely_case(case):
    inputs, outputs = golden("unlikeliness", case)
    mask, rewards = np.asarray(inputs["response_mask"]), np.asarray(inputs["rewards"])
    tokens = mask.sum(axis=1)
    means = (np.asarray(inputs["old_log_probs"]) * mask).sum(axis=1) / tokens
    facts = {"turn_logprobs": means.astype(np.float32), "turn_tokens": tokens.astype(np.int32)}
    batch = succeeding(one_turn(inputs["uid"], **facts), rewards > 0)
    link = credit.unlikely(inputs["rank_penalty"])
    grpo = credit.chain(link, grpo_credit(ddof=1, eps=inputs["epsilon"]))
    return [credited(x, column(rewards), batch)[:, 0] for x in (link, grpo)], outputs


@each("unlikeliness", without=("single",))
def test_unlikeliness_matches_its_authors(case):
    (modified, advantages), outputs = unlikely_case(case)
    close(modified, outputs["modified_scores"])
    close(advantages, outputs["advantages"])


def test_single_rows_get_nothing_where_the_authors_of_both_give_the_reward():
    ours, expected = lead_case("difficulty_single")
    close(ours[1:], expected[1:])
    (_, advantages), outputs = unlikely_case("single")
    close(advantages[1:], outputs["advantages"][1:])
    assert expected[0] > 0.4 and outputs["advantages"][0] > 0.9
    close([ours[0], advantages[0]], [0.0, 0.0])


@each("edge_grpo")
def test_edge_grpo_matches_its_authors_where_nothing_is_padded(case):
    inputs, outputs = golden("edge_grpo", case)
    entropies = np.asarray(inputs["per_entropy"]).mean(axis=1)
    groups = runs(len(entropies), inputs["num_generations"])
    method = methods.chain(methods.grpo(ddof=1, eps=inputs["epsilon"]), methods.edge_grpo())
    batch = one_turn(groups, **entropies_of(entropies))
    ours = credited(method.credit, column(inputs["rewards"]), batch)
    close(ours[:, 0], outputs["advantages"])


@each("egpo")
def test_egpo_matches_a_reimplementation(case):
    inputs, outputs = golden("egpo", case)
    weight, limit = inputs["egpo_lambda"], inputs["egpo_alpha"]
    mask = np.asarray(inputs["response_mask"])
    entropies = np.where(mask, inputs["token_level_entropy"], 0.0).sum(axis=1) / mask.sum(axis=1)
    method = methods.chain(
        methods.grpo(ddof=1, eps=inputs["epsilon"]), methods.egpo(weight=weight, limit=limit)
    )
    batch = one_turn(inputs["index"], **entropies_of(entropies, mask.sum(axis=1)))
    ours = credited(method.credit, column(inputs["rewards"]), batch)
    close(ours[:, 0], outputs["advantages"])


def written(ids, mask, entropies) -> Written:
    """Tokens of a single turn a row."""
    turn_ids = integers(padded(np.where(np.asarray(mask) != 0, 0, -1), fill=-1))
    entropies = floats(padded(entropies, fill=5))
    return Written(integers(padded(ids)), turn_ids, entropies, jnp.zeros_like(entropies))


@each("aepo")
def test_aepo_matches_its_authors(case):
    inputs, outputs = golden("aepo", case)
    mask = np.asarray(inputs["response_mask"])
    spread = spreads.entropy_scaled(weight=inputs["weight"], ddof=1)
    tokens = written(np.zeros_like(mask), mask, inputs["entropy"])
    advantages = floats(padded(column(inputs["advantages"])))
    close(spread(advantages, tokens, one_turn([0] * len(mask))), outputs["advantages"])


@each("gtpo_trajectory")
def test_gtpo_of_simoni_weighs_tokens_as_its_authors(case):
    inputs, outputs = golden("gtpo_trajectory", case)
    mask = np.asarray(inputs["mask"])
    rewards, batch = np.asarray(inputs["rewards"]), one_turn([0] * len(mask))
    advantages = floats(padded(column(rewards - rewards.mean())))
    tokens = written(inputs["ids"], mask, np.where(mask, column(inputs["entropies"]), 0.0))
    found = conflicts(advantages, tokens.tokens, tokens.turn_ids, batch.group_ids)
    initial, final = np.asarray(found.initial), np.asarray(found.final)
    number = np.maximum(np.sum(initial | final, axis=1, keepdims=True), 1)
    ours = np.asarray(spreads.protected()(advantages, tokens, batch)) * number
    close(ours, outputs["weights"] * column(outputs["advantages"]) * mask)
    # The divisor of the released code lays the second run over the first one before it counts:
    # the longer of the two runs. We count the tokens in conflict.
    longer = np.maximum(initial.sum(axis=1), final.sum(axis=1))
    close(np.maximum(longer, 1), np.maximum(outputs["n_conflict"], 1))


@each("gtpo_tan", where=lambda inputs: inputs["function"] == "gtpo")
def test_gtpo_of_tan_in_the_printed_form_matches_a_reimplementation(case):
    inputs, outputs = golden("gtpo_tan", case)
    mask = counted(inputs["lengths"])
    options = {"base": inputs["alpha_1"], "weight": inputs["alpha_2"], "floor": 0.0}
    rewards, batch = floats(padded(column(inputs["rewards"]))), one_turn([0] * len(mask))
    tokens = written(np.zeros_like(mask), mask, inputs["token_entropies"])
    within = jnp.asarray(padded(mask))
    shaped = token_rewards(rewards[:, 0], tokens.entropies, within, batch.group_ids, **options)
    close(shaped, outputs["shaped"])
    printed = spreads.by_entropy(**options, apart=True, silent=False, ddof=0, eps=0.0)
    # Its 1e-8 stands under the root, of variances around 1e-3.
    close(printed(rewards, tokens, batch), outputs["advantages"], atol=1e-4)


@each("gtpo_tan", where=lambda inputs: inputs["function"] == "grpo_s")
def test_grpo_s_of_tan_matches_a_reimplementation(case):
    inputs, outputs = golden("gtpo_tan", case)
    method = methods.grpo_s(
        base=inputs["beta_1"],
        weight=inputs["beta_2"],
        floor=0.0,
        silent=False,
        ddof=1,
        eps=inputs["epsilon"],
    )
    batch = one_turn(inputs["index"], **entropies_of(inputs["mean_entropies"]))
    close(credited(method.credit, column(inputs["rewards"]), batch)[:, 0], outputs["advantages"])
