"""Stop strings found in sampled tokens, on the device and exactly.

An automaton (Aho and Corasick, 1975) reads the bytes of the text and accepts as soon as any stop
string has ended. `build` runs every token through it once from every state. A decode step then
advances a row by one look-up, wherever in its tokens a stop string begins and ends.

A stop string that ends inside a token stops the turn at that token. The tokens of the turn stay
whole: all of them were sampled, so all of them are trained on and stay in the cache. Only the text
is cut, by `cut`, before it is parsed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

START = 0
"""State at the beginning of a turn."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StopTable:
    """The automaton over tokens. State 0 is the start; state S − 1 accepts and is never left."""

    next_state: jax.Array | np.ndarray  # [S, V], smallest unsigned integer type for S − 1


def build(stop_strings: Sequence[str], token_bytes: Sequence[bytes]) -> StopTable:
    """Builds the table of V tokens on the host; token v adds `token_bytes[v]` to the text.

    `next_state[s, v]` is the state after all bytes of token v, or the accepting state if a stop
    string ends anywhere within them. S is at most 2 more than the bytes of all stop strings;
    without a stop string nothing is ever accepted. Stop strings may overlap and contain one
    another.

    A token without bytes is a control symbol. It is not text, so no match continues across it: it
    leads to the start.

    Raises `TypeError` for a single `str`, and `ValueError` for stop strings that are empty, cannot
    be encoded as UTF-8, or contain U+FFFD, which replaces invalid bytes in a text.
    """
    if isinstance(stop_strings, str):
        raise TypeError(f"stop_strings must be a sequence, got {stop_strings!r}; wrap it in a list")
    delta = _automaton([_encoded(stop) for stop in stop_strings])
    states = len(delta)
    text = np.frombuffer(b"".join(token_bytes), np.uint8)
    lengths = np.array([len(token) for token in token_bytes], np.int64)
    # The longest tokens first: the tokens that have a byte j are a prefix of this order.
    order = np.argsort(-lengths, kind="stable")
    lengths, first = lengths[order], (np.cumsum(lengths) - lengths)[order]
    reached = np.repeat(np.arange(states, dtype=delta.dtype)[:, None], len(order), axis=1)
    for j in range(int(lengths.max(initial=0))):
        longer = int(np.searchsorted(-lengths, -j))
        reached[:, :longer] = delta[reached[:, :longer], text[first[:longer] + j]]
    reached[:-1, lengths == 0] = START
    next_state = np.empty_like(reached)
    next_state[:, order] = reached
    return StopTable(next_state=next_state)


def advance(table: StopTable, states: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Advances every row by one token: new states `[B]` int32, and `[B]` bool, a stop has ended.

    A row that has stopped stays stopped; begin its next turn at `START`. Pass the table as an
    argument of the jitted function, or its `[S, V]` entries become a constant of every program.
    """
    # On a mesh with explicit axes a gather needs the sharding of its rows.
    rows = jax.typeof(states).sharding
    rows = rows if AxisType.Explicit in rows.mesh.axis_types else None
    following = jnp.asarray(table.next_state).at[states, tokens].get(out_sharding=rows)
    following = following.astype(jnp.int32)
    return following, following == table.next_state.shape[0] - 1


def advanced(table: StopTable, tokens: np.ndarray) -> int:
    """The state after tokens from the start of a turn, on the host."""
    state = START
    for token in tokens:
        state = int(table.next_state[state, token])
    return state


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text up to the end of the stop string that ends first, or all of it without one.

    This is where the automaton stopped. Pass the text between two control symbols, because the
    automaton does not match across them.
    """
    ends = [text.find(stop) + len(stop) for stop in stop_strings if stop in text]
    return text[: min(ends)] if ends else text


def _encoded(stop: str) -> bytes:
    if not stop:
        raise ValueError("a stop string must not be empty: it would end every turn; leave it out")
    if "\N{REPLACEMENT CHARACTER}" in stop:
        raise ValueError(
            f"stop string {stop!r} contains U+FFFD, which may stand for any invalid bytes"
        )
    try:
        return stop.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"stop string {stop!r} cannot be encoded as UTF-8: {error.reason}"
        ) from error


def _automaton(stops: Sequence[bytes]) -> np.ndarray:
    """`[S, 256]`: the state after one more byte. 0 starts; S − 1 accepts and is never left.

    A state is the longest suffix of the text that is a prefix of a stop string. All suffixes that
    contain a whole stop string are one state, because nothing after them matters.
    """
    prefixes = {b"", *(stop[:n] for stop in stops for n in range(len(stop)))}
    unfinished = [prefix for prefix in prefixes if not any(stop in prefix for stop in stops)]
    state_of = {prefix: state for state, prefix in enumerate(sorted(unfinished, key=len))}
    accepting = len(state_of)
    delta = np.zeros((accepting + 1, 256), np.min_scalar_type(accepting))
    delta[accepting] = accepting
    fallback = [START] * accepting  # the longest proper suffix of the prefix that is a state
    for prefix, state in state_of.items():
        if len(prefix) > 1:
            fallback[state] = int(delta[fallback[state_of[prefix[:-1]]], prefix[-1]])
        # Shorter prefixes are done: a byte that does not continue here continues in the fallback.
        delta[state] = delta[fallback[state]]
        for stop in stops:
            if len(stop) > len(prefix) and stop.startswith(prefix):
                following = stop[: len(prefix) + 1]
                delta[state, following[-1]] = state_of.get(following, accepting)
    return delta
