"""Curriculum of lengths: a token budget that shrinks with the steps of training."""

from __future__ import annotations

import functools
from typing import Literal

import jax.numpy as jnp

from gtpo_jax.methods.method import Method, Modifier, add_reward, set_plan, wrap_reward
from gtpo_jax.parts import plans, rewards


def length_curriculum(
    *,
    start: float = 256.0,
    decay: float = 0.7,
    every: float = 150.0,
    shape: Literal["triangle", "band"] = "triangle",
    correct: float = 0.6,
    length: float = 0.3,
    form: float = 0.1,
    template: str | None = None,
) -> Modifier:
    """Train Long, Think Short (arXiv 2508.08940): a token budget that shrinks over training.

    `r = correct · r_outcome + length · f(l / B(t)) + form · well_formed` with
    `B(t) = max(1, start · decay^⌊t / every⌋)`; f rises to 1 at the budget and falls to 0 at twice
    it, or with shape `band` is 1 up to the budget.

    It takes the place of the method's format reward. The paper tries the weights .6/.3 and .3/.6.
    Our reading: the rest, .1, is the weight of the format.

    The paper's prompt states the budget: so does the prompt of a sample with a `template` such as
    `"{question} Answer in {budget} tokens."`; None leaves the prompt as it is. Deviation: held-out
    problems are asked without a budget.
    """
    part = rewards.within_budget(start=start, decay=decay, every=every, shape=shape)

    @functools.cache
    def budget(step: int) -> float:
        return rewards.token_budget(jnp.array([step]), start=start, decay=decay, every=every).item()

    plan = None if template is None else plans.budgeted(budget, template=template)

    def modify(method: Method) -> Method:
        method = wrap_reward(method, "outcome", lambda reward: rewards.weighted(correct, reward))
        others = {name: reward for name, reward in method.rewards.items() if name != "format"}
        method = method._replace(rewards={**others, "format": rewards.well_formed(form)})
        if plan is not None:
            method = set_plan(method, plan, name="length_curriculum with a template")
        return add_reward(method, "length", rewards.weighted(length, part))

    return modify
