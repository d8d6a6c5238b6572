"""LATR: look-ahead trees, which branch at close decisions and drop branches that say the same."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans


def latr(
    *,
    least: float = 0.25,
    gap: float = 0.15,
    distance: float = 0.4,
    temperature: float = 0.0,
    tries: int = 2,
) -> Modifier:
    """LATR, Lookahead Tree-Based Rollouts (arXiv 2510.24302): branches at close decisions.

    Where `p2 > least` and `p1 − p2 < gap`, a branch takes the second token. It is dropped if
    `edit distance / r < distance` between its first r tokens and its parent's, at r = 20, 30 or 50
    tokens that neither ends before. The method's own credit and loss follow; tokens before a branch
    are trained in every member that has them.

    Published: .25, .15, .4, n = 8, two branches a token, DAPO's clip and a KL weight of .01. As in
    the authors' code, trunk and branches take the likeliest token (`temperature` 0). Deviations:
    branches run to their end before they are compared, so dropped ones cost more; free places are
    given in rounds, to the earliest decisions, where the paper goes token by token; at most
    `tries · size` branches are tried; the rest of the group are plain samples. Their schedule of
    the share of such groups in training is left out. Counts go over the tokens of the policy, in
    all turns. The sampler must record two candidates a token, as `launch.train` then does.
    """
    plan = plans.lookahead(
        least=least, gap=gap, distance=distance, temperature=temperature, tries=tries
    )
    return lambda method: set_plan(method, plan, name="latr")
