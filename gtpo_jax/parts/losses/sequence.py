"""The policy-gradient term of whole sequences: one ratio of the probabilities of two responses."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gtpo_jax.maths import masking, ratios, units
from gtpo_jax.maths.elbo import Quadrature
from gtpo_jax.parts.losses.loss import Diagnostics, Loss, Scores
from gtpo_jax.parts.losses.policy import SurrogateFn
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceTerm:
    """`surrogate(ρ_i, A_i) / |y_i|` on every token of sequence i, with the ratio of all of it.

    `log ρ_i = Σ_t (log π(y_it) − log π₀(y_it))`, where π₀ is the policy that the step began with,
    scored by the learner. The mean over the tokens of a sequence (`reductions.sequence_mean`) is
    then its loss divided by its length. The advantage of a sequence is the mean over its tokens.

    For an autoregressive model these are the probabilities themselves. A diffusion model has only
    bounds of them: there the log-probs are parts of the evidence lower bound by `quadrature`, with
    the same masks for π and π₀ (`learner.diffusion.by_elbo`).
    """

    surrogate: SurrogateFn
    quadrature: Quadrature

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"proximal_logprobs"})

    def __call__(self, scores: Scores, batch: TokenBatch) -> tuple[jax.Array, Diagnostics]:
        assert batch.proximal_logprobs is not None
        mask = batch.loss_mask
        index = masking.everywhere(units.row_unit_ids(batch, turns=False))
        kept = mask & (index >= 0)
        index = jnp.maximum(index, 0)

        def total(x: jax.Array) -> jax.Array:
            values = masking.everywhere(jnp.where(kept, x, jnp.zeros_like(x)))
            return jnp.zeros(mask.size, x.dtype).at[index].add(values)[index]

        # The bound of a log-ratio holds for the sum, so no token alone is cut.
        difference = jnp.where(
            kept, scores.logprobs - jax.lax.stop_gradient(batch.proximal_logprobs), 0.0
        )
        whole = total(difference)
        log_ratio = ratios.log_ratios(whole, jnp.zeros_like(whole))
        length = jnp.maximum(total(jnp.ones_like(difference)), 1.0)
        advantages = total(batch.token_advantages.astype(difference.dtype)) / length
        loss, clipped = self.surrogate(log_ratio, scores.logprobs, advantages)
        clips = clipped.astype(jnp.float32)
        return loss / length, {
            "clip_fraction": clips,
            "clip_low": jnp.where(advantages < 0, clips, 0.0),
            "clip_high": jnp.where(advantages > 0, clips, 0.0),
            "ratio": jnp.exp(log_ratio),
        }


def quadrature_of(loss: Loss) -> Quadrature | None:
    """The quadrature that a loss is made for; None if it is a loss of single tokens."""
    found = {term.quadrature for term in loss.terms if isinstance(term, SequenceTerm)}
    if len(found) > 1:
        raise ValueError(f"the terms of a loss must agree on a quadrature, got {found}")
    return next(iter(found), None)
