"""Protocols: models as pure functions, tools, verifiers, tokenizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

import jax

from gtpo_jax.types.batches import Cache, Params, TokenBatch
from gtpo_jax.types.records import Problem, ToolResult, Verdict


class HiddenFn(Protocol):
    """Runs the decoder.

    Without a cache, token `[b, t]` attends to tokens `[b, :t+1]` of its own segment, and with
    `prefix_ids` also to those of segment `prefix_ids[b, t]`, if that is not 0. With a cache, the
    token is written to cache position `positions[b, t]` (dropped beyond the end of the cache) and
    attends to all positions up to it. Returns hidden states `[B, T, D]` and the updated cache.
    """

    def __call__(
        self,
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]: ...


class StatisticsFn(Protocol):
    """Statistics of the tokens of a batch `[B, T]`: log-probs, entropies, extras by name.

    The options are those of `learner.batch_logprobs`.
    """

    def __call__(
        self,
        params: Params,
        batch: TokenBatch,
        *,
        temperature: float,
        chunk: int | None,
        needs: Collection[str],
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]: ...


@dataclasses.dataclass(frozen=True)
class ForwardFn:
    """A language model as pure functions. The library uses models through this interface only.

    Cache leaves are `[B, KV, S, H]` (rows, key heads, positions, features); other axes may take the
    place of KV.
    """

    hidden: HiddenFn
    logits: Callable[[Params, jax.Array], jax.Array]  # hidden states [..., D] → float32 [..., V]
    init_cache: Callable[[int, int], Cache]  # rows, positions → an empty cache
    vocab_size: int
    for_decoding: Callable[[Params], Params] = lambda params: params
    """Converts parameters to the layout that single-token steps read fastest. `hidden` and `logits`
    accept both. Applied once per decode segment, inside its program."""
    statistics: StatisticsFn | None = None
    """The statistics of tokens that are not predicted by the token before them, such as those of a
    diffusion model (`learner.diffusion`). None: every token is predicted by the one before it."""


class Tool(Protocol):
    """Runs code. `submit` returns before the call ends and never raises for what the code does."""

    def submit(self, code: str, *, timeout: float | None = None) -> Future[ToolResult]: ...


@runtime_checkable
class ClosingTool(Tool, Protocol):
    """A tool that holds processes or connections until it is closed."""

    def close(self) -> None: ...


class Verifier(Protocol):
    """Judges the answer of a finished trajectory. A plain function is a verifier."""

    def __call__(self, problem: Problem, answer: str | None) -> Verdict: ...


@runtime_checkable
class SubmittingVerifier(Verifier, Protocol):
    """A verifier that runs beside the caller: a rollout collects its verdicts at the end."""

    def submit(self, problem: Problem, answer: str | None) -> Future[Verdict]: ...


class Tokenizer(Protocol):
    """Converts text to ids and back. `encode` never produces control symbols, whatever the text."""

    @property
    def vocab_size(self) -> int:
        """Highest id plus one; the sampler never draws an id outside it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, never a control symbol."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of ids, with control symbols written as their names."""
        ...

    def control_id(self, symbol: str) -> int:
        """Id of a control symbol."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes that a token adds to the text, perhaps part of a character; `b""` for a
        control symbol that is not text.

        For ids without such symbols, `b"".join(map(token_bytes, ids))` equals
        `decode(ids).encode()` whenever it is valid UTF-8.
        """
        ...


class TemplateTokenizer(Tokenizer, Protocol):
    """A tokenizer that lists its control symbols, so that they can be found in chat templates."""

    @property
    def control_symbols(self) -> Mapping[str, int]:
        """Control symbol → id."""
        ...
