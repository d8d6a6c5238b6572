"""NTHR: failures lose less where their tokens resemble those of successes."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import spreads


def nthr(*, beta: float = 1.0, eta: float | None = None) -> Modifier:
    """NTHR, negative token hidden reward (arXiv 2505.18830): spares failures that are nearly right.

    `A'_t = eta A_t` for the tokens of failures with A < 0 and `s_t > beta · min_i mean_t s_it`,
    over the successes i of the group, where `s_t = Σ_k (err_k · err_t) (h_k · h_t)` over the tokens
    k of those successes: h are final hidden states, err the one-hot of the token minus the
    distribution that predicts it, under the policy that the step began with. `eta` is `2 |½ − p|`
    without a value, p the share of successes.

    The paper trains with GRPO, clip .2 and a KL weight of 1e-4. Its set of tokens in the means
    could not be read: here all tokens of each success, over the tokens of all successes, itself
    among them. Deviations: err is the error of the full distribution at the words that occur in the
    group, the 1024 most frequent at most. Minibatches have whole groups.
    """
    return lambda method: method._replace(spread=spreads.sparing(method.spread, beta=beta, eta=eta))
