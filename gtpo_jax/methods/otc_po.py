"""OTC-PO: a success earns less the further its tool calls are from the fewest that sufficed."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import credit


def otc_po(*, alpha: float = 1.0, limit: float = 3.0, memory: int = 16384) -> Modifier:
    """OTC-PO, Optimal Tool Call Policy Optimization (arXiv 2504.14870): successes earn by economy.

    `r'_m = alpha · sin(π c_m / (c_m + n)) · r_m` for a success with `c_m` calls, where n is the
    smallest `c` of the problem's successes; `cos(π c_m / (2 c_m + limit))` if n = 0.

    It scales the reward on the last turn of a success, whatever it is made of, before the method's
    own credit: failures earn no credit for calling nothing. n is the minimum over all steps, as in
    the authors' variant, kept in `memory` slots (their number is our choice); problems may share a
    slot, and then share the smaller n. `memory` 0 takes n from the group alone. `limit` is the
    largest number of calls: 3 for code and 4 for search in the paper.

    Deviation: a credit that reads single named rewards reads them unscaled.
    """
    link = credit.productive(alpha=alpha, limit=limit, slots=memory)
    return lambda method: method._replace(credit=credit.chain(link, method.credit))
