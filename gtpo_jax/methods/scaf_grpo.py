"""Scaf-GRPO: a group that fails as a whole gets the smallest hint that leads to a success."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans


def scaf_grpo(
    *,
    knowledge: str = "knowledge",
    planning: str = "planning",
    solution: str = "solution",
    parts: int = 4,
    exempt: int = 50,
    at_once: int = 4,
) -> Modifier:
    """Scaf-GRPO (arXiv 2510.19807): where all fail, a success under a hint replaces one failure.

    If `Σ_i success_i = 0` over a group: `ℓ* = min{ℓ : a sample under hint ℓ succeeds}`, and that
    sample takes the place of the first failure, with its own prompt in its ratio. Levels are the
    first 1 to `parts` parts of knowledge, then of planning, then of the solution.

    `knowledge`, `planning` and `solution` are fields of a problem's record: a text, or a list of
    parts; an empty name leaves a tier out, a problem may lack some of them. Published: 4 parts a
    tier, no hints in the first 50 steps (15 % in the paper's text), 8 samples, no divergence term,
    learning rate 1e-6. The released code has planning commented out, and samples all levels at
    once; here `at_once` of them, until one succeeds. The words around a hint are ours.
    """
    names = {knowledge: "Knowledge", planning: "Plan", solution: "Solution"}
    tiers = {name: label for name, label in names.items() if name}
    plan = plans.hinted(tiers, parts=parts, exempt=exempt, at_once=at_once)
    return lambda method: set_plan(method, plan, name="scaf_grpo")
