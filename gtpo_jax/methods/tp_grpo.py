"""TP-GRPO: bad thoughts of a success pay, only matching thoughts of a failure are blamed."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def tp_grpo(
    *,
    alpha: float = 1.0,
    labels: credit.LabelTurns | None = None,
    match: bool = True,
) -> Modifier:
    """TP-GRPO, thought-level process rewards (arXiv 2507.23317): bad turns of a success pay.

    `A'[m, k] = right_m ? A[m, k] − alpha · acc_g · bad[m, k] : A[m, k] · match[m, k]`, where
    `acc_g` is the share of successes in the group.

    A thought is a turn. `labels(trajectory)` gives a label for each turn: good or not in a success,
    matching the wrong answer or not in a failure. The paper asks a generative reward model.

    Our reading for the Python tool, without `labels`: a turn of a success is bad if a call failed
    or a rule was broken. A turn of a failure matches if its text or output holds the final answer;
    the last turn always does, and without an answer all do. `match` false blames every turn of a
    failure. Unknown: `alpha`, here chosen. Another TP-GRPO, about images, only shares the name.
    """
    link = credit.thoughts(alpha, function=labels, match=match)
    return lambda method: add_link(method, link)
