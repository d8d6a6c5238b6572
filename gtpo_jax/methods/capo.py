"""CAPO: curvature-aware masks of tokens."""

from __future__ import annotations

from gtpo_jax.methods.method import Modifier
from gtpo_jax.parts import losses


def capo(
    *,
    learning_rate: float = 1.5e-5,
    most_objective: float = 1e-2,
    most_policy: float = 1e-4,
    symmetric: bool = True,
) -> Modifier:
    """CAPO (arXiv 2510.00819): leaves out tokens whose step alone would shift too much.

    Keeps tokens with `|m_J| < most_objective` and `m_π < most_policy`, where
    `m_J = η |g|² + ½ η² A [(v·u)² − uᵀ(diag(p) − p pᵀ) u]` and `m_π = ½ η² (v·u)²` predict the
    change of the objective and of the policy by a step of rate η on the token's gradient by the
    head of the model, `g = A v hᵀ`, `v = e − p`, `u = g h`. The objective stays as it is; each
    trajectory takes its mean over the tokens that are kept.

    The limits are those of CAPO; Dr. CAPO has 5e-4 and 1e-3, ReinCAPO .1 and 1e-5. Deviations: g is
    not preconditioned. The public code has this form as an option; its main runs precondition g
    with moments of Adam, whose steps are larger, so with Adam `learning_rate` should be that of a
    comparable step of SGD. All words count, where the code has the sampler's top 50 to 200.
    """
    return lambda method: method._replace(
        loss=losses.steady(
            method.loss,
            learning_rate=learning_rate,
            most_objective=most_objective,
            most_policy=most_policy,
            symmetric=symmetric,
        )
    )
