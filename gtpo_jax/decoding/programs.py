"""The jitted programs of a rollout: prefill, decode segment, extend, grow, and exchange.

A program is compiled once for each shape that it meets: of the cache, which `grow` makes longer in
the steps that the caller chooses, and of the other arguments.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.decoding import sampling, steps, stops
from gtpo_jax.decoding.state import Appended, DecodeState, Prompts, Segment
from gtpo_jax.devices import sharding
from gtpo_jax.types import ForwardFn, Params


@dataclasses.dataclass(frozen=True)
class DecodePrograms:
    """The programs, jitted; the state is donated to each of them."""

    init: Callable[[int, int], DecodeState]  # rows, positions of the cache
    prefill: Callable[[Params, DecodeState, Prompts], DecodeState]
    decode_segment: Callable[..., tuple[DecodeState, Segment]]  # see `make_programs`
    extend: Callable[[Params, DecodeState, Appended], DecodeState]
    grow: Callable[[DecodeState, int], DecodeState]  # positions of the longer cache
    exchange: Callable[
        [DecodeState, DecodeState, jax.Array, jax.Array], tuple[DecodeState, DecodeState]
    ]


def restrict_vocabulary(
    forward: ForwardFn, vocab_size: int, *, unused: Sequence[int] = ()
) -> ForwardFn:
    """The model with every id ≥ `vocab_size`, and every id in `unused`, made impossible.

    Embeddings are often padded beyond the tokenizer, and the programs never sample such ids. A
    learner whose distribution has room for them would compute other log-probs, so it has to use
    this model.
    """
    allowed = np.arange(forward.vocab_size) < vocab_size
    allowed[list(unused)] = False

    def logits(params: Params, hidden: jax.Array) -> jax.Array:
        return jnp.where(allowed, forward.logits(params, hidden), -jnp.inf)

    return dataclasses.replace(forward, logits=logits)


def make_programs(
    forward: ForwardFn,
    sampler: sampling.Sampler,
    *,
    segment_steps: int,
    stop_ids: tuple[int, ...],
    vocab_size: int,
    stop_table: stops.StopTable | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> DecodePrograms:
    """Binds the functions of `steps` to a model, and jits them.

    A row leaves the active set when it samples one of `stop_ids`, when the text of its turn
    completes a stop string of `stop_table`, or when it reaches its limit. `decode_segment(params,
    state, floor)` ends after `segment_steps` steps, or earlier once no more than `floor` rows are
    active; with `factors=[B]`, rows are drawn at so many times the temperature. `vocab_size` is the
    tokenizer's. `exchange(state, other, rows, others)` lets row `rows[i]` of one state and row
    `others[i]` of another trade places; an index beyond the rows of its state makes the pair stay.
    Over a `mesh`, rows are spread over its data axes and key heads over `tensor`.
    """
    policy = steps.Policy(forward, sampler, vocab_size, jnp.asarray(stop_ids, jnp.int32))
    table = stop_table and jax.tree.map(jnp.asarray, stop_table)
    init = functools.partial(steps.init, forward)
    segment = functools.partial(steps.decode_segment, policy, steps=segment_steps)
    # Stated, not left to the compiler: the next program is compiled for the layout of the state.
    state_sharding = segment_sharding = None
    if mesh is not None:
        segment_sharding = sharding.row_sharding(mesh)
        state = jax.eval_shape(lambda: init(1, 1))
        state_sharding = dataclasses.replace(
            jax.tree.map(lambda _: segment_sharding, state),
            cache=jax.tree.map(functools.partial(sharding.cache_sharding, mesh), state.cache),
        )
    jit = functools.partial(jax.jit, out_shardings=state_sharding)
    both = (state_sharding, segment_sharding)
    return DecodePrograms(
        init=jit(init, static_argnums=(0, 1)),
        prefill=jit(functools.partial(steps.prefill, forward), donate_argnums=1),
        decode_segment=functools.partial(
            jax.jit(segment, donate_argnums=1, out_shardings=both), table=table
        ),
        extend=jit(functools.partial(steps.extend, forward), donate_argnums=1),
        grow=jit(steps.grow, static_argnums=1),
        exchange=jax.jit(
            steps.exchange, donate_argnums=(0, 1), out_shardings=(state_sharding, state_sharding)
        ),
    )
