"""The clipped surrogates, and their means under a mask."""

import math

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import logprobs, masking, ratios
from gtpo_jax.parts import losses
from tests import reference

NAN, INF = float("nan"), float("inf")


def loss_of(log_ratio: float, advantage: float, **clip: float):
    """Loss, its derivative by the log-ratio, and the clip flag, of one token."""

    def total(x):
        out = losses.clipped_surrogate(x, jnp.array([advantage]), **clip)
        return out.loss[0], out.clipped[0]

    (loss, clipped), gradient = jax.value_and_grad(total, has_aux=True)(jnp.array([log_ratio]))
    return float(loss), float(gradient[0]), bool(clipped)


@pytest.mark.parametrize(
    "ratio, advantage, held",
    [
        (1.5, 2.0, True),  # A > 0 and above the band: no further up
        (0.5, 2.0, False),  # A > 0 and below: free to come back
        (1.0, 2.0, False),
        (1.5, -2.0, False),  # A < 0 and above: free to come back, and no dual clip
        (9.0, -2.0, False),
        (0.5, -2.0, True),  # A < 0 and below: no further down
        (1.0, -2.0, False),
        (1.27, 2.0, False),  # the band is asymmetric: 1.25 would be a clip of .2 both ways
        (1.29, 2.0, True),
        (0.81, -2.0, False),
        (0.79, -2.0, True),
    ],
)
def test_clip_holds_the_gradient_only_where_a_step_leaves_the_band(ratio, advantage, held):
    # With the default band .2 / .28.
    loss, gradient, clipped = loss_of(math.log(ratio), advantage)
    bound = 1.28 if ratio > 1 else 0.8
    assert clipped == held
    np.testing.assert_allclose(loss, -advantage * (bound if held else ratio), rtol=1e-5)
    np.testing.assert_allclose(gradient, 0.0 if held else -advantage * ratio, rtol=1e-5)


BOUNDS = {
    "plain": {},
    "dual": {"dual_clip": 3.0},
    "capped": {"ratio_cap": 4.0},
    "dual_capped": {"dual_clip": 3.0, "ratio_cap": 4.0},
}


@pytest.mark.parametrize(
    "ratio, plain, dual, capped",
    [
        (0.7, True, True, True),
        (0.9, False, False, False),
        (2.9, False, False, False),
        (3.1, False, True, False),
        (3.9, False, True, False),
        (4.1, False, True, True),
        (50.0, False, True, True),
    ],
)
def test_dual_clip_and_ratio_cap_bound_the_loss_of_negative_advantages(ratio, plain, dual, capped):
    # c = 3, δ = 4; both together act as the lower of the two.
    expected = {"plain": plain, "dual": dual, "capped": capped, "dual_capped": dual}
    limits = {"plain": math.inf, "dual": 3.0, "capped": 4.0, "dual_capped": 3.0}
    for name, held in expected.items():
        loss, gradient, clipped = loss_of(math.log(ratio), -2.0, **BOUNDS[name])
        assert clipped == held
        np.testing.assert_allclose(loss, 2.0 * min(max(ratio, 0.8), limits[name]), rtol=1e-5)
        np.testing.assert_allclose(gradient, 0.0 if held else 2.0 * ratio, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0, 1.2, 1.3, 3.5, 50.0])
def test_dual_clip_and_ratio_cap_leave_positive_advantages_alone(ratio):
    # Even where the ratio is beyond both bounds.
    expected = loss_of(math.log(ratio), 2.0)
    for options in BOUNDS.values():
        assert loss_of(math.log(ratio), 2.0, **options) == expected


@pytest.mark.parametrize("bounds", BOUNDS)
@hypothesis.given(
    log_ratio=st.floats(-3.0, 3.0),
    advantage=st.floats(-5.0, 5.0),
    clip_low=st.sampled_from([0.1, 0.2, 0.9]),
    clip_high=st.sampled_from([0.1, 0.28, 2.0]),
)
@hypothesis.settings(max_examples=40)
def test_surrogate_matches_the_formula_in_float64(
    bounds, log_ratio, advantage, clip_low, clip_high
):
    edges = [1.0 - clip_low, 1.0 + clip_high, *BOUNDS[bounds].values()]
    hypothesis.assume(min(abs(log_ratio - math.log(edge)) for edge in edges) > 1e-4)
    hypothesis.assume(abs(advantage) > 1e-6)
    options = {"clip_low": clip_low, "clip_high": clip_high} | BOUNDS[bounds]
    loss, gradient, clipped = loss_of(log_ratio, advantage, **options)
    value, slope = reference.surrogate(log_ratio, advantage, **options)
    np.testing.assert_allclose([loss, gradient], [value, slope], rtol=2e-6, atol=1e-6)
    assert clipped == (slope == 0.0)


@pytest.mark.parametrize("clip_low, clip_high", [(1.0, 0.28), (0.2, 0.5)])
def test_cispo_bounds_the_weight_and_keeps_every_gradient(clip_low, clip_high):
    # −w A ∇ log π, and nothing through the ratio that the weight is made of.
    ratio = np.array([0.1, 0.7, 0.9, 1.0, 1.2, 1.4, 9.0])
    policy = np.linspace(-3.0, -0.2, 7)
    behavior = jnp.asarray(policy - np.log(ratio), jnp.float32)
    weights = np.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    for advantage in (2.0, -0.5, 0.0):

        def total(policy, behavior, advantages):
            out = losses.cispo_surrogate(
                ratios.log_ratios(policy, behavior),
                policy,
                advantages,
                clip_low=clip_low,
                clip_high=clip_high,
            )
            return jnp.sum(out.loss), out

        arguments = (jnp.asarray(policy, jnp.float32), behavior, jnp.full(7, advantage))
        gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*arguments)
        np.testing.assert_allclose(out.loss, -weights * advantage * policy, rtol=1e-5)
        np.testing.assert_allclose(gradients[0], -weights * advantage, rtol=1e-5)
        assert not np.any(gradients[1]) and not np.any(gradients[2])
        np.testing.assert_array_equal(out.clipped, (weights != ratio) & (advantage != 0))


def test_all_losses_on_policy_have_the_gradient_of_reinforce():
    # Ratio 1 gives −A ∇ log π, whatever the clip.
    policy, _, advantages, _ = random_batch()

    def gradient(loss):
        return jax.grad(lambda x: jnp.sum(loss(ratios.log_ratios(x, policy), x).loss))(policy)

    for options in BOUNDS.values():
        found = gradient(lambda r, _, o=options: losses.clipped_surrogate(r, advantages, **o))
        chex.assert_trees_all_close(found, -advantages, rtol=1e-6)
    found = gradient(lambda r, x: losses.cispo_surrogate(r, x, advantages))
    chex.assert_trees_all_close(found, -advantages, rtol=1e-6)


def test_sweeping_the_clip_compiles_once():
    sweep = jax.jit(losses.clipped_surrogate)
    log_ratio, advantages = jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0])
    for high in (0.1, 0.28, 0.5):
        out = sweep(log_ratio, advantages, clip_high=high, dual_clip=3.0 + high)
        np.testing.assert_allclose(out.loss, [-1.0 - high, 3.0 + high], rtol=1e-6)
    assert sweep._cache_size() == 1


def test_surrogate_with_advantage_zero_is_zero_and_never_clipped():
    for log_ratio in (-2.0, 0.0, 2.0):
        loss, gradient, clipped = loss_of(log_ratio, 0.0)
        assert (loss, gradient, clipped) == (0.0, 0.0, False)


def test_surrogate_under_jit_equals_eager(strict_rank):
    rng = np.random.default_rng(0)
    log_ratio, advantages = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
    eager = losses.clipped_surrogate(log_ratio, advantages)
    jitted = jax.jit(losses.clipped_surrogate)(log_ratio, advantages)
    chex.assert_trees_all_close(jitted, eager, rtol=1e-6)


def test_log_ratio_of_equal_logprobs_is_exactly_zero():
    policy = -jnp.asarray(np.random.default_rng(0).exponential(size=(3, 5)), jnp.float32)
    chex.assert_trees_all_equal(ratios.log_ratios(policy, policy), jnp.zeros((3, 5)))


@pytest.mark.parametrize("difference", [200.0, -200.0, INF, -INF])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_bounded_log_ratio_keeps_value_and_gradient_finite(difference, advantage):
    # The clip comes before the exponential, which would overflow to a NaN gradient.
    def total(policy):
        log_ratio = ratios.log_ratios(policy, jnp.array([-difference]))
        return losses.clipped_surrogate(log_ratio, jnp.array([advantage])).loss[0]

    value, gradient = jax.value_and_grad(total)(jnp.zeros(1))
    assert math.isfinite(value)
    chex.assert_trees_all_equal(gradient, jnp.zeros(1))
    bound = ratios.LOG_RATIO_BOUND
    expected, _ = reference.surrogate(math.copysign(bound, difference), advantage, 0.2, 0.28)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_log_ratios_inside_the_bound_pass_through():
    # The bound is a guard, far outside every trust region.
    policy, behavior = jnp.array([-0.5, -12.0, -1.0]), jnp.array([-10.5, -0.5, -1.25])
    out, pull = jax.vjp(lambda x: ratios.log_ratios(x, behavior), policy)
    chex.assert_trees_all_close(out, jnp.array([10.0, -11.5, 0.25]))
    chex.assert_trees_all_equal(pull(jnp.ones(3))[0], jnp.ones(3))


def test_bound_binds_where_the_log_ratio_was_cut():
    difference = jnp.array([25.0, 20.5, 19.5, 0.0, -19.5, -20.5, -jnp.inf])
    log_ratio = ratios.log_ratios(difference, jnp.zeros(7))
    expected = [True, True, False, False, False, True, True]
    np.testing.assert_array_equal(ratios.bound_binds(log_ratio), expected)


def pipeline(policy, behavior, advantages, mask):
    """The mean loss of the trained tokens."""
    log_ratio = ratios.log_ratios(policy, behavior)
    surrogate = losses.clipped_surrogate(log_ratio, advantages)
    return masking.masked_mean(surrogate.loss, mask)


loss_and_gradient = jax.jit(jax.value_and_grad(pipeline))


def random_batch(seed: int = 0, shape=(3, 8)):
    rng = np.random.default_rng(seed)
    policy = -rng.exponential(size=shape)
    behavior = policy + rng.normal(scale=0.3, size=shape)
    arrays = (policy, behavior, rng.normal(size=shape))
    return *(jnp.asarray(x, jnp.float32) for x in arrays), jnp.asarray(rng.random(shape) < 0.6)


def test_gradient_on_policy_is_that_of_reinforce():
    # Ratio 1 gives −A ∇ log π, divided by the number of trained tokens.
    policy, _, advantages, mask = random_batch()
    value, gradient = loss_and_gradient(policy, policy, advantages, mask)
    count = float(jnp.sum(mask))
    expected = jnp.where(mask, -advantages / count, 0.0)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-6)
    np.testing.assert_allclose(value, jnp.sum(expected), rtol=1e-5)


@pytest.mark.parametrize("argument", [1, 2])
def test_behavior_logprobs_and_advantages_get_no_gradient(argument):
    batch = random_batch()
    gradient = jax.grad(pipeline, argnums=argument)(*batch)
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(gradient))


def test_loss_and_gradient_match_a_float64_loop_over_trained_tokens():
    policy, behavior, advantages, mask = random_batch(1)
    value, gradient = loss_and_gradient(policy, behavior, advantages, mask)
    losses, slopes = 0.0, np.zeros(mask.shape)
    for b, t in np.argwhere(mask):
        difference = float(policy[b, t]) - float(behavior[b, t])
        loss, slope = reference.surrogate(difference, float(advantages[b, t]), 0.2, 0.28)
        losses += loss
        slopes[b, t] = slope
    count = int(jnp.sum(mask))
    np.testing.assert_allclose(value, losses / count, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes / count, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["policy", "behavior", "advantages"])
@pytest.mark.parametrize("junk", [NAN, INF, -INF, 1e30])
def test_loss_with_junk_in_masked_positions_is_unchanged(argument, junk):
    batch = list(random_batch())
    expected, _ = loss_and_gradient(*batch)
    batch[argument] = jnp.where(batch[3], batch[argument], junk)
    chex.assert_trees_all_equal(loss_and_gradient(*batch)[0], expected)


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["policy", "behavior", "advantages"])
def test_gradient_with_finite_junk_in_masked_positions_is_unchanged(argument):
    batch = list(random_batch())
    expected = loss_and_gradient(*batch)[1]
    batch[argument] = jnp.where(batch[3], batch[argument], 1e4)
    chex.assert_trees_all_equal(loss_and_gradient(*batch)[1], expected)


def test_loss_and_gradient_with_more_padding_are_unchanged():
    batch = random_batch()
    value, gradient = loss_and_gradient(*batch)
    more = ((0, 2), (0, 5))
    wide = [jnp.pad(x, more, constant_values=7.0) for x in batch[:3]] + [jnp.pad(batch[3], more)]
    wide_value, wide_gradient = loss_and_gradient(*wide)
    np.testing.assert_allclose(wide_value, value, rtol=1e-6)
    chex.assert_trees_all_close(wide_gradient, jnp.pad(gradient, more), rtol=1e-6)


def test_gradient_reaches_no_logits_that_predict_a_token_of_the_environment():
    # Exactly zero where the next token is not trained, non-zero where it is.
    rng = np.random.default_rng(0)
    _, _, advantages, mask = random_batch()
    logits = jnp.asarray(rng.normal(size=(3, 8, 5)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, 5, (3, 8)))

    def total(logits):
        policy = logprobs.token_logprobs(logits, tokens)
        log_ratio = ratios.log_ratios(policy, jax.lax.stop_gradient(policy))
        loss = losses.clipped_surrogate(log_ratio, advantages).loss
        return masking.masked_mean(loss, mask)

    touched = np.any(np.asarray(jax.jit(jax.grad(total))(logits)) != 0, axis=-1)
    np.testing.assert_array_equal(touched[:, :-1], np.asarray(mask)[:, 1:])
    assert not np.any(touched[:, -1])
