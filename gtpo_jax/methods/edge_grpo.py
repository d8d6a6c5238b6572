"""EDGE-GRPO: advantages divided by the relative entropy of their trajectories."""

from __future__ import annotations

from typing import Annotated

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def edge_grpo(
    *,
    over: Annotated[credit.Set, credit.ROW_SETS] = credit.batch,
    floor: float = 0.001,
) -> Modifier:
    """EDGE-GRPO (arXiv 2507.21848): larger advantages for trajectories written with low entropy.

    `A'[m, k] = A[m, k] · mean_j(H_j) / H_m`, where H is the mean entropy of the tokens that the
    policy wrote in a trajectory and j the rows of the batch.

    Deviations: the entropy is a constant of the objective (the released code lets a gradient
    through `1 / H_m`) without padding (there padding counts), and at least `floor` nats, which is
    our choice. The guided correction of wrong trajectories is not part of this modifier.
    """
    return lambda method: add_link(method, credit.over_relative_entropy(over, floor=floor))
