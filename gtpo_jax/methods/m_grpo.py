"""M-GRPO: a main agent and its sub-agents, each compared with its own kind."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, wrap_reward
from gtpo_jax.parts import credit, rewards


def m_grpo(*, floor: float = 0.1) -> Modifier:
    """M-GRPO, hierarchical multi-agent GRPO (arXiv 2511.13288): sub-agents share the outcome.

    `r_sub = valid_sub · max(r_main, floor)`, `r_main = valid_main · (right ? 1 : floor)`; groups
    are the rows of one agent on one problem.

    It takes the place of the method's outcome and format rewards, and the method's credit sees
    divided groups. A row is invalid if a turn broke the rules. Main rows have agent 0. A sub row
    whose main row is excluded earns `floor`.

    Deviations: sub rows are neither copied nor dropped to a fixed number per main row, which would
    change mean and deviation; one policy may play all agents. The composite reward of the paper's
    text, with an expert's part, was not seen; this is that of its code.
    """

    def modify(method: Method) -> Method:
        method = wrap_reward(method, "outcome", lambda _: rewards.agent_outcome(floor))
        kept = {name: part for name, part in method.rewards.items() if name != "format"}
        return method._replace(rewards=kept, credit=credit.divided(method.credit, rewards.AGENTS))

    return modify
