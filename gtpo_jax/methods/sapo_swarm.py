"""SAPO, swarm: runs share their groups, and train on those of others."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, set_plan
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans.swarm import Select


def sapo_swarm(
    *,
    address: str = "",
    local: int = 4,
    external: int = 4,
    joined: int = 0,
    select: Select = "uniform",
) -> Modifier:
    """SAPO, Swarm sAmpling Policy Optimization (arXiv 2509.08721): I local, J external groups.

    A step has `local` groups of its own for every `external` groups of other runs. Those are drawn
    from what others shared, without groups of equal outcomes; `log μ` is recomputed by the learner,
    and `A = z(R)` over all rows of a prompt, `joined` of which may come from others.

    `address` is a folder or an http address that the runs have in common. The texts of an external
    row are read again as this run's tokens, its calls are made again, its answer is verified.
    Best of the paper: 4 and 4 (from memory). Released code: `best` (most successes; it also keeps
    groups of equal outcomes) or `uniform`. The gold answer of an external problem is that of the
    other run, so share with runs you trust to state problems. Not Qwen's soft adaptive SAPO.
    """
    plan = plans.swarm(
        local=local, external=external, joined=joined, select=select, address=address
    )
    return lambda method: set_plan(method, plan, name="sapo_swarm")
