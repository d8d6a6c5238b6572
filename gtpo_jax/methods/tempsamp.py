"""TempSamp-R1: a gold answer in the group, with less advantage than its reward suggests."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method, Modifier, set_plan
from gtpo_jax.parts import credit, plans


def tempsamp(
    *,
    shaping: Literal["soft", "anchor"] = "soft",
    tau: float = 0.8,
    above: float = 0.01,
    below: float = 1.0,
    scale: float = 1.2,
    gold: str | None = None,
) -> Modifier:
    """TempSamp-R1 (arXiv 2509.18056): groups with a gold answer, its advantage held down.

    A group is `size − 1` samples and the gold trajectory.
    `r' = tau + above · ln(1 + r − tau)` for `r ≥ tau`, else
    `r' = tau − (exp(below · (tau − r)) − 1) / (exp(below) − 1)`, in place of the total reward r of
    every trajectory (`soft`); or the statistics of the sampled
    rows alone, and `A_gold = scale · max_i(A_i)` for the gold row (`anchor`).

    Published: tau .8, above .01, below 1, scale 1.2, three samples and the gold answer. A reward
    just above tau earns almost as much as the gold answer. `gold` is the field of a problem's
    record with the gold turns, a text or a list of texts; None: one turn with the gold answer. The
    log-probs of the gold row are those of the policy that the step begins with, so its ratio begins
    at 1; the paper takes 1 throughout.
    """

    plan = plans.with_gold(field=gold)

    def modify(method: Method) -> Method:
        method = set_plan(method, plan, name="tempsamp")
        if shaping == "anchor":
            return method._replace(credit=credit.anchored(method.credit, scale=scale))
        softened = credit.softened(tau=tau, above=above, below=below)
        return method._replace(credit=credit.chain(softened, method.credit))

    return modify
