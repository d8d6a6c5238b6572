"""Rows of the suite of relatives: parts that other rows build on."""

import numpy as np

from gtpo_jax import methods
from tests.methods import relatives
from tests.methods.relatives import Row

relatives.FACTS["turn_scores"] = lambda rng, e: rng.normal(size=e.turn_mask.shape).astype(
    np.float32
)


def scored(batch):
    """GRPO of the outcome plus the sum of the scores of turns."""
    scores = np.where(relatives.kept(batch), batch.facts["turn_scores"], 0.0)
    totals = relatives.outcome_and_forfeit(batch) + 0.5 * scores.sum(1)
    return relatives.spread(batch, relatives.standard_scores(batch, totals))


ROWS = {
    "turn_scores": Row(
        make=lambda: methods.chain(methods.grpo(), methods.turn_scores(weight=0.5)),
        reference=scored,
        neutral=lambda: methods.chain(methods.grpo(), methods.turn_scores(weight=0.0)),
        parent=methods.grpo,
    )
}
