"""Dynamic sampling: further problems in the place of those whose group has nothing to teach.

After DAPO (arXiv 2503.14476, Sec. 3.2). Only which groups are kept is decided here; the rollouts
themselves are those of the function that is handed in.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from gtpo_jax.rollout.progress import RolloutStats, total_stats
from gtpo_jax.rollout.slots import Request
from gtpo_jax.types import Problem, Trajectory

RunFn = Callable[[Sequence[Request]], tuple[list[Trajectory], RolloutStats]]
"""Requests → one trajectory for each, in their order, and what they cost."""

SignalFn = Callable[[Sequence[Trajectory]], bool]
"""All trajectories of a group → whether the group is worth training on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectedGroups:
    """The groups that were kept, and all that were sampled for them."""

    kept: list[Trajectory]  # group by group, groups numbered from 0
    sampled: list[Trajectory]  # kept or not, group by group, numbered in the order of the problems
    groups_kept: int
    groups_dropped: int  # without signal, or one too many
    rounds: int  # rollouts that were run
    stats: RolloutStats  # their sum


def unequal_outcomes(group: Sequence[Trajectory]) -> bool:
    """`0 < Σ_i success_i < n` over the n trajectories of the group that are `included`.

    DAPO's criterion. Only outcomes count: a failure is one whether or not it was well formed, and a
    trajectory without a known outcome is neither success nor failure. A group with fewer than two
    known outcomes has no signal.
    """
    return len({trajectory.success for trajectory in group if trajectory.included}) == 2


def collect_groups(
    run: RunFn,
    problems: Iterable[Problem],
    *,
    wanted: int,
    group_size: int,
    rounds: int,
    has_signal: SignalFn = unequal_outcomes,
) -> CollectedGroups:
    """The first `wanted` groups with signal, from at most `rounds` rollouts.

    The first round tries `wanted` problems. While k of the t groups tried have signal and k is too
    small, another round tries the next `min(wanted, ⌈(wanted − k) t / k⌉)` problems, `wanted` when
    k is 0: as many as are missing at the rate seen so far. At most `wanted · rounds` problems are
    taken, so they may be endless. Fewer than `wanted` groups, or none, are kept when the rounds or
    the problems do not suffice.

    Which groups are kept follows from the order of the problems alone, never from what was ready
    first: no preference for short trajectories. A problem of an earlier round is passed over when
    it comes again, since equal requests give equal trajectories.
    """
    for name, value, counted in (
        ("wanted", wanted, "groups to keep"),
        ("group_size", group_size, "trajectories of a group"),
        ("rounds", rounds, "rollouts, 1 tries no further problems"),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; it counts {counted}")
    stream = itertools.islice(problems, wanted * rounds)
    tried: list[Problem] = []
    groups: list[list[Trajectory]] = []
    with_signal: list[list[Trajectory]] = []
    costs: list[RolloutStats] = []
    while len(costs) < rounds and len(with_signal) < wanted:
        count = wanted
        if with_signal:
            missing = wanted - len(with_signal)
            count = min(wanted, -(-missing * len(tried) // len(with_signal)))
        drawn = list(itertools.islice(_untried(stream, tried), count))
        if not drawn:
            break
        requests = [
            Request(problem=problem, group=group, sample=sample)
            for group, problem in enumerate(drawn, len(tried))
            for sample in range(group_size)
        ]
        trajectories, stats = run(requests)
        if len(trajectories) != len(requests):
            raise ValueError(
                f"run must return a trajectory for each of {len(requests)} requests, got"
                f" {len(trajectories)}; `RolloutEngine.run` does"
            )
        costs.append(stats)
        tried += drawn
        starts = range(0, len(requests), group_size)
        new = [trajectories[start : start + group_size] for start in starts]
        groups += new
        with_signal += [group for group in new if has_signal(group)]
    if not costs:
        raise ValueError("collect_groups needs at least one problem, got none; pass those to try")
    kept = with_signal[:wanted]
    return CollectedGroups(
        kept=[
            dataclasses.replace(trajectory, group=number)
            for number, group in enumerate(kept)
            for trajectory in group
        ],
        sampled=list(itertools.chain.from_iterable(groups)),
        groups_kept=len(kept),
        groups_dropped=len(groups) - len(kept),
        rounds=len(costs),
        stats=total_stats(costs),
    )


def _untried(stream: Iterator[Problem], tried: Sequence[Problem]) -> Iterator[Problem]:
    seen = {problem.id for problem in tried}
    return (problem for problem in stream if problem.id not in seen)
