"""Scores of successes against those of failures of the same question: DisCO."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from gtpo_jax.maths import ratios
from gtpo_jax.parts import groups
from gtpo_jax.parts.losses.loss import Loss, over_groups
from gtpo_jax.parts.losses.members import Members
from gtpo_jax.types import TokenBatch

Score = Literal["likelihood", "ratio"]


def anchor_of(batch: TokenBatch, *, recompute: bool) -> jax.Array:
    """Log-probs of the policy that sampled; by the learner's own scoring with `recompute`."""
    if not recompute:
        return batch.behavior_logprobs
    assert batch.proximal_logprobs is not None
    return batch.proximal_logprobs


def questions(members: Members) -> jax.Array:
    """The number of groups with a trajectory that is trained on, at least 1."""
    sizes = groups.total(members.present.astype(jnp.float32), members.present, members.group_ids)
    return jnp.maximum(jnp.sum(jnp.where(members.present, 1.0 / jnp.maximum(sizes, 1.0), 0.0)), 1.0)


def log_mean_exp(values: jax.Array, kept: jax.Array, group_ids: jax.Array) -> jax.Array:
    """`log((1 / n) Σ exp(x))` over the kept rows of the group; 0 if there are none."""
    top = jax.lax.stop_gradient(groups.largest(values, kept, group_ids))
    raised = jnp.exp(jnp.where(kept, values - top, 0.0))
    mean = groups.mean(raised, kept, group_ids)
    return jnp.where(mean > 0, jnp.log(jnp.where(mean > 0, mean, 1.0)) + top, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """`−(1 / Q) Σ_q [mean_{i ∈ +} s_i − R_q]` over the Q questions of the batch.

    `s_i` is the mean log-prob of the trained tokens of trajectory i, or the mean of their ratios to
    the policy that sampled. `R_q` is the mean of s over the failures of the question, or with
    `temperature` τ the soft maximum `τ log mean_{k ∈ −} exp(s_k / τ)`. A question without successes
    or without failures adds 0, and counts in Q.
    """

    score: Score = "likelihood"
    temperature: float | None = None
    recompute: bool = False

    @property
    def needs(self) -> frozenset[str]:
        used = self.recompute and self.score == "ratio"
        return frozenset({"proximal_logprobs"} if used else ())

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        per_token = logprobs
        if self.score == "ratio":
            anchor = anchor_of(batch, recompute=self.recompute)
            per_token = jnp.exp(ratios.log_ratios(logprobs, anchor))
        scores, ids = members.mean(per_token), members.group_ids
        right = members.present & members.successes
        wrong = members.present & ~members.successes
        if self.temperature is None:
            rival = groups.mean(scores, wrong, ids)
        else:
            rival = self.temperature * log_mean_exp(scores / self.temperature, wrong, ids)
        number = groups.total(right.astype(jnp.float32), right, ids)
        contrasted = right & (groups.total(wrong.astype(jnp.int32), wrong, ids) > 0)
        gains = jnp.where(contrasted, (scores - rival) / jnp.maximum(number, 1.0), 0.0)
        gain = jnp.sum(gains) / questions(members)
        return -gain, {"contrast": gain}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftLimit:
    """`sg(max(0, β (D − δ))) D`: a penalty that is there only where the policy drifted too far.

    `D` is an estimate of KL(μ ‖ π) over the trained tokens of the whole batch: the mean of
    `log μ − log π` (k1), or of `ρ − 1 − log ρ` (k3), ρ = π / μ.
    """

    limit: float
    weight: float
    estimator: Literal["k1", "k3"] = "k1"
    recompute: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"proximal_logprobs"} if self.recompute else ())

    def __call__(
        self, logprobs: jax.Array, batch: TokenBatch, members: Members
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        log_ratio = ratios.log_ratios(logprobs, anchor_of(batch, recompute=self.recompute))
        drift = -log_ratio if self.estimator == "k1" else jnp.expm1(log_ratio) - log_ratio
        mean = jnp.sum(members.total(drift)) / jnp.maximum(jnp.sum(members.lengths), 1.0)
        excess = jax.lax.stop_gradient(jnp.maximum(self.weight * (mean - self.limit), 0.0))
        return excess * mean, {"drift": mean, "drift_excess": excess}


def contrast(
    *, score: Score = "likelihood", temperature: float | None = None, recompute: bool = False
) -> Loss:
    """`Contrast` as a loss."""
    return over_groups(Contrast(score=score, temperature=temperature, recompute=recompute))


def drift_limit(
    *,
    limit: float,
    weight: float,
    estimator: Literal["k1", "k3"] = "k1",
    recompute: bool = False,
) -> Loss:
    """`DriftLimit` as a loss."""
    return over_groups(
        DriftLimit(limit=limit, weight=weight, estimator=estimator, recompute=recompute)
    )
