"""Losses for samplers that differ from the learner, compared with numbers from public code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.parts import losses
from gtpo_jax.parts.losses import corrections
from gtpo_jax.types import TokenBatch
from tests.golden.loader import close, floats, golden, kept, load

pytestmark = pytest.mark.slow


def rows(mask) -> TokenBatch:
    """A batch in which every row is a trajectory."""
    mask = kept(mask)
    zeros = jnp.zeros(mask.shape, jnp.int32)
    return TokenBatch(
        tokens=zeros,
        positions=zeros,
        segment_ids=zeros + 1,
        loss_mask=mask,
        turn_ids=jnp.where(mask, 0, -1),
        trajectory_ids=zeros + jnp.arange(len(mask))[:, None],
        behavior_logprobs=floats(zeros),
        token_advantages=floats(zeros),
    )


def masked_weights(correction, log_ratio, logprobs, mask):
    found = corrections.correct(correction, floats(log_ratio), floats(logprobs), rows(mask))
    return np.where(kept(mask), found.weights, 0.0)


def within(low, high):
    """Weights of importance sampling that are clipped, dropped, or all one."""
    return {
        "none": lambda x, _: jnp.ones_like(x),
        "tis": lambda x, _: jnp.clip(jnp.exp(x), low, high),
        "mis": lambda x, _: jnp.where((jnp.exp(x) >= low) & (jnp.exp(x) <= high), jnp.exp(x), 0.0),
    }


@pytest.mark.parametrize("case", load("vime_score_centering"))
def test_score_centering_is_that_of_vime(case):
    inputs, outputs = golden("vime_score_centering", case)
    weigh = within(inputs.get("low"), inputs.get("high"))[inputs.get("mode", "none")]
    policy, sampler = floats(inputs["train_head_logp"]), floats(inputs["sampler_head_logp"])

    def total(policy):
        found = losses.score_centering(policy, sampler, weigh)
        return jnp.sum(found), found

    gradient, found = jax.grad(total, has_aux=True)(policy)
    # Masses that are left over are differences from 1, in float32 here.
    np.testing.assert_allclose(found, outputs["correction"], rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(gradient, outputs["gradient"], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("case", load("skyrl_dppo"))
def test_dppo_is_that_of_skyrl(case):
    inputs, outputs = golden("skyrl_dppo", case)
    policy, sampler = floats(inputs["log_probs"]), floats(inputs["rollout_logprobs"])
    surrogate = losses.dppo_surrogate(
        policy - sampler,
        policy,
        floats(inputs["advantages"]),
        low=inputs["delta_low"],
        high=inputs["delta_high"],
        divergence=inputs["dppo_type"].removeprefix("binary_"),
    )
    mask = kept(inputs["loss_mask"])
    close(np.where(mask, surrogate.loss, 0.0), outputs["loss"])
    close(np.mean(np.asarray(surrogate.clipped)[mask]), outputs["clip_ratio"])


def areal(options):
    """Our correction for a rejection config of AReaL."""
    unit = options.get("level", "token")
    low, high = options.get("lower", 0.0), options["upper"]
    if options.get("action") == "clamp":
        return losses.Truncation(low=low, high=high, unit=unit)
    measure = options.get("metric", "ratio").removeprefix("kl_")
    how = options.get("agg", "mean")
    return losses.Acceptance(measure=measure, low=low, high=high, unit=unit, how=how)


@pytest.mark.parametrize("case", [name for name in load("areal_rejection") if name != "binary_kl"])
def test_rejection_and_truncation_are_those_of_areal(case):
    inputs, outputs = golden("areal_rejection", case)
    fields = ("proximal_logprobs", "old_logprobs", "loss_mask")
    proximal, sampler, mask = (np.array(inputs[name]) for name in fields)
    correction = areal({name: x for name, x in inputs.items() if name not in fields})
    weights = masked_weights(correction, proximal - sampler, proximal, mask)
    if isinstance(correction, losses.Truncation):
        close(weights, outputs["behave_imp_weight"])
        return
    np.testing.assert_array_equal(weights, outputs["loss_mask"])
    if correction.unit == "token":  # with the ratio as its weight: IcePop, decoupled PPO
        weighing = dataclasses.replace(correction, weigh_ratio=True)
        found = masked_weights(weighing, proximal - sampler, proximal, mask)
        close(found, outputs["behave_imp_weight"])


def test_binary_divergences_are_those_of_areal():
    inputs, outputs = golden("areal_rejection", "binary_kl")
    proximal, sampler = floats(inputs["proximal_logprobs"]), floats(inputs["old_logprobs"])
    close(losses.binary_kl(proximal, sampler), outputs["forward"], atol=5e-6)
    close(losses.binary_kl(sampler, proximal), outputs["reverse"], atol=5e-6)
    limit = 0.05
    kept_tokens = np.maximum(outputs["forward"], outputs["reverse"]) <= limit
    correction = losses.Acceptance(measure="binary_kl", high=limit)
    weights = masked_weights(correction, proximal - sampler, proximal, np.ones(proximal.shape))
    np.testing.assert_array_equal(weights, kept_tokens)
    assert 0 < kept_tokens.sum() < kept_tokens.size


@pytest.mark.parametrize("case", load("verl_rejection"))
def test_rejection_is_that_of_verl(case):
    inputs, outputs = golden("verl_rejection", case)
    level, *how, measure = inputs["rollout_rs"].split("_")
    bounds = [float(x) for x in inputs["rollout_rs_threshold"].split("_")]
    if measure == "k1":  # verl bounds μ / π, ours π / μ
        low, high = 1 / bounds[1], 1 / bounds[0]
    else:
        low, high = 0.0, bounds[0]
    correction = losses.Acceptance(
        measure="ratio" if measure == "k1" else measure,
        low=low,
        high=high,
        unit="sequence" if level == "seq" else "token",
        how=how[0] if how else "mean",
    )
    log_ratio, mask = np.array(inputs["log_ratio"]), np.array(inputs["response_mask"])
    weights = masked_weights(correction, log_ratio, log_ratio - 1.0, mask)
    np.testing.assert_array_equal(weights, outputs["mask"])
