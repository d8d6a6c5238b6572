"""D3S: the rows whose advantages vary most, and their tokens of most effect."""

from __future__ import annotations

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, add_link
from gtpo_jax.parts import credit, schedules, spreads


def d3s(
    *,
    rows: float = 0.25,
    last_rows: float = 0.5,
    tokens: float = 0.1,
    last_tokens: float = 0.5,
    steps: float = 100.0,
) -> Modifier:
    """D3S, Dynamic Dual-Level Down-Sampling (arXiv 2509.22115): fewer rows, and fewer tokens.

    Of the n trajectories of a step the `⌈N n⌉` are kept whose advantages have the largest variance,
    and of their tokens the `⌈K m⌉` with the largest `|A_t| · H_t`; the others have A = 0. N goes
    linearly from `rows` to `last_rows` over `steps` steps, K from `tokens` to `last_tokens`.

    Advantages are not normalized again, and K is a share of the tokens of all kept rows together,
    as published. Unknown: the end points of the schedule; the defaults are chosen, so that under
    20 % of the tokens are used for long, as reported. N is a number of rows in the paper.
    Deviations: the value of a trajectory of several turns is the mean of their advantages; rows and
    tokens that are dropped still count in the mean of the loss; entropies are the sampler's.
    """
    shares = {"rows": rows, "last_rows": last_rows, "tokens": tokens, "last_tokens": last_tokens}
    for name, value in shares.items():
        checks.check_range(name, value, 0.0, 1.0, hint="it is a share; 1 keeps all")
    of_rows = schedules.Linear(first=rows, last=last_rows, steps=steps)
    of_tokens = schedules.Linear(first=tokens, last=last_tokens, steps=steps)

    def modify(method: Method) -> Method:
        method = add_link(method, credit.max_variance_rows(of_rows))
        return method._replace(spread=spreads.of_large_steps(method.spread, share=of_tokens))

    return modify
