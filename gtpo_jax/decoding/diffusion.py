"""Denoising: a masked-diffusion model writes a response of fixed length in a few jitted passes.

Every step draws a token for each masked place of the current block and keeps those that the model
is most confident of (low-confidence remasking, LLaDA, arXiv 2502.09992).

| schedule | tokens that step i unmasks |
|---|---|
| even | equally many in each step; with blocks, each has its share of the steps (LLaDA) |
| ascending | 2^i, the last step all that are left (ASS, arXiv 2509.23924) |

EOSER (the same paper) multiplies the confidence of end tokens by a factor that rises linearly from
`eos_floor` to 1 over the steps, because models are sure of them first.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax import settings
from gtpo_jax.decoding.sampling import Sampler
from gtpo_jax.settings import AT_LEAST_1, SHARE
from gtpo_jax.types import ForwardFn, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas:
    """The response of a diffusion model, and how it is written."""

    tokens: Annotated[int, AT_LEAST_1] = 8
    """Length of every response; what follows its first end token is filled with end tokens."""
    steps: Annotated[int, AT_LEAST_1] = 4
    """Denoising steps."""
    blocks: Annotated[int, AT_LEAST_1] = 1
    """Blocks that are written one after another, each from all masks (semi-autoregressive)."""
    schedule: Literal["even", "ascending"] = "even"
    """Tokens per step: equally many, or twice as many as in the step before (ASS)."""
    eos_floor: Annotated[float, SHARE] = 1.0
    """Factor on the confidence of end tokens in the first step, which rises to 1 (EOSER). 1: off;
    the authors train with .01 and generate with .4."""

    def __post_init__(self):
        settings.check_bounds(self, "diffusion.")
        self.counts()  # raises where they do not fit

    def counts(self) -> np.ndarray:
        """`[S]`: tokens that each step unmasks; at least one, and all of them together."""
        tokens, steps, blocks = self.tokens, self.steps, self.blocks
        if blocks > steps:
            raise ValueError(f"each block takes a step: got {blocks} blocks and {steps} steps")
        if self.schedule == "ascending":
            counts = 2 ** np.arange(steps)
            counts[-1] = tokens - (2 ** (steps - 1) - 1)
        elif tokens % blocks or steps % blocks:
            raise ValueError(
                f"blocks must divide tokens and steps, got {blocks} for {tokens} and {steps}"
            )
        else:
            share, each = tokens // blocks, steps // blocks
            counts = np.tile(share // each + (np.arange(each) < share % each), blocks)
        if counts.min() < 1:
            raise ValueError(
                f"{steps} steps of the {self.schedule} schedule need more than {tokens} tokens;"
                " take fewer steps"
            )
        return counts

    def ends(self) -> np.ndarray:
        """`[S]`: end of the block that each step belongs to.

        In the even schedule blocks are equally long. In the ascending one all blocks but the first
        are what one step unmasks, as in the authors' code.
        """
        step = np.arange(self.steps)
        if self.schedule == "even":
            block = step // (self.steps // self.blocks)
        else:
            block = np.maximum(step - (self.steps - self.blocks), 0)
        last = np.searchsorted(block, block, side="right") - 1
        return np.cumsum(self.counts())[last]

    def factors(self) -> np.ndarray:
        """`[S]`: factor on the confidence of end tokens in each step."""
        if self.steps == 1:
            return np.ones(1)
        return np.linspace(self.eos_floor, 1.0, self.steps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoised:
    """Responses, and the step, log-prob and entropy with which each token was unmasked."""

    tokens: jax.Array  # [B, L] int32
    steps: jax.Array  # [B, L] int32, from 0
    logprobs: jax.Array  # [B, L] float32, given the state before that step
    entropies: jax.Array  # [B, L] float32, nats


Denoise = Callable[[Params, jax.Array, jax.Array, jax.Array], Denoised]
"""`(params, prompts [B, P] int32, lengths [B], keys [B]) → Denoised`; prompts are padded at their
beginning, and the results are those of the row and its key alone."""


def make_denoise(
    forward: ForwardFn,
    sampler: Sampler,
    canvas: Canvas,
    *,
    mask_id: int,
    stop_id: int,
) -> Denoise:
    """The jitted program that writes responses, one compilation for each shape.

    `forward` must give no probability to the mask (`decoding.restrict_vocabulary`). `sampler` draws
    a token with a key made of the row's key, the step and the place; the confidence in it is its
    probability at temperature 1.
    """
    schedule = [jnp.asarray(x) for x in (canvas.counts(), canvas.ends(), canvas.factors())]
    length = canvas.tokens

    def denoise(
        params: Params, prompts: jax.Array, lengths: jax.Array, keys: jax.Array
    ) -> Denoised:
        rows, width = prompts.shape
        positions = jnp.arange(width + length) - (width - lengths)[:, None]
        segment_ids = (positions >= 0).astype(jnp.int32)
        places = jnp.arange(length)

        def step(state: Denoised, at: tuple[jax.Array, ...]) -> tuple[Denoised, None]:
            index, count, end, factor = at
            masked = state.steps < 0
            shown = jnp.where(masked, mask_id, state.tokens)
            hidden, _ = forward.hidden(
                params,
                jnp.concatenate([prompts, shown], axis=1),
                jnp.maximum(positions, 0),
                segment_ids=segment_ids,
            )
            logits = forward.logits(params, hidden[:, width:])
            drawn = _draws(sampler, keys, logits, index)
            confidence = _chosen(jax.nn.log_softmax(logits), drawn.tokens)
            confidence += jnp.where(drawn.tokens == stop_id, jnp.log(factor), 0.0)
            confidence = jnp.where(masked & (places < end), confidence, -jnp.inf)
            # The stable order lets the first of equal places win.
            rank = jnp.argsort(jnp.argsort(-confidence, axis=1), axis=1)
            taken = (rank < count) & (confidence > -jnp.inf)
            new = dataclasses.replace(drawn, steps=jnp.full_like(drawn.tokens, index))
            return jax.tree.map(lambda old, x: jnp.where(taken, x, old), state, new), None

        nothing = jnp.zeros((rows, length), jnp.float32)
        begun = Denoised(
            tokens=nothing.astype(jnp.int32),
            steps=jnp.full((rows, length), -1, jnp.int32),
            logprobs=nothing,
            entropies=nothing,
        )
        numbers = jnp.arange(canvas.steps, dtype=jnp.int32)
        return jax.lax.scan(step, begun, (numbers, *schedule))[0]

    return jax.jit(denoise)


def _draws(sampler: Sampler, keys: jax.Array, logits: jax.Array, step: jax.Array) -> Denoised:
    """One draw for each place of each row; `steps` are not set."""
    rows, length, vocab = logits.shape
    places = jnp.arange(length)

    def of_row(key: jax.Array) -> jax.Array:
        fold = functools.partial(jax.random.fold_in, jax.random.fold_in(key, step))
        return jax.vmap(fold)(places)

    draw = sampler(jax.vmap(of_row)(keys).reshape(-1), logits.reshape(-1, vocab))
    tokens, logprobs, entropies = (
        x.reshape(rows, length) for x in (draw.tokens, draw.logprobs, draw.entropies)
    )
    return Denoised(tokens=tokens, steps=tokens, logprobs=logprobs, entropies=entropies)


def _chosen(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
