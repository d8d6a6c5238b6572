"""Claims about objectives of tokens: mismatched samplers, objectives, and whole groups."""

from __future__ import annotations

from benchmarks.claims.claim import EARLY, Claim, modifier

OWN = "learned@60"
"""Success of the trained policy itself, where another one samples."""


def _stale(method: str, parent: str = "grpo", measure: str = OWN) -> Claim:
    """A method with a sampler that is four steps old and noisy."""
    return Claim(
        method=method, parent=parent, world="chain", measure=measure, staleness=4, noise=0.5
    )


def _passes(method: str, parent: str, world: str, measure: str = EARLY) -> Claim:
    """A method with four updates of a step, at which ratios leave 1."""
    return Claim(method=method, parent=parent, world=world, measure=measure, epochs=4)


CLAIMS: tuple[Claim, ...] = (
    # Samplers that differ from the learner.
    _stale("grpo + dppo"),
    _stale("grpo + icepop"),
    _stale("grpo + kpop"),
    _stale("grpo + rejection"),
    _stale("grpo + decoupled_ppo"),
    _stale("grpo + recompute + score_centering", "grpo + recompute"),
    _stale("grpo + importance + score_centering", "grpo + importance"),
    # Objectives.
    _stale("rec", "rec weight=ratio"),
    _stale("opmd", "grpo divide_by_std=false"),
    _stale("asymre", "rec sides=none"),
    Claim(method="raft", parent="reinforce_pp", world="difficulty", measure="solved@30"),
    Claim(method="raft_pp", parent="grpo", world="difficulty", measure="solved@30"),
    Claim(method="reinforce_rej", parent="raft_pp", world="styles", measure="entropy"),
    _passes("gmpo", "grpo", "styles", "entropy"),
    _passes("grpo + geometric_mean", "grpo", "chain"),
    _passes("grpo + sapo_gate", "grpo", "chain"),
    _passes("turn_gspo", "gspo", "recurring"),
    Claim(method="opo", parent="grpo divide_by_std=false", world="lengths"),
    _passes("grpo + llds", "grpo", "recoverable"),
    modifier("clip_cov share=0.02", "styles", "entropy"),
    modifier("kl_cov share=0.02", "styles", "entropy"),
    modifier("high_entropy", "lengths"),
    modifier("d3s", "difficulty"),
    Claim(method="grpo_d", parent="grpo + kl weight=0.07", world="chain"),
    Claim(method="grpo + kl_schedule", parent="grpo + kl weight=0.07", world="styles"),
    modifier("lambda_grpo", "chain"),
    modifier("capo learning_rate=0.05", "noisy", "collapsed", lower=True),
    # Whole groups.
    Claim(method="disco", parent="grpo", world="difficulty"),
    _passes("grpo + drift_limit", "grpo", "chain"),
    Claim(method="reg_grpo", parent="grpo", world="difficulty"),
    Claim(method="oorl", parent="reinforce_pp", world="plans"),
    modifier("gepo", "plans"),
    Claim(method="p3o", parent="reinforce_pp", world="chain"),
    Claim(method="dpo", parent="grpo", world="styles"),
    modifier("nthr", "recoverable"),
)
