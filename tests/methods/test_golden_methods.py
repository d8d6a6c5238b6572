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
from gtpo_jax.methods.igpo import igpo_credit
from gtpo_jax.methods.mt_grpo import mt_grpo_credit
from gtpo_jax.parts import credit, spreads
from gtpo_jax.parts.credit.value_head import gae
from gtpo_jax.parts.rewards.information import information_gains
from gtpo_jax.parts.rewards.progress import progress_rewards
from gtpo_jax.parts.spreads.conflicts import conflicts
from gtpo_jax.parts.spreads.entropy_shares import token_rewards
from gtpo_jax.parts.spreads.spread import Written
from gtpo_jax.types import EpisodeBatch
from tests.golden.loader import floats, golden, integers, load

pytestmark = pytest.mark.slow


ROWS, TURNS = 12, 8
"""Every case is padded to this shape, with excluded rows, so that operations compile once."""


def padded(values, fill=0):
    """An array `[M]` or `[M, K]` as one of `[ROWS]` or `[ROWS, TURNS]`."""
    values = np.asarray(values)
    out = np.full((ROWS, TURNS)[: values.ndim], fill, values.dtype)
    out[tuple(slice(size) for size in values.shape)] = values
    return out


def close(actual, expected, atol=1e-5):
    """Compares the rows and turns that are not padding."""
    kept = tuple(slice(size) for size in np.shape(expected))
    np.testing.assert_allclose(np.asarray(actual)[kept], expected, rtol=1e-5, atol=atol)


def counted(turn_counts) -> np.ndarray:
    """The mask `[M, K]` of so many turns a row."""
    return np.arange(max(turn_counts)) < np.asarray(turn_counts)[:, None]


def episodes(mask, groups, **facts) -> EpisodeBatch:
    """Included rows of these groups with facts `[M, K]`; the rows of the padding are excluded."""
    mask = padded(np.asarray(mask, bool))
    return EpisodeBatch(
        group_ids=integers(padded(groups)),
        included=jnp.arange(ROWS) < len(groups),
        success=jnp.zeros(ROWS, bool),
        turn_mask=jnp.asarray(mask | (np.arange(ROWS) >= len(groups))[:, None]),
        violations=jnp.zeros(mask.shape, bool),
        facts={name: jnp.asarray(padded(fact, fill=3)) for name, fact in facts.items()},
    )


def one_turn(groups, **facts) -> EpisodeBatch:
    """Included rows of one turn each, with facts `[M]` of the turn."""
    columns = {name: np.asarray(fact)[:, None] for name, fact in facts.items()}
    return episodes(np.ones((len(groups), 1)), groups, **columns)


def entropies_of(values, tokens=1) -> dict:
    """The facts that tell the mean entropies `[M]` of trajectories of one turn."""
    values = np.asarray(values, np.float32)
    return {"turn_entropies": values, "turn_tokens": np.broadcast_to(np.int32(tokens), len(values))}


def column(values) -> np.ndarray:
    return np.asarray(values)[:, None]


def runs(count: int, size: int) -> np.ndarray:
    """Groups of `size` neighboring rows."""
    return np.arange(count) // size


def on_last(values, mask) -> np.ndarray:
    """Values `[M]` on the last turns of a mask without gaps."""
    return column(values) * (mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1))))


def credited(link, values, batch) -> np.ndarray:
    """The advantages that a credit makes of rewards `[M, K]`; 100 stands on the padding."""
    rewards = floats(padded(np.asarray(values, np.float32), fill=100))
    return np.asarray(credit.trace(link, link.init(), rewards, batch).advantages)


def each(file, *, without=(), where=None):
    """Parametrizes over the cases of a file; `where` chooses them by their inputs."""
    names = [
        name
        for name, case in load(file).items()
        if name not in without and (where is None or where(case["inputs"]))
    ]
    return pytest.mark.parametrize("case", names)


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
    # The context of a step is the prompt and the steps before it, so steps are never pooled.
    inputs, outputs = golden("step_grpo", case)
    contexts = np.asarray(inputs["contexts"])
    batch = episodes(counted(inputs["turn_counts"]), contexts[:, 0])
    link = credit.standardized(credit.turn_index, ddof=1, eps=inputs["epsilon"])
    close(credited(link, inputs["step_rewards"], batch), outputs["advantages"])


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


# Weights of advantages


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


# Rewards


@each("igpo", where=lambda inputs: inputs["function"] == "information gain")
def test_information_gains_match_igpo(case):
    inputs, outputs = golden("igpo", case)
    means = np.asarray(inputs["log_probs"]).mean(axis=2)
    mask = np.ones_like(means, bool)  # the last turn answers
    after, before = floats(padded(means[:, 1:])), floats(padded(means[:, 0]))
    close(information_gains(after, before, jnp.asarray(padded(mask))), outputs["rewards"])


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


@each("turn_credit")
def test_progress_matches_prime_rl(case):
    # Theirs adds progress to the rewards of a trajectory and centers the credit within it; ours is
    # a reward of turns like any other.
    inputs, outputs = golden("turn_credit", case)
    scores = floats(padded(np.array(inputs["turn_scores"], float), fill=np.nan))
    mask = jnp.asarray(padded(counted(inputs["turn_counts"])))
    close(progress_rewards(scores, mask, start=None), outputs["progress"])
    smeared = progress_rewards(scores, mask, start=None, smear=inputs["gamma"])
    close(smeared, outputs["credit"])
