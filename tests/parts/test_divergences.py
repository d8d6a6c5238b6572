"""Divergence of two policies: KL estimators, ratios of whole units, importance weights."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import divergences, ratios
from gtpo_jax.parts import losses, reductions
from tests import reference

pytestmark = pytest.mark.slow

ESTIMATORS = {"k1": divergences.kl_k1, "k2": divergences.kl_k2, "k3": divergences.kl_k3}
POLICY = np.array([1.2, -0.3, 0.4, -1.5, 0.1])  # logits
REFERENCE = np.array([0.2, 0.6, -0.7, -0.4, 0.9])


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


LOG_P, LOG_Q = log_softmax(POLICY), log_softmax(REFERENCE)
P, Q = np.exp(LOG_P), np.exp(LOG_Q)
FORWARD = float(np.sum(P * (LOG_P - LOG_Q)))  # KL(π ‖ π_ref)


def expectation(estimator, logits, weights=P):
    """The exact mean of an estimator over the policy's tokens; the weights carry no gradient."""
    out = estimator(jax.nn.log_softmax(logits), jnp.asarray(LOG_Q, jnp.float32))
    return jnp.sum(jnp.asarray(weights, jnp.float32) * out)


@pytest.mark.parametrize(
    "name, expected",
    [("k1", FORWARD), ("k2", float(np.sum(P * (LOG_P - LOG_Q) ** 2) / 2)), ("k3", FORWARD)],
)
def test_expected_kl_estimate_is_the_divergence_where_it_is_unbiased(name, expected):
    # k1 and k3 are unbiased, k2 is not.
    found = expectation(ESTIMATORS[name], jnp.asarray(POLICY, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (abs(expected - FORWARD) > 1e-2) == (name == "k2")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("k1", np.zeros(5)),
        ("k2", P * (LOG_P - LOG_Q - FORWARD)),  # ∇ KL(π ‖ π_ref) by the logits
        ("k3", P - Q),  # ∇ KL(π_ref ‖ π)
    ],
)
def test_expected_gradient_of_a_kl_estimate_is_what_its_docstring_says(name, expected):
    # Value and gradient are two matters.
    found = jax.grad(lambda x: expectation(ESTIMATORS[name], x))(jnp.asarray(POLICY, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-7)


def test_expected_gradients_of_the_two_divergences_are_their_finite_differences():
    # The closed forms above, in float64.
    for kl, gradient in (
        (lambda p, q: np.sum(np.exp(p) * (p - q)), P * (LOG_P - LOG_Q - FORWARD)),
        (lambda p, q: np.sum(np.exp(q) * (q - p)), P - Q),
    ):
        steps = 1e-6 * np.eye(5)
        ends = [[kl(log_softmax(POLICY + s * e), LOG_Q) for s in (1, -1)] for e in steps]
        np.testing.assert_allclose(gradient, [(a - b) / 2e-6 for a, b in ends], atol=1e-8)


@pytest.mark.parametrize("difference", [-3.0, -0.1, 0.0, 0.5, 4.0])
def test_kl_estimates_and_slopes_of_one_token_match_their_formulas(difference):
    # With d = log π − log π_ref and r = exp(−d).
    r = np.exp(-difference)
    expected = {
        "k1": (difference, 1.0),
        "k2": (difference**2 / 2, difference),
        "k3": (r - 1.0 + difference, 1.0 - r),
    }
    for name, (value, slope) in expected.items():
        found = jax.value_and_grad(ESTIMATORS[name])(
            jnp.float32(difference - 5.0), jnp.float32(-5.0)
        )
        np.testing.assert_allclose(found, (value, slope), rtol=1e-5, atol=1e-6)
        by_reference = jax.grad(ESTIMATORS[name], argnums=1)(jnp.float32(-1.0), jnp.float32(-2.0))
        assert float(by_reference) == 0.0
    assert expected["k3"][0] >= 0.0


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("difference", [200.0, -200.0])
def test_kl_estimates_of_unrelated_policies_stay_finite_without_gradient(name, difference):
    # The log-ratio is bounded by 20 and nothing else is clamped.
    value, slope = jax.value_and_grad(ESTIMATORS[name])(jnp.float32(difference), jnp.float32(0.0))
    bound = np.copysign(20.0, difference)
    expected = {"k1": bound, "k2": 200.0, "k3": np.exp(-bound) - 1.0 + bound}[name]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert float(slope) == 0.0


# Trajectories of one, two and three turns, two of them in one row; one without trained tokens.
BATCH = reference.token_batch(
    [
        [[("given", 1), ("trained", 3), ("trained", 1), ("given", 2)], [("trained", 4)]],
        [[("trained", 1), ("given", 1), ("trained", 2), ("given", 1), ("trained", 3)]],
        [[("given", 5)]],
    ],
    width=12,
)
TRAJECTORIES, MAX_TURNS = 4, 3
UNITS = {
    "trajectory": (BATCH.trajectory_ids, TRAJECTORIES, reductions.sequence_mean),
    "turn": (
        BATCH.trajectory_ids * MAX_TURNS + BATCH.turn_ids,
        TRAJECTORIES * MAX_TURNS,
        reductions.turn_mean,
    ),
}
each_unit = pytest.mark.parametrize("unit", UNITS)


def positions(unit: str) -> list[list[tuple[int, int]]]:
    """The trained tokens of each unit, found by walking over the tokens."""
    found = {}
    for b, t in np.argwhere(BATCH.loss_mask):
        key = (int(BATCH.trajectory_ids[b, t]), int(BATCH.turn_ids[b, t]))
        found.setdefault(key[:1] if unit == "trajectory" else key, []).append((int(b), int(t)))
    return list(found.values())


def unit_ratios(log_ratio, unit: str):
    ids, units, _ = UNITS[unit]
    return ratios.unit_log_ratios(log_ratio, BATCH.loss_mask, ids, units=units)


def random_log_ratios():
    return np.random.default_rng(0).normal(scale=0.3, size=BATCH.loss_mask.shape)


@each_unit
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_unit_log_ratios_are_means_over_the_trained_tokens_of_the_unit(unit, compiled):
    # NaN outside the trained tokens has no part in them.
    values = random_log_ratios()
    expected = np.zeros(values.shape)
    for where in positions(unit):
        for b, t in where:
            expected[b, t] = np.mean([values[at] for at in where])
    values[~np.asarray(BATCH.loss_mask)] = np.nan
    call = jax.jit(unit_ratios, static_argnums=1) if compiled else unit_ratios
    found = call(jnp.asarray(values, jnp.float32), unit)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@each_unit
def test_unit_log_ratios_have_each_tokens_own_gradient(unit):
    values = jnp.asarray(random_log_ratios(), jnp.float32)
    jacobian = jax.jacobian(lambda x: unit_ratios(x, unit))(values).reshape(values.size, -1)
    own = np.asarray(BATCH.loss_mask, np.float32).ravel()
    np.testing.assert_array_equal(jacobian, np.diag(own))


@each_unit
def test_clipped_unit_ratios_are_the_objective_of_the_unit_in_value_and_gradient(unit):
    # GSPO: −(1/n) Σ_i min(s_i A_i, clip(s_i) A_i), s_i = (π(y_i) / μ(y_i))^(1/|y_i|); the same
    # per turn.
    *_, reduce = UNITS[unit]
    where = positions(unit)
    policy = -np.random.default_rng(1).exponential(size=BATCH.loss_mask.shape)
    behavior = policy - 3.0 * random_log_ratios()
    scores = np.random.default_rng(2).normal(size=len(where))
    advantages = np.zeros(policy.shape)
    value, slopes, held = 0.0, np.zeros(policy.shape), 0
    for tokens, score in zip(where, scores, strict=True):
        mean = np.mean([policy[at] - behavior[at] for at in tokens])
        loss, slope = reference.surrogate(mean, score)
        held += slope == 0.0
        value += loss / len(where)
        for at in tokens:
            advantages[at] = score
            slopes[at] = slope / len(tokens) / len(where)
    assert 0 < held < len(where)
    facts = [jnp.asarray(x, jnp.float32) for x in (behavior, advantages)]

    def total(policy):
        ratio = unit_ratios(ratios.log_ratios(policy, facts[0]), unit)
        return reduce(losses.clipped_surrogate(ratio, facts[1]).loss, BATCH).mean()

    found = jax.jit(jax.value_and_grad(total))(jnp.asarray(policy, jnp.float32))
    chex.assert_trees_all_close(found, (np.float32(value), slopes), rtol=1e-4, atol=1e-6)


def test_unit_log_ratios_on_policy_are_exactly_zero():
    same = jnp.zeros(BATCH.loss_mask.shape)
    for unit in UNITS:
        chex.assert_trees_all_equal(unit_ratios(same, unit), same)


def mismatch():
    """Log-probs of the learner and of the sampler; NaN where nothing is trained."""
    rng = np.random.default_rng(3)
    learner = -rng.exponential(size=(4, 9))
    sampler = learner - rng.normal(scale=0.7, size=(4, 9))
    mask = rng.random((4, 9)) < 0.6
    return np.where(mask, learner, np.nan), np.where(mask, sampler, np.nan), mask


def weigh(learner, sampler, mask, **options):
    return losses.truncated_importance_weights(
        jnp.asarray(learner, jnp.float32),
        jnp.asarray(sampler, jnp.float32),
        jnp.asarray(mask),
        **options,
    )


@pytest.mark.parametrize("limit", [1.1, 2.0, 1e6])
def test_importance_weights_are_taken_over_trained_tokens_and_truncated_from_above(limit):
    # The share is that before truncation, so it does not depend on the limit.
    learner, sampler, mask = mismatch()
    ratios = np.exp(learner - sampler)[mask]
    out = weigh(learner, sampler, mask, limit=limit)
    np.testing.assert_allclose(out.weights[mask], np.minimum(ratios, limit), rtol=1e-5)
    np.testing.assert_array_equal(out.truncated[mask], ratios > limit)
    assert not np.any(out.weights[~mask]) and not np.any(out.truncated[~mask])
    share = ratios.sum() ** 2 / (len(ratios) * (ratios**2).sum())
    assert 0.3 < share < 0.9
    np.testing.assert_allclose(out.effective_share, share, rtol=1e-5)


@pytest.mark.parametrize("argument", [0, 1])
def test_importance_weights_are_detached(argument):
    learner, sampler, mask = mismatch()
    arguments = [jnp.nan_to_num(jnp.asarray(x, jnp.float32)) for x in (learner, sampler)]

    def total(*arguments):
        out = weigh(*arguments, mask)
        return jnp.sum(out.weights) + out.effective_share

    gradient = jax.grad(total, argnums=argument)(*arguments)
    chex.assert_trees_all_equal(gradient, jnp.zeros((4, 9)))


def test_effective_share_is_one_in_agreement_one_nth_in_dominance_and_zero_of_nothing():
    zeros, mask = np.zeros((2, 5)), np.ones((2, 5), bool)
    agreed = weigh(zeros, zeros, mask)
    assert float(agreed.effective_share) == 1.0
    chex.assert_trees_all_equal(agreed.weights, jnp.ones((2, 5)))
    one = zeros.copy()
    one[0, 0] = 15.0
    np.testing.assert_allclose(weigh(one, zeros, mask).effective_share, 0.1, rtol=1e-4)
    nothing = weigh(zeros, zeros, ~mask)
    assert float(nothing.effective_share) == 0.0 and not np.any(nothing.weights)


def test_importance_weights_of_unrelated_policies_stay_finite():
    # The bound on log-ratios holds here as well.
    learner = np.array([[300.0, -300.0, 0.0]])
    out = weigh(learner, np.zeros((1, 3)), np.ones((1, 3), bool), limit=2.0)
    np.testing.assert_allclose(out.weights, [[2.0, np.exp(-20.0), 1.0]], rtol=1e-5)
    np.testing.assert_allclose(out.effective_share, 1 / 3, rtol=1e-5)
