"""Score centering: what a sampler that differs from the learner adds on average is taken out."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.maths.ratios import LOG_RATIO_BOUND

Weigh = Callable[[jax.Array, jax.Array], jax.Array]
"""`(log_ratio, logprobs) → weights`, elementwise: the weight of the score `∇ log p` of a token."""


def unweighted(log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
    """The weights of REINFORCE without importance sampling: 1."""
    del logprobs
    return jnp.ones_like(log_ratio)


def score_centering(
    policy_logprobs: Float[Array, "*B K"],
    sampler_logprobs: Float[Array, "*B K"],
    weigh: Weigh = unweighted,
    *,
    floor: float = 1e-6,
) -> Float[Array, "*B"]:
    """`C = Σ_{v ∈ H} sg(q_v w(p_v / q_v) − α p_v) log p_v`, the estimator of arXiv 2609.20807.

    p is the policy, q the sampler, H the K tokens that q finds likeliest, w the weight that the
    loss gives to the score of a token. The gradient of C is `Σ_v q_v w_v ∇ log p_v` over the whole
    vocabulary: the mean of the weighted scores under q, which a loss `−A w log p + A C` takes out.
    It is 0 for exact weights p / q, and for p = q.

    Outside H, q is modelled as `ρ p`, where ρ is the ratio of the masses outside H, each at least
    `floor` (their appendix A.3), and `α = ρ w(1 / ρ)`; `Σ_v p_v ∇ log p_v = 0` moves this part to
    H. With K as large as the vocabulary nothing is modelled and C is exact.

    Tokens that q cannot draw (log-prob −inf) are no part of H. Weights that depend on the log-prob
    itself are taken at e⁻²⁰ outside H, where tokens are unlikely.
    """
    checks.check_same_shape(policy_logprobs=policy_logprobs, sampler_logprobs=sampler_logprobs)
    head = jnp.isfinite(sampler_logprobs)
    log_p = jnp.where(head, as_float(policy_logprobs), 0.0)
    fixed = jax.lax.stop_gradient(log_p)
    log_q = jax.lax.stop_gradient(jnp.where(head, as_float(sampler_logprobs), 0.0))
    p, q = (jnp.where(head, jnp.exp(x), 0.0) for x in (fixed, log_q))
    p_rest, q_rest = (jnp.maximum(1.0 - jnp.sum(x, -1, keepdims=True), floor) for x in (p, q))
    log_rho = jnp.log(q_rest) - jnp.log(p_rest)
    alpha = jnp.exp(log_rho) * weigh(-log_rho, jnp.full_like(log_rho, -LOG_RATIO_BOUND))
    residual = q * weigh(fixed - log_q, fixed) - alpha * p
    return jnp.sum(jax.lax.stop_gradient(residual) * log_p, axis=-1)
