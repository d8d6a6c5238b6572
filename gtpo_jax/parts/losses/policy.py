"""The policy-gradient term: a surrogate of the ratio to the sampling policy, times advantages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import ratios, units
from gtpo_jax.parts.losses.loss import Diagnostics, Scores
from gtpo_jax.parts.losses.mismatch import truncated_importance_weights
from gtpo_jax.types import TokenBatch

Unit = Literal["token", "turn", "sequence"]


class Surrogate(NamedTuple):
    """The loss of each token, and the tokens whose gradient is clipped."""

    loss: jax.Array  # [B, T] float32
    clipped: jax.Array  # [B, T] bool


SurrogateFn = Callable[[jax.Array, jax.Array, jax.Array], Surrogate]
"""`(log_ratio, policy_logprobs, advantages) → Surrogate`, all `[B, T]`."""


@dataclasses.dataclass(frozen=True)
class PolicyTerm:
    """`w · surrogate(π / π₀, A)` of every token, where A are the `token_advantages` of the batch.

    π₀ is the behavior policy μ, which sampled; with `recompute` it is the policy that the step
    began with, scored by the learner. `unit` "turn" or "sequence" gives every token the mean
    log-ratio of its unit. With an `importance_limit`, `w = min(π₀ / μ, importance_limit)` corrects
    for a sampler that differs from the learner (arXiv 2505.24298 decouples π₀ from μ in this way);
    otherwise w is 1.
    """

    surrogate: SurrogateFn
    unit: Unit = "token"
    recompute: bool = False
    importance_limit: float | None = None

    def __post_init__(self):
        if self.importance_limit is not None and not self.recompute:
            raise ValueError(
                "an importance_limit needs recompute: it compares the learner with the sampler"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"proximal_logprobs"} if self.recompute else ())

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        anchor = batch.behavior_logprobs
        if self.recompute:
            assert batch.proximal_logprobs is not None
            anchor = batch.proximal_logprobs
        log_ratio = ratios.log_ratios(scores.logprobs, anchor)
        if self.unit != "token":
            log_ratio = ratios.unit_log_ratios(
                log_ratio,
                batch.loss_mask,
                units.row_unit_ids(batch, turns=self.unit == "turn"),
                units=batch.tokens.size,
            )
        advantages = batch.token_advantages
        loss, clipped = self.surrogate(log_ratio, scores.logprobs, advantages)
        drift = ratios.log_ratios(scores.logprobs, batch.behavior_logprobs)
        diagnostics = {
            "clip_fraction": clipped.astype(jnp.float32),
            # At the lower end of the band tokens of A < 0 are clipped, at the upper of A > 0.
            "clip_low": (clipped & (advantages < 0)).astype(jnp.float32),
            "clip_high": (clipped & (advantages > 0)).astype(jnp.float32),
            "ratio": jnp.exp(log_ratio),
            # k3 estimate of KL(behavior ‖ policy): non-negative, and 0 on the first update.
            "behavior_kl": jnp.exp(drift) - 1.0 - drift,
        }
        if self.importance_limit is not None:
            importance = truncated_importance_weights(
                anchor, batch.behavior_logprobs, batch.loss_mask, limit=self.importance_limit
            )
            loss = loss * importance.weights
            diagnostics |= {
                "importance_weight": importance.weights,
                "importance_truncated": importance.truncated.astype(jnp.float32),
            }
        return loss, diagnostics
