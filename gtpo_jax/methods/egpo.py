"""EGPO: a bounded entropy bonus on advantages."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def egpo(*, weight: float = 0.4, limit: float = 2.0) -> Modifier:
    """EGPO, also FunRL (arXiv 2508.05118): an entropy bonus on advantages that flips no sign.

    `A'[m, k] = A[m, k] + weight · clip(H_m, −|A[m, k]| / limit, |A[m, k]| / limit)`, where H is the
    mean entropy of the tokens that the policy wrote in a trajectory.

    Since `H ≥ 0`, the lower bound never acts: right trajectories gain and wrong ones lose less.
    An advantage of 0 stays 0. Deviation: the paper averages over the tokens of the reasoning, here
    it is all tokens that the policy wrote.
    """
    return lambda method: add_link(method, credit.entropy_bonus(weight=weight, limit=limit))
