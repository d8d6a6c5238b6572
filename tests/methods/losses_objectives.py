"""Rows of the suite of losses: token objectives and regularizers."""

import math

import numpy as np

from gtpo_jax import methods
from tests.methods import loss_relatives
from tests.methods.loss_relatives import Data, Row, float64
from tests.methods.losses_mismatch import HIGH, LOW, clipped, gtpo_with, per_token, sampled

loss_relatives.MARKS.update(
    {
        "covariant": lambda rng, shape: (rng.random(shape) < 0.3).astype(np.float64),
        "resampled": lambda rng, shape: (rng.random(shape) < 0.2).astype(np.float64),
        "kl_weight": lambda rng, shape: float64(rng.uniform(0.0, 0.5, shape)),
    }
)


def plus(*parts):
    """The sum of references of losses per token."""
    return lambda data, fixed: sum(part(data, fixed) for part in parts)


def fall(data: Data, place) -> float:
    return data.batch.behavior_logprobs[place] - data.logprobs[place]


def kept_likelihood(*, weight, unit):
    """LLDS: log-probs that fall in a unit that falls as a whole, where A ≥ 0."""

    def reference(data: Data, fixed: Data) -> np.ndarray:
        out = np.zeros(data.logprobs.shape)
        for places in data.units(unit).values():
            held = [place for place in places if data.batch.token_advantages[place] >= 0]
            if sum(fall(fixed, place) for place in held) > 0:
                for place in held:
                    out[place] = weight * max(0.0, fall(data, place))
        return out

    return reference


def reinforce(in_range, *, weight=lambda ratio, advantage: 1.0, scale=1.0):
    """`−w A log π` where the ratio is in range."""

    def reference(data: Data, fixed: Data) -> np.ndarray:
        def value(b, t):
            ratio = math.exp(-fall(fixed, (b, t)))
            advantage = data.batch.token_advantages[b, t]
            if not in_range(ratio, advantage):
                return 0.0
            return -scale * weight(ratio, advantage) * advantage * data.logprobs[b, t]

        return per_token(data, value)

    return reference


def one_side(ratio, advantage):
    return ratio <= 1.1 if advantage > 0 else ratio >= 0.9


def two_sides(ratio, advantage):
    return 0.9 <= ratio <= 1.1


def ring(ratio, advantage):
    return two_sides(ratio, advantage) or (ratio <= 0.7 if advantage > 0 else ratio >= 1.3)


def geometric_mean(*, low, high, unit):
    """GMPO: every token has the mean log-ratio of its unit, and its own gradient."""

    def held(data: Data, place) -> float:
        x = -fall(data, place)
        return min(x, high) if data.batch.token_advantages[place] > 0 else max(x, -low)

    def reference(data: Data, fixed: Data) -> np.ndarray:
        out = np.zeros(data.logprobs.shape)
        for places in data.units(unit).values():
            mean = np.mean([held(fixed, place) for place in places])
            for place in places:
                ratio = math.exp(held(data, place) - held(fixed, place) + mean)
                out[place] = -data.batch.token_advantages[place] * ratio
        return out

    return reference


def whole_gmpo(data: Data, fixed: Data) -> float:
    """GMPO as printed: `−A ρ` of sequences, with one advantage each."""
    del fixed
    losses = []
    for places in data.units("turn").values():  # a turn has one advantage
        advantage = data.batch.token_advantages[places[0]]
        bounded = [-fall(data, place) for place in places]
        bounded = [min(x, 0.15) if advantage > 0 else max(x, -0.1) for x in bounded]
        losses.append(-advantage * math.exp(sum(bounded) / len(bounded)))
    return sum(losses) / len(losses)


def gate(log_ratio, advantage, logprob):
    """SAPO's soft gate of one token."""
    del logprob
    tau = 0.8 if advantage > 0 else 1.3
    return -4 / tau / (1 + math.exp(-tau * (math.exp(log_ratio) - 1))) * advantage


def unclipped(log_ratio, advantage, logprob):
    del logprob
    return -math.exp(log_ratio) * advantage


def mark(data: Data, name: str) -> np.ndarray:
    assert data.batch.marks is not None
    return np.asarray(data.batch.marks[name])


def marked_drift(data: Data, fixed: Data) -> np.ndarray:
    del fixed
    marks = mark(data, "covariant")
    return per_token(data, lambda b, t: 0.5 * marks[b, t] * abs(fall(data, (b, t))))


def marked_divergence(data: Data, fixed: Data) -> np.ndarray:
    del fixed

    def value(b, t):
        x = data.batch.reference_logprobs[b, t] - data.logprobs[b, t]
        return mark(data, "kl_weight")[b, t] * (math.exp(x) - 1 - x)

    return per_token(data, value)


def marked_reinforce(data: Data, fixed: Data) -> np.ndarray:
    del fixed
    marks = mark(data, "resampled")
    return per_token(data, lambda b, t: -0.5 * marks[b, t] * data.logprobs[b, t])


def gspo_of_turns(data: Data, fixed: Data) -> np.ndarray:
    """The clipped surrogate of the mean log-ratio of a turn, with each token's own gradient."""
    out = np.zeros(data.logprobs.shape)
    for places in data.units("turn").values():
        mean = np.mean([-fall(fixed, place) for place in places])
        for place in places:
            moved = mean - fall(data, place) + fall(fixed, place)
            advantage = data.batch.token_advantages[place]
            ratio = math.exp(moved)
            over = ratio > 1.1 if advantage > 0 else ratio < 0.95
            bound = 1.1 if advantage > 0 else 0.95
            out[place] = -advantage * (bound if over else ratio)
    return out


def free():
    """GTPO without a trust region."""
    return methods.chain(methods.gtpo(), methods.clip(low=1.0, high=1e6))


ROWS: dict[str, Row] = {
    "llds weight=.3": Row(
        reference=plus(sampled(clipped), kept_likelihood(weight=0.3, unit="sequence")),
        neutral=gtpo_with(methods.llds(weight=0.0)),
        parent=methods.gtpo,
    ),
    "llds weight=.3 unit=turn": Row(
        reference=plus(sampled(clipped), kept_likelihood(weight=0.3, unit="turn"))
    ),
    "llds weight=.3 unit=token": Row(
        reference=plus(sampled(clipped), kept_likelihood(weight=0.3, unit="token")), long=True
    ),
    "rec low=.1 high=.1": Row(
        reference=reinforce(one_side),
        neutral=lambda: methods.rec(low=LOW, high=HIGH, weight="ratio"),
        parent=methods.grpo,  # the gradient of PPO's clip
        values=False,
    ),
    "rec sides=two low=.1 high=.1 weight=ratio": Row(
        reference=reinforce(two_sides, weight=lambda ratio, advantage: ratio),
        neutral=lambda: methods.rec(sides="two", low=1.0, high=1e6),
        parent=lambda: methods.rec(sides="none"),
    ),
    "rec sides=ring low=.1 high=.1 ring_low=.3 ring_high=.3 weight=advantage temperature=2": Row(
        reference=reinforce(ring, weight=lambda ratio, advantage: math.exp(advantage / 2)),
        long=True,
    ),
    "opmd tau=.5": Row(
        reference=reinforce(lambda ratio, advantage: True, scale=1 / 1.5),
        neutral=lambda: methods.opmd(tau=0.0),
        parent=lambda: methods.rec(sides="none"),
    ),
    "raft": Row(reference=reinforce(lambda ratio, advantage: True), long=True),
    "gmpo low=.1 high=.15": Row(
        reference=geometric_mean(low=0.1, high=0.15, unit="sequence"),
        reduction="sequence_mean",
        neutral=lambda: methods.gmpo(low=math.inf, high=math.inf),
        parent=lambda: methods.gspo(low=1.0, high=1e6),
    ),
    "gmpo low=.1 high=.15 unit=turn": Row(reference=whole_gmpo),
    "geometric_mean low=.1 high=.15 unit=turn": Row(
        reference=geometric_mean(low=0.1, high=0.15, unit="turn"),
        long=True,
    ),
    "sapo_gate positive=.8 negative=1.3": Row(
        reference=sampled(gate),
        neutral=gtpo_with(methods.sapo_gate(positive=1e-3, negative=1e-3)),
        parent=free,  # a gate that is a line; its value is another
        values=False,
    ),
    "kl_cov weight=.5": Row(
        reference=plus(sampled(unclipped), marked_drift),
        neutral=gtpo_with(methods.kl_cov(weight=0.0)),
        parent=free,
    ),
    "kl_schedule": Row(reference=plus(sampled(clipped), marked_divergence)),
    "grpo_d": Row(
        reference=plus(sampled(clipped), marked_divergence), reduction="sequence_mean", long=True
    ),
    "aepo_arbitrary weight=.5": Row(reference=plus(sampled(clipped), marked_reinforce)),
    "turn_gspo low=.05 high=.1": Row(
        reference=gspo_of_turns,
        reduction="turn_mean",
    ),
}
