"""Turn-PPO: generalized advantage estimation over turns."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.methods.ratios import unit_ratio
from gtpo_jax.parts import credit, losses, reductions, rewards


def turn_ppo(
    *,
    discount: float = 0.99,
    trace: float = 0.9,
    width: int = 64,
    ridge: float = 1.0,
    forget: float = 0.1,
    seed: int = 0,
    format_penalty: float = 0.1,
    whiten: bool = True,
) -> Method:
    """Turn-PPO (arXiv 2512.17008): generalized advantage estimation over turns with a value head.

    `A[m, k] = Σ_{j ≥ k} (discount · trace)^(j−k) δ[m, j]`,
    `δ[m, k] = r[m, k] + discount · V(s[m, k+1]) − V(s[m, k])`, and V is 0 after the last turn. The
    state s of a turn is the dialogue before it; the ratio of a turn is clipped as a whole.

    Published: discount .99, trace (λ) .9. Deviations: V is linear in `width` random projections of
    the policy's hidden state, and is learned by ridge regression on discounted returns after each
    step, where earlier steps fade by `forget`; the paper trains a critic network. In the first step
    V is 0. The ratio of a turn is the geometric mean of its tokens' ratios. `whiten` (ours)
    normalizes advantages over the batch. Unknown: the paper's rewards of turns; here a format
    penalty and the outcome. Chosen: width, ridge, forget, clip range.
    """
    values = credit.learned_values(
        discount=discount, trace=trace, width=width, ridge=ridge, forget=forget, seed=seed
    )
    method = Method(
        rewards={
            "outcome": rewards.outcome(),
            "format": rewards.format_penalty(format_penalty),
        },
        credit=credit.chain(values, credit.standardized(credit.batch)) if whiten else values,
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.turn_mean,
    )
    return unit_ratio(unit="turn")(method)
