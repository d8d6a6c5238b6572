"""Arrays in, arrays out: masks, turns, log-probs, ratios, divergences, similarity."""

from gtpo_jax.maths import checks, divergences, logprobs, masking, ratios, similarity, turns, units

__all__ = [
    "checks",
    "divergences",
    "logprobs",
    "masking",
    "ratios",
    "similarity",
    "turns",
    "units",
]
