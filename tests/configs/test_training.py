"""The training step and the sampler that a config describes."""

import jax
import jax.numpy as jnp

from configs.methods import make_method, split
from configs.presets import PRESETS
from configs.training import make_sampler


def test_sampler_records_candidates_only_for_a_loss_that_needs_them():
    keys, logits = jax.random.split(jax.random.key(0), 3), jnp.zeros((3, 50))

    def draw(method):
        return jax.eval_shape(
            make_sampler(PRESETS["tiny"], make_method(split(method))), keys, logits
        )

    assert draw("gtpo + icepop").candidates is None
    recorded = draw("gtpo + score_centering count=5").candidates
    assert recorded is not None and recorded.ids.shape == recorded.logprobs.shape == (3, 5)
