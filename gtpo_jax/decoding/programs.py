"""The jitted programs of a rollout: prefill, decode segment, extend, grow, and exchange.

A row is one trajectory. Its cache holds every token but the last one, which is *pending*: the next
decode step feeds it and samples its successor. Prefill and extend only append tokens, so sampling
happens in one place. Slots beyond a row's length may hold junk; no token attends to them before
they are overwritten.

A program is compiled once for each shape that it meets: of the cache, which `grow` makes longer in
the steps that the caller chooses, and of what is handed over. The row axis comes first in every
array, and may be sharded.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.decoding import sampling, stops
from gtpo_jax.devices import sharding
from gtpo_jax.types import Cache, ForwardFn, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeState:
    """All rows of a rollout on the device."""

    cache: Cache  # leaves [B, ..., S, H], as `ForwardFn` says
    keys: jax.Array  # [B] random keys, one per trajectory
    lengths: jax.Array  # [B] int32, tokens in the cache; the pending token stands at this position
    pending: jax.Array  # [B] int32
    limits: jax.Array  # [B] int32, the row stops when it holds this many tokens, pending included
    matching: jax.Array  # [B] int32, state of the automaton of stop strings
    active: jax.Array  # [B] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """What one decode segment sampled. Row b wrote the first `counts[b]` of the `n` columns."""

    draws: sampling.Draw  # leaves [B, n]
    counts: jax.Array  # [B] int32
    matched: jax.Array  # [B] bool, the last token completed a stop string
    active: jax.Array  # [B] bool, still in the middle of a turn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts to prefill, and the rows that begin with them.

    A row begins with prompt `source[b]` of this call if that is below P, with what row
    `source[b] − P` begins with otherwise: a prompt that some row holds is not computed again.
    """

    tokens: jax.Array  # [P, W] int32, padded on the right; P may be 0
    source: jax.Array  # [B] int32, −1 leaves the row alone
    lengths: jax.Array  # [B] int32, of the row's prompt without its last token
    pending: jax.Array  # [B] int32, the last token of the row's prompt
    keys: jax.Array  # [B] random keys of the new trajectories
    limits: jax.Array  # [B] int32
    begins: jax.Array  # [] bool, the rows go on decoding after these tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Appended:
    """Tokens that the environment appends to R of the rows."""

    rows: jax.Array  # [R] int32, each at most once; B and beyond is nobody
    tokens: jax.Array  # [R, W] int32, padded on the right
    counts: jax.Array  # [R] int32, at least 1 for a row
    limits: jax.Array  # [R] int32, of the turn that begins
    begins: jax.Array  # [R] bool, the row goes on decoding after these tokens


@dataclasses.dataclass(frozen=True)
class DecodePrograms:
    """The programs, jitted; the state is donated to each of them."""

    init: Callable[[int, int], DecodeState]  # rows, positions of the cache
    prefill: Callable[[Params, DecodeState, Prompts], DecodeState]
    decode_segment: Callable[[Params, DecodeState, jax.Array], tuple[DecodeState, Segment]]
    extend: Callable[[Params, DecodeState, Appended], DecodeState]
    grow: Callable[[DecodeState, int], DecodeState]  # positions of the longer cache
    exchange: Callable[
        [DecodeState, DecodeState, jax.Array, jax.Array], tuple[DecodeState, DecodeState]
    ]


def restrict_vocabulary(
    forward: ForwardFn, vocab_size: int, *, unused: Sequence[int] = ()
) -> ForwardFn:
    """The model with every id from `vocab_size` on impossible, and those that are `unused`.

    Embeddings are often padded beyond the tokenizer, and the programs never sample such ids. A
    learner whose distribution still has room for them would compute other log-probs, so it has to
    be given this model.
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
    rows: int,
    segment_steps: int,
    stop_ids: tuple[int, ...],
    vocab_size: int,
    stop_table: stops.StopTable | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> DecodePrograms:
    """Builds the programs for `rows` trajectories.

    A row leaves the active set when it samples one of `stop_ids`, when the text of its turn comes
    to a stop string of `stop_table`, or when it reaches its limit. `decode_segment(params, state,
    floor)` ends after `segment_steps` steps, or earlier once no more than `floor` rows are active.
    `vocab_size` is the tokenizer's. `exchange(state, other, rows, others)` lets row `rows[i]` of
    one state and row `others[i]` of another trade places; an index beyond the rows of its state
    makes the pair stay. Over a `mesh`, rows are spread over its data axes and key heads over
    `tensor`.
    """
    ends = jnp.asarray(stop_ids, jnp.int32)
    table = stop_table and jax.tree.map(jnp.asarray, stop_table)

    def init(count: int, positions: int) -> DecodeState:
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

    def prefill(params: Params, state: DecodeState, prompts: Prompts) -> DecodeState:
        count, width = prompts.tokens.shape
        fresh = forward.init_cache(count, width)
        if count:
            positions = jnp.broadcast_to(jnp.arange(width), (count, width))
            _, fresh = forward.hidden(params, prompts.tokens, positions, cache=fresh)
        new = prompts.source >= 0
        source = jnp.maximum(prompts.source, 0)

        def copy(row_leaf: jax.Array, prompt_leaf: jax.Array) -> jax.Array:
            mask = new.reshape(-1, *(1,) * (row_leaf.ndim - 1))
            kept = row_leaf[..., :width, :]
            known = jnp.concatenate([prompt_leaf, kept])
            return row_leaf.at[..., :width, :].set(jnp.where(mask, known[source], kept))

        return DecodeState(
            cache=jax.tree.map(copy, state.cache, fresh),
            keys=jnp.where(new, prompts.keys, state.keys),
            lengths=jnp.where(new, prompts.lengths, state.lengths),
            pending=jnp.where(new, prompts.pending, state.pending),
            limits=jnp.where(new, prompts.limits, state.limits),
            matching=jnp.where(new, stops.START, state.matching),
            active=jnp.where(new, prompts.begins, state.active),
        )

    def step(
        params: Params, state: DecodeState, table: stops.StopTable | None
    ) -> tuple[DecodeState, sampling.Draw, jax.Array]:
        hidden, cache = forward.hidden(
            params, state.pending[:, None], state.lengths[:, None], cache=state.cache
        )
        logits = sampling.mask_vocabulary(forward.logits(params, hidden[:, 0]), vocab_size)
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.lengths + 1)
        draw = sampler(keys, logits)
        # An inactive row writes its pending token's own key again, and nothing else.
        lengths = jnp.where(state.active, state.lengths + 1, state.lengths)
        matching, matched = state.matching, jnp.zeros(rows, bool)
        if table is not None:
            advanced, matched = stops.advance(table, state.matching, draw.tokens)
            matching = jnp.where(state.active, advanced, state.matching)
        ended = jnp.any(draw.tokens[:, None] == ends, axis=1)
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
        params: Params, state: DecodeState, floor: jax.Array, table: stops.StopTable | None
    ) -> tuple[DecodeState, Segment]:
        params = forward.for_decoding(params)
        blank = jnp.zeros((rows, segment_steps), jnp.float32)
        segment = Segment(
            draws=sampling.Draw(
                tokens=blank.astype(jnp.int32),
                logprobs=blank,
                sampled_logprobs=blank,
                entropies=blank,
            ),
            counts=jnp.zeros(rows, jnp.int32),
            matched=jnp.zeros(rows, bool),
            active=state.active,
        )

        def unfinished(carry: tuple[jax.Array, DecodeState, Segment]) -> jax.Array:
            index, state, _ = carry
            return (index < segment_steps) & (jnp.sum(state.active) > floor)

        def body(
            carry: tuple[jax.Array, DecodeState, Segment],
        ) -> tuple[jax.Array, DecodeState, Segment]:
            index, state, segment = carry
            next_state, draw, matched = step(params, state, table)
            segment = Segment(
                draws=jax.tree.map(lambda all, one: all.at[:, index].set(one), segment.draws, draw),
                counts=segment.counts + state.active,
                matched=jnp.where(state.active, matched, segment.matched),
                active=next_state.active,
            )
            return index + 1, next_state, segment

        _, state, segment = jax.lax.while_loop(unfinished, body, (jnp.int32(0), state, segment))
        return state, segment

    def extend(params: Params, state: DecodeState, appended: Appended) -> DecodeState:
        count, width = appended.tokens.shape
        at = appended.rows
        everyone = count == rows  # then nothing is moved, not even where rows are sharded

        def take(leaf: jax.Array) -> jax.Array:
            return leaf if everyone else leaf.at[at].get(mode="clip")

        def put(leaf: jax.Array, values: jax.Array) -> jax.Array:
            if everyone:
                mask = (at < rows).reshape(-1, *(1,) * (leaf.ndim - 1))
                return jnp.where(mask, values, leaf)
            return leaf.at[at].set(values, mode="drop")

        # The pending token goes into the cache, the last appended one becomes pending.
        lengths = take(state.lengths)
        fed = jnp.concatenate([take(state.pending)[:, None], appended.tokens[:, :-1]], axis=1)
        positions = lengths[:, None] + jnp.arange(width)
        _, cache = forward.hidden(params, fed, positions, cache=jax.tree.map(take, state.cache))
        last = jnp.maximum(appended.counts - 1, 0)[:, None]
        pending = jnp.take_along_axis(appended.tokens, last, axis=1)[:, 0]
        # Junk beyond a row's length is seen by nobody, so a row that gets nothing may get that.
        cache = cache if everyone else jax.tree.map(put, state.cache, cache)
        return dataclasses.replace(
            state,
            cache=cache,
            lengths=put(state.lengths, lengths + appended.counts),
            pending=put(state.pending, pending),
            limits=put(state.limits, appended.limits),
            matching=put(state.matching, jnp.full_like(appended.counts, stops.START)),
            active=put(state.active, take(state.active) | appended.begins),
        )

    def grow(state: DecodeState, positions: int) -> DecodeState:
        def longer(leaf: jax.Array) -> jax.Array:
            more = positions - leaf.shape[-2]
            return jnp.pad(leaf, [*[(0, 0)] * (leaf.ndim - 2), (0, more), (0, 0)])

        return dataclasses.replace(state, cache=jax.tree.map(longer, state.cache))

    def exchange(
        state: DecodeState, other: DecodeState, at: jax.Array, others: jax.Array
    ) -> tuple[DecodeState, DecodeState]:
        stays = (at >= len(state.lengths)) | (others >= len(other.lengths))
        at = jnp.where(stays, len(state.lengths), at)
        others = jnp.where(stays, len(other.lengths), others)

        def taken(source: DecodeState, indices: jax.Array) -> DecodeState:
            return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="clip"), source)

        def put(leaf: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
            return leaf.at[indices].set(values, mode="drop")

        # All is read before anything is written, or both caches would be copied.
        state, other, leaving, coming = jax.lax.optimization_barrier(
            (state, other, taken(state, at), taken(other, others))
        )
        return (
            jax.tree.map(lambda leaf, values: put(leaf, at, values), state, coming),
            jax.tree.map(lambda leaf, values: put(leaf, others, values), other, leaving),
        )

    # Stated, not left to the compiler: the next program is compiled for where the state is.
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
        prefill=jit(prefill, donate_argnums=1),
        decode_segment=functools.partial(
            jax.jit(decode_segment, donate_argnums=1, out_shardings=both), table=table
        ),
        extend=jit(extend, donate_argnums=1),
        grow=jit(grow, static_argnums=1),
        exchange=jax.jit(
            exchange, donate_argnums=(0, 1), out_shardings=(state_sharding, state_sharding)
        ),
    )
