"""A pool: the first training problems of a source, all different."""

from __future__ import annotations

from gtpo_jax.tasks.source import ProblemSource
from gtpo_jax.types import Problem

TRIES = 100
"""Numbers of a source without end that are looked at for each problem of a pool."""


def count_problems(source: ProblemSource) -> int | None:
    """The number of different training problems of a source; None: it does not say, or there is no
    end of them.

    A source of your own says it with an attribute `train_count`.
    """
    return getattr(source, "train_count", None)


def first_problems(source: ProblemSource, count: int) -> list[Problem]:
    """The first `count` training problems with different ids.

    Generated problems come back by chance; a pool holds each once. Raises `ValueError` if the
    source does not have so many.
    """
    known = count_problems(source)
    tries = count * TRIES if known is None else known
    pool: dict[str, Problem] = {}
    for number in range(tries):
        if len(pool) == count:
            break
        problem = source.train_problem(number)
        pool.setdefault(problem.id, problem)
    if len(pool) < count:
        raise ValueError(
            f"train.pool is {count}, and the source has {len(pool)} different training problems"
            f" among its first {tries}; lower it"
        )
    return list(pool.values())
