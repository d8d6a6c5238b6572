"""Dynamic sampling: further problems in the place of those whose group has nothing to teach.

After DAPO (arXiv 2503.14476, Sec. 3.2). Only which groups are kept is decided here; the rollouts
themselves are those of the function that is handed in.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

from gtpo_jax.parts.plans import Episodes, EpisodesFn, independent
from gtpo_jax.parts.prompts import SignalFn, unequal_outcomes
from gtpo_jax.rollout.progress import RolloutStats, total_stats
from gtpo_jax.types import Problem, Request, Trajectory

RunFn = Callable[[Sequence[Request]], tuple[list[Trajectory], RolloutStats]]
"""Requests → one trajectory for each, in their order, and what they cost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectedGroups:
    """The groups that were kept, and all that were sampled for them."""

    kept: list[Trajectory]  # group by group, groups numbered from 0
    sampled: list[Trajectory]  # kept or not, group by group, numbered in the order of the problems
    groups_kept: int
    groups_dropped: int  # without signal, or too many
    rounds: int  # rollouts that were run
    stats: RolloutStats  # their sum


def collect_groups(
    run: RunFn,
    problems: Iterable[Problem],
    *,
    wanted: int,
    group_size: int | Iterable[int],
    rounds: int,
    has_signal: SignalFn = unequal_outcomes,
    plan: EpisodesFn | None = None,
    most: int | None = None,
) -> CollectedGroups:
    """The first `wanted` groups with signal, from at most `rounds` rounds.

    The first round tries `wanted` problems. While k of the t groups tried have signal and k is too
    small, another round tries the next `min(wanted, ⌈(wanted − k) t / k⌉)` problems, `wanted` when
    k is 0: as many as are missing at the rate seen so far. At most `wanted · rounds` problems are
    taken, so they may be endless. Fewer than `wanted` groups, or none, are kept when the rounds or
    the problems are exhausted.

    `group_size` is one number for all problems, or one for each of them. `most` is the largest
    number of trajectories that are kept: a group with signal that no longer fits is dropped.
    `plan` says which episodes a group has, independent samples by default; a plan may ask for
    several rollouts in a round.

    The groups that are kept are the first in the order of `problems`, whatever their length or the
    latency of their tools. A problem of an earlier round is passed over when it comes again: equal
    requests give equal trajectories.
    """
    _check_counts(wanted, group_size, rounds)
    sizes = itertools.repeat(group_size) if isinstance(group_size, int) else group_size
    stream = itertools.islice(zip(problems, sizes, strict=False), wanted * rounds)
    start = plan or independent()
    tried: set[str] = set()
    groups: list[list[Trajectory]] = []
    with_signal: list[list[Trajectory]] = []
    costs: list[RolloutStats] = []
    tried_rounds = 0
    while tried_rounds < rounds and len(with_signal) < wanted:
        count = _problems_to_try(wanted, len(with_signal), len(groups))
        untried = (pair for pair in stream if pair[0].id not in tried)
        drawn = list(itertools.islice(untried, count))
        if not drawn:
            break
        tried |= {problem.id for problem, _ in drawn}
        plans = [
            start(problem, group, size) for group, (problem, size) in enumerate(drawn, len(groups))
        ]
        new = _run_plans(run, plans, costs)
        tried_rounds += 1
        groups += new
        with_signal += [group for group in new if has_signal(group)]
    if not costs:
        raise ValueError("collect_groups needs at least one problem, got none; pass those to try")
    kept = _within(with_signal[:wanted], most)
    return CollectedGroups(
        kept=[
            dataclasses.replace(trajectory, group=number)
            for number, group in enumerate(kept)
            for trajectory in group
        ],
        sampled=list(itertools.chain.from_iterable(groups)),
        groups_kept=len(kept),
        groups_dropped=len(groups) - len(kept),
        rounds=tried_rounds,
        stats=total_stats(costs),
    )


def _check_counts(wanted: int, group_size: int | Iterable[int], rounds: int) -> None:
    for name, value, counted in (
        ("wanted", wanted, "groups to keep"),
        ("group_size", group_size, "trajectories of a group"),
        ("rounds", rounds, "rollouts, 1 tries no further problems"),
    ):
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; it counts {counted}")


def _problems_to_try(wanted: int, with_signal: int, tried: int) -> int:
    """As many problems as are missing at the rate of groups with signal, `wanted` at most."""
    if not with_signal:
        return wanted
    return min(wanted, -(-(wanted - with_signal) * tried // with_signal))


def _within(groups: Sequence[list[Trajectory]], most: int | None) -> list[list[Trajectory]]:
    """The groups that fit into `most` trajectories, in their order."""
    kept: list[list[Trajectory]] = []
    for group in groups:
        if most is None or sum(map(len, kept)) + len(group) <= most:
            kept.append(group)
    return kept


def _run_plans(
    run: RunFn, plans: Sequence[Episodes], costs: list[RolloutStats]
) -> list[list[Trajectory]]:
    """The group of each plan. The requests of all plans that go on share a rollout."""
    groups: list[list[Trajectory]] = [[] for _ in plans]
    asked = {number: next(plan) for number, plan in enumerate(plans)}
    while asked:
        requests = [request for part in asked.values() for request in part]
        trajectories, stats = run(requests)
        if len(trajectories) != len(requests):
            raise ValueError(
                f"run must return a trajectory for each of {len(requests)} requests, got"
                f" {len(trajectories)}; `RolloutEngine.run` does"
            )
        costs.append(stats)
        answers = iter(trajectories)
        following: dict[int, Sequence[Request]] = {}
        for number, part in asked.items():
            try:
                following[number] = plans[number].send(list(itertools.islice(answers, len(part))))
            except StopIteration as done:
                groups[number] = done.value
        asked = following
    return groups
