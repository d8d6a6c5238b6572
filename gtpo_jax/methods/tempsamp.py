"""TempSamp-R1: a gold answer in the group, with less advantage than its reward suggests."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.parts import credit


def tempsamp(
    *,
    shaping: Literal["soft", "anchor"] = "soft",
    tau: float = 0.8,
    above: float = 0.01,
    below: float = 1.0,
    scale: float = 1.2,
) -> Modifier:
    """TempSamp-R1 (arXiv 2509.18056): groups with a gold answer, its advantage held down.

    `r' = tau + above · ln(1 + r − tau)` for `r ≥ tau`, else
    `r' = tau − (exp(below · (tau − r)) − 1) / (exp(below) − 1)`, in place of the total reward r of
    every trajectory (`soft`, which needs no gold row to work); or the statistics of the sampled
    rows alone, and `A_gold = scale · max_i(A_i)` for the gold row (`anchor`).

    Published: tau .8, above .01, below 1, scale 1.2, three samples and the gold answer. A reward
    just above tau earns almost as much as the gold answer. `anchor` needs the fact `off_policy`.
    The ratio of the gold row is that of its recorded log-probs; the paper takes 1.
    """

    def modify(method: Method) -> Method:
        if shaping == "anchor":
            return method._replace(credit=credit.anchored(method.credit, scale=scale))
        softened = credit.softened(tau=tau, above=above, below=below)
        return method._replace(credit=credit.chain(softened, method.credit))

    return modify
