"""Advantages and returns compared with numbers from public implementations (`tests/golden`).

verl is the oracle for advantages; AReaL and ROLL are the oracles for turn returns. Where they
disagree with each other or with us, the test pins both numbers and says whom we follow.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.maths import turns
from gtpo_jax.parts import credit
from gtpo_jax.parts.credit.discounted import discounted_returns, discounted_returns_closed_form
from tests.golden.loader import FOLDER, close, floats, golden, integers, kept, load

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_golden_file_names_source_version_license_and_command(path):
    content = json.loads(path.read_text())
    assert list(content) == ["source", "version", "license", "command", "cases"]
    assert all(content.values())
    assert path.stat().st_size < 60_000


# Advantages


def verl_turns(case: str):
    """verl's `[rows, tokens]` with every token a turn of its own: rewards, mask, groups, all in."""
    inputs, outputs = golden("verl_advantages", case)
    rows = len(inputs["response_mask"])
    groups = integers(inputs.get("index", [0] * rows))
    rewards, mask = floats(inputs["token_level_rewards"]), kept(inputs["response_mask"])
    return inputs, (rewards, mask, groups, jnp.ones(rows, bool)), outputs["advantages"]


@pytest.mark.parametrize("std", ["std", "no_std"])
@pytest.mark.parametrize("case", ["grpo_hand", "grpo_random", "grpo_vectorized_random"])
def test_grpo_advantages_with_ddof_one_match_verl(case, std):
    inputs, facts, expected = verl_turns(f"{case}_{std}")
    out = methods.grpo_advantages(*facts, divide_by_std=std == "std", ddof=1, eps=inputs["epsilon"])
    close(out, expected)
    if std == "no_std":
        close(methods.dr_grpo_advantages(*facts), expected)


def test_grpo_advantages_add_eps_to_the_std_as_verl_does():
    # eps .25 would show in the fourth digit if it stood under the root.
    inputs, facts, expected = verl_turns("grpo_random_large_eps")
    assert inputs["epsilon"] == 0.25
    close(methods.grpo_advantages(*facts, ddof=1, eps=0.25), expected)


def test_grpo_advantages_by_default_divide_by_the_std_of_the_group_itself():
    # verl, TRL, AReaL, ROLL and slime estimate the std of a population from the group
    # (ddof 1). The papers write std(r_1 … r_G) of the group, which is ddof 0: our default.
    _, facts, verl = verl_turns("grpo_hand_std")
    close(verl[:, 0], [1.5, -0.5, -0.5, -0.5], atol=1e-5)
    out = methods.grpo_advantages(*facts)
    close(out[:, 0], [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)], atol=1e-5)


@pytest.mark.parametrize("version", ["rloo", "rloo_vectorized"])
@pytest.mark.parametrize("data", ["hand", "random"])
def test_rloo_advantages_match_both_versions_of_verl(version, data):
    _, facts, expected = verl_turns(f"{version}_{data}")
    close(methods.rloo_advantages(*facts), expected)


@pytest.mark.parametrize(
    "case, ours, verl",
    [
        ("grpo_singleton", methods.grpo_advantages, 5.0),
        ("grpo_vectorized_singleton", methods.grpo_advantages, 5.0),
        ("rloo_singleton", methods.rloo_advantages, 5.0),
        ("rloo_vectorized_singleton", methods.rloo_advantages, 0.0),
    ],
)
def test_advantage_of_a_singleton_is_zero(case, ours, verl):
    # verl hands the raw reward through, except in one of its two RLOO. We follow that one,
    # with AReaL and ROLL: a trajectory with nothing to be compared with teaches nothing, and its
    # raw reward is on another scale than the advantages beside it.
    _, facts, expected = verl_turns(case)
    close(expected[0, 0], verl, rtol=1e-5)
    assert float(ours(*facts)[0, 0]) == 0.0


def test_advantages_leave_excluded_rows_out_of_the_baseline():
    # verl masks the tokens of a rejected row, but its reward (7) stays in mean and std.
    # Ours are those of verl when it is never shown the row.
    _, (rewards, mask, groups, _), with_row = verl_turns("grpo_excluded_row")
    _, _, without = verl_turns("grpo_excluded_row_removed")
    close(with_row[:, 0], [-0.297044, -0.594088, -0.594088, 0.0], atol=1e-5)
    close(without[:, 0], [1.154701, -0.577350, -0.577350], atol=1e-5)
    marked = jnp.array([True, True, True, False])
    for facts in [
        (rewards, jnp.ones_like(mask), groups, marked),  # excluded by its flag
        (rewards, mask, groups, jnp.ones(4, bool)),  # without a trained turn, as verl has it
    ]:
        out = methods.grpo_advantages(*facts, ddof=1)
        close(out[:3], without)
        assert float(out[3, 0]) == 0.0


@pytest.mark.parametrize("scale, noise", [(1, 0.191226), (10, 0.641277), (1000, 0.962284)])
def test_advantages_of_equal_rewards_are_zero_where_verl_has_noise(scale, noise):
    # 15 times the same reward. The float32 mean is off by a rounding or two, and eps 1e-6
    # is no match for it. We follow ROLL, which silences groups without a deviation.
    _, facts, verl = verl_turns(f"grpo_equal_rewards_scale_{scale}")
    close(np.max(np.abs(verl)), noise, rtol=1e-5)
    assert not np.any(methods.grpo_advantages(*facts, ddof=1))
    assert not np.any(methods.gtpo_advantages(*facts, ddof=1))
    assert not np.any(methods.rloo_advantages(*facts))


def test_advantages_of_rewards_one_rounding_apart_are_zero():
    # Returns that are equal on paper, summed in another order. ROLL's threshold is a std of
    # 1e-6 at any scale, ours relative: 900.1 and its neighbor differ by 6e-5.
    _, facts, verl = verl_turns("grpo_rewards_one_rounding_apart")
    assert len(np.unique(facts[0])) == 2
    assert np.max(np.abs(verl)) > 0.8
    assert not np.any(methods.grpo_advantages(*facts, ddof=1))


@pytest.mark.parametrize(
    "case, discount",
    [("reinforce_plus_plus_random", 1.0), ("reinforce_plus_plus_random_discounted", 0.9)],
)
def test_reinforce_plus_plus_with_one_token_a_turn_matches_verl(case, discount):
    # verl has 1e-8 under the root; at variances of order one that is 5e-9.
    inputs, facts, expected = verl_turns(case)
    assert inputs["gamma"] == discount
    out = methods.reinforce_pp_advantages(*facts, discount=discount, ddof=1, eps=0.0)
    close(out, expected)


def test_reinforce_plus_plus_baseline_with_one_token_a_turn_matches_verl():
    # Rows of one length: verl takes its std over tokens, so that a longer row weighs more in it.
    _, facts, expected = verl_turns("reinforce_plus_plus_baseline_random")
    rewards, mask, groups, included = facts
    out = methods.reinforce_pp_baseline_advantages(
        jnp.sum(rewards, axis=1, keepdims=True), mask[:, :1], groups, included, ddof=1
    )
    # verl counts four equal tokens a row: 40 entries with ddof 1, where we have 10.
    close(out * (39 / 40 * 10 / 9) ** 0.5, expected[:, :1])


TURN_IDS = [[0, 0, -1, 1, 1, -1, 2, -1], [0, 0, 0, -1, -1, -1, -1, -1]]


def test_undiscounted_returns_match_verl_and_are_whitened_per_turn():
    # γ = 1 and rewards on the last token of a turn: per token and per turn are the same returns.
    # The statistics are not: verl's count 8 tokens, ours 4 turns. We follow GTPO: turns.
    inputs, outputs = golden("verl_advantages", "reinforce_plus_plus_tokens")
    turn_returns = returns_per_token(inputs["token_level_rewards"], TURN_IDS, discount=1.0)
    close(turn_returns, outputs["returns"])
    rewards, mask = by_turn(inputs["token_level_rewards"], TURN_IDS)
    out = methods.reinforce_pp_advantages(
        rewards, mask, integers([0, 0]), jnp.ones(2, bool), ddof=1, eps=0.0
    )
    values = {"verl": outputs["returns"][kept(inputs["response_mask"])]}
    values["ours"] = np.array([1.75, 1.25, 1.0, -0.5])
    z = {name: (1.75 - x.mean()) / x.std(ddof=1) for name, x in values.items()}
    close(outputs["advantages"][0, 0], z["verl"])
    close(out[0, 0], z["ours"])
    assert z["verl"] - z["ours"] > 0.1


def test_returns_are_discounted_per_turn_where_verl_discounts_per_token():
    # verl's return depends on how many tokens a turn was cut into.
    inputs, outputs = golden("verl_advantages", "reinforce_plus_plus_tokens_discounted")
    ids = [[0, 0, 0, -1, 1, 1, -1, 2, 2]]
    out = returns_per_token(inputs["token_level_rewards"], ids, discount=0.9)
    close(outputs["returns"][0, 0], 0.1 * 0.9**2 + 0.2 * 0.9**4 + 0.9**6)
    close(out[0, 0], 1.09)


# Turn returns


def by_turn(token_rewards, turn_ids):
    """Token rewards `[M, T]` as turn rewards `[M, K]`, and the turns that there are."""
    ids = integers(turn_ids)
    count = int(jnp.max(ids)) + 1
    rows = jnp.broadcast_to(jnp.arange(len(ids))[:, None], ids.shape)
    rewards = turns.sum_tokens_by_turn(
        floats(token_rewards), rows, ids, trajectories=len(ids), max_turns=count
    )
    return rewards, turns.turn_mask_from_counts(jnp.max(ids, axis=1) + 1, count)


def returns_per_token(token_rewards, turn_ids, *, discount, path=discounted_returns):
    """Discounted turn returns on the tokens of each turn, as AReaL and ROLL give them."""
    values = path(*by_turn(token_rewards, turn_ids), discount=discount)
    ids = integers(turn_ids)
    rows = jnp.broadcast_to(jnp.arange(len(ids))[:, None], ids.shape)
    return turns.broadcast_to_tokens(values, rows, ids)


RETURN_PATHS = pytest.mark.parametrize("path", [discounted_returns, discounted_returns_closed_form])


@RETURN_PATHS
@pytest.mark.parametrize("case", load("areal_turn_returns"))
def test_turn_returns_match_areal(case, path):
    # Adjacent turns and a reward inside a turn as well: in both we follow AReaL,
    # which goes by the ids of turns and counts every reward once.
    inputs, outputs = golden("areal_turn_returns", case)
    out = returns_per_token(
        inputs["rewards"], inputs["turn_ids"], discount=inputs["discount"], path=path
    )
    close(out, outputs["returns"])


@RETURN_PATHS
@pytest.mark.parametrize("case", ["hand", "hand_longer", "random_0.9", "random_0.5", "random_1"])
def test_turn_returns_match_roll(case, path):
    inputs, outputs = golden("roll_turn_returns", case)
    out = returns_per_token(
        inputs["token_level_rewards"], inputs["turn_ids"], discount=inputs["gamma"], path=path
    )
    close(out, outputs["returns"])


@pytest.mark.parametrize("case", ["hand", "hand_longer"])
def test_turn_returns_of_the_worked_check_do_not_depend_on_tokens(case):
    # Rewards (.1, .2, 1), discount .9, with longer turns and tool output in the second.
    for file in ("areal_turn_returns", "roll_turn_returns"):
        _, outputs = golden(file, case)
        values = outputs["returns"][0]
        close(values[values != 0][[0, -1]], [1.09, 1.0])
        assert set(np.round(values, 5)) == {0.0, 1.0, 1.09, 1.1}


@pytest.mark.parametrize(
    "case, areal, roll",
    [
        ("adjacent_turns", [0.8, 0.8, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]),
        (
            "reward_inside_turn",
            [1.175, 1.175, 0.0, 0.75, 0.75, 0.0],
            [0.45, 0.45, 0.0, 0.5, 0.5, 0.0],
        ),
    ],
)
def test_turn_returns_follow_areal_where_roll_infers_turns_from_the_mask(case, areal, roll):
    # ROLL takes two turns without an observation between them for one.
    # It reads the last token of a turn only.
    inputs, outputs = golden("areal_turn_returns", case)
    close(outputs["returns"][0], areal)
    close(golden("roll_turn_returns", case)[1]["returns"][0], roll)
    out = returns_per_token(inputs["rewards"], inputs["turn_ids"], discount=inputs["discount"])
    close(out[0], areal)


@pytest.mark.parametrize("case", load("gtpo_composed"))
def test_gtpo_advantages_match_areal_returns_normalized_by_verl(case):
    # No implementation has the whole chain in a reviewed form, so two of them make it.
    inputs, outputs = golden("gtpo_composed", case)
    rewards = floats(inputs["turn_rewards"])
    mask = turns.turn_mask_from_counts(integers(inputs["turn_counts"]), rewards.shape[1])
    out = methods.gtpo_advantages(
        rewards,
        mask,
        integers(inputs["groups"]),
        jnp.ones(len(rewards), bool),
        discount=inputs["discount"],
        normalize=credit.SETS[inputs["scope"]],
        divide_by_std=inputs["divide_by_std"],
        ddof=1,
    )
    # The returns that verl was given were rounded to float32.
    close(out, outputs["advantages"], rtol=5e-6)
