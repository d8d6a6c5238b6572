"""Fakes for tests and examples: a byte tokenizer, a policy that replays dialogues, a lookup tool.

Each fake satisfies its protocol in `types`, so the real decode programs, rollout and learner run on
it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.language.grammar import CONTROL_SYMBOLS
from gtpo_jax.types import Cache, ForwardFn, Params, ToolResult, ToolStatus

INFRA_FAILURE = ToolResult(status=ToolStatus.INFRA_ERROR, stderr="told to fail")
"""Result of a `FakeTool` that simulates an infrastructure failure."""


class ByteTokenizer:
    """A tokenizer with one token per byte of UTF-8 text; control symbols follow the 256 bytes.

    `decode(encode(text))` is the text, but ids need not survive decoding: bytes that are not UTF-8
    decode to replacement characters. Tests of "token in, token out" rely on that.
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

    After exactly the first n tokens of a dialogue it predicts token n; the first dialogue that
    matches decides. Where none matches or the dialogue has ended, it predicts `otherwise`. So any
    wrong token in a row's past, its order or its cache changes the prediction. The predicted token
    has logit `sharpness`, all others 0; there are no parameters.

    The cache is one leaf `[rows, positions, 1]` of ids, used as a decoder uses its keys: positions
    after a token's own are never read, tokens beyond the end of the cache are dropped.
    """
    if not dialogues:
        raise ValueError("scripted_forward needs at least one dialogue to replay")
    lengths = np.array([len(dialogue) for dialogue in dialogues], np.int32)
    rows = np.zeros((len(dialogues), int(lengths.max()) + 1), np.int32)
    for row, dialogue in zip(rows, dialogues, strict=True):
        row[: len(dialogue)] = dialogue
    script = _Script(jnp.asarray(rows), lengths)

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
            differs = script.differs(tokens, positions)
            mismatches = _mismatches_with_prefixes(differs, segment_ids, prefix_ids)
        elif cache is None:
            mismatches = _mismatches_since_start(script.differs(tokens, positions), positions)
        else:
            rows = jnp.arange(len(tokens))[:, None]
            ids: jax.Array = cache[..., 0].at[rows, positions].set(tokens, mode="drop")
            mismatches = _mismatches_in_cache(script, ids, positions)
            cache = ids[..., None]
        following = script.next_tokens(mismatches, positions, otherwise)
        return following[..., None].astype(jnp.float32), cache

    def logits(params: Params, hidden_states: jax.Array) -> jax.Array:
        del params
        return sharpness * jax.nn.one_hot(hidden_states[..., 0].astype(jnp.int32), vocab_size)

    def init_cache(count: int, positions: int) -> Cache:
        return jnp.zeros((count, positions, 1), jnp.int32)

    return ForwardFn(hidden, logits, init_cache, vocab_size)


class _Script(NamedTuple):
    """The dialogues of a `scripted_forward`: N rows of ids, padded, and their lengths."""

    table: jax.Array
    lengths: np.ndarray

    def differs(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """`[B, T, N]`: True where dialogue n has another token at the position of token t."""
        column = jnp.minimum(positions, self.table.shape[1] - 1)
        return (tokens[..., None] != self.table.T[column]) | (positions[..., None] >= self.lengths)

    def next_tokens(self, mismatches: jax.Array, positions: jax.Array, otherwise: int) -> jax.Array:
        """Predictions `[B, T]` from the mismatches `[B, T, N]` up to each token."""
        matches = (mismatches == 0) & (positions[..., None] + 1 < self.lengths)
        chosen = jnp.argmax(matches, axis=-1)
        column = jnp.minimum(positions + 1, self.table.shape[1] - 1)
        return jnp.where(jnp.any(matches, axis=-1), self.table[chosen, column], otherwise)


def _mismatches_with_prefixes(
    differs: jax.Array, segment_ids: jax.Array, prefix_ids: jax.Array
) -> jax.Array:
    """Mismatches `[B, T, N]` of each token's segment and of its prefix, up to the token."""
    index = jnp.arange(differs.shape[1])
    own, prefix = segment_ids[:, :, None], prefix_ids[:, :, None]
    of_other = segment_ids[:, None, :]
    attended = (of_other == own) | ((of_other == prefix) & (prefix > 0))
    attended &= index <= index[:, None]
    return jnp.einsum("bts,bsn->btn", attended.astype(jnp.int32), differs.astype(jnp.int32))


def _mismatches_since_start(differs: jax.Array, positions: jax.Array) -> jax.Array:
    """Mismatches `[B, T, N]` since position 0 of each token's segment."""
    counted = jnp.cumsum(differs, axis=1)
    before = jnp.pad(counted, ((0, 0), (1, 0), (0, 0)))
    start = jnp.broadcast_to(jnp.arange(differs.shape[1]) - positions, differs.shape[:2])
    return counted - jnp.take_along_axis(before, start[..., None], axis=1)


def _mismatches_in_cache(script: _Script, ids: jax.Array, positions: jax.Array) -> jax.Array:
    """Mismatches `[B, T, N]` of the cached ids up to each position."""
    columns = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    counted = jnp.cumsum(script.differs(ids, columns), axis=1)
    own = jnp.minimum(positions, ids.shape[1] - 1)
    return jnp.take_along_axis(counted, own[..., None], axis=1)


class FakeTool:
    """A `types.Tool` that looks up results instead of running code.

    `results` maps code to a result, as a table or a function. A string stands for a successful call
    that printed it; `INFRA_FAILURE` simulates a broken tool. Code that is missing from the table is
    an error of the test: `submit` raises.

    Without `threads`, the future that `submit` returns is done. With `threads`, that many calls run
    at a time and the others queue in order; each takes `seconds(code)`, or `seconds` for all. A
    function that blocks delays only its own call.
    """

    def __init__(
        self,
        results: Mapping[str, ToolResult | str] | Callable[[str], ToolResult | str],
        *,
        seconds: float | Callable[[str], float] = 0.0,
        threads: int = 0,
    ):
        if seconds and not threads:
            raise ValueError("calls that take time need threads to wait in; set threads")
        self.codes: list[str] = []
        """The code of every call, in the order of submission."""
        self.calls: list[futures.Future[ToolResult]] = []
        """The future of every call, in the same order."""
        self._results = results
        self._seconds = seconds
        self._closed = threading.Event()
        self._threads = futures.ThreadPoolExecutor(threads) if threads else None

    def submit(self, code: str, *, timeout: float | None = None) -> futures.Future[ToolResult]:
        """Returns a future of the result. `timeout` is ignored: the test sets the latency."""
        del timeout
        if not callable(self._results) and code not in self._results:
            raise ValueError(
                f"no result for {code!r}; there are results for {sorted(self._results)}"
            )
        if self._threads is not None:
            call = self._threads.submit(self._run, code)
        else:
            call = futures.Future()
            call.set_result(self._look_up(code))
        self.codes.append(code)
        self.calls.append(call)
        return call

    def close(self) -> None:
        """Ends waiting calls and the threads at once."""
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
