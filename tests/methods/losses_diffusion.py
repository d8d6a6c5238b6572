"""Rows of the suite of losses: methods for diffusion models, as pure losses of their scores."""

import math

import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import losses, reductions
from tests import reference as slow
from tests.methods.loss_relatives import Data, Row


def cj_grpo(data: Data, fixed: Data) -> np.ndarray:
    """`−min(ρ A, clip(ρ) A) + .04 k3` of every token."""
    del fixed
    out, batch = np.zeros(data.logprobs.shape), data.batch
    for b, t in data.tokens:
        log_ratio = data.logprobs[b, t] - batch.behavior_logprobs[b, t]
        to_reference = batch.reference_logprobs[b, t] - data.logprobs[b, t]
        surrogate = slow.surrogate(log_ratio, batch.token_advantages[b, t], 0.5, 0.5)[0]
        out[b, t] = surrogate + 0.04 * (math.exp(to_reference) - to_reference - 1)
    return out


def gdpo(data: Data, fixed: Data) -> float:
    """`mean_i (1 / |y_i|) (−min(ρ A, clip(ρ) A))` with the ratio of whole sequences."""
    del fixed
    found = []
    for places in data.units("sequence").values():
        log_ratio = sum(data.logprobs[p] - data.batch.proximal_logprobs[p] for p in places)
        advantage = np.mean([data.batch.token_advantages[p] for p in places])
        found.append(slow.surrogate(log_ratio, advantage, 0.2, 0.2)[0] / len(places))
    return float(np.mean(found))


def of_turns() -> methods.Method:
    """Dr.GRPO with CJ-GRPO's clip range and its mean over turns."""
    loss = losses.clipped(low=0.5, high=0.5)
    return methods.dr_grpo()._replace(loss=loss, reduce=reductions.turn_mean)


ROWS = {
    "cj_grpo": Row(
        reference=cj_grpo,
        reduction="turn_mean",
        neutral=lambda: methods.cj_grpo(kl_weight=0.0),
        parent=of_turns,
    ),
    "gdpo": Row(reference=gdpo),
}
