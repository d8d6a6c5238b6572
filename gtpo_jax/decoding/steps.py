"""The decode steps as pure functions: prefill, single tokens, segments, extend, grow, exchange.

A row is one trajectory. Its cache holds every token but the last one, which is *pending*: the next
decode step feeds it and samples its successor. Prefill and extend only append tokens, so sampling
happens in one place. Positions beyond a row's length may hold junk; no token attends to them before
they are overwritten.

Nothing here is jitted; `programs.make_programs` does that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.decoding import sampling, stops
from gtpo_jax.decoding.state import Appended, DecodeState, Prompts, Segment
from gtpo_jax.types import ForwardFn, Params


class Policy(NamedTuple):
    """A model, the draw of its next token, and the tokens that end a turn."""

    forward: ForwardFn
    sampler: sampling.Sampler
    vocab_size: int  # the tokenizer's; larger ids are never sampled
    stop_ids: jax.Array  # int32


def init(forward: ForwardFn, count: int, positions: int) -> DecodeState:
    """`count` idle rows with room for so many positions."""

    def zeros() -> jax.Array:
        return jnp.zeros(count, jnp.int32)

    return DecodeState(
        cache=forward.init_cache(count, positions),
        keys=jax.random.split(jax.random.key(0), count),
        lengths=zeros(),
        pending=zeros(),
        limits=zeros(),
        matching=zeros(),
        active=jnp.zeros(count, bool),
    )


def prefill(
    forward: ForwardFn, params: Params, state: DecodeState, prompts: Prompts
) -> DecodeState:
    """Computes the prompts, and copies them into the rows that begin with them."""
    count, width = prompts.tokens.shape
    fresh = forward.init_cache(count, width)
    if count:
        positions = jnp.broadcast_to(jnp.arange(width), (count, width))
        _, fresh = forward.hidden(params, prompts.tokens, positions, cache=fresh)
    new = prompts.source >= 0
    source = jnp.maximum(prompts.source, 0)

    def copy(row_leaf: jax.Array, prompt_leaf: jax.Array) -> jax.Array:
        mask = _over_rows(new, row_leaf)
        kept = row_leaf[..., :width, :]
        known = jnp.concatenate([prompt_leaf, kept])
        return row_leaf.at[..., :width, :].set(jnp.where(mask, known[source], kept))

    return DecodeState(
        cache=jax.tree.map(copy, state.cache, fresh),
        keys=jnp.where(new, prompts.keys, state.keys),
        lengths=jnp.where(new, prompts.lengths, state.lengths),
        pending=jnp.where(new, prompts.pending, state.pending),
        limits=jnp.where(new, prompts.limits, state.limits),
        matching=jnp.where(
            new, stops.START if prompts.matching is None else prompts.matching, state.matching
        ),
        active=jnp.where(new, prompts.begins, state.active),
    )


def step(
    policy: Policy,
    params: Params,
    state: DecodeState,
    table: stops.StopTable | None,
    factors: jax.Array | None = None,
) -> tuple[DecodeState, sampling.Draw, jax.Array]:
    """Feeds the pending token of every row and samples its successor.

    `factors`: `[B]` on the temperature of each row; see `Sampler`. Returns the new state, the draw,
    and `[B]` bool: the token completed a stop string.
    """
    forward = policy.forward
    hidden, cache = forward.hidden(
        params, state.pending[:, None], state.lengths[:, None], cache=state.cache
    )
    logits = sampling.mask_vocabulary(forward.logits(params, hidden[:, 0]), policy.vocab_size)
    keys = jax.vmap(jax.random.fold_in)(state.keys, state.lengths + 1)
    draw = _sampled(policy, factors)(keys, logits)
    # An inactive row writes the keys and values of its pending token again, and nothing else.
    lengths = jnp.where(state.active, state.lengths + 1, state.lengths)
    matching, matched = state.matching, jnp.zeros(len(state.lengths), bool)
    if table is not None:
        advanced, matched = stops.advance(table, state.matching, draw.tokens)
        matching = jnp.where(state.active, advanced, state.matching)
    ended = jnp.any(draw.tokens[:, None] == policy.stop_ids, axis=1)
    state = dataclasses.replace(
        state,
        cache=cache,
        lengths=lengths,
        pending=jnp.where(state.active, draw.tokens, state.pending),
        matching=matching,
        active=state.active & ~(ended | matched | (lengths + 1 >= state.limits)),
    )
    return state, draw, matched


def decode_segment(
    policy: Policy,
    params: Params,
    state: DecodeState,
    floor: jax.Array,
    table: stops.StopTable | None,
    factors: jax.Array | None = None,
    *,
    steps: int,
) -> tuple[DecodeState, Segment]:
    """At most `steps` steps; fewer once no more than `floor` rows are active."""
    params = policy.forward.for_decoding(params)

    def unfinished(carry: tuple[jax.Array, DecodeState, Segment]) -> jax.Array:
        index, state, _ = carry
        return (index < steps) & (jnp.sum(state.active) > floor)

    def body(
        carry: tuple[jax.Array, DecodeState, Segment],
    ) -> tuple[jax.Array, DecodeState, Segment]:
        index, state, segment = carry
        next_state, draw, matched = step(policy, params, state, table, factors)
        segment = Segment(
            draws=jax.tree.map(lambda all, one: all.at[:, index].set(one), segment.draws, draw),
            counts=segment.counts + state.active,
            matched=jnp.where(state.active, matched, segment.matched),
            active=next_state.active,
        )
        return index + 1, next_state, segment

    logits = jax.ShapeDtypeStruct((len(state.active), policy.forward.vocab_size), jnp.float32)
    draw = jax.eval_shape(_sampled(policy, factors), state.keys, logits)
    begun = (jnp.int32(0), state, _blank_segment(state.active, draw, steps))
    _, state, segment = jax.lax.while_loop(unfinished, body, begun)
    return state, segment


def _sampled(
    policy: Policy, factors: jax.Array | None
) -> Callable[[jax.Array, jax.Array], sampling.Draw]:
    """The sampler with the factors bound; without them it is called with two arguments."""
    if factors is None:
        return policy.sampler
    return lambda keys, logits: policy.sampler(keys, logits, factors)


def _blank_segment(active: jax.Array, draw: sampling.Draw, steps: int) -> Segment:
    """A segment in which no row has written yet; `draw` has the shapes of a step."""
    rows = len(active)
    return Segment(
        draws=jax.tree.map(lambda x: jnp.zeros((rows, steps, *x.shape[1:]), x.dtype), draw),
        counts=jnp.zeros(rows, jnp.int32),
        matched=jnp.zeros(rows, bool),
        active=active,
    )


def extend(
    forward: ForwardFn, params: Params, state: DecodeState, appended: Appended
) -> DecodeState:
    """Appends tokens of the environment to some of the rows, or to all."""
    count, width = appended.tokens.shape
    rows, at = len(state.lengths), appended.rows
    everyone = count == rows  # then nothing is moved, not even where rows are sharded

    def take(leaf: jax.Array) -> jax.Array:
        return leaf if everyone else leaf.at[at].get(mode="clip")

    def put(leaf: jax.Array, values: jax.Array) -> jax.Array:
        if everyone:
            return jnp.where(_over_rows(at < rows, leaf), values, leaf)
        return leaf.at[at].set(values, mode="drop")

    # The pending token goes into the cache, the last appended one becomes pending.
    lengths = take(state.lengths)
    fed = jnp.concatenate([take(state.pending)[:, None], appended.tokens[:, :-1]], axis=1)
    positions = lengths[:, None] + jnp.arange(width)
    _, cache = forward.hidden(params, fed, positions, cache=jax.tree.map(take, state.cache))
    last = jnp.maximum(appended.counts - 1, 0)[:, None]
    pending = jnp.take_along_axis(appended.tokens, last, axis=1)[:, 0]
    # No token attends to junk beyond a row's length, so a row that gets nothing may get junk there.
    cache = cache if everyone else jax.tree.map(put, state.cache, cache)
    return dataclasses.replace(
        state,
        cache=cache,
        lengths=put(state.lengths, lengths + appended.counts),
        pending=put(state.pending, pending),
        limits=put(state.limits, appended.limits),
        matching=put(
            state.matching,
            jnp.full_like(appended.counts, stops.START)
            if appended.matching is None
            else appended.matching,
        ),
        active=put(state.active, take(state.active) | appended.begins),
    )


def grow(state: DecodeState, positions: int) -> DecodeState:
    """The same rows with a cache of more positions."""

    def longer(leaf: jax.Array) -> jax.Array:
        more = positions - leaf.shape[-2]
        return jnp.pad(leaf, [*[(0, 0)] * (leaf.ndim - 2), (0, more), (0, 0)])

    return dataclasses.replace(state, cache=jax.tree.map(longer, state.cache))


def exchange(
    state: DecodeState, other: DecodeState, at: jax.Array, others: jax.Array
) -> tuple[DecodeState, DecodeState]:
    """Row `at[i]` of one state and row `others[i]` of the other trade places.

    An index beyond the rows of its state makes the pair stay.
    """
    stays = (at >= len(state.lengths)) | (others >= len(other.lengths))
    at = jnp.where(stays, len(state.lengths), at)
    others = jnp.where(stays, len(other.lengths), others)

    def taken(source: DecodeState, indices: jax.Array) -> DecodeState:
        return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="clip"), source)

    def put(leaf: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
        return leaf.at[indices].set(values, mode="drop")

    # Everything is read before anything is written, or both caches would be copied.
    state, other, leaving, coming = jax.lax.optimization_barrier(
        (state, other, taken(state, at), taken(other, others))
    )
    return (
        jax.tree.map(lambda leaf, values: put(leaf, at, values), state, coming),
        jax.tree.map(lambda leaf, values: put(leaf, others, values), other, leaving),
    )


def _over_rows(mask: jax.Array, leaf: jax.Array) -> jax.Array:
    """A mask `[B]` in the shape in which it selects rows of a leaf `[B, ...]`."""
    return mask.reshape(-1, *(1,) * (leaf.ndim - 1))
