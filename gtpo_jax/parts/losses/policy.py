"""The policy-gradient term: a surrogate of the ratio to the sampling policy, times advantages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.maths import ratios, units
from gtpo_jax.parts.losses.centering import score_centering
from gtpo_jax.parts.losses.corrections import Correction, Unit, correct, token_weights
from gtpo_jax.parts.losses.geometric import LogClamp
from gtpo_jax.parts.losses.loss import Diagnostics, Scores
from gtpo_jax.types import TokenBatch


class Surrogate(NamedTuple):
    """The loss of each token, and the tokens whose gradient is clipped."""

    loss: jax.Array  # [B, T] float32
    clipped: jax.Array  # [B, T] bool


SurrogateFn = Callable[[jax.Array, jax.Array, jax.Array], Surrogate]
"""`(log_ratio, policy_logprobs, advantages) → Surrogate`, elementwise on arrays of one shape."""


class TokenSurrogate:
    """Base of surrogates that judge each token by its own probabilities: no ratios of units."""


@dataclasses.dataclass(frozen=True)
class PolicyTerm:
    """`w · surrogate(π / π₀, A)` of every token, where A are the `token_advantages` of the batch.

    π₀ is the behavior policy μ, which sampled; with `recompute` it is the policy that the step
    began with, scored by the learner. `unit` "turn" or "sequence" gives every token the mean
    log-ratio of its unit, and `clamp` bounds the log-ratios of tokens before that mean.
    `corrections` turn π₀ / μ into weights w for a sampler that differs from the learner (arXiv
    2505.24298 decouples π₀ from μ in this way); without them w is 1.

    `centering` is the number of candidates of score centering, 0 for none: it adds `A C`, where C
    is `centering.score_centering` with the weights that this term itself would give to the score of
    each candidate. With `recompute`, π₀ is not known at candidates: there π / π₀ counts as 1 and
    π / μ stands for π₀ / μ. Weights of turns and sequences multiply C as they do the surrogate.
    """

    surrogate: SurrogateFn
    unit: Unit = "token"
    recompute: bool = False
    corrections: tuple[Correction, ...] = ()
    centering: int = 0
    clamp: LogClamp | None = None

    def __post_init__(self):
        if self.clamp is not None and self.unit == "token":
            raise ValueError(
                "a clamp bounds log-ratios of tokens before the mean of their turn or sequence; set"
                " unit to one of these, or clip the surrogate"
            )
        if self.corrections and not self.recompute:
            raise ValueError(
                "corrections for the sampler need recompute: they compare the learner with it"
            )
        if self.unit != "token" and self.centering:
            raise ValueError(
                "score centering needs ratios of tokens: the ratio of a turn or a sequence is not"
                " known for tokens that were not drawn; leave one of the two out"
            )
        if self.unit != "token" and isinstance(self.surrogate, TokenSurrogate):
            raise ValueError(
                f"the surrogate {type(self.surrogate).__name__} needs ratios of tokens, not of a"
                f" {self.unit}: it compares probabilities of single tokens; leave one of the two"
                " out"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(
            [
                *(["proximal_logprobs"] if self.recompute else []),
                *(["candidates", "candidate_logprobs"] if self.centering else []),
            ]
        )

    @property
    def candidates(self) -> int:
        """Number of candidates that the sampler records."""
        return self.centering

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        anchor = batch.behavior_logprobs
        if self.recompute:
            assert batch.proximal_logprobs is not None
            anchor = batch.proximal_logprobs
        log_ratio = ratios.log_ratios(scores.logprobs, anchor)
        advantages = batch.token_advantages
        bounded = jnp.zeros(log_ratio.shape, bool)
        if self.clamp is not None:
            log_ratio, bounded = self.clamp(log_ratio, advantages)
        if self.unit != "token":
            log_ratio = ratios.unit_log_ratios(
                log_ratio,
                batch.loss_mask,
                units.row_unit_ids(batch, turns=self.unit == "turn"),
                units=batch.tokens.size,
            )
        loss, clipped = self.surrogate(log_ratio, scores.logprobs, advantages)
        clipped |= bounded
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
        shared = jnp.ones_like(loss)
        if self.corrections:
            of_tokens, shared, more = self._correct(anchor, batch)
            loss = loss * (of_tokens * shared)
            diagnostics |= more
        if self.centering:
            center = shared * self._center(scores, batch)
            loss = loss + center
            diagnostics["centering"] = jnp.abs(center)
        return loss, diagnostics

    def _correct(
        self, anchor: jax.Array, batch: TokenBatch
    ) -> tuple[jax.Array, jax.Array, Diagnostics]:
        """The weights of tokens, those that turns and sequences share, and diagnostics."""
        mismatch = ratios.log_ratios(anchor, batch.behavior_logprobs)
        weights = {"token": jnp.ones_like(mismatch), "shared": jnp.ones_like(mismatch)}
        any_outside = jnp.zeros(mismatch.shape, bool)
        for correction in self.corrections:
            kind = "token" if correction.unit == "token" else "shared"
            weight, outside = correct(correction, mismatch, anchor, batch)
            weights[kind] = weights[kind] * weight
            any_outside |= outside
        of_tokens, shared = weights["token"], weights["shared"]
        return (
            of_tokens,
            shared,
            {
                "importance_weight": of_tokens * shared,
                "importance_truncated": any_outside.astype(jnp.float32),
            },
        )

    def _center(self, scores: Scores, batch: TokenBatch) -> jax.Array:
        """`A C` of every token."""
        assert batch.candidates is not None
        advantages = batch.token_advantages[..., None]

        def pull(log_ratio: jax.Array, logprobs: jax.Array) -> jax.Array:
            """The advantage times the weight that this term gives to the score of a token."""
            over = jnp.broadcast_to(advantages, logprobs.shape)
            anchor = logprobs if self.recompute else logprobs - log_ratio

            def total(logprobs: jax.Array) -> jax.Array:
                return jnp.sum(
                    self.surrogate(ratios.log_ratios(logprobs, anchor), logprobs, over).loss
                )

            return -jax.grad(total)(logprobs) * token_weights(self.corrections, log_ratio, logprobs)

        recorded = batch.candidates.logprobs[..., : self.centering]
        known = scores.extras["candidate_logprobs"][..., : self.centering]
        return score_centering(known, recorded, pull)
