"""One suite over all methods, found through their table."""

import dataclasses
import functools
import importlib
import math
import pathlib
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.maths import units
from gtpo_jax.parts import facts, losses, rewards
from gtpo_jax.types import Verdict
from tests import reference
from tests.methods import loss_relatives
from tests.tiny import make_trajectory

MAX_TURNS = 4
RELATIVES = {
    loss_relatives.tried(name)
    for pattern in ("rows", "losses", "prompts", "plans")
    for path in pathlib.Path(__file__).parent.glob(f"{pattern}_*.py")
    for name in importlib.import_module(f"tests.methods.{path.stem}").ROWS
}
"""Names that other suites try, on rows of their tables."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """A method written in NumPy: advantages from ragged rewards, and the loss of tokens."""

    advantages: Callable
    reduction: str = "token_mean"
    low: float = 0.2
    high: float = 0.28
    unit: str = "token"
    cispo: bool = False
    failure: float = 0.0  # reward of a failure


def silent_gtpo(rewards, groups, included):
    """GTPO, with advantages of 0 in groups of equal outcome."""
    advantages = reference.gtpo(rewards, groups, included, discount=0.9)
    for i, group in enumerate(groups):
        peers = [t for t in trajectories() if t.group == group and t.included and t.turns]
        if len({t.success for t in peers}) < 2:
            advantages[i] = [0.0] * len(advantages[i])
    return advantages


METHODS = {
    "gtpo": Expected(silent_gtpo),
    "grpo": Expected(reference.grpo),
    "dr_grpo": Expected(reference.dr_grpo, "constant_length", high=0.2),
    "rloo": Expected(reference.rloo),
    "mt_grpo": Expected(reference.mt_grpo),
    "reinforce_pp": Expected(reference.reinforce_plus_plus, high=0.2),
    "reinforce_pp_baseline": Expected(reference.reinforce_plus_plus_baseline, high=0.2),
    "gspo": Expected(reference.grpo, "sequence_mean", low=3e-4, high=4e-4, unit="sequence"),
    "cispo": Expected(reference.grpo, low=1.0, cispo=True),
    "dapo": Expected(reference.grpo, failure=-1.0),
}
FAST = ("gtpo", "dapo")
each = pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in METHODS],
)


def test_suite_holds_every_method():
    assert set(METHODS) == set(methods.METHODS) - RELATIVES


@functools.cache
def trajectories():
    """Three groups: mixed, all right, all wrong; one excluded, some without code."""
    rng = np.random.default_rng(0)
    verdicts = ["RWWRW", "RRR", "WW"]
    made = []
    for group, letters in enumerate(verdicts):
        for sample, letter in enumerate(letters):
            shape = [(3, 2)] * (1 + (sample + group) % 3)
            trajectory = make_trajectory(rng, shape, group=group, success=letter == "R")
            turns = tuple(
                dataclasses.replace(
                    turn,
                    codes=() if sample == 3 else (f"print({k} + {sample % 2})",),
                    violation="unclosed" if (sample, k) == (1, 0) else None,
                )
                for k, turn in enumerate(trajectory.turns)
            )
            made.append(dataclasses.replace(trajectory, turns=turns, sample=sample))
    made[4] = dataclasses.replace(made[4], verdict=Verdict.UNVERIFIABLE)
    return made


def gather(method, given, max_turns=MAX_TURNS):
    return jax.device_put(packing.episode_batch(given, max_turns=max_turns, needs=method.facts))


@functools.cache
def jitted(name):
    method = methods.METHODS[name]()
    return jax.jit(lambda episodes: methods.assign(method, method.credit.init(), episodes)[1])


def credit_of(name, given=None, max_turns=MAX_TURNS):
    given = trajectories() if given is None else given
    method = methods.METHODS[name]()
    return jax.device_get(jitted(name)(gather(method, given, max_turns)))


def ragged(values, given):
    return [list(map(float, row[: len(t.turns)])) for row, t in zip(values, given, strict=True)]


@each
def test_advantages_are_those_of_the_reference(name):
    given, credit = trajectories(), credit_of(name)
    earned = ragged(credit.rewards, given)
    groups, included = [t.group for t in given], [t.included for t in given]
    expected, _ = reference.padded(METHODS[name].advantages(earned, groups, included), MAX_TURNS)
    kept = np.array(included)[:, None]
    np.testing.assert_allclose(credit.advantages, np.where(kept, expected, 0), atol=2e-5)
    assert np.abs(credit.advantages).max() > 0.1


@each
def test_rewards_are_those_of_the_outcome_and_the_rules(name):
    given, credit = trajectories(), credit_of(name)
    chex.assert_trees_all_equal(credit.rewards, sum(credit.parts.values()))
    for t, row in zip(given, credit.rewards, strict=True):
        assert not np.any(row[len(t.turns) :])
        broken = [turn.violation is not None for turn in t.turns]
        if not t.included:
            earned = 0.0
        elif t.success:
            forfeits = "format" in credit.parts and name not in ("gtpo", "mt_grpo")
            earned = 0.0 if forfeits and any(broken) else 1.0
        else:
            earned = METHODS[name].failure
        found = row.sum()
        if name in ("gtpo", "mt_grpo"):
            found += 0.1 * sum(broken)
        if name == "gtpo" and t.included and not t.success:
            assert 0 <= found <= 0.5 + 1e-6
        else:
            assert found == pytest.approx(earned, abs=1e-6)


@each
def test_excluded_trajectories_neither_give_nor_get(name):
    given = trajectories()
    other = dataclasses.replace(given[4], turns=given[4].turns[:1])
    changed = [*given[:4], other, *given[5:]]
    before, after = credit_of(name), credit_of(name, changed)
    assert not np.any(before.advantages[4]) and not np.any(after.advantages[4])
    rest = [i for i in range(len(given)) if i != 4]
    chex.assert_trees_all_close(after.advantages[rest], before.advantages[rest], atol=1e-6)


@each
def test_order_of_trajectories_and_room_for_turns_change_nothing(name):
    order = np.random.default_rng(1).permutation(len(trajectories()))
    before = credit_of(name).advantages
    after = credit_of(name, [trajectories()[i] for i in order]).advantages
    chex.assert_trees_all_close(after, before[order], atol=2e-5)
    wide = credit_of(name, max_turns=MAX_TURNS + 2).advantages
    chex.assert_trees_all_close(wide[:, :MAX_TURNS], before, atol=1e-6)
    assert not np.any(wide[:, MAX_TURNS:])


@each
@pytest.mark.parametrize("case", ["none", "one", "right", "wrong", "no turn"])
def test_degenerate_groups_give_finite_advantages(name, case):
    given = {
        "none": [],
        "one": trajectories()[:1],
        "right": trajectories()[5:8],
        "wrong": trajectories()[8:],
        "no turn": [dataclasses.replace(t, turns=()) for t in trajectories()[:2]],
    }[case]
    method = methods.METHODS[name]()
    # As many rows in all cases, so that one program serves them.
    blank = jax.tree.map(np.zeros_like, gather(method, trajectories()))
    some = gather(method, given) if given else blank
    episodes = jax.tree.map(
        lambda x, y: np.concatenate([np.reshape(y, (len(y), *x.shape[1:])), x])[: len(x)],
        blank,
        some,
    )
    advantages = jitted(name)(episodes).advantages
    assert np.all(np.isfinite(advantages)) and not np.any(advantages[-1])
    if case in ("none", "no turn"):
        assert not np.any(advantages)


def loss_batch(seed=0):
    """Packed rows with policies μ, π and advantages apart."""
    rng = np.random.default_rng(seed)
    batch = reference.token_batch(
        [
            [[("given", 1), ("trained", 2), ("given", 1), ("trained", 3)], [("trained", 4)]],
            [[("given", 2), ("trained", 1), ("trained", 2)]],
            [],
        ],
        width=13,
    )
    behavior = -rng.random((3, 13)).astype(np.float32) - 0.1
    policy = behavior + 0.4 * rng.standard_normal((3, 13)).astype(np.float32)
    turn_advantages = rng.standard_normal((3, 3)).astype(np.float32)
    rows = np.maximum(np.asarray(batch.trajectory_ids), 0)
    columns = np.maximum(np.asarray(batch.turn_ids), 0)
    batch = dataclasses.replace(
        batch,
        behavior_logprobs=jnp.asarray(behavior),
        token_advantages=jnp.where(batch.loss_mask, turn_advantages[rows, columns], 0.0),
    )
    return jnp.asarray(policy), batch


def unit_means(values, batch, unit):
    """The mean of a value over the trained tokens of each token's unit."""
    out = np.zeros(values.shape)
    keys = {}
    for b, t in np.argwhere(batch.loss_mask):
        turn = int(batch.turn_ids[b, t]) if unit == "turn" else 0
        keys.setdefault((int(batch.trajectory_ids[b, t]), turn), []).append((b, t))
    for members in keys.values():
        mean = np.mean([values[place] for place in members])
        for place in members:
            out[place] = mean
    return out


def expected_loss(expected, policy, batch):
    """Loss and gradient by the policy's log-probs, from the references."""
    ratio = np.asarray(policy, np.float64) - np.asarray(batch.behavior_logprobs, np.float64)
    if expected.unit != "token":
        ratio = unit_means(ratio, batch, expected.unit)
    per_token, slope = np.zeros(ratio.shape), np.zeros(ratio.shape)
    for b, t in np.argwhere(batch.loss_mask):
        advantage = float(batch.token_advantages[b, t])
        if expected.cispo:
            weight = min(max(math.exp(ratio[b, t]), 1 - expected.low), 1 + expected.high)
            per_token[b, t] = -weight * advantage * float(policy[b, t])
            slope[b, t] = -weight * advantage
        else:
            per_token[b, t], slope[b, t] = reference.surrogate(
                ratio[b, t], advantage, expected.low, expected.high
            )
    length = 1024.0
    loss = reference.reduced(per_token, batch, expected.reduction, length=length)
    gradient = np.zeros(ratio.shape)
    for b, t in np.argwhere(batch.loss_mask):  # how much a token weighs, by the same reduction
        one = np.zeros(ratio.shape)
        one[b, t] = 1.0
        weight = reference.reduced(one, batch, expected.reduction, length=length)
        gradient[b, t] = weight * slope[b, t]
    return loss, gradient


def loss_of(method, policy, batch):
    def total(policy):
        scores = losses.Scores(policy, jnp.zeros_like(policy))
        return method.reduce(method.loss(scores, batch)[0], batch).mean()

    return jax.value_and_grad(total)(policy)


@each
def test_loss_and_gradient_are_those_of_the_reference(name):
    policy, batch = loss_batch()
    loss, gradient = loss_of(methods.METHODS[name](), policy, batch)
    expected, slopes = expected_loss(METHODS[name], policy, batch)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=2e-4, atol=2e-6)
    assert np.any(slopes)


def test_ratios_of_turns_are_those_of_the_reference():
    policy, batch = loss_batch()
    method = methods.gspo(unit="turn", low=0.2, high=0.3)
    expected = Expected(reference.grpo, "turn_mean", low=0.2, high=0.3, unit="turn")
    loss, gradient = loss_of(method, policy, batch)
    value, slopes = expected_loss(expected, policy, batch)
    np.testing.assert_allclose(loss, value, rtol=2e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=2e-4, atol=2e-6)


def test_units_are_numbered_once_in_a_batch():
    _, batch = loss_batch()
    for turns, key in ((False, ("trajectory_ids",)), (True, ("trajectory_ids", "turn_ids"))):
        mask = np.asarray(batch.loss_mask)
        ids = np.asarray(units.row_unit_ids(batch, turns=turns))[mask]
        parts = [np.asarray(getattr(batch, name))[mask].tolist() for name in key]
        pairs = set(zip(ids.tolist(), zip(*parts, strict=True), strict=True))
        assert len({i for i, _ in pairs}) == len({unit for _, unit in pairs}) == len(pairs)


def test_two_facts_of_one_name_are_an_error():
    plain = methods.grpo()
    named = {"a": rewards.own("x", len), "b": rewards.own("x", lambda t: 1.0)}
    with pytest.raises(ValueError, match="two facts are named 'reward x'"):
        _ = plain._replace(rewards=named).facts


def test_embedding_of_policy_states_is_named_where_nobody_computed_it():
    method = methods.gtpo(embed=rewards.POLICY_STATES)
    assert method.facts == (facts.POLICY_STATES,)
    with pytest.raises(ValueError, match=r"'policy_states', .*`training.Training` computes it"):
        methods.assign(method, method.credit.init(), gather(method, trajectories()))


def test_methods_are_found_by_name_and_unknown_ones_are_told():
    assert isinstance(methods.gtpo(), methods.Method)
    with pytest.raises(AttributeError, match=r"has no 'gtqo'; there are .*, cispo, "):
        _ = methods.gtqo
