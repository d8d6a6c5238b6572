"""The jitted programs of a rollout: prefill, decode segment, extend.

A row is one trajectory. Its cache holds every token but the last one, which is *pending*: the next
decode step feeds it and samples its successor. Prefill and extend only append tokens, so sampling
happens in one place. Slots beyond a row's length may hold junk; no token attends to them before
they are overwritten.

All programs have fixed shapes. The row axis comes first in every array, and may be sharded.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gtpo_jax import sampling
from gtpo_jax.types import Cache, ForwardFn, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeState:
    """All rows of a rollout on the device."""

    cache: Cache  # leaves [B, S, ...]
    keys: jax.Array  # [B] random keys, one per trajectory
    lengths: jax.Array  # [B] int32, tokens in the cache; the pending token stands at this position
    pending: jax.Array  # [B] int32
    limits: jax.Array  # [B] int32, the row stops when it holds this many tokens, pending included
    active: jax.Array  # [B] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """What one decode segment sampled. Row b wrote the first `counts[b]` of the `n` columns."""

    tokens: jax.Array  # [B, n] int32
    logprobs: jax.Array  # [B, n] float32
    counts: jax.Array  # [B] int32
    active: jax.Array  # [B] bool, still in the middle of a turn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts to prefill, and the rows that begin with them."""

    tokens: jax.Array  # [P, W] int32, padded on the right
    counts: jax.Array  # [P] int32
    source: jax.Array  # [B] int32, prompt of each row, −1 leaves the row alone
    keys: jax.Array  # [B] random keys of the new trajectories
    limits: jax.Array  # [B] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Appended:
    """Tokens that the environment appends to rows."""

    tokens: jax.Array  # [B, W] int32, padded on the right
    counts: jax.Array  # [B] int32, 0 leaves the row alone
    limits: jax.Array  # [B] int32, of the turn that begins
    begins: jax.Array  # [B] bool, the row goes on decoding after these tokens


@dataclasses.dataclass(frozen=True)
class DecodePrograms:
    """The three programs, jitted; the state is donated to each of them."""

    init: Callable[[], DecodeState]
    prefill: Callable[[Params, DecodeState, Prompts], DecodeState]
    decode_segment: Callable[[Params, DecodeState], tuple[DecodeState, Segment]]
    extend: Callable[[Params, DecodeState, Appended], DecodeState]


def restrict_vocabulary(forward: ForwardFn, vocab_size: int) -> ForwardFn:
    """The model with every id from `vocab_size` on impossible.

    Embeddings are often padded beyond the tokenizer, and the programs never sample such ids. A
    learner whose distribution still has room for them would compute other log-probs, so it has to
    be given this model.
    """

    def logits(params: Params, hidden: jax.Array) -> jax.Array:
        return sampling.mask_vocabulary(forward.logits(params, hidden), vocab_size)

    return dataclasses.replace(forward, logits=logits)


def make_programs(
    forward: ForwardFn,
    sampler: sampling.Sampler,
    *,
    rows: int,
    context: int,
    segment_steps: int,
    stop_ids: tuple[int, ...],
    vocab_size: int,
    row_sharding: jax.sharding.Sharding | None = None,
) -> DecodePrograms:
    """Builds the programs for `rows` trajectories of at most `context` tokens each.

    A row leaves the active set when it samples one of `stop_ids` or reaches its limit; a segment
    ends after `segment_steps` steps, or earlier when no row is active. `vocab_size` is the
    tokenizer's.
    """
    stops = jnp.asarray(stop_ids, jnp.int32)

    def init() -> DecodeState:
        zeros = jnp.zeros(rows, jnp.int32)
        return DecodeState(
            cache=forward.init_cache(rows, context),
            keys=jax.random.split(jax.random.key(0), rows),
            lengths=zeros,
            pending=zeros,
            limits=zeros,
            active=jnp.zeros(rows, bool),
        )

    def prefill(params: Params, state: DecodeState, prompts: Prompts) -> DecodeState:
        count, width = prompts.tokens.shape
        positions = jnp.broadcast_to(jnp.arange(width), (count, width))
        fresh = forward.init_cache(count, width)
        _, fresh = forward.hidden(params, prompts.tokens, positions, cache=fresh)
        new = prompts.source >= 0
        source = jnp.maximum(prompts.source, 0)

        def copy(row_leaf: jax.Array, prompt_leaf: jax.Array) -> jax.Array:
            mask = new.reshape(-1, *(1,) * (row_leaf.ndim - 1))
            kept = row_leaf[:, :width]
            return row_leaf.at[:, :width].set(jnp.where(mask, prompt_leaf[source], kept))

        last = prompts.counts[source] - 1
        return DecodeState(
            cache=jax.tree.map(copy, state.cache, fresh),
            keys=jnp.where(new, prompts.keys, state.keys),
            lengths=jnp.where(new, last, state.lengths),
            pending=jnp.where(new, prompts.tokens[source, last], state.pending),
            limits=jnp.where(new, prompts.limits, state.limits),
            active=new | state.active,
        )

    def step(params: Params, state: DecodeState) -> tuple[DecodeState, jax.Array, jax.Array]:
        hidden, cache = forward.hidden(
            params, state.pending[:, None], state.lengths[:, None], cache=state.cache
        )
        logits = sampling.mask_vocabulary(forward.logits(params, hidden[:, 0]), vocab_size)
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.lengths + 1)
        tokens, logprobs = sampler(keys, logits)
        # An inactive row writes its pending token's own key again, and nothing else.
        lengths = jnp.where(state.active, state.lengths + 1, state.lengths)
        stopped = jnp.any(tokens[:, None] == stops, axis=1) | (lengths + 1 >= state.limits)
        state = dataclasses.replace(
            state,
            cache=cache,
            lengths=lengths,
            pending=jnp.where(state.active, tokens, state.pending),
            active=state.active & ~stopped,
        )
        return state, tokens, logprobs

    def decode_segment(params: Params, state: DecodeState) -> tuple[DecodeState, Segment]:
        segment = Segment(
            tokens=jnp.zeros((rows, segment_steps), jnp.int32),
            logprobs=jnp.zeros((rows, segment_steps), jnp.float32),
            counts=jnp.zeros(rows, jnp.int32),
            active=state.active,
        )

        def unfinished(carry: tuple[jax.Array, DecodeState, Segment]) -> jax.Array:
            index, state, _ = carry
            return (index < segment_steps) & jnp.any(state.active)

        def body(
            carry: tuple[jax.Array, DecodeState, Segment],
        ) -> tuple[jax.Array, DecodeState, Segment]:
            index, state, segment = carry
            next_state, tokens, logprobs = step(params, state)
            segment = Segment(
                tokens=segment.tokens.at[:, index].set(tokens),
                logprobs=segment.logprobs.at[:, index].set(logprobs),
                counts=segment.counts + state.active,
                active=next_state.active,
            )
            return index + 1, next_state, segment

        _, state, segment = jax.lax.while_loop(unfinished, body, (jnp.int32(0), state, segment))
        return state, segment

    def extend(params: Params, state: DecodeState, appended: Appended) -> DecodeState:
        width = appended.tokens.shape[1]
        # The pending token goes into the cache, the last appended one becomes pending.
        fed = jnp.concatenate([state.pending[:, None], appended.tokens[:, :-1]], axis=1)
        positions = state.lengths[:, None] + jnp.arange(width)
        _, cache = forward.hidden(params, fed, positions, cache=state.cache)
        extended = appended.counts > 0
        last = jnp.take_along_axis(
            appended.tokens, jnp.maximum(appended.counts - 1, 0)[:, None], axis=1
        )[:, 0]
        return dataclasses.replace(
            state,
            cache=cache,
            lengths=state.lengths + appended.counts,
            pending=jnp.where(extended, last, state.pending),
            limits=jnp.where(extended, appended.limits, state.limits),
            active=state.active | (extended & appended.begins),
        )

    # Stated, not left to the compiler: the next program is compiled for where the state is.
    jit = functools.partial(jax.jit, out_shardings=row_sharding) if row_sharding else jax.jit
    return DecodePrograms(
        init=jit(init),
        prefill=jit(prefill, donate_argnums=1),
        decode_segment=jit(decode_segment, donate_argnums=1),
        extend=jit(extend, donate_argnums=1),
    )
