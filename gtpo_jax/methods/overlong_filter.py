"""DAPO's overlong filter: trajectories that were cut off are left out of the loss."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import rewards


def overlong_filter() -> Modifier:
    """Overlong filter (DAPO, arXiv 2503.14476, Sec. 3.4): no loss on trajectories cut off.

    `loss_mask[m, t] = 0` for all t if the last turn of m did not end in its token budget.

    Their rewards count in the baseline and the spread of their group, as in the public code; their
    tokens count in no sum and no denominator of the loss. An episode that ran out of turns ended
    each turn itself, and is not cut off.
    """
    return lambda method: method._replace(prompts=method.prompts._replace(left_out=rewards.CUT_OFF))
