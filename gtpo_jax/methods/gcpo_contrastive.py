"""GCPO, contrastive: a gold answer rescues a group that fails as a whole."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans


def gcpo_contrastive(*, gold: str | None = None) -> Modifier:
    """GCPO, group contrastive (arXiv 2510.07790): where all fail, the gold answer replaces one.

    If `Σ_i success_i = 0` over a group, the gold trajectory takes the place of the first failure,
    and the method's rewards and credit see it as a member.

    `gold` is the field of a problem's record that holds its turns, a text or a list of texts; None:
    one turn with the gold answer alone. Not `gcpo`, which is another paper. The paper's ratio is of
    sequences, without a divergence: compose with `unit_ratio unit=sequence`. Unknown: its ratio for
    the gold row; here its log-probs are those of the policy that the step begins with, so the ratio
    begins at 1.
    """
    plan = plans.with_gold(when="all_failed", field=gold)
    return lambda method: set_plan(method, plan, name="gcpo_contrastive")
