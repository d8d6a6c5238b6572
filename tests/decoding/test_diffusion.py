"""Denoising against a loop over steps, rows and places."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import decoding
from gtpo_jax.decoding import sampling
from gtpo_jax.decoding.diffusion import Canvas, make_denoise
from models import decoder
from tests import tiny

MASK, STOP = tiny.BYTES.vocab_size, 7
CONFIG = dataclasses.replace(tiny.CONFIG, vocab_size=MASK + 1, mask_id=MASK, layers=1)
PARAMS = tiny.make_params(CONFIG)
FORWARD = decoding.restrict_vocabulary(decoder.forward_fn(CONFIG), MASK)
WIDTH = 5
SAMPLER = functools.partial(sampling.categorical, temperature=1.3)
DRAW = jax.jit(SAMPLER)
CANVASES = {
    "even": Canvas(tokens=6, steps=4),
    "blocks": Canvas(tokens=6, steps=4, blocks=2, eos_floor=0.01),
    "ascending": Canvas(tokens=6, steps=3, schedule="ascending", eos_floor=0.4),
}


@functools.cache
def denoise(name):
    return make_denoise(FORWARD, SAMPLER, CANVASES[name], mask_id=MASK, stop_id=STOP)


@functools.cache
def inputs():
    rng = np.random.default_rng(0)
    lengths = np.array([5, 3, 4], np.int32)
    prompts = rng.integers(0, MASK, (3, WIDTH)).astype(np.int32)
    keys = sampling.trajectory_keys(*map(jnp.uint32, (3, 1)), jnp.arange(3), jnp.arange(3))
    return prompts, lengths, keys


@jax.jit
def logits_of(tokens, length):
    """Logits of a row whose tokens from `length` on are none."""
    places = jnp.arange(tokens.shape[1])[None]
    segments = (places < length).astype(jnp.int32)
    hidden, _ = FORWARD.hidden(PARAMS, tokens, places, segment_ids=segments)
    return FORWARD.logits(PARAMS, hidden)


def slow(canvas, prompt, key):
    """Tokens, steps and log-probs of one row, from the description of the method."""
    tokens, steps = np.full(canvas.tokens, MASK), np.full(canvas.tokens, -1)
    logprobs = np.zeros(canvas.tokens)
    for step in range(canvas.steps):
        row = np.zeros((1, WIDTH + canvas.tokens), np.int32)
        end = len(prompt) + canvas.tokens
        row[0, :end] = np.concatenate([prompt, tokens])
        logits = logits_of(row, end)[0, len(prompt) : end]
        step_key = jax.random.fold_in(key, step)
        weights = np.exp(np.asarray(logits, np.float64))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        found = []
        for place in np.flatnonzero(steps < 0):
            if place >= canvas.ends()[step]:
                continue
            draw_key = jax.random.fold_in(step_key, place)
            draw = DRAW(draw_key[None], logits[place][None])
            token = int(draw.tokens[0])
            confidence = probabilities[place, token]
            if token == STOP:
                confidence *= canvas.factors()[step]
            found.append((-confidence, place, token, float(draw.logprobs[0])))
        for _, place, token, logprob in sorted(found)[: canvas.counts()[step]]:
            tokens[place], steps[place], logprobs[place] = token, step, logprob
    return tokens, steps, logprobs


@pytest.mark.parametrize("name", CANVASES)
def test_responses_are_those_of_the_loop(name):
    prompts, lengths, keys = inputs()
    found = jax.device_get(denoise(name)(PARAMS, prompts, lengths, keys))
    for row in range(3):
        prompt = prompts[row, WIDTH - lengths[row] :]
        tokens, steps, logprobs = slow(CANVASES[name], prompt, keys[row])
        assert found.tokens[row].tolist() == tokens.tolist()
        assert found.steps[row].tolist() == steps.tolist()
        np.testing.assert_allclose(found.logprobs[row], logprobs, atol=2e-5)
        assert np.bincount(steps).tolist() == CANVASES[name].counts().tolist()
    assert np.all(found.entropies > 0) and not np.any(found.tokens == MASK)


def test_a_row_depends_on_its_prompt_and_key_alone():
    prompts, lengths, keys = inputs()
    whole = denoise("even")(PARAMS, prompts, lengths, keys)
    order = np.array([2, 0, 1])
    junk = prompts.copy()
    junk[1, : WIDTH - 3] = 11  # before the prompt of row 1
    other = denoise("even")(PARAMS, junk[order], lengths[order], keys[order])
    assert np.array_equal(other.tokens, whole.tokens[order])
    assert np.array_equal(other.steps, whole.steps[order])
    assert denoise("even")._cache_size() == 1


def test_blocks_are_written_one_after_another():
    prompts, lengths, keys = inputs()
    steps = np.asarray(denoise("blocks")(PARAMS, prompts, lengths, keys).steps)
    assert np.all(steps[:, :3] < 2) and np.all(steps[:, 3:] >= 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 3, "steps": 4}, "4 steps of the even schedule need more than 3 tokens"),
        ({"tokens": 7, "steps": 4, "schedule": "ascending"}, "ascending schedule need more"),
        ({"tokens": 9, "steps": 4, "blocks": 2}, "blocks must divide tokens and steps"),
        ({"blocks": 8, "schedule": "ascending"}, "got 8 blocks and 4 steps"),
        ({"eos_floor": 1.5}, r"diffusion\.eos_floor must be"),
    ],
)
def test_canvas_that_cannot_be_written_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Canvas(**options)
