"""PTA-GRPO: a plan earns by the success of the solutions that follow it."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, add_link, add_reward, set_plan
from gtpo_jax.parts import credit, plans, rewards


def pta_grpo(
    *, weight: float = 1.0, solutions: int = 1, ddof: int = 0, eps: float = 1e-6
) -> Modifier:
    """PTA-GRPO (arXiv 2510.01833): a plan earns by the solutions that follow it.

    `A[m, 0] = (q_m − mean(q)) / std(q)` over the plans of the group, `q_m` the mean success of the
    rows with the plan of m; later turns have the method's own credit of `r_m + weight · q_m`.

    Our reading: the plan is the first turn, and equal texts are one plan. Plans are compared with
    plans, each counted once, and solutions with all solutions of the problem. The paper samples 3
    solutions for each of 3 plans: `solutions=3` in groups of 9. With 1, the default, rollouts are
    independent, most plans have one solution, and `q_m` is its success.

    Unknown: the weights (reviewers describe a plain sum, so `weight` is chosen 1), and whether
    plans and solutions have separate advantages. The format reward is the method's own.
    """
    link = credit.plan_turn(ddof=ddof, eps=eps)
    part = rewards.weighted(weight, rewards.planned())

    def modify(method: Method) -> Method:
        if solutions > 1:
            method = set_plan(method, plans.planned(solutions=solutions), name="pta_grpo")
        return add_link(add_reward(method, "plan", part), link)

    return modify
