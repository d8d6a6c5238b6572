"""Training-Free GRPO: a text of experiences grows instead of parameters."""

from __future__ import annotations

from gtpo_jax.methods.method import Method, Modifier, add_link, set_plan
from gtpo_jax.parts import credit, plans
from gtpo_jax.parts.plans.experienced import WITH_EXPERIENCES, Summarize


def training_free_grpo(
    *,
    summarize: Summarize | None = None,
    most: int = 20,
    template: str = WITH_EXPERIENCES,
    update: bool = False,
) -> Modifier:
    """Training-Free GRPO (arXiv 2510.08191): experiences in the prompt, no update of parameters.

    `E_{s+1} = edit(E_s, {summarize(q, group, E_s) : groups of unequal outcomes})`, and samples of
    step s have E_s in their prompt. Advantages are 0, so the parameters stay, unless `update`.

    `summarize(problem, trajectories, experiences)` returns `Edit`s: add, modify, delete, keep, as
    the paper's language model does. The default is ours: it adds the first line of the shortest
    success that no failure has. Published: 5 samples, temperature .7, batches of 50 to 64, 1 to 3
    epochs of 100 problems. The paper has no bound on the list; `most` is ours. Terms of the loss
    that have no advantage, such as a divergence, would still move the parameters.
    """
    summarizer = {} if summarize is None else {"summarize": summarize}
    plan = plans.experienced(most=most, template=template, **summarizer)

    def modify(method: Method) -> Method:
        method = set_plan(method, plan, name="training_free_grpo")
        return method if update else add_link(method, credit.nothing())

    return modify
