"""Knapsack RL: the rollouts of a step go to the problems where they are worth most."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.parts import prompts


def knapsack(
    *,
    lowest: int = 2,
    highest: int = 128,
    confidence: float | None = 0.9,
    retention: float = 0.0,
) -> Modifier:
    """Knapsack RL (arXiv 2509.25849): unequal numbers of rollouts, at the same total.

    `max Σ_i V(n_i, p_i)`, `Σ_i n_i = prompts · group_size`, `lowest ≤ n_i ≤ highest`, with
    `V(n, p) = (1 − p^n − (1 − p)^n) p (1 − p)²` and p the success rate at the last visit.

    Which problems come is up to the method it changes; a budget after `vade` divides VADE's
    choice. Rules for p = 0, p = 1 and problems without a visit: `parts.prompts.allocate`. The least
    of 2 and the confidence .9 are the public code's, the most of 128 a re-implementation's.

    Deviations: the public code gives a problem that takes no extra rollout the value 0 in place of
    `V(lowest, p)`, so its allocation may miss the maximum; ours is the maximum. Its number of
    rollouts set free for failing problems is an estimate of the same rule.
    """

    def modify(method: Method) -> Method:
        changed = prompts.knapsack(
            method.prompts,
            lowest=lowest,
            highest=highest,
            confidence=confidence,
            retention=retention,
        )
        return method._replace(prompts=changed)

    return modify
