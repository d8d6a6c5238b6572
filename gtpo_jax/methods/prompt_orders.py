"""Which problems come next, by how often they were solved: windows, weights and curricula."""

from __future__ import annotations

from typing import Literal

from gtpo_jax.methods.method import Modifier, set_prompts
from gtpo_jax.parts import prompts


def uniform_prompts() -> Modifier:
    """Uniform draws of problems from the pool: the parent of the choices by success.

    `P(i) = 1 / N`, without replacement within a step.
    """
    chosen = prompts.uniform()
    return lambda method: set_prompts(method, chosen, name="uniform_prompts")


def spo_prompts(*, floor: float = 0.05, prior: float = 0.5, retention: float = 0.875) -> Modifier:
    """SPO's choice of problems (arXiv 2509.13232): by the spread of their tracked value.

    `P(i) ∝ sqrt(v_i (1 − v_i)) + floor` without replacement, `v = a / (a + b)`; when a problem is
    tried, `a ← q a + successes` and `b ← q b + failures` with `q = retention`.

    Published: floor .05; q between .875 and .96 by the drift of the policy, here a number. The
    values are counted beside those of `spo`'s baseline, which has slots where this has problems.
    """
    chosen = prompts.by_deviation(floor=floor, prior=prior, retention=retention)
    return lambda method: set_prompts(method, chosen, name="spo_prompts")


def success_window(
    *, lowest: float = 0.2, highest: float = 0.6, trials: int = 5, retention: float = 1.0
) -> Modifier:
    """Success window, as EAPO's (IterResearch, arXiv 2511.07327): problems solved now and then.

    Problem i comes if `lowest ≤ p_i ≤ highest`, or if fewer than `trials` of its outcomes are
    known. All that come are equally likely; others fill a step only where there are too few.

    Published: 20 to 60 % of 5 trials. Deviation: the paper tries problems before training, with
    one policy; here the trials are steps of training, and problems inside go on being counted
    (`retention` 1 forgets nothing).
    """
    chosen = prompts.within(lowest=lowest, highest=highest, trials=trials, retention=retention)
    return lambda method: set_prompts(method, chosen, name="success_window")


def difficulty_buckets(
    *,
    buckets: int = 3,
    every: int = 30,
    by: Literal["success", "length"] = "success",
    retention: float = 0.0,
) -> Modifier:
    """Curriculum over buckets of difficulty, as CRAFT-GUI's (arXiv 2508.11360): easy ones first.

    Step s draws uniformly from the easiest `⌈N · (⌊s / every⌋ + 1) / buckets⌉` of N problems, by
    their success rate or the length of their trajectories at the last visit.

    Our reading: a bucket is a share of the ranked problems, and opens after a number of steps
    beside those before it. Unknown: the number of buckets (3 is chosen), when to switch (30 steps
    are chosen), and the measure of difficulty.
    """
    chosen = prompts.by_bucket(buckets=buckets, every=every, by=by, retention=retention)
    return lambda method: set_prompts(method, chosen, name="difficulty_buckets")
