"""Judges problems of reasoning-gym by the family that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def judge(record: dict[str, Any], known: Callable[[], None]) -> str:
    """The verdict of `gtpo_jax.verifiers.reasoning_gym` on an answer to a problem."""
    # The only kind whose worker needs the library, and so JAX.
    from gtpo_jax.types import Problem
    from gtpo_jax.verifiers import reasoning_gym

    fields = {name: record[name] for name in ("id", "question", "family", "verifier")}
    problem = Problem(answer=record["expected"], **fields)
    if reasoning_gym.remade(problem) is not None:
        known()
    return str(reasoning_gym.verify(problem, record["given"]))
