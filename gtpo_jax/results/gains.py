"""Where the difference between two policies comes from, on the same problems.

A sample is right, or it failed in one way; each problem weighs the same. So the shares of all ways
add up to 1, and what a policy gains in avg@k is what it loses in failures:

    avg_after − avg_before = Σ_way (share_before(way) − share_after(way))

The same gain is a sum over problems, and so over parts of them: those that the earlier policy
solves when it decodes greedily, which a later one may merely be surer of, and those that it does
not, where there is something to learn.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from gtpo_jax.results.evaluation import RIGHT, Outcome, average, by_problem
from gtpo_jax.types import StopReason

FAILURES = ("cut off", "no call", "badly formed", "failed call", "wrong")
"""Ways to fail, of which a sample has the first that holds; `way_of` says what they are."""

WRONG = FAILURES[-1]


def way_of(outcome: Outcome) -> str:
    """`right`, or how a sample failed.

    | way | what happened |
    |---|---|
    | `cut off` | a limit ended it: of turns, or of the tokens of a turn |
    | `no call` | it answered, and no call ran before |
    | `badly formed` | a turn broke a rule of the dialogue |
    | `failed call` | a call did not end with status ok |
    | `wrong` | it kept all rules, its calls ran, and the answer is not the right one |

    A turn that is cut breaks a rule, and so does a first turn that answers: these have names of
    their own, and come before other rules.
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
    """The share of samples that are right, which is avg@k, and of those that failed each way.

    Means over the problems with a known outcome, of shares of their known samples; all are 0
    without any problem.
    """
    groups = _known(outcomes)
    found: dict[str, float] = dict.fromkeys((RIGHT, *FAILURES), 0.0)
    for group in groups.values():
        for outcome in group:
            found[way_of(outcome)] += 1 / (len(group) * len(groups))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the problems: how they were solved before and after, and what of the gain is theirs.

    All figures are 0 without any problem.
    """

    problems: int
    before: float  # avg@k over these problems
    after: float
    gain: float  # Σ (after − before) over them, divided by the number of all problems


def by_greedy(
    greedy: Sequence[Outcome], before: Sequence[Outcome], after: Sequence[Outcome]
) -> dict[str, Part]:
    """The problems that a policy solved greedily, under `right`, and the others, under `wrong`.

    `greedy` and `before` are outcomes of that policy, `after` those of the other. A problem without
    a known outcome in one of them is left out.
    """
    decoded, first, last = _known(greedy), _known(before), _known(after)
    problems = [id for id in first if id in last and id in decoded]
    solved = {id for id in problems if decoded[id][0].success}
    found = {}
    for name, part in (
        (RIGHT, [id for id in problems if id in solved]),
        (WRONG, [id for id in problems if id not in solved]),
    ):
        ends = [sum(average(group[id]) for id in part) for group in (first, last)]
        size = max(len(part), 1)
        found[name] = Part(
            problems=len(part),
            before=ends[0] / size,
            after=ends[1] / size,
            gain=(ends[1] - ends[0]) / max(len(problems), 1),
        )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two policies on the problems that both have tried."""

    problems: int
    left_out: int  # problems that one of the evaluations does not have, or not with a known outcome
    gain: float  # in avg@k
    error: float  # standard error of the gain, over problems; 0 with fewer than two
    before: dict[str, float]  # shares of the ways, as in `shares`
    after: dict[str, float]
    parts: dict[str, Part]  # as in `by_greedy`


def compare(
    greedy: Sequence[Outcome], before: Sequence[Outcome], after: Sequence[Outcome]
) -> Comparison:
    """Both accounts of one gain: over the problems with a known outcome in all three.

    `greedy` and `before` are outcomes of the earlier policy, `after` those of the later one.
    """
    given = greedy, before, after
    known = [_known(outcomes) for outcomes in given]
    tried = {outcome.problem for outcomes in given for outcome in outcomes}
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
