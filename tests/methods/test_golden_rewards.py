"""Rewards of the relatives compared with numbers from public implementations (`tests/golden`)."""

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.parts.credit.successes import productivity_factors
from gtpo_jax.parts.rewards.agents import agent_outcomes
from gtpo_jax.parts.rewards.consistency import consistency_bonuses
from gtpo_jax.parts.rewards.information import information_gains
from gtpo_jax.parts.rewards.lengths import cosine_rewards
from gtpo_jax.parts.rewards.progress import progress_rewards
from gtpo_jax.parts.rewards.scaled_outcome import length_scaled_outcomes
from tests.golden.batches import close, counted, each, one_turn, padded
from tests.golden.loader import floats, golden, integers

pytestmark = pytest.mark.slow


@each("igpo", where=lambda inputs: inputs["function"] == "information gain")
def test_information_gains_match_igpo(case):
    inputs, outputs = golden("igpo", case)
    means = np.asarray(inputs["log_probs"]).mean(axis=2)
    mask = np.ones_like(means, bool)  # the last turn answers
    after, before = floats(padded(means[:, 1:])), floats(padded(means[:, 0]))
    close(information_gains(after, before, jnp.asarray(padded(mask))), outputs["rewards"])


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


@each("grpo_lead", where=lambda inputs: inputs["function"] == "get_reweight_rewards")
def test_length_scaled_outcomes_match_grpo_lead(case):
    # Groups whose three shortest rows, right or wrong, are short keep their rewards.
    inputs, outputs = golden("grpo_lead", case)
    batch = one_turn(inputs["index"])
    ours = length_scaled_outcomes(
        jnp.asarray(padded(np.asarray(inputs["rewards"]) > 0)),
        integers(padded(inputs["completions_length"])),
        batch.included,
        batch.group_ids,
        shortest=4000.0,
    )
    close(ours, outputs["rewards"])


@each("grpo_care")
def test_consistency_bonuses_match_grpo_care(case):
    inputs, outputs = golden("grpo_care", case)
    accuracy, mask = np.asarray(inputs["accuracy_rewards"]), np.asarray(inputs["mask_answer"])
    logprobs = np.sum(np.asarray(inputs["ref_per_token_logps"]) * mask, axis=1)
    batch = one_turn([0] * len(mask))
    bonus = consistency_bonuses(
        floats(padded(accuracy, fill=1)),
        floats(padded(logprobs / (mask.sum(axis=1) + 1e-6))),
        batch.included,
        batch.group_ids,
        coefficient=inputs["bonus_coefficient"],
        cap=inputs["confidence_upper_bound"],
        margin=inputs["consistency_margin"],
    )
    close(accuracy + np.asarray(bonus)[: len(accuracy)], outputs["rewards"])


def cosines(inputs):
    success = jnp.asarray(padded(np.asarray(inputs["correct"]) != 0))
    lengths = integers(padded(inputs["lengths"]))
    return cosine_rewards(success, lengths, longest=inputs["max_len"])


@pytest.mark.parametrize("case", ["hand", "random"])
def test_cosine_rewards_match_the_recipe_of_open_rs(case):
    inputs, outputs = golden("open_rs", case)
    close(cosines(inputs), outputs["rewards"])


def test_cosine_rewards_end_at_the_limit_where_those_of_open_rs_rise_again():
    inputs, outputs = golden("open_rs", "beyond_the_limit")
    close(outputs["rewards"], [0.5, 0.75, 1.0])
    close(cosines(inputs), [0.5, 0.5, 0.5])


def test_agent_outcomes_match_mrlx():
    inputs, outputs = golden("m_grpo", "all_combinations")
    valid = np.concatenate([inputs["main_valid"], inputs["sub_valid"]]) != 0
    right, count = np.asarray(inputs["main_correct"]) != 0, len(inputs["main_valid"])
    ours = agent_outcomes(
        jnp.asarray(np.concatenate([right, ~right])),  # the verdict of a sub row does not count
        jnp.asarray(~valid),
        integers(np.repeat([0, 1], count)),
        integers(np.tile(np.arange(count), 2)),
        jnp.ones(2 * count, bool),
        jnp.zeros(2 * count, jnp.int32),
        floor=inputs["format_score"],
    )
    close(ours, np.concatenate([outputs["main"], outputs["sub"]]))


@each("otc_po")
def test_factors_of_calls_match_a_reimplementation_of_otc_po(case):
    inputs, outputs = golden("otc_po", case)
    calls = integers(padded(inputs["m"]))
    fewest = jnp.full_like(calls, inputs["n"])
    close(productivity_factors(calls, fewest, limit=inputs["c"]), outputs["tool_reward"])
