"""E-GRPO: failures earn by the entities of the answer that they found."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, add_link, wrap_reward
from gtpo_jax.parts import credit, rewards


def e_grpo(*, alpha: float = 0.3, skip_cut_off: bool = True) -> Modifier:
    """E-GRPO, entity-aware GRPO (arXiv 2510.24694): failures earn by the entities they named.

    `R_m = right_m ? 1 : alpha · γ_m / max_g(γ)`, and 0 if the row is invalid; `γ_m` is the share
    of the problem's entities that the row names outside code.

    It takes the place of the method's outcome and format rewards. A problem lists its entities in
    the field `entities` of its record; a match is an exact phrase. A row is invalid if a turn broke
    the rules; a turn that ran out of tokens did. With `skip_cut_off`, such rows count in the
    statistics and have advantage 0. The paper trains without KL, with clip-higher; alpha 0 is GRPO.

    Unknown: whether invalid rows count in the maximum; here they do.
    """

    def modify(method: Method) -> Method:
        method = wrap_reward(method, "outcome", lambda _: rewards.entities(alpha))
        kept = {name: part for name, part in method.rewards.items() if name != "format"}
        method = method._replace(rewards=kept)
        return add_link(method, credit.left_out(rewards.CUT_OFF)) if skip_cut_off else method

    return modify
