"""Claims of the methods that choose problems or divide rollouts.

The parent draws the same number of problems uniformly, and gives all of them the same number of
rollouts. `learned` is the success on problems as the world gives them, since the problems that a
method chooses are easier or harder than those.
"""

from __future__ import annotations

from benchmarks.claims.claim import Claim

UNIFORM = "grpo + uniform_prompts"


def _chosen(words: str, *, measure: str = "learned@60", world: str = "many") -> Claim:
    return Claim(method=f"grpo + {words}", parent=UNIFORM, world=world, measure=measure)


CLAIMS: tuple[Claim, ...] = (
    _chosen("uniform_prompts + knapsack"),
    _chosen("vade"),
    _chosen("vade + knapsack"),
    _chosen("mmr1"),
    _chosen("spo_prompts"),
    _chosen("success_window", measure="learned"),
    _chosen("difficulty_buckets"),
    Claim(
        method="grpo + overlong_filter",
        parent="grpo",
        world="lengths",
        measure="learned@60",
    ),
)
