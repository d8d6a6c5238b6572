"""Advantages of thoughts, by labels of turns (TP-GRPO, arXiv 2507.23317)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.facts import Fact
from gtpo_jax.types import EpisodeBatch, Scalar, Trajectory

LabelTurns = Callable[[Trajectory], Sequence[float]]
"""A function from a trajectory to one label for each of its turns: true or false, as numbers."""


def _holds(text: str, answer: str) -> bool:
    pattern = rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)"
    return re.search(pattern, " ".join(text.split()).lower()) is not None


def answer_turns(trajectory: Trajectory) -> list[bool]:
    """True for turns whose text or printed output holds the final answer, and for the last one.

    Without an answer every turn is true: there is nothing to tell them apart.
    """
    answer = " ".join((trajectory.answer or "").split()).lower()
    shown = ["\n".join([t.text, *(r.stdout for r in t.results)]) for t in trajectory.turns]
    last = len(shown) - 1
    return [k == last or not answer or _holds(text, answer) for k, text in enumerate(shown)]


def labels(name: str, function: LabelTurns, meaning: str) -> Fact:
    """The fact of a function's labels, `[M, K]` bool."""

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        values = np.zeros((len(trajectories), max_turns), bool)
        for row, trajectory in enumerate(trajectories):
            given = list(function(trajectory))
            if len(given) != len(trajectory.turns):
                raise ValueError(
                    f"{name} needs one label for each of the {len(trajectory.turns)} turns of the"
                    f" trajectory of problem {trajectory.problem.id!r}, got {len(given)}"
                )
            values[row, : len(given)] = given
        return values

    return Fact(name, gather, meaning)


ANSWER_TURNS = labels(
    "answer_turns",
    answer_turns,
    "[M, K] bool, the turn or its output holds the final answer; all true without an answer",
)
THOUGHT_LABELS = "[M, K] bool, good turns of a success, turns that match the answer of a failure"


def thought_advantages(
    advantages: Float[Array, "M K"],
    success: Bool[Array, " M"],
    labels: Bool[Array, "M K"],
    accuracy: Float[Array, " M"],
    *,
    alpha: Scalar,
) -> Float[Array, "M K"]:
    """Turns of a success: A if the label is true (good), else `A − alpha · accuracy`. Turns of a
    failure: A if the label is true (they match its answer), else 0.
    """
    right = advantages - jnp.where(labels, 0.0, alpha * accuracy[:, None])
    return jnp.where(success[:, None], right, jnp.where(labels, advantages, 0.0))


def thoughts(
    alpha: Scalar = 1.0, *, function: LabelTurns | None = None, match: bool = True
) -> Credit:
    """Values by the labels of turns; see `thought_advantages`. The accuracy is the share of
    successes among the included rows of the group.

    Without a function, a turn of a success is good if no call failed and no rule was broken, and
    the labels of a failure are `answer_turns`, or with `match` False all true.
    """
    checks.check_range("alpha", alpha, 0.0, float("inf"), hint="0 leaves successes whole")
    if function is not None:
        needs: tuple[Fact, ...] = (labels("thought_labels", function, THOUGHT_LABELS),)
    else:
        needs = (facts.CALL_ERRORS, ANSWER_TURNS) if match else (facts.CALL_ERRORS,)

    def labels_of(episodes: EpisodeBatch) -> jax.Array:
        first, *others = (jnp.asarray(facts.read(episodes, fact)) for fact in needs)
        if function is not None:
            return first.astype(bool)
        good = (first == 0) & ~episodes.violations
        matching = others[0].astype(bool) if others else jnp.ones_like(good)
        return jnp.where(episodes.success[:, None], good, matching)

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        right = jnp.where(episodes.success, 1.0, 0.0)
        accuracy = groups.mean(right, groups.members(episodes), episodes.group_ids)
        return thought_advantages(
            as_float(x), episodes.success, labels_of(episodes), accuracy, alpha=alpha
        )

    return stateless(values, needs=needs)
