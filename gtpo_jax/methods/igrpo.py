"""iGRPO: the best of several drafts becomes part of the prompt of the group that is trained."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans.refined import REFINE, ScoreDraft


def igrpo(
    *,
    drafts: int = 4,
    score: ScoreDraft | None = None,
    template: str = REFINE,
    longest: int = 2000,
) -> Modifier:
    """iGRPO (arXiv 2602.09000): the group refines the best of N drafts.

    `d* = argmax_n score(d_n)`, the first of equal ones; then G samples of the prompt
    `q' = template(q, d*)`, with the method's own credit and ratios under q'. Drafts have no
    gradient. A problem costs N + G rollouts; at test time the prompt is the plain one.

    Published: N = G = 4, no divergence, no entropy term, binary reward, which is the default score:
    1 for a success. The paper scores a draft with the reward that it trains on, and `score=` takes
    any function of a trajectory. All drafts wrong: the first of them is refined. The words of the
    template are ours. `longest` bounds the characters of the draft, so raise the tokens of prompts.
    """
    rated = {} if score is None else {"score": score}
    plan = plans.refined(drafts=drafts, template=template, longest=longest, **rated)
    return lambda method: set_plan(method, plan, name="igrpo")
