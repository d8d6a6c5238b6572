"""Lessons of a cold start: the next token of demonstrations, or tokens that were hidden in them."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence

from gtpo_jax.learner import diffusion, packing
from gtpo_jax.learner.noising import noised_stream
from gtpo_jax.parts import losses, reductions
from gtpo_jax.tasks.imitation import imitated
from gtpo_jax.types import ForwardFn, TokenBatch, Trajectory
from launch.run.session import Session


@dataclasses.dataclass(frozen=True)
class Lessons:
    """The loss of a cold start. `batches` gives its batches `[rows, row_tokens]`."""

    session: Session
    forward: ForwardFn
    loss: losses.Loss
    reduce: reductions.Reduction

    def batches(self, demonstrations: Sequence[Trajectory]) -> Iterator[TokenBatch]:
        """Endless batches, the same for a seed."""
        config, seed = self.session.config, self.session.config.seed
        demonstrations = [*map(imitated, demonstrations)]
        if config.model.causal:
            return packing.pack_stream(
                repeated(demonstrations, seed),
                rows=config.sft.rows,
                row_length=config.sft.row_tokens,
            )
        return noised_stream(
            demonstrations,
            canvas=config.diffusion.tokens,
            stop_id=self.session.dialogue.stop_ids[0],
            rows=config.sft.rows,
            row_length=config.sft.row_tokens,
            seed=seed,
        )


def make_lessons(session: Session) -> Lessons:
    """The lessons of a session's model."""
    config, forward = session.config, session.forward
    if config.model.mask_id is None:
        return Lessons(session, forward, losses.imitation(), reductions.token_mean)
    return Lessons(
        session,
        diffusion.by_step(forward, mask_id=config.model.mask_id, steps=1),
        losses.denoising(),
        reductions.over_length(config.diffusion.tokens),
    )


def repeated(demonstrations: Sequence[Trajectory], seed: int) -> Iterator[Trajectory]:
    """All demonstrations, shuffled anew in each epoch, without end."""
    for epoch in itertools.count():
        order = list(range(len(demonstrations)))
        random.Random(f"{seed}/epoch/{epoch}").shuffle(order)
        yield from (demonstrations[index] for index in order)
