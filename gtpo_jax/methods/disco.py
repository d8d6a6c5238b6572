"""DisCO: successes against failures of the same question, under a limit on the drift."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.parts import losses, reductions, rewards


def disco(
    *,
    score: Literal["likelihood", "ratio"] = "likelihood",
    soft: bool = True,
    tau: float | None = None,
    delta: float = 1e-4,
    beta: float = 1e3,
    estimator: Literal["k1", "k3"] = "k1",
    recompute: bool = False,
) -> Method:
    """DisCO (arXiv 2505.12366): raises the score of successes above that of failures.

    `J = (1 / Q) Σ_q mean_{i ∈ +} [s_i − τ log mean_{k ∈ −} exp(s_k / τ)]`, s the mean log-prob of a
    trajectory's tokens (`score=likelihood`, τ 10) or the mean of their ratios (`ratio`, τ 1), over
    Q questions, of which those of equal outcomes add 0. With `soft=false` it is DisCO-b, with the
    mean of `s_k` in place of the second term. The loss is `−J + sg(max(0, β (D − δ))) D`, D the
    divergence of the policy from the sampler over the batch. No clipping.

    Deviations: the public code forms D and J over what its devices hold at a time, ours over the
    minibatch, however it is divided; and it runs `ratio` as DisCO-b whatever is asked for. The
    credit of `grpo` is reported, and does not enter the loss: outcomes do.
    """
    temperature = (10.0 if score == "likelihood" else 1.0) if tau is None else tau
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=grpo_credit(),
        loss=losses.add(
            losses.contrast(
                score=score, temperature=temperature if soft else None, recompute=recompute
            ),
            losses.drift_limit(limit=delta, weight=beta, estimator=estimator, recompute=recompute),
        ),
        reduce=reductions.token_mean,
    )


def drift_limit(
    *, delta: float = 1e-4, beta: float = 1e3, estimator: Literal["k1", "k3"] = "k1"
) -> Modifier:
    """DisCO's limit on the drift from the sampler (arXiv 2505.12366), for any method.

    `loss + sg(max(0, β (D − δ))) D`, D the estimate of KL(μ ‖ π) over the tokens of the minibatch.
    """
    limit = losses.drift_limit(limit=delta, weight=beta, estimator=estimator)
    return lambda method: method._replace(loss=losses.add(method.loss, limit))
