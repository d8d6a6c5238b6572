"""Every problem in the order of the source, and every group is kept."""

from __future__ import annotations

import jax
import numpy as np

from gtpo_jax.parts.prompts.prompts import Prompts, Proposal, SignalFn, State, all_groups


def in_order(*, rounds: int = 1, has_signal: SignalFn = all_groups) -> Prompts:
    """Step s tries the problems from number `s · wanted · rounds` on.

    Groups without signal are replaced by further problems, in at most `rounds` rollouts. Every step
    reserves its problems, used or not, so a resumed run tries the same ones.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}; 1 tries no further problems")

    def propose(
        state: State, key: jax.Array, step: int, *, wanted: int, group_size: int
    ) -> Proposal:
        del state, key
        count = wanted * rounds
        return Proposal(step * count + np.arange(count), np.full(count, group_size))

    return Prompts(
        init=lambda problems: (),
        propose=propose,
        observe=lambda state, problems, rates: state,
        has_signal=has_signal,
        rounds=rounds,
    )
