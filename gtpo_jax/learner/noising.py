"""Masked demonstrations: what a diffusion model learns to imitate from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gtpo_jax.learner.packing import empty_batch
from gtpo_jax.types import TokenBatch, Trajectory


def noised_stream(
    demonstrations: Sequence[Trajectory],
    *,
    canvas: int,
    stop_id: int,
    rows: int,
    row_length: int,
    seed: int,
) -> Iterator[TokenBatch]:
    """Endless batches `[rows, row_length]` of demonstrations with random masks, one a row.

    Responses are filled with end tokens up to `canvas` tokens. A row has a noise level t in (0, 1),
    and each token of its response is hidden with probability t; the levels of a batch are spread
    evenly. The hidden tokens are those of denoising step 0, with `token_advantages` 1 / t. With
    `losses.denoising` and a mean over all tokens of the canvas this is the loss of LLaDA (arXiv
    2502.09992, Eq. 3), except that rows in which nothing is hidden do not count.

    Every epoch has its own order. Raises `ValueError` for a demonstration of several turns, and for
    one that does not fit.
    """
    whole = _rows(demonstrations, canvas=canvas, stop_id=stop_id, row_length=row_length)
    rng = np.random.default_rng([seed, 0x5EED])
    order: list[int] = []
    while True:
        while len(order) < rows:
            order += rng.permutation(len(demonstrations)).tolist()
        chosen, order = np.array(order[:rows]), order[rows:]
        levels = 1.0 - (rng.permutation(rows) + rng.random(rows)) / rows  # in (0, 1]
        hidden = whole.loss_mask[chosen] & (rng.random((rows, row_length)) < levels[:, None])
        written = whole.segment_ids[chosen] > 0
        fields: dict[str, Any] = {
            "tokens": whole.tokens[chosen],
            "positions": whole.positions[chosen],
            "segment_ids": whole.segment_ids[chosen],
            "loss_mask": hidden,
            "turn_ids": np.where(hidden, 0, -1).astype(np.int32),
            "trajectory_ids": np.where(written, np.arange(rows)[:, None], -1).astype(np.int32),
            "behavior_logprobs": np.zeros((rows, row_length), np.float32),
            "token_advantages": np.where(hidden, 1 / levels[:, None], 0.0).astype(np.float32),
        }
        yield TokenBatch(**fields)


def _rows(
    demonstrations: Sequence[Trajectory], *, canvas: int, stop_id: int, row_length: int
) -> TokenBatch:
    """All demonstrations, one a row, as NumPy arrays; `loss_mask` is on their responses."""
    batch = empty_batch(len(demonstrations), row_length)
    for row, demonstration in enumerate(demonstrations):
        if len(demonstration.turns) != 1:
            raise ValueError(
                f"the demonstration of problem {demonstration.problem.id!r} has"
                f" {len(demonstration.turns)} turns; a diffusion model writes one"
            )
        prompt, [turn] = demonstration.prompt, demonstration.turns
        if len(turn.tokens) > canvas or len(prompt) + canvas > row_length:
            raise ValueError(
                f"the demonstration of problem {demonstration.problem.id!r} has a prompt of"
                f" {len(prompt)} tokens and a response of {len(turn.tokens)}; diffusion.tokens is"
                f" {canvas} and sft.row_tokens {row_length}: raise them"
            )
        end = len(prompt) + canvas
        batch.tokens[row, :end] = stop_id
        batch.tokens[row, : len(prompt)] = prompt
        batch.tokens[row, len(prompt) : len(prompt) + len(turn.tokens)] = turn.tokens
        batch.positions[row, :end] = np.arange(end)
        batch.segment_ids[row, :end] = 1
        batch.loss_mask[row, len(prompt) : end] = True
    return batch
