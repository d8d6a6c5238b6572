"""MultiRole-R1: accuracy, and the lexical diversity of the reasoning."""

from __future__ import annotations

from collections.abc import Sequence

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Method, Modifier, add_reward
from gtpo_jax.parts import rewards


def multirole_r1(*, delta: float = 0.8, weights: Sequence[float] | None = None) -> Modifier:
    """MultiRole-R1 (arXiv 2507.20187): lexical diversity of the reasoning adds to the reward.

    `delta · r_m + (1 − delta) · Σ_k w_k D_k` with eight diversity scores `D_k` of the texts.

    The scores are vocabulary, entropy of words, sentence lengths, sentence openings, adjacent
    sentences, Yule's K, pairs of words, and function words. Their definitions are ours, each in
    [0, 1]; see `parts.rewards.lexical_scores`. Groups of equal outcome keep a gradient, as the
    authors want. Unknown: `delta`, here chosen, and the weights, here equal.

    Deviations: `r_m` is the method's own reward, where the paper averages over roles or votes; the
    cold start on merged dialogues of several roles is a matter of data.
    """
    checks.check_range("delta", delta, 0.0, 1.0, hint="1 counts the method's own reward alone")
    part = rewards.weighted(1.0 - delta, rewards.diversity(weights))

    def modify(method: Method) -> Method:
        scaled = {n: rewards.weighted(delta, reward) for n, reward in method.rewards.items()}
        return add_reward(method._replace(rewards=scaled), "diversity", part)

    return modify
