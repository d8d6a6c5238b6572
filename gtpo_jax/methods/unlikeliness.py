"""Unlikeliness reward: of the successes of a group, likely ones earn less."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import credit


def unlikeliness(*, penalty: float = 0.25) -> Modifier:
    """Unlikeliness reward (arXiv 2506.02355): a likely success earns less than an unlikely one.

    `r'_m = (1 − penalty · rank_m / G) · r_m` for a success; the rank of the mean behavior log-prob
    of the row's tokens among the G rows of its group, 0 for the least likely.

    It scales the reward on the last turn of a success before the method's own credit. The paper
    trains with KL .1 and two epochs, which are left to `+ kl weight=.1` and the run.

    Deviation: of equally likely rows the earlier counts as less likely; in the paper's code their
    order is that of an unstable sort.
    """
    link = credit.unlikely(penalty)
    return lambda method: method._replace(credit=credit.chain(link, method.credit))
