"""Rows of the suite of losses: samplers that differ from the learner."""

import math

import numpy as np

from gtpo_jax import methods
from tests import reference as slow
from tests.methods.loss_relatives import Data, Row

LOW, HIGH = 0.2, 0.28  # clip range of `gtpo`


def clipped(log_ratio, advantage, logprob):
    """The clipped surrogate of one token."""
    del logprob
    return slow.surrogate(log_ratio, advantage, LOW, HIGH)[0]


def per_token(data: Data, value) -> np.ndarray:
    """`value(b, t)` at every trained token, 0 elsewhere."""
    out = np.zeros(data.logprobs.shape)
    for b, t in data.tokens:
        out[b, t] = value(b, t)
    return out


def mismatch(data: Data) -> np.ndarray:
    """`log π₀ − log μ` of every token."""
    return data.batch.proximal_logprobs - data.batch.behavior_logprobs


def bernoulli_kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def corrected(weights, surrogate=clipped):
    """`w · surrogate(π / π₀, A)`, with weights `[B, T]` of `log π₀ − log μ`."""

    def reference(data: Data, fixed: Data) -> np.ndarray:
        weight, batch = weights(fixed), data.batch

        def value(b, t):
            log_ratio = data.logprobs[b, t] - batch.proximal_logprobs[b, t]
            advantage = batch.token_advantages[b, t]
            return weight[b, t] * surrogate(log_ratio, advantage, data.logprobs[b, t])

        return per_token(data, value)

    return reference


def of_tokens(weight):
    """Weights `weight(log π₀ − log μ, π₀, μ)` of single tokens."""

    def weights(data: Data) -> np.ndarray:
        batch = data.batch
        return per_token(
            data,
            lambda b, t: weight(
                mismatch(data)[b, t],
                math.exp(batch.proximal_logprobs[b, t]),
                math.exp(batch.behavior_logprobs[b, t]),
            ),
        )

    return weights


def of_units(unit, weight):
    """Weights `weight(list of log-ratios)` of the tokens of turns or sequences."""

    def weights(data: Data) -> np.ndarray:
        out = np.zeros(data.logprobs.shape)
        for places in data.units(unit).values():
            shared = weight([mismatch(data)[place] for place in places])
            for place in places:
                out[place] = shared
        return out

    return weights


def kl3(log_ratio):
    return math.exp(log_ratio) - 1 - log_ratio


def dppo(*, low, high, distance):
    """`−ρ A`, but 0 for tokens whose probability moved too far in the direction of A."""

    def reference(data: Data, fixed: Data) -> np.ndarray:
        def value(b, t):
            q = math.exp(data.batch.behavior_logprobs[b, t])
            p = math.exp(fixed.logprobs[b, t])
            advantage = data.batch.token_advantages[b, t]
            if advantage > 0 and p > q and distance(p, q) > high:
                return 0.0
            if advantage < 0 and p < q and distance(p, q) > low:
                return 0.0
            return -math.exp(data.logprobs[b, t]) / q * advantage

        return per_token(data, value)

    return reference


def sampled(surrogate):
    """A surrogate of the ratio to the sampler, without corrections."""

    def value(data: Data, b, t):
        log_ratio = data.logprobs[b, t] - data.batch.behavior_logprobs[b, t]
        return surrogate(log_ratio, data.batch.token_advantages[b, t], data.logprobs[b, t])

    return lambda data, fixed: per_token(data, lambda b, t: value(data, b, t))


def centered(base, weight, *, count=3, shared=None):
    """`base + A C`, where `weight(p / q, A)` is that of the score of a candidate."""

    def reference(data: Data, fixed: Data) -> np.ndarray:
        loss = base(data, fixed)
        factor = np.ones(loss.shape) if shared is None else shared(fixed)
        for b, t in data.tokens:
            advantage = data.batch.token_advantages[b, t]
            log_q = data.batch.candidates.logprobs[b, t, :count]
            q, p = np.exp(log_q), np.exp(fixed.extras["candidate_logprobs"][b, t, :count])
            rho = max(1 - q.sum(), 1e-6) / max(1 - p.sum(), 1e-6)
            alpha = rho * weight(1 / rho, advantage)
            for v in range(count):
                coefficient = q[v] * weight(p[v] / q[v], advantage) - alpha * p[v]
                log_p = data.extras["candidate_logprobs"][b, t, v]
                loss[b, t] += factor[b, t] * advantage * coefficient * log_p
        return loss

    return reference


def clip_weight(ratio, advantage):
    """The clipped surrogate pulls a score with its ratio, until it is clipped."""
    over = ratio > 1 + HIGH if advantage > 0 else ratio < 1 - LOW
    return 0.0 if over else ratio


def cispo(log_ratio, advantage, logprob, *, weight):
    del log_ratio
    return -weight * advantage * logprob


def cispo_sampled(data: Data, fixed: Data) -> np.ndarray:
    """CISPO with its weight held fixed."""

    def value(b, t):
        log_ratio = fixed.logprobs[b, t] - data.batch.behavior_logprobs[b, t]
        weight = min(math.exp(log_ratio), 1 + HIGH)
        advantage = data.batch.token_advantages[b, t]
        return cispo(log_ratio, advantage, data.logprobs[b, t], weight=weight)

    return per_token(data, value)


def gtpo_with(*modifiers):
    return lambda: methods.chain(methods.gtpo(), *modifiers)


RECOMPUTED = gtpo_with(methods.recompute())
WEIGHTED = gtpo_with(methods.importance(limit=math.inf))

ONE = of_tokens(lambda x, p, q: 1.0)
CAPPED = of_tokens(lambda x, p, q: min(math.exp(x), 1.1))
BAND = of_tokens(lambda x, p, q: math.exp(x) if 0.9 <= math.exp(x) <= 1.15 else 0.0)
ACCEPTED = of_units("sequence", lambda xs: float(0.95 <= math.exp(np.mean(xs)) <= 1.04))

ROWS: dict[str, Row] = {
    "importance limit=1.1 low=.9": Row(
        reference=corrected(of_tokens(lambda x, p, q: min(max(math.exp(x), 0.9), 1.1))),
        neutral=gtpo_with(methods.importance(low=1.0, limit=1.0)),
        parent=RECOMPUTED,
    ),
    "importance limit=1.05 unit=turn": Row(
        long=True,
        reference=corrected(of_units("turn", lambda xs: min(math.exp(np.mean(xs)), 1.05))),
    ),
    "grpo + importance limit=1.3 unit=sequence over=product": Row(
        reference=corrected(of_units("sequence", lambda xs: min(math.exp(sum(xs)), 1.3))),
    ),
    "decoupled_ppo limit=1.2": Row(
        reference=corrected(of_tokens(lambda x, p, q: math.exp(x) if math.exp(x) <= 1.2 else 0.0)),
        neutral=gtpo_with(methods.decoupled_ppo(limit=math.inf)),
        parent=WEIGHTED,
    ),
    "icepop low=.9 high=1.15": Row(
        reference=corrected(BAND),
        neutral=gtpo_with(methods.icepop(low=0.0, high=math.inf)),
        parent=WEIGHTED,
    ),
    "kpop limit=.002": Row(
        reference=corrected(
            of_tokens(lambda x, p, q: float(max(bernoulli_kl(p, q), bernoulli_kl(q, p)) <= 0.002))
        ),
        neutral=gtpo_with(methods.kpop(limit=math.inf)),
        parent=RECOMPUTED,
    ),
    "rejection low=.95 high=1.04": Row(
        reference=corrected(ACCEPTED),
        neutral=gtpo_with(methods.rejection(low=0.0, high=math.inf)),
        parent=RECOMPUTED,
    ),
    "rejection unit=turn measure=k3 high=.02 over=max": Row(
        reference=corrected(of_units("turn", lambda xs: float(max(map(kl3, xs)) <= 0.02))),
    ),
    "rejection unit=turn measure=k2 high=.02 over=sum": Row(
        long=True,
        reference=corrected(of_units("turn", lambda xs: float(sum(x * x / 2 for x in xs) <= 0.02))),
    ),
    "dppo low=.1 high=.05": Row(
        reference=dppo(low=0.1, high=0.05, distance=lambda p, q: abs(p - q)),
        neutral=gtpo_with(methods.dppo(low=1.0, high=1.0)),
        parent=gtpo_with(methods.clip(low=1.0, high=1e6)),
    ),
    "grpo + dppo low=.01 high=.02 divergence=kl": Row(
        long=True,
        reference=dppo(low=0.01, high=0.02, distance=lambda p, q: bernoulli_kl(q, p)),
    ),
    "score_centering count=3": Row(
        reference=centered(sampled(clipped), clip_weight),
    ),
    "recompute + score_centering count=3": Row(
        reference=centered(corrected(ONE), lambda r, advantage: 1.0),
    ),
    "importance limit=1.1 + score_centering count=4": Row(
        reference=centered(corrected(CAPPED), lambda r, advantage: min(r, 1.1), count=4),
        neutral=gtpo_with(methods.importance(limit=math.inf), methods.score_centering(count=4)),
        parent=WEIGHTED,  # exact weights leave no drift
        values=False,
    ),
    "icepop low=.9 high=1.15 + score_centering count=3": Row(
        long=True,
        reference=centered(corrected(BAND), lambda r, advantage: r if 0.9 <= r <= 1.15 else 0.0),
    ),
    "rejection low=.95 high=1.04 + score_centering count=3": Row(
        reference=centered(corrected(ACCEPTED), lambda r, advantage: 1.0, shared=ACCEPTED),
    ),
    "cispo + score_centering count=3": Row(
        reference=centered(cispo_sampled, lambda r, advantage: min(r, 1 + HIGH)),
    ),
}
