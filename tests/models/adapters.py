"""Small models with adapters."""

import functools

import jax
import numpy as np

from models import lora
from tests.tiny import CONFIG, make_params

LORA = lora.LoraConfig(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj"))
FORWARD = lora.forward_fn(CONFIG, LORA)


def adapted_params(config=CONFIG, adapters=LORA):
    """A base with adapters that matter: both matrices are random."""
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(
        functools.partial(lora.init_adapters, config, adapters), jax.random.key(0)
    )
    draw = jax.tree.map(
        lambda leaf: (rng.standard_normal(leaf.shape) * 0.3).astype(leaf.dtype), shapes
    )
    return lora.add(make_params(config), draw)


def random_tokens(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (rows, length), np.int32)


def run(forward, params, tokens, cache=None):
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = forward.hidden(params, tokens, positions, cache=cache)
    return forward.logits(params, hidden)


def logits_of(forward, params, tokens, *, cached=False):
    cache = forward.init_cache(*tokens.shape) if cached else None
    return np.asarray(jax.jit(functools.partial(run, forward))(params, tokens, cache))
