"""REC: group-relative REINFORCE, read as an off-policy method."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.parts.losses import Loss, PolicyTerm, Reinforce


def rec(
    *,
    sides: losses.Sides = "one",
    low: float = 0.2,
    high: float = 0.2,
    ring_low: float = 0.6,
    ring_high: float = 2.0,
    weight: losses.Weight = "none",
    temperature: float = 1.0,
    drop: bool = False,
    divide_by_std: bool = False,
) -> Method:
    """REC (arXiv 2509.24203): REINFORCE on the tokens whose ratio is within a range.

    `−w A log π` for tokens in range, else 0: `sides=one` (A > 0 and `ρ ≤ 1 + high`, or A < 0 and
    `ρ ≥ 1 − low`), `two` (`1 − low ≤ ρ ≤ 1 + high`), `ring` (or far out on the side that a step
    corrects), `none`. `A = r − mean_g(r)`.

    `weight=ratio` is importance sampling, with which `sides=one` has PPO's gradient;
    `weight=advantage` is RED-Weight, `w = exp(A / temperature)`; `drop` is RED-Drop: surplus
    failures of a group leave it, at random. Published: .2 and .2; for `ring` also .6 and 2 (the
    authors' examples). Deviation: a group of one has A = 0.
    """
    surrogate = Reinforce(
        sides=sides,
        low=low,
        high=high,
        ring_low=ring_low,
        ring_high=ring_high,
        weight=weight,
        temperature=temperature,
    )
    mean = credit.standardized(credit.first_turn, divide_by_std=divide_by_std)
    baseline = credit.balanced(divide_by_std=divide_by_std) if drop else mean
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=credit.chain(credit.total(), baseline),
        loss=Loss((PolicyTerm(surrogate),)),
        reduce=reductions.token_mean,
    )
