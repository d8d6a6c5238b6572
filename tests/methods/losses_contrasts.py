"""Rows of the suite of losses: losses that look at a whole group."""

import math

import numpy as np

from gtpo_jax import methods
from tests import reference as slow
from tests.methods.loss_relatives import Data, Row


class Group:
    """Trajectories of one question: sums over their trained tokens."""

    def __init__(self, data: Data, rows: dict[int, list[tuple[int, int]]]):
        self.data, self.rows = data, rows

    def sums(self, value) -> list[float]:
        return [sum(value(place) for place in places) for places in self.rows.values()]

    def means(self, value) -> list[float]:
        return [
            sum(value(place) for place in places) / len(places) for places in self.rows.values()
        ]

    @property
    def right(self) -> list[bool]:
        return [bool(self.data.batch.successes[places[0]]) for places in self.rows.values()]

    @property
    def advantages(self) -> list[float]:
        return self.means(lambda place: float(self.data.batch.token_advantages[place]))


def groups_of(data: Data) -> list[Group]:
    found: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for (row,), places in data.units("sequence").items():
        found.setdefault(int(data.batch.group_ids[places[0]]), {})[row] = places
    return [Group(data, rows) for rows in found.values()]


def divided(values, kept) -> tuple[list[float], list[float]]:
    """The values that are kept, and the others."""
    yes = [x for x, keep in zip(values, kept, strict=True) if keep]
    return yes, [x for x, keep in zip(values, kept, strict=True) if not keep]


def mean(values) -> float:
    return sum(values) / len(values)


def gap(group: Group, score, tau: float | None) -> float:
    """The part of a question in DisCO's objective."""
    right, wrong = divided(group.means(score), group.right)
    if not right or not wrong:
        return 0.0
    if tau is None:
        return mean(right) - mean(wrong)
    return mean(right) - tau * math.log(mean([math.exp(s / tau) for s in wrong]))


def drift(data: Data, estimator: str) -> float:
    """The estimate of KL(μ ‖ π) over all trained tokens."""
    found = []
    for place in data.tokens:
        log_ratio = data.logprobs[place] - data.batch.behavior_logprobs[place]
        found.append(-log_ratio if estimator == "k1" else math.expm1(log_ratio) - log_ratio)
    return mean(found)


def limited(data: Data, fixed: Data, *, delta: float, beta: float, estimator: str = "k1") -> float:
    """The penalty on drift; its factor has no gradient."""
    return max(beta * (drift(fixed, estimator) - delta), 0.0) * drift(data, estimator)


def disco(score="likelihood", *, tau=10.0, delta=1e-4, beta=1e3, estimator="k1"):
    def reference(data: Data, fixed: Data) -> float:
        def value(place):
            if score == "likelihood":
                return data.logprobs[place]
            return math.exp(data.logprobs[place] - data.batch.behavior_logprobs[place])

        penalty = limited(data, fixed, delta=delta, beta=beta, estimator=estimator)
        return penalty - mean([gap(group, value, tau) for group in groups_of(data)])

    return reference


def surrogate_of_gtpo(data: Data) -> float:
    """The loss of `gtpo`, whole."""
    per_token = np.zeros(data.logprobs.shape)
    for place in data.tokens:
        log_ratio = data.logprobs[place] - data.batch.behavior_logprobs[place]
        advantage = float(data.batch.token_advantages[place])
        per_token[place] = slow.surrogate(log_ratio, advantage, 0.2, 0.28)[0]
    return slow.reduced(per_token, data.batch, "token_mean")


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def implicit(data: Data, beta: float):
    return lambda place: beta * (data.logprobs[place] - data.batch.reference_logprobs[place])


def preference(data: Data, beta: float, variance: float) -> float:
    """GEPO's loss."""
    found = []
    for group in groups_of(data):
        won, lost = divided(group.sums(implicit(data, beta)), group.right)
        if won and lost:
            margin = mean(won) - mean(lost)
            spread = mean([(r - mean(won)) ** 2 for r in won])
            found.append(variance * spread - log_sigmoid(margin))
    return mean(found)


def gepo(data: Data, fixed: Data) -> float:
    return surrogate_of_gtpo(data) + 0.5 * preference(data, 0.3, 2.0)


def oorl(data: Data, fixed: Data) -> float:
    """REINFORCE++ clips at .2 on both sides."""
    per_token = np.zeros(data.logprobs.shape)
    for place in data.tokens:
        log_ratio = data.logprobs[place] - data.batch.behavior_logprobs[place]
        advantage = float(data.batch.token_advantages[place])
        per_token[place] = slow.surrogate(log_ratio, advantage, 0.2, 0.2)[0]
    return slow.reduced(per_token, data.batch, "token_mean") + 0.2 * preference(data, 0.1, 1.0)


def dpo(data: Data, fixed: Data) -> float:
    found = []
    for group in groups_of(data):
        rewards, advantages = group.sums(implicit(data, 0.1)), group.advantages
        for i, a in enumerate(advantages):
            for j, b in enumerate(advantages):
                if a > 0 > b:
                    found.append(-log_sigmoid(rewards[i] - rewards[j]))
    return mean(found or [0.0])


def kl_k3(data: Data) -> float:
    found = []
    for place in data.tokens:
        d = data.batch.reference_logprobs[place] - data.logprobs[place]
        found.append(math.exp(d) - d - 1)
    return mean(found)


def reg_grpo(*, eps=0.1, scale=None, kl=0.01, recompute=False):
    def reference(data: Data, fixed: Data) -> float:
        batch, errors = data.batch, []
        old = batch.proximal_logprobs if recompute else batch.behavior_logprobs
        for group in groups_of(data):
            rho = group.sums(lambda place: data.logprobs[place] - old[place])
            center = mean(rho)
            std = math.sqrt(mean([(r - center) ** 2 for r in rho]) + eps**2)
            for advantage, r in zip(group.advantages, rho, strict=True):
                predicted = (r - center) * (scale or 1 / std)
                errors.append((advantage - predicted) ** 2)
        return mean(errors) + kl * kl_k3(data)

    return reference


def p3o(clipping, clip, kl):
    def gain(ratio: float, difference: float) -> float:
        band = min(max(ratio, 1 - clip), 1 + clip)
        return min(ratio * difference, band * difference)

    def reference(data: Data, fixed: Data) -> float:
        batch, total, number = data.batch, 0.0, 0
        for group in groups_of(data):
            paid = group.sums(
                lambda place: (
                    kl * (batch.behavior_logprobs[place] - batch.reference_logprobs[place])
                )
            )
            earned = [a - p for a, p in zip(group.advantages, paid, strict=True)]
            rho = [
                math.exp(x)
                for x in group.sums(
                    lambda place: data.logprobs[place] - batch.behavior_logprobs[place]
                )
            ]
            size = len(earned)
            number += size
            pairs = []
            for i in range(size):
                for j in range(i):
                    a, b = (i, j) if earned[i] >= earned[j] else (j, i)
                    d = earned[a] - earned[b]
                    if clipping == "joint":
                        pairs.append(-0.5 * gain(rho[a] / rho[b], d))
                    else:
                        pairs.append(-0.5 * (gain(rho[a], d) + gain(rho[b], -d)))
            total += size * mean(pairs) if pairs else 0.0
        return total / number

    return reference


def limited_gtpo(data: Data, fixed: Data) -> float:
    penalty = limited(data, fixed, delta=0.01, beta=3.0, estimator="k3")
    return surrogate_of_gtpo(data) + penalty


def soft_of_one_temperature() -> methods.Method:
    """DisCO with a temperature at which its soft maximum is the mean, to first order."""
    return methods.disco(tau=1e4)


def capo(data: Data, fixed: Data) -> float:
    """GTPO's surrogate on the tokens that are kept; each trajectory keeps its weight."""
    batch, rate = data.batch, 0.1
    per_token = np.zeros(data.logprobs.shape)
    for places in data.units("sequence").values():
        kept = []
        for place in places:
            p, advantage = math.exp(fixed.logprobs[place]), float(batch.token_advantages[place])
            squares, cubes = fixed.extras["collisions"][place]
            norm = fixed.extras["state_norms"][place]
            along = advantage * norm * (1 - 2 * p + squares)
            # Variance of u = A |h|² (e − p) under p.
            spread = (p * (1 - 2 * p) + cubes) - (p - squares) ** 2
            curved = (advantage * norm) ** 2 * spread
            shift = rate * advantage * along + rate**2 / 2 * advantage * (along**2 - curved)
            if abs(shift) < 0.1 and rate**2 / 2 * along**2 < 0.01:
                kept.append(place)
        for place in kept:
            log_ratio = data.logprobs[place] - batch.behavior_logprobs[place]
            advantage = float(batch.token_advantages[place])
            loss = slow.surrogate(log_ratio, advantage, 0.2, 0.28)[0]
            per_token[place] = loss * len(places) / len(kept)
    return slow.reduced(per_token, batch, "token_mean")


ROWS: dict[str, Row] = {
    "dpo": Row(reference=dpo),
    "disco": Row(
        reference=disco(),
        neutral=soft_of_one_temperature,
        parent=lambda: methods.disco(soft=False),
        values=False,  # the soft maximum of float32 is rough at such a temperature
        rtol=1e-3,
    ),
    "disco soft=false beta=0": Row(reference=disco(tau=None, beta=0.0)),
    "disco score=ratio tau=.3 estimator=k3 beta=2": Row(
        reference=disco("ratio", tau=0.3, beta=2.0, estimator="k3")
    ),
    "gtpo + drift_limit delta=.01 beta=3 estimator=k3": Row(
        reference=limited_gtpo,
        neutral=lambda: methods.drift_limit(delta=100.0)(methods.gtpo()),
        parent=methods.gtpo,
    ),
    "gtpo + gepo weight=.5 beta=.3 variance=2": Row(
        reference=gepo,
        neutral=lambda: methods.gepo(weight=0.0)(methods.gtpo()),
        parent=methods.gtpo,
    ),
    "oorl weight=.2": Row(reference=oorl),
    "reg_grpo": Row(reference=reg_grpo()),
    "reg_grpo scale=.5 kl=.1 recompute=true": Row(
        reference=reg_grpo(scale=0.5, kl=0.1, recompute=True)
    ),
    "gtpo + capo learning_rate=.1 most_objective=.1 most_policy=.01": Row(
        reference=capo,
        neutral=lambda: methods.capo(learning_rate=1e-6)(methods.gtpo()),
        parent=methods.gtpo,
    ),
    # The loss stays as it is: the spread has its own tests, in `tests/learner/test_likeness.py`.
    "nthr": Row(reference=lambda data, fixed: surrogate_of_gtpo(data)),
    "p3o kl=.1": Row(
        reference=p3o("separate", 0.2, 0.1),
        rtol=1e-3,
    ),
    "p3o clipping=joint clip=.3": Row(reference=p3o("joint", 0.3, 0.0), rtol=1e-3),
}
