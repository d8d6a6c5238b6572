"""Guided error correction of EDGE-GRPO: failures are corrected before they are trained on."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans


def guided_correction(*, solution: str | None = "solution") -> Modifier:
    """Guided error correction of EDGE-GRPO (arXiv 2507.21848): each failure is replaced.

    At random, a failure goes on after a cue that something is wrong (1/2), or after it with the
    gold answer (1/4), or becomes the reference solution (1/4), the field `solution` of the
    problem's record; None: there is none, and the answer has 1/2. `edge_grpo` is the part of the
    paper that changes advantages; the two compose.

    The chances are those of the released code, where the whole text of a row is trained, as here
    but for the cue, which is what the environment says after the failed answer. A failure that has
    used all its turns goes on before the last of them, without the cue. Texts that are written for
    the policy have the log-probs of the learner. The words before the answer are ours.
    """
    plan = plans.guided(solution=solution)
    return lambda method: set_plan(method, plan, name="guided_correction")
