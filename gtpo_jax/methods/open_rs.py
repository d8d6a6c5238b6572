"""Open-RS: format and a cosine of the length."""

from __future__ import annotations

from gtpo_jax.methods.grpo import grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards


def open_rs(*, longest: int = 3584, ddof: int = 0, eps: float = 1e-6) -> Method:
    """Open-RS, a recipe for small models (arXiv 2503.16219): the outcome is worth less when long.

    `r_m = well_formed + 2 · (lo + (hi − lo) · (1 + cos(π L / longest)) / 2)`, (lo, hi) = (.5, 1)
    for a success and (−.5, 0) for a failure; then GRPO's credit.

    Three pitfalls of the published code are not repeated. It counts the length in characters and
    the limit in tokens; here both are tokens. It does not bound `L / longest`, so that a success of
    twice the limit earns 1 again; here L is at most `longest`. Its function's own defaults make
    long failures better than short ones; these are the values that the recipe passes.

    Deviations: population deviation (`ddof` 0), clip-higher and token mean as in `grpo`.
    """
    return Method(
        rewards={
            "format": rewards.well_formed(1.0),
            "outcome": rewards.weighted(2.0, rewards.cosine(longest)),
        },
        credit=grpo_credit(ddof=ddof, eps=eps),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.token_mean,
    )
