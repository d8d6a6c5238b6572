"""The learner: packed batches, scores of tokens, the train state, updates, checkpoints."""

from gtpo_jax.learner.scores import batch_logprobs, logprob_gap, stepwise_logprobs
from gtpo_jax.learner.state import TrainState, changing, init_state, nonfinite_names
from gtpo_jax.learner.update import (
    CompiledUpdate,
    Metrics,
    Reduction,
    TokenLoss,
    Update,
    clipped_loss,
    make_update,
    supervised_loss,
)

__all__ = [
    "CompiledUpdate",
    "Metrics",
    "Reduction",
    "TokenLoss",
    "TrainState",
    "Update",
    "batch_logprobs",
    "changing",
    "clipped_loss",
    "init_state",
    "logprob_gap",
    "make_update",
    "nonfinite_names",
    "stepwise_logprobs",
    "supervised_loss",
]
