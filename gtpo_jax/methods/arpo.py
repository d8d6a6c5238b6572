"""ARPO: groups that branch after the returns of tools where entropy rises."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans


def arpo(
    *,
    trunks: int | None = None,
    beam: int = 2,
    probability: float = 0.5,
    weight: float = 0.2,
    window: int = 20,
    vocabulary: int = 151_936,
) -> Modifier:
    """ARPO, Agentic Reinforced Policy Optimization (arXiv 2507.19849): trees that branch at turns.

    N `trunks` are sampled; after the return of a tool a trajectory gets each of `beam − 1` branches
    with probability `clip(probability + weight · ΔH, 0, 1)`, up to G trajectories. `ΔH = H_k − H_0`
    with `H_k = Σ_t H_t / ln V` over the first `window` tokens of turn k. The method's credit
    follows; turns that several members share are trained in each of them, so that they get the mean
    of their advantages (the paper's soft estimation).

    In the authors' scripts: G 16, N 8, beam 2, probability .5, weight .2, window 20. Deviations:
    H_k is measured after the return of the tool, as in the paper's text; their code takes the turn
    that called it, and the ten likeliest tokens alone. Branches are drawn once their trunks have
    ended, which changes no distribution but which branches the size has room for: early turns
    first. V is `vocabulary`, that of Qwen2.5 by default.
    """
    plan = plans.tree(
        trunks=trunks,
        beam=beam,
        probability=probability,
        weight=weight,
        window=window,
        vocabulary=vocabulary,
    )
    return lambda method: set_plan(method, plan, name="arpo")
