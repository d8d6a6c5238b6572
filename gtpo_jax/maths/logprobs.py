"""Token-aligned log-probabilities and entropies. Only this module shifts logits by one position.

`token_statistics` takes hidden states and the head. `chunked_statistics` takes the same, and holds
the logits of only a few positions at a time, in the backward pass too: with a vocabulary of
150,000, full logits would be the largest array of the update. Both compute extra statistics only
where they are named; `statistics_at` is the one place that derives them from logits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gtpo_jax.maths import checks
from gtpo_jax.maths.precision import as_float
from gtpo_jax.types import Scalar

EXTRAS = {
    "candidate_logprobs": "log-probs of the candidates that the sampler recorded, [..., K]",
    "collisions": "Σ_v p_v² and Σ_v p_v³ of the distribution that predicts the token, [..., 2]",
    "state_norms": "|h|² of the hidden state that predicts the token, [...]",
}
"""Name → meaning of the statistics that are computed only where they are asked for."""


def token_logprobs(
    logits: Float[Array, "B T V"], tokens: Int[Array, "B T"], *, temperature: Scalar = 1.0
) -> Float[Array, "B T"]:
    """`out[b, t] = log softmax(logits[b, t−1] / temperature)[tokens[b, t]]`; `out[:, 0]` is 0.

    Logits at t−1 predict token t. Use the temperature of the sampler, or the ratio to its log-probs
    is not 1 on the first step. Computed in float32, or float64.
    """
    _check(logits, tokens, temperature)
    return _align(_logprobs(logits[:, :-1], tokens[:, 1:], temperature))


def token_entropies(
    logits: Float[Array, "B T V"], *, temperature: Scalar = 1.0
) -> Float[Array, "B T"]:
    """Entropy in nats of the distribution that token t was drawn from; `out[:, 0]` is 0."""
    _check_temperature(temperature)
    return _align(_entropies(logits[:, :-1], temperature))


class TokenStatistics(NamedTuple):
    """Log-prob of every token and entropy of the distribution that predicts it."""

    logprobs: Float[Array, "*B"]
    entropies: Float[Array, "*B"]
    extras: dict[str, Float[Array, "*B ..."]] = {}  # noqa: RUF012 - never written to
    """The statistics of `EXTRAS` that were asked for, by name."""


def statistics_at(
    logits: Float[Array, "*B V"],
    targets: Int[Array, "*B"],
    *,
    temperature: Scalar = 1.0,
    needs: Collection[str] = (),
    candidates: Int[Array, "*B K"] | None = None,
    states: Float[Array, "*B D"] | None = None,
) -> TokenStatistics:
    """Statistics of the distribution `p = softmax(logits / temperature)` that predicts each target.

    Nothing is shifted: `logits[..., :]` predict `targets[...]`. `needs` are names of `EXTRAS`:
    `candidate_logprobs` needs the ids of `candidates`, `state_norms` the `states` that the logits
    come from. Computed in float32, or float64.
    """
    return TokenStatistics(
        _logprobs(logits, targets, temperature),
        _entropies(logits, temperature),
        extras_at(
            logits, temperature=temperature, needs=needs, candidates=candidates, states=states
        ),
    )


def extras_at(
    logits: Float[Array, "*B V"],
    *,
    temperature: Scalar = 1.0,
    needs: Collection[str] = (),
    candidates: Int[Array, "*B K"] | None = None,
    states: Float[Array, "*B D"] | None = None,
) -> dict[str, Float[Array, "*B ..."]]:
    """The statistics of `EXTRAS` among `needs`, by name; the arguments are of `statistics_at`."""
    extras = {}
    if "candidate_logprobs" in needs:
        if candidates is None:
            raise ValueError(
                "candidate_logprobs needs the candidates of a batch; sample with"
                " decoding.sampling.recording, and pack with the number of candidates"
            )
        extras["candidate_logprobs"] = _candidate_logprobs(logits, candidates, temperature)
    if "collisions" in needs:
        extras["collisions"] = _collisions(logits, temperature)
    if "state_norms" in needs:
        if states is None:
            raise ValueError("state_norms needs the hidden states, not only the logits")
        extras["state_norms"] = jnp.sum(jnp.square(as_float(states)), axis=-1)
    return extras


def token_statistics(
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    head: Callable[[jax.Array], jax.Array],
    *,
    temperature: Scalar = 1.0,
    needs: Collection[str] = (),
    candidates: Int[Array, "B T K"] | None = None,
) -> TokenStatistics:
    """Statistics of every token, with the logits of all positions in memory.

    `out[b, t]` is of `softmax(head(hidden[b, t − 1]) / temperature)`, which predicts token t and
    its `candidates[b, t]`; `out[:, 0]` is 0. `head` maps `[..., D]` to `[..., V]`; gradients flow
    to the parameters that it closes over. `needs` are names of `EXTRAS`.
    """
    _check(hidden, tokens, temperature)
    _check_needs(needs)
    found = statistics_at(
        head(hidden)[:, :-1],
        tokens[:, 1:],
        temperature=temperature,
        needs=needs,
        candidates=None if candidates is None else candidates[:, 1:],
        states=hidden[:, :-1],
    )
    return jax.tree.map(_align, found)


def chunked_statistics(
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    head: Callable[[jax.Array], jax.Array],
    *,
    temperature: Scalar = 1.0,
    chunk: int = 64,
    needs: Collection[str] = (),
    candidates: Int[Array, "B T K"] | None = None,
) -> TokenStatistics:
    """Equal to `token_statistics`, in less memory.

    Logits are computed for `chunk` positions of every row at a time and recomputed in the backward
    pass: memory `B · chunk · V` instead of `B · T · V`, at the cost of one more product with the
    head.
    """
    _check(hidden, tokens, temperature)
    _check_needs(needs)
    checks.check_range("chunk", chunk, 1, float("inf"), hint="it counts positions, 64 is usual")
    rows, length, _ = hidden.shape
    predicted = length - 1
    chunk = max(1, min(chunk, predicted))  # a row of one token predicts none
    padding = -predicted % chunk
    chunks = (predicted + padding) // chunk

    @jax.checkpoint
    def statistics(
        states: jax.Array, targets: jax.Array, candidates: jax.Array | None
    ) -> TokenStatistics:
        return statistics_at(
            head(states),
            targets,
            temperature=temperature,
            needs=needs,
            candidates=candidates,
            states=states,
        )

    def step(_: None, inputs: tuple) -> tuple[None, TokenStatistics]:
        return None, statistics(*inputs)

    # Positions are chunked and rows are not, so the sharding of rows is kept.
    def split(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(padded.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        whole = jnp.moveaxis(x, 0, 1).reshape(rows, chunks * chunk, *x.shape[3:])
        return _align(whole[:, :predicted])

    ids = candidates if "candidate_logprobs" in needs else None
    inputs = (hidden[:, :-1], tokens[:, 1:], None if ids is None else ids[:, 1:])
    _, per_chunk = jax.lax.scan(step, None, jax.tree.map(split, inputs))
    return jax.tree.map(join, per_chunk)


def _check(features: jax.Array, tokens: jax.Array, temperature: Scalar) -> None:
    if jnp.ndim(features) != 3 or jnp.shape(features)[:2] != jnp.shape(tokens):
        raise ValueError(
            f"tokens must be [rows, positions] like logits or hidden states [rows, positions, ...],"
            f" got shapes {jnp.shape(tokens)} and {jnp.shape(features)}; pass both unshifted"
        )
    _check_temperature(temperature)


def _check_temperature(temperature: Scalar) -> None:
    checks.check_positive(
        "temperature", temperature, hint="greedy tokens have no log-probs, sample at 1"
    )


def _check_needs(needs: Collection[str]) -> None:
    unknown = sorted(set(needs) - set(EXTRAS))
    if unknown:
        raise ValueError(f"needs may name {', '.join(EXTRAS)}, got {', '.join(unknown)}")


def _logprobs(logits: jax.Array, targets: jax.Array, temperature: Scalar) -> jax.Array:
    scaled = as_float(logits) / temperature
    chosen = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scaled, axis=-1)


def _entropies(logits: jax.Array, temperature: Scalar) -> jax.Array:
    log_p = jax.nn.log_softmax(as_float(logits) / temperature, axis=-1)
    # −inf marks tokens that cannot be drawn: 0 · log 0 is 0, in the gradient as well.
    safe = jnp.where(jnp.isneginf(log_p), 0.0, log_p)
    return -jnp.sum(jnp.exp(log_p) * safe, axis=-1)


def _candidate_logprobs(logits: jax.Array, ids: jax.Array, temperature: Scalar) -> jax.Array:
    scaled = as_float(logits) / temperature
    chosen = jnp.take_along_axis(scaled, ids, axis=-1)
    return chosen - jax.nn.logsumexp(scaled, axis=-1, keepdims=True)


def _collisions(logits: jax.Array, temperature: Scalar) -> jax.Array:
    p = jax.nn.softmax(as_float(logits) / temperature, axis=-1)
    return jnp.stack([jnp.sum(p**2, axis=-1), jnp.sum(p**3, axis=-1)], axis=-1)


def _align(predicted: jax.Array) -> jax.Array:
    return jnp.pad(predicted, ((0, 0), (1, 0), *((0, 0),) * (predicted.ndim - 2)))
