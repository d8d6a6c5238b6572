"""The prompts part of a method between rollouts: what it proposes, and what it learns.

proposals = Proposals(method.prompts, wanted=16, group_size=8, seed=0)
proposal = proposals.propose(state, step)
…  # rollouts of the proposed problems
state = proposals.observe(state, proposal, identities, trajectories)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gtpo_jax.parts.prompts import Outcomes, Prompts, Proposal
from gtpo_jax.types import Trajectory


class Proposals:
    """Compiled `propose` and `observe`. They depend on state, seed and step only, so a resumed run
    proposes what the run that was not interrupted did.
    """

    def __init__(self, prompts: Prompts, *, wanted: int, group_size: int, seed: int):
        self.prompts, self.wanted, self.group_size = prompts, wanted, group_size
        self.seed = seed
        self._propose = jax.jit(
            functools.partial(
                prompts.propose, wanted=wanted, rounds=prompts.rounds, group_size=group_size
            )
        )
        self._observe = jax.jit(prompts.observe)

    def propose(self, state: Any, step: int) -> Proposal:
        """The problems of a step and their numbers of trajectories, as NumPy arrays."""
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        proposal = jax.device_get(self._propose(jax.device_get(state), key, np.int32(step)))
        _check_proposal(proposal, self.wanted * self.prompts.rounds)
        return proposal

    def observe(
        self,
        state: Any,
        proposal: Proposal,
        identities: Sequence[str],
        trajectories: Sequence[Trajectory],
    ) -> Any:
        """The state after the rollouts of a step.

        `identities` are the ids of the proposed problems, in their order. Trajectories of other
        problems, such as those of other runs, do not count.
        """
        outcomes = gather_outcomes(self.prompts, proposal, identities, trajectories)
        return jax.device_get(self._observe(jax.device_get(state), outcomes))


def gather_outcomes(
    prompts: Prompts,
    proposal: Proposal,
    identities: Sequence[str],
    trajectories: Sequence[Trajectory],
) -> Outcomes:
    """The outcomes of a proposal, as NumPy arrays. Of problems with the same id only the first
    counts as tried.
    """
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.problem.id, []).append(trajectory)
    found = [groups.pop(identity, []) for identity in identities]
    included = [[t for t in group if t.included] for group in found]

    def numbers(values: Sequence[float], kind: type = np.int32) -> np.ndarray:
        return np.array(values, kind)

    # NumPy arrays; a jitted function converts them to JAX arrays.
    fields: dict[str, Any] = {
        "problems": np.asarray(proposal.problems, np.int32),
        "tried": numbers([len(group) > 0 for group in found], np.bool_),
        "sampled": numbers([len(group) for group in found]),
        "included": numbers([len(group) for group in included]),
        "successes": numbers([sum(t.success for t in group) for group in included]),
        "further": {
            outcome.name: numbers(
                [outcome.gather(group) if group else 0.0 for group in included], np.float32
            )
            for outcome in prompts.outcomes
        },
    }
    return Outcomes(**fields)


def _check_proposal(proposal: Proposal, count: int) -> None:
    """Raises unless all problems are numbers of problems, with trajectories each."""
    shapes = (np.shape(proposal.problems), np.shape(proposal.group_sizes))
    if shapes != ((count,), (count,)):
        raise ValueError(
            f"propose must give {count} problems and as many group sizes (wanted · rounds), got"
            f" arrays of shapes {shapes[0]} and {shapes[1]}"
        )
    if np.min(proposal.problems) < 0 or np.min(proposal.group_sizes) < 1:
        raise ValueError(
            "propose must give numbers of problems from 0 on and group sizes of at least 1, got"
            f" {np.min(proposal.problems)} and {np.min(proposal.group_sizes)} as the smallest"
        )
