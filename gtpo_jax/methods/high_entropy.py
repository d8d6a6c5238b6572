"""80/20: only tokens of high entropy are trained on."""

from __future__ import annotations

from gtpo_jax.maths import checks
from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import spreads


def high_entropy(*, share: float = 0.2) -> Modifier:
    """High-entropy tokens, the 80/20 rule (arXiv 2506.01939): forking tokens alone are trained on.

    A = 0 except for the `⌈share · n⌉` of the n tokens with the highest entropies.

    Published: share .2, with DAPO. Deviations: entropies are the sampler's, and the n tokens are
    those of the step, so the choice does not depend on how minibatches are divided. The mean of the
    loss still counts all tokens, as in the paper.
    """
    checks.check_range("share", share, 0.0, 1.0, hint="0.2 is the paper's, 1 keeps all tokens")
    return lambda method: method._replace(
        spread=spreads.of_high_entropy(method.spread, share=share)
    )
