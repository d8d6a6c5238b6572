"""Problems of reasoning-gym are judged by the family that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def judge(record: dict[str, Any], known: Callable[[], None]) -> str:
    """What `gtpo_jax.tasks.reasoning` says of an answer to a problem."""
    # The one kind that needs the library, and so JAX, in its worker.
    from gtpo_jax.tasks import reasoning
    from gtpo_jax.types import Problem

    fields = {name: record[name] for name in ("id", "question", "family", "verifier")}
    problem = Problem(answer=record["expected"], **fields)
    if reasoning.remade(problem) is not None:
        known()
    return str(reasoning.verify(problem, record["given"]))
