"""Dynamic sampling: groups of equal outcomes are replaced (DAPO, arXiv 2503.14476, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from gtpo_jax.parts.prompts.in_order import check_rounds, in_order
from gtpo_jax.parts.prompts.prompts import Prompts
from gtpo_jax.types import Trajectory


def unequal_outcomes(group: Sequence[Trajectory]) -> bool:
    """`0 < Σ_i success_i < n` over the n trajectories of the group that are `included`.

    DAPO's criterion. Only outcomes count: a failure is a failure whether or not it was well formed,
    and a trajectory without a known outcome is neither success nor failure. A group with fewer than
    two known outcomes has no signal.
    """
    return len({trajectory.success for trajectory in group if trajectory.included}) == 2


def unequal(inner: Prompts | None = None, *, rounds: int = 4) -> Prompts:
    """Replaces groups of equal outcomes by the next problems that `inner` proposes, by default in
    the order of the source, in at most `rounds` rollouts per step.

    Deviation: DAPO samples until the batch is full. Here a step learns from the groups it has.
    """
    check_rounds(rounds)
    return (inner or in_order())._replace(rounds=rounds, has_signal=unequal_outcomes)
