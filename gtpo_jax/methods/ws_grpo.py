"""WS-GRPO: the outcome, and the preference for each longer prefix."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier, add_reward
from gtpo_jax.parts import rewards


def ws_grpo(*, prefer: rewards.PreferTurns | None = None, weight: float = 5.0) -> Modifier:
    """WS-GRPO (arXiv 2602.17025, first version): preferences between prefixes add to the outcome.

    `r_m + weight · mean_k p[m, k]`; `p[m, k]` is the probability that the trajectory up to turn k
    is better than up to turn k − 1.

    `prefer(trajectory)` gives one probability per turn; the paper trains a small network on
    encodings of texts. Without it the run must record the fact `prefix_preferences`. With weights
    above 1 a long failure may earn more than a success.

    Our reading: the weights 1 and 5 that reviewers name are those of outcome and preferences. The
    accepted version turns the signal into guidance to continue or stop, which could not be read.
    """
    part = rewards.weighted(weight, rewards.preferences(prefer))
    return lambda method: add_reward(method, "preferences", part)
