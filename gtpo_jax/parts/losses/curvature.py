"""Leaves tokens out whose predicted update is large: curvature masks (CAPO)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts.losses.loss import Loss, Scores
from gtpo_jax.types import Scalar, TokenBatch


class PredictedShift(NamedTuple):
    """Changes by a step on one token alone, to second order; each `[*B]`."""

    objective: jax.Array  # change of the policy gradient's objective
    policy: jax.Array  # KL divergence of the policy after it from the policy before


def predicted_shift(
    logprobs: Float[Array, "*B"],
    collisions: Float[Array, "*B 2"],
    state_norms: Float[Array, "*B"],
    advantages: Float[Array, "*B"],
    *,
    learning_rate: Scalar,
) -> PredictedShift:
    """The shifts by a step of SGD on the head of the model, on the gradient of one token.

    With `v = e − p`, e the one-hot of the token and p its distribution, the gradient is
    `g = A v hᵀ`, and `u = g h = A |h|² v`. Then, with the learning rate η,

        objective = η |g|² + ½ η² A [(v·u)² − uᵀ(diag(p) − p pᵀ) u]
        policy    = ½ η² (v·u)²

    All of it follows from p of the token, `Σ p²` and `Σ p³` (`collisions`) and `|h|²`:
    `|v|² = 1 − 2 p_y + Σ p²`, `Σ p v² = p_y (1 − 2 p_y) + Σ p³`, `Σ p v = p_y − Σ p²`.
    """
    checks.check_positive("learning_rate", learning_rate, hint="1e-5 is usual for Adam")
    likelihood = jnp.exp(as_float(logprobs))
    squares, cubes = collisions[..., 0], collisions[..., 1]
    length = 1.0 - 2.0 * likelihood + squares
    along = advantages * length * state_norms  # v·u
    spread = likelihood * (1.0 - 2.0 * likelihood) + cubes - jnp.square(likelihood - squares)
    curved = jnp.square(advantages * state_norms) * spread
    bent = 0.5 * jnp.square(learning_rate) * advantages * (jnp.square(along) - curved)
    return PredictedShift(
        learning_rate * advantages * along + bent,
        0.5 * jnp.square(learning_rate) * jnp.square(along),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steady:
    """Keeps tokens with `|objective| < most_objective` and `policy < most_policy`.

    Without `symmetric` the first is `0 ≤ objective < most_objective`.
    """

    learning_rate: float
    most_objective: float
    most_policy: float
    symmetric: bool = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"collisions", "state_norms"})

    def __call__(self, scores: Scores, batch: TokenBatch) -> Bool[Array, "B T"]:
        shift = predicted_shift(
            scores.logprobs,
            scores.extras["collisions"],
            scores.extras["state_norms"],
            batch.token_advantages,
            learning_rate=self.learning_rate,
        )
        least = -self.most_objective if self.symmetric else 0.0
        above = shift.objective > least if self.symmetric else shift.objective >= least
        return above & (shift.objective < self.most_objective) & (shift.policy < self.most_policy)


def steady(
    loss: Loss,
    *,
    learning_rate: float,
    most_objective: float,
    most_policy: float,
    symmetric: bool = True,
) -> Loss:
    """The loss on tokens that `Steady` keeps."""
    for name, value in {"most_objective": most_objective, "most_policy": most_policy}.items():
        checks.check_positive(name, value, hint="infinity keeps all tokens")
    choice = Steady(
        learning_rate=learning_rate,
        most_objective=most_objective,
        most_policy=most_policy,
        symmetric=symmetric,
    )
    return loss._replace(choices=(*loss.choices, choice))
