"""Estimates the quality of a policy from a set of trajectories.

    avg@k    mean share of right answers, k samples a problem
    pass@k   probability that one of k samples is right
    maj@k    probability that the most frequent answer of k samples is right

All three are exact expectations over the k-subsets of a problem's n ≥ k samples, averaged over
problems. Confidence intervals are over problems, since samples of one problem are correlated. A
trajectory with an unknown outcome is excluded from the n samples of its problem, and counted.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy import special

from gtpo_jax.types import StopReason, ToolStatus, Trajectory

RIGHT, NOTHING = "right", "nothing"
"""Votes of any right answer, and of a trajectory without an answer."""

PSEUDO_PROBLEMS = 2.0
"""Weight, in problems, of the prior for the variance of problems; see `confidence_interval`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The facts of one trajectory that an evaluation stores."""

    problem: str  # id
    family: str
    sample: int
    included: bool  # the outcome is known
    success: bool
    vote: str  # equal for answers that count as equal in maj@k
    answer: str | None
    verdict: str
    stop_reason: str
    truncated: bool  # a limit cut the episode off
    turns: int
    violations: int  # badly formed turns
    tool_calls: int
    tool_errors: int  # calls that did not end with status ok
    tokens: int  # number of sampled tokens


def outcome_of(trajectory: Trajectory) -> Outcome:
    """The outcome of a trajectory."""
    turns = trajectory.turns
    results = [result for turn in turns for result in turn.results]
    return Outcome(
        problem=trajectory.problem.id,
        family=trajectory.problem.family,
        sample=trajectory.sample,
        included=trajectory.included,
        success=trajectory.success,
        vote=vote(trajectory),
        answer=trajectory.answer,
        verdict=str(trajectory.verdict),
        stop_reason=str(trajectory.stop_reason),
        truncated=trajectory.stop_reason.truncated,
        turns=len(turns),
        violations=sum(turn.violation is not None for turn in turns),
        tool_calls=len(results),
        tool_errors=sum(result.status is not ToolStatus.OK for result in results),
        tokens=sum(len(turn.tokens) for turn in turns),
    )


def vote(trajectory: Trajectory) -> str:
    """The class of answers that a trajectory votes for in maj@k.

    All right answers are one class, and so are all trajectories without an answer. Wrong answers
    are one class if their texts are equal up to case and white space.
    """
    if trajectory.success:
        return RIGHT
    text = " ".join((trajectory.answer or "").split()).casefold()
    return f"wrong: {text}" if text else NOTHING


def by_problem(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Problem id → its outcomes, in the order of first occurrence."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.problem, []).append(outcome)
    return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over problems, with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    problems: int  # number of problems averaged over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Estimates of avg@k, pass@k and maj@k. A key k is a number of samples.

    `pass_at` and `maj_at` average over the problems with at least k known outcomes.
    """

    problems: int  # number of problems with a known outcome
    left_out: int  # number of problems without
    samples: int  # samples per problem, including excluded ones
    average: Estimate
    pass_at: dict[int, Estimate]
    maj_at: dict[int, Estimate]
    families: dict[str, Estimate]  # average by problem family

    def record(self) -> dict:
        """The scores as a JSON object with keys such as `pass@4`."""
        named = {f"avg@{self.samples}": self.average}
        named |= {f"pass@{k}": estimate for k, estimate in self.pass_at.items()}
        named |= {f"maj@{k}": estimate for k, estimate in self.maj_at.items()}
        return {
            "problems": self.problems,
            "left_out": self.left_out,
            "samples": self.samples,
            **{name: dataclasses.asdict(estimate) for name, estimate in named.items()},
            "families": {n: dataclasses.asdict(estimate) for n, estimate in self.families.items()},
        }


def score(outcomes: Sequence[Outcome]) -> Scores:
    """avg@k, pass@k and maj@k of outcomes. k: the powers of 2 below the number of samples, and it.

    maj@1 and maj@2 equal avg@k and are omitted. A sample that occurs twice, because its problem
    does, counts once.
    """
    groups = by_problem(list({(o.problem, o.sample): o for o in outcomes}.values()))
    known = [[o for o in group if o.included] for group in groups.values()]
    known = [group for group in known if group]
    samples = max(map(len, groups.values()), default=0)
    counts = sorted({2**i for i in range(samples.bit_length())} | {samples} - {0})
    families: dict[str, list[float]] = {}
    for group in known:
        families.setdefault(group[0].family, []).append(average(group))

    def mean(of_problem, k: int) -> Estimate:
        return estimate([of_problem(group) for group in known if len(group) >= k])

    return Scores(
        problems=len(known),
        left_out=len(groups) - len(known),
        samples=samples,
        average=mean(average, 1),
        pass_at={
            k: mean(lambda group, k=k: pass_at_k(len(group), sum(o.success for o in group), k), k)
            for k in counts
        },
        maj_at={
            k: mean(lambda group, k=k: maj_at_k([o.vote for o in group], k), k)
            for k in counts
            if k > 2
        },
        families={name: estimate(values) for name, values in sorted(families.items())},
    )


def average(group: Sequence[Outcome]) -> float:
    """Share of right answers among the known outcomes of one problem."""
    return sum(outcome.success for outcome in group) / len(group)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over trajectories with a known outcome; `excluded` counts the others."""

    trajectories: int
    excluded: int
    success: float  # share of right answers
    success_error: float  # standard error of `success`, clustered by problem
    violations: float  # share of trajectories with at least one badly formed turn
    turns: float  # mean number of turns
    tool_calls: float  # mean number of calls
    tool_errors: float  # share of calls that did not end with status ok
    tokens: float  # mean number of sampled tokens
    truncated: float  # share of trajectories that a limit cut off
    families: dict[str, float]  # success by problem family
    stop_reasons: dict[str, int]
    scores: Scores

    def record(self) -> dict:
        """The evaluation as a JSON object."""
        return dataclasses.asdict(self) | {"scores": self.scores.record()}


def evaluate_trajectories(trajectories: Sequence[Trajectory]) -> Evaluation:
    """Summarizes trajectories; without any known outcome, all shares are 0."""
    return summarize([outcome_of(trajectory) for trajectory in trajectories])


def summarize(outcomes: Sequence[Outcome]) -> Evaluation:
    """Summarizes outcomes, like `evaluate_trajectories`."""
    known = [outcome for outcome in outcomes if outcome.included]
    count = max(len(known), 1)
    calls = sum(outcome.tool_calls for outcome in known)
    success = sum(outcome.success for outcome in known) / count
    families: dict[str, list[bool]] = {}
    for outcome in known:
        families.setdefault(outcome.family, []).append(outcome.success)
    # With one sample per problem, the standard error is sqrt(p (1 − p) / n).
    deviations = [sum(o.success - success for o in group) for group in by_problem(known).values()]
    return Evaluation(
        trajectories=len(known),
        excluded=len(outcomes) - len(known),
        success=success,
        success_error=math.sqrt(sum(deviation**2 for deviation in deviations)) / count,
        violations=sum(outcome.violations > 0 for outcome in known) / count,
        turns=sum(outcome.turns for outcome in known) / count,
        tool_calls=calls / count,
        tool_errors=sum(outcome.tool_errors for outcome in known) / max(calls, 1),
        tokens=sum(outcome.tokens for outcome in known) / count,
        truncated=sum(outcome.truncated for outcome in known) / count,
        families={name: sum(won) / len(won) for name, won in sorted(families.items())},
        stop_reasons={
            str(reason): sum(outcome.stop_reason == reason for outcome in outcomes)
            for reason in StopReason
        },
        scores=score(outcomes),
    )


def pass_at_k(n: int, c: int, k: int) -> float:
    """`1 − C(n − c, k) / C(n, k)`: probability that k of n samples include one of the c right ones.

    Computed as `1 − Π_{i = n−c+1..n} (1 − k / i)`, since the binomials overflow (arXiv 2107.03374).
    An unbiased estimate of `1 − (1 − p)^k` for any n. Raises ValueError unless 1 ≤ k ≤ n and
    0 ≤ c ≤ n.
    """
    _check_subset(n, k)
    if not 0 <= c <= n:
        raise ValueError(f"c must be between 0 and n = {n}, got {c}; it counts the right samples")
    if n - c < k:
        return 1.0
    return 1.0 - math.exp(math.fsum(math.log1p(-k / i) for i in range(n - c + 1, n + 1)))


def maj_at_k(votes: Sequence[str], k: int, *, right: str = RIGHT) -> float:
    """Probability that `right` has most votes among k of the n votes, drawn without replacement.

    Ties are broken uniformly at random. Giving no answer is a vote like any other. Computed exactly
    by counting subsets. Raises ValueError unless 1 ≤ k ≤ n.
    """
    _check_subset(len(votes), k)
    counts = collections.Counter(votes)
    won = counts.pop(right, 0)
    return _majority(won, tuple(sorted(counts.values())), k)


@functools.lru_cache(maxsize=4096)
def _majority(won: int, others: tuple[int, ...], k: int) -> float:
    """`Σ_m C(won, m) Σ_t W(m, t) / (t + 1) / C(n, k)`, with m votes for the right class.

    `W(m, t)` counts the ways in which the other classes take the remaining k − m votes, t of the
    classes with m votes each and none with more.
    """
    favorable = Fraction(0)
    for most in range(1, min(won, k) + 1):
        ways = {(0, 0): 1}  # (votes taken, classes with `most` votes) → number of subsets
        for size in others:
            following: dict[tuple[int, int], int] = collections.defaultdict(int)
            for (taken, ties), number in ways.items():
                for votes in range(min(size, most, k - most - taken) + 1):
                    key = taken + votes, ties + (votes == most)
                    following[key] += number * math.comb(size, votes)
            ways = following
        share = sum(Fraction(w, t + 1) for (taken, t), w in ways.items() if taken == k - most)
        favorable += math.comb(won, most) * share
    return float(favorable / math.comb(won + sum(others), k))


def _check_subset(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of samples, {n}, got {k}")


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over problems and its confidence interval; 0 in (0, 1) without any problem."""
    low, high = confidence_interval(values)
    value = float(np.mean(values)) if len(values) else 0.0
    return Estimate(value=value, low=low, high=high, problems=len(values))


def confidence_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the population mean from the values of P problems, each in [0, 1].

    This is Wilson's score interval with two changes. Student's t with P − 1 degrees of freedom
    replaces the normal quantile, and the effective number of problems `n = max(p (1 − p) P / v,
    P − 1)` replaces the number of draws. v estimates the variance of a value:
    `v = (a p (1 − p) + m s²) / (a + m)`, with the sample variance s², a = 2, and m the smaller of
    the numbers of values above 0 and below 1. If all problems fail, their spread is unknown: then v
    is maximal, all samples of a problem count as one, and the interval is that of P failures. A
    percentile bootstrap or a t interval would have zero width.

    Fewer than two problems give (0, 1).
    """
    x = np.asarray(values, np.float64)
    count = len(x)
    if x.size and (x.min() < 0.0 or x.max() > 1.0):
        raise ValueError(f"values must be within 0 and 1, got {x.min()} to {x.max()}")
    if count < 2:
        return 0.0, 1.0
    mean, most = x.mean(), x.mean() * (1.0 - x.mean())
    telling = min(np.count_nonzero(x > 0), np.count_nonzero(x < 1))
    variance = (PSEUDO_PROBLEMS * most + telling * x.var(ddof=1)) / (PSEUDO_PROBLEMS + telling)
    drawn = max(most * count / variance if variance > 0 else 0.0, count - 1.0)
    squared = special.stdtrit(count - 1, 0.5 + level / 2) ** 2 / drawn
    center = (mean + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (most + squared / 4)) / (1 + squared)
    return float(max(center - half, 0.0)), float(min(center + half, 1.0))
