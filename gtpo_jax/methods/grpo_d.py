"""GRPO-D: the weight of the KL penalty is a schedule of the step."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp

from gtpo_jax.maths import checks, divergences
from gtpo_jax.methods.grpo import grpo
from gtpo_jax.methods.method import Method, Modifier
from gtpo_jax.parts import facts, losses, reductions, rewards, schedules, spreads


def kl_schedule(
    *,
    lowest: float = 0.04,
    highest: float = 0.1,
    steps: float = 100.0,
    turn: float = 0.3,
    monotone: bool = False,
    estimator: Annotated[divergences.Estimator, divergences.ESTIMATORS] = divergences.kl_k3,
) -> Modifier:
    """GRPO-D's dynamic KL (OThink-MR1, arXiv 2503.16081): `loss + β(s) · KL(π ‖ π_ref)`.

    With `w = turn · steps` and `mid = (lowest + highest) / 2`: `β(s) = mid − (mid − lowest) s / w`
    up to step w, then `lowest + (highest − lowest) (s − w) / (steps − w)`, and `highest` after
    `steps`.

    Published: the formula, `turn` .3, and .04 to .1 for counting, 0 to .02 for geometry. The text
    says that the weight starts small and grows, the formula starts in the middle; `monotone` is our
    reading of the text, a line from `lowest` to `highest`. `steps` is the length of the run.
    """
    for name, value in (("lowest", lowest), ("highest", highest)):
        hint = "it weighs a penalty, 0.001 to 0.1 is usual"
        checks.check_range(name, value, 0.0, float("inf"), hint=hint)
    schedule = schedules.DownAndUp(lowest=lowest, highest=highest, turn=turn * steps, steps=steps)
    if monotone:
        schedule = schedules.Linear(first=lowest, last=highest, steps=steps)

    def weight(advantages, written, episodes):
        del written
        number = schedule(jnp.asarray(facts.read(episodes, facts.STEP)))
        return jnp.broadcast_to(number[:, None], advantages.shape)

    mark = spreads.Mark("kl_weight", weight, (facts.STEP,))
    term = losses.MarkedDivergence(mark=mark, estimator=estimator)
    return lambda method: method._replace(loss=losses.add(method.loss, losses.Loss((term,))))


def grpo_d(
    *,
    lowest: float = 0.04,
    highest: float = 0.1,
    steps: float = 100.0,
    turn: float = 0.3,
    monotone: bool = False,
) -> Method:
    """GRPO-D (OThink-MR1, arXiv 2503.16081): GRPO with a KL penalty that changes over training.

    GRPO's advantages of `r = accuracy + format`, mean over sequences, and `+ kl_schedule`.

    Published: see `kl_schedule`. Unknown: the clip range, which is .2 and .28 as in `grpo`.
    """
    parts = {"outcome": rewards.outcome(), "format": rewards.well_formed(1.0)}
    method = grpo()._replace(rewards=parts, reduce=reductions.sequence_mean)
    modify = kl_schedule(lowest=lowest, highest=highest, steps=steps, turn=turn, monotone=monotone)
    return modify(method)
