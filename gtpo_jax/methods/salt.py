"""SALT: turns that several trajectories have in common share their advantage."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_link
from gtpo_jax.parts import credit


def salt() -> Modifier:
    """SALT (arXiv 2510.20022): turns that trajectories have in common share their mean advantage.

    `A'[m, k] = mean_{(i, j): τ(i, j) = τ(m, k)} A[i, j]`, where τ is the state before a turn, its
    action and the state after it.

    A transition that occurs once keeps its own advantage. The paper applies it to GRPO or RLOO; it
    takes any method. Unknown: how states and actions are compared, and how much of the history has
    to match. Here the tool output before and after the turn and its code have to be equal, and a
    trajectory that repeats a transition counts each time. The sum over equal transitions stays, so
    on policy the gradient is that of the parent if the policy depends on nothing but that state.
    """
    return lambda method: add_link(method, credit.mean_of_transitions())
