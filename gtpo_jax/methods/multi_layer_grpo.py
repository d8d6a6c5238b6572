"""MGRPO, multi-layer: a second group of samples corrects every sample of the first."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Method, Modifier, add_link, set_plan
from gtpo_jax.parts import credit, plans
from gtpo_jax.parts.plans.corrected import FAMILIES, LAYERS, PARENT_SUCCESS


def multi_layer_grpo(
    *,
    corrections: int = 4,
    baseline: Literal["group", "parent"] = "group",
    weight: float = 1.0,
    longest: int = 2000,
) -> Modifier:
    """MGRPO, multi-layer (arXiv 2506.04746): corrections of each sample form groups of their own.

    Layer 1: `A_i` over the G samples of q. Layer 2: for each i, `A_ih` over the H corrections
    `y_ih ~ π(· | q, y_i, phrase)`, with the same rewards and credit, times `weight`. One policy,
    both losses added. `baseline=parent`: `A_ih = success_ih − success_i` in layer 2.

    Not to be confused with `m_grpo`. Unknown: H, the weight of the second layer, and whether failed
    corrections are dropped; here they stay, as the group baseline needs them. Both baselines are
    those of re-implementations, which reward a correction that becomes or stays right. The phrases
    are ours. A problem costs G (1 + H) rollouts.
    """
    plan = plans.corrected(corrections=corrections, longest=longest)

    def modify(method: Method) -> Method:
        method = set_plan(method, plan, name="multi_layer_grpo")
        method = method._replace(credit=credit.divided(method.credit, FAMILIES))
        if baseline == "parent":
            method = add_link(method, credit.over_parent(LAYERS, PARENT_SUCCESS))
        return add_link(method, credit.second_layer(LAYERS, weight))

    return modify
