"""GRPO-CARE: a bonus for reasoning that a reference policy finds consistent with the answer."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import rewards


def grpo_care(*, coefficient: float = 0.5, cap: float = 0.95, margin: float = 0.01) -> Modifier:
    """GRPO-CARE (arXiv 2506.16141): a bonus for reasoning that makes the answer likely.

    `r_m + coefficient · acc_m · [q_m ≥ mean_C(q) − margin]` with C the successes of the group and
    `q = min(exp(mean log π_ref(answer | reasoning)), cap)`.

    The answer is the last turn. The paper drops the KL term.

    Deviation: the reference is the policy that training began with; the paper's is a moving
    average of the trained one (.995 every 10 steps). A published argument default of the
    coefficient is 1; .5 is that of its runs.
    """
    part = rewards.consistency(coefficient, cap=cap, margin=margin)
    return lambda method: add_reward(method, "consistency", part)
