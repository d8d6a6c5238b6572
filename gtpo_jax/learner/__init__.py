"""The learner: packed batches, scores of tokens, the train state, updates, checkpoints."""

from gtpo_jax.learner.scores import batch_logprobs, logprob_gap, stepwise_logprobs
from gtpo_jax.learner.state import TrainState, changing, init_state, nonfinite_names
from gtpo_jax.learner.update import (
    CompiledUpdate,
    Metrics,
    Update,
    make_update,
)

__all__ = [
    "CompiledUpdate",
    "Metrics",
    "TrainState",
    "Update",
    "batch_logprobs",
    "changing",
    "init_state",
    "logprob_gap",
    "make_update",
    "nonfinite_names",
    "stepwise_logprobs",
]
