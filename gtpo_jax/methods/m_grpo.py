"""M-GRPO: a main agent and its sub-agents, each compared with its own kind."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, set_plan, wrap_reward
from gtpo_jax.parts import credit, plans, rewards


def m_grpo(*, floor: float = 0.1, rounds: int = 2, subs: int = 1) -> Modifier:
    """M-GRPO, hierarchical multi-agent GRPO (arXiv 2511.13288): sub-agents share the outcome.

    `r_sub = valid_sub · max(r_main, floor)`, `r_main = valid_main · (right ? 1 : floor)`; groups
    are the rows of one agent on one problem.

    It takes the place of the method's outcome and format rewards, and the method's credit sees
    divided groups. A row is invalid if a turn broke the rules. Main rows have agent 0. A sub row
    whose main row is excluded earns `floor`.

    A main row hands over a task as `<delegate>task</delegate>` in a turn that neither calls the
    tool nor answers, at most `rounds` times; `subs` sub rows solve it, and the answer of the first
    is what the main row observes.

    Deviations: how a task is handed over is ours; sub rows are neither copied nor dropped to a
    fixed number per main row, which would change mean and deviation; one policy plays all agents.
    The composite reward of the paper's text, with an expert's part, was not seen; this is that of
    its code.
    """

    plan = plans.delegated(rounds=rounds, subs=subs)

    def modify(method: Method) -> Method:
        method = set_plan(method, plan, name="m_grpo")
        method = wrap_reward(method, "outcome", lambda _: rewards.agent_outcome(floor))
        kept = {name: part for name, part in method.rewards.items() if name != "format"}
        return method._replace(rewards=kept, credit=credit.divided(method.credit, rewards.AGENTS))

    return modify
