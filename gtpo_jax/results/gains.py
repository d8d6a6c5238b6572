"""Splits the difference between two policies on the same problems by cause.

A sample is right or failed in exactly one way, and all problems have equal weight. So the shares of
all ways sum to 1, and the gain in avg@k equals the loss in failures:

    avg_after − avg_before = Σ_way (share_before(way) − share_after(way))

The same gain is a sum over problems, so it splits into two parts: problems that the earlier policy
solves by greedy decoding, where the later one may only be more confident, and the others, where it
has learned something new.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from gtpo_jax.results.evaluation import RIGHT, Outcome, average, by_problem
from gtpo_jax.types import StopReason

FAILURES = ("cut off", "no call", "badly formed", "failed call", "wrong")
"""Ways to fail; the first that applies to a sample counts. See `way_of`."""

WRONG = FAILURES[-1]


def way_of(outcome: Outcome) -> str:
    """The way of a sample: `right`, or the way in which it failed.

    | way | what happened |
    |---|---|
    | `cut off` | a limit of turns or of the tokens of a turn ended it |
    | `no call` | it answered without a call |
    | `badly formed` | a turn broke a rule of the dialogue |
    | `failed call` | a call did not end with status ok |
    | `wrong` | it broke no rule, its calls ran, and the answer is not right |

    A turn that is cut off breaks a rule, and so does a first turn that answers. These have names
    of their own, which precede `badly formed`.
    """
    if outcome.success:
        return RIGHT
    if outcome.truncated:
        return "cut off"
    if outcome.tool_calls == 0 and outcome.stop_reason == StopReason.ANSWERED:
        return "no call"
    if outcome.violations:
        return "badly formed"
    return "failed call" if outcome.tool_errors else WRONG


def shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Way → share of samples; the share of `right` is avg@k.

    Shares are taken among the known samples of a problem and averaged over problems with a known
    outcome; without any problem, all are 0.
    """
    groups = _known(outcomes)
    result: dict[str, float] = dict.fromkeys((RIGHT, *FAILURES), 0.0)
    for group in groups.values():
        for outcome in group:
            result[way_of(outcome)] += 1 / (len(group) * len(groups))
    return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """The contribution of some of the problems to the gain; all 0 without any problem."""

    problems: int
    before: float  # avg@k over these problems
    after: float
    gain: float  # Σ (after − before) over these problems / number of all problems


def by_greedy(
    greedy: Sequence[Outcome], before: Sequence[Outcome], after: Sequence[Outcome]
) -> dict[str, Part]:
    """Splits the gain into problems that a policy solved greedily, `right`, and others, `wrong`.

    `greedy` and `before` are outcomes of that policy, `after` outcomes of the other. A problem
    without a known outcome in one of them is left out.
    """
    decoded, first, last = _known(greedy), _known(before), _known(after)
    problems = [id for id in first if id in last and id in decoded]
    solved = {id for id in problems if decoded[id][0].success}
    parts = {}
    for name, part in (
        (RIGHT, [id for id in problems if id in solved]),
        (WRONG, [id for id in problems if id not in solved]),
    ):
        ends = [sum(average(group[id]) for id in part) for group in (first, last)]
        size = max(len(part), 1)
        parts[name] = Part(
            problems=len(part),
            before=ends[0] / size,
            after=ends[1] / size,
            gain=(ends[1] - ends[0]) / max(len(problems), 1),
        )
    return parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of two policies on the problems that both have tried."""

    problems: int
    left_out: int  # problems without a known outcome in one of the evaluations
    gain: float  # gain in avg@k
    error: float  # standard error of the gain, over problems; 0 with fewer than two
    before: dict[str, float]  # shares of the ways, as in `shares`
    after: dict[str, float]
    parts: dict[str, Part]  # as in `by_greedy`


def compare(
    greedy: Sequence[Outcome], before: Sequence[Outcome], after: Sequence[Outcome]
) -> Comparison:
    """Splits the gain both ways, over the problems with a known outcome in all three.

    `greedy` and `before` are outcomes of the earlier policy, `after` outcomes of the later one.
    """
    evaluations = greedy, before, after
    known = [_known(outcomes) for outcomes in evaluations]
    tried = {outcome.problem for outcomes in evaluations for outcome in outcomes}
    both = tried.intersection(*known)
    first, last = (
        [outcome for id, group in groups.items() if id in both for outcome in group]
        for groups in known[1:]
    )
    gains = [average(known[2][id]) - average(known[1][id]) for id in sorted(both)]
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    return Comparison(
        problems=len(both),
        left_out=len(tried) - len(both),
        gain=math.fsum(gains) / max(len(gains), 1),
        error=spread / math.sqrt(max(len(gains), 1)),
        before=shares(first),
        after=shares(last),
        parts=by_greedy(greedy, before, after),
    )


def _known(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return by_problem([outcome for outcome in outcomes if outcome.included])
