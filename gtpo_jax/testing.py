"""Fakes for tests and examples: a byte tokenizer, a policy that replays a table, a tool with a
table.

They are small but whole: each satisfies its protocol of `types`, so that the real decode programs,
the real rollout and the real learner run on them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.language.grammar import CONTROL_SYMBOLS
from gtpo_jax.types import Cache, ForwardFn, Params, ToolResult, ToolStatus

INFRA_FAILURE = ToolResult(status=ToolStatus.INFRA_ERROR, stderr="told to fail")
"""What `FakeTool` answers when the tool itself is to break."""


class ByteTokenizer:
    """Every byte of the UTF-8 text is a token; the control symbols stand behind the 256 bytes.

    `encode` and `decode` are inverse on text. On ids they are not: a sequence of bytes that is no
    UTF-8 decodes to replacement characters, which is what a test of "token in, token out" needs.
    """

    def __init__(self, control_symbols: Sequence[str] = CONTROL_SYMBOLS):
        self._control = {str(symbol): 256 + i for i, symbol in enumerate(control_symbols)}
        self._symbols = {i: symbol for symbol, i in self._control.items()}

    @property
    def vocab_size(self) -> int:
        return 256 + len(self._control)

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def decode(self, ids: Sequence[int]) -> str:
        text = []
        for control, run in itertools.groupby(map(int, ids), key=self._symbols.__contains__):
            if control:
                text += [self._symbols[i] for i in run]
            else:
                text.append(bytes(run).decode("utf-8", "replace"))
        return "".join(text)

    def control_id(self, symbol: str) -> int:
        if symbol not in self._control:
            raise ValueError(f"no control symbol {symbol}; there are {sorted(self._control)}")
        return self._control[symbol]

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"no token {token}; ids lie in [0, {self.vocab_size})")
        return bytes([token]) if token < 256 else b""


def scripted_forward(
    dialogues: Sequence[Sequence[int] | np.ndarray],
    *,
    vocab_size: int,
    otherwise: int,
    sharpness: float = 50.0,
) -> ForwardFn:
    """A policy that replays whole dialogues: prompts, turns and the observations between them.

    A row that holds exactly the first n tokens of a dialogue is followed by its token n; the first
    dialogue that fits decides. A row that fits none, or has come to the end of it, is followed by
    `otherwise`. So one wrong token anywhere in a row's past, in its order or in its cache, shows in
    what comes next. The chosen token has logit `sharpness`, the others 0; there are no parameters.

    The cache is one leaf `[rows, positions]` of ids, written and read as a decoder does its keys:
    slots beyond a token's own position are never looked at, positions beyond the cache are dropped.
    """
    if not dialogues:
        raise ValueError("scripted_forward needs at least one dialogue to replay")
    lengths = np.array([len(dialogue) for dialogue in dialogues], np.int32)
    rows = np.zeros((len(dialogues), int(lengths.max()) + 1), np.int32)
    for row, dialogue in zip(rows, dialogues, strict=True):
        row[: len(dialogue)] = dialogue
    table = jnp.asarray(rows)

    def next_tokens(mismatches: jax.Array, positions: jax.Array) -> jax.Array:
        """`mismatches [B, T, N]` up to each token → `[B, T]`."""
        following = positions[..., None] + 1
        fits = (mismatches == 0) & (following < lengths)
        chosen = jnp.argmax(fits, axis=-1)
        column = jnp.minimum(positions + 1, table.shape[1] - 1)
        return jnp.where(jnp.any(fits, axis=-1), table[chosen, column], otherwise)

    def differs(tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """`[B, T, N]`: token t is not the one that dialogue n has at its position."""
        column = jnp.minimum(positions, table.shape[1] - 1)
        return (tokens[..., None] != table.T[column]) | (positions[..., None] >= lengths)

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        del params
        if cache is None and segment_ids is not None and prefix_ids is not None:
            index = jnp.arange(tokens.shape[1])
            own, prefix = segment_ids[:, :, None], prefix_ids[:, :, None]
            of_other = segment_ids[:, None, :]
            seen = (of_other == own) | ((of_other == prefix) & (prefix > 0))
            seen &= index <= index[:, None]
            wrong = differs(tokens, positions).astype(jnp.int32)
            mismatches = jnp.einsum("bts,bsn->btn", seen.astype(jnp.int32), wrong)
        elif cache is None:  # positions already count within the segment
            counted = jnp.cumsum(differs(tokens, positions), axis=1)
            index = jnp.arange(tokens.shape[1])
            before = jnp.pad(counted, ((0, 0), (1, 0), (0, 0)))
            start = jnp.broadcast_to(index - positions, tokens.shape)
            mismatches = counted - jnp.take_along_axis(before, start[..., None], axis=1)
        else:
            rows = jnp.arange(len(tokens))[:, None]
            held: jax.Array = cache[..., 0].at[rows, positions].set(tokens, mode="drop")
            slots = jnp.broadcast_to(jnp.arange(held.shape[1]), held.shape)
            counted = jnp.cumsum(differs(held, slots), axis=1)
            own = jnp.minimum(positions, held.shape[1] - 1)
            mismatches = jnp.take_along_axis(counted, own[..., None], axis=1)
            cache = held[..., None]
        following = next_tokens(mismatches, positions)
        return following[..., None].astype(jnp.float32), cache

    def logits(params: Params, hidden_states: jax.Array) -> jax.Array:
        del params
        return sharpness * jax.nn.one_hot(hidden_states[..., 0].astype(jnp.int32), vocab_size)

    def init_cache(count: int, positions: int) -> Cache:
        return jnp.zeros((count, positions, 1), jnp.int32)

    return ForwardFn(hidden, logits, init_cache, vocab_size)


class FakeTool:
    """A tool that looks results up instead of running code; a `types.Tool`.

    `results` maps code to what comes of it, or is a function that does. A text stands for a call
    that printed it and ended well; `INFRA_FAILURE` is what a broken tool answers. Code that the
    table lacks is an error of the test, and raises at `submit`.

    Without `threads` a call has returned when `submit` does. With them, so many calls run at a
    time, each takes `seconds(code)` (or the same `seconds` for all), and the others wait in their
    order; a function that blocks holds up its own call alone.
    """

    def __init__(
        self,
        results: Mapping[str, ToolResult | str] | Callable[[str], ToolResult | str],
        *,
        seconds: float | Callable[[str], float] = 0.0,
        threads: int = 0,
    ):
        if seconds and not threads:
            raise ValueError("a call that takes time needs a thread to wait in; set threads")
        self.codes: list[str] = []
        """The code of every call, in the order of submission."""
        self.calls: list[futures.Future[ToolResult]] = []
        """The future of every call, in the same order."""
        self._results = results
        self._seconds = seconds
        self._closed = threading.Event()
        self._threads = futures.ThreadPoolExecutor(threads) if threads else None

    def submit(self, code: str, *, timeout: float | None = None) -> futures.Future[ToolResult]:
        """A future of the result; `timeout` is not looked at: latency is what the test says."""
        del timeout
        if not callable(self._results) and code not in self._results:
            raise ValueError(f"no result for {code!r}; there are some for {sorted(self._results)}")
        if self._threads is not None:
            call = self._threads.submit(self._run, code)
        else:
            call = futures.Future()
            call.set_result(self._look_up(code))
        self.codes.append(code)
        self.calls.append(call)
        return call

    def close(self) -> None:
        """Ends waiting calls at once and the threads with them."""
        self._closed.set()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> FakeTool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, code: str) -> ToolResult:
        self._closed.wait(self._seconds(code) if callable(self._seconds) else self._seconds)
        return self._look_up(code)

    def _look_up(self, code: str) -> ToolResult:
        result = self._results(code) if callable(self._results) else self._results[code]
        return (
            ToolResult(status=ToolStatus.OK, stdout=result) if isinstance(result, str) else result
        )
