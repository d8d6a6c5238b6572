"""AEPO of arbitrary entropy: rollouts at another temperature hold the entropy at a target."""

from __future__ import annotations

import jax.numpy as jnp

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, set_plan
from gtpo_jax.parts import credit, facts, losses, plans, spreads

RESAMPLED = facts.from_plan(
    plans.RESAMPLED, "[M] int32, 1 for a rollout at another temperature", missing=0
)


def aepo_arbitrary(
    *,
    weight: float = 1.0,
    target: float = 0.5,
    low: float = 0.8,
    high: float = 1.2,
    smooth: bool = False,
    share: float = 0.25,
) -> Modifier:
    """AEPO of arbitrary entropy, now SCOPE-RL (arXiv 2510.08141): control of the entropy.

    `loss − weight · 1[resampled, right] · log π_t`, over `share` more rollouts a group, at
    temperature `high` if the entropy of the group is at most `target` and `low` above it;
    `smooth=true` takes `clip(1 + target − H, low, high)`.

    A success at a high temperature raises the entropy, one at a low temperature lowers it.
    Published: .8, 1.2, target .5 to .75, a quarter; successes count with advantage 1. Unknown:
    `weight`; 1 is chosen. Deviations: a quarter more rollouts in every group, where the paper
    repeats a quarter of the prompts; the entropy is that of the group, in nats per token; both
    terms share one mean over tokens. Rollouts at another temperature enter no baseline.
    """
    checks.check_range("weight", weight, 0.0, float("inf"), hint="it weighs a term, 1 is chosen")
    temperatures = plans.Temperatures(target=target, low=low, high=high, smooth=smooth)
    plan = plans.retempered(share=share, temperatures=temperatures)

    def right(advantages, written, episodes):
        chosen = jnp.asarray(facts.read(episodes, RESAMPLED)).astype(bool) & episodes.success
        return jnp.where(written.turn_ids >= 0, chosen[:, None].astype(advantages.dtype), 0.0)

    mark = spreads.Mark(plans.RESAMPLED, right, (RESAMPLED,))
    term = losses.MarkedReinforce(weight=weight, mark=mark)

    def modify(method: Method) -> Method:
        return set_plan(method, plan, name="aepo_arbitrary")._replace(
            credit=credit.without(method.credit, RESAMPLED),
            loss=losses.add(method.loss, losses.Loss((term,))),
        )

    return modify
