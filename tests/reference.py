"""Slow float64 references over ragged lists, written from the equations, and builders of inputs."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from gtpo_jax.types import Problem, StopReason, Trajectory, Turn, Verdict

Ragged = Sequence[Sequence[float]]


def padded(rows: Ragged, width: int, *, fill: float = 0.0):
    """Ragged rows as `[M, width]` float32 with `fill` behind them, and the mask of what is real."""
    values = np.full((len(rows), width), fill, np.float32)
    mask = np.zeros((len(rows), width), bool)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
        mask[index, : len(row)] = True
    return jnp.asarray(values), jnp.asarray(mask)


def ragged_batch(rng: np.random.Generator, *, rows: int, width: int, groups: int):
    """Random turn rewards, the group of each row (members apart), and which rows are included."""
    rewards = [list(rng.normal(size=rng.integers(1, width + 1))) for _ in range(rows)]
    return rewards, rng.integers(0, groups, rows), rng.random(rows) < 0.8


def returns(rewards: Ragged, discount: float) -> list[list[float]]:
    """`R_ij = Σ_{m ≥ j} discount^(m−j) r_im`."""
    return [
        [sum(discount ** (m - j) * row[m] for m in range(j, len(row))) for j in range(len(row))]
        for row in rewards
    ]


def normalized(
    values: Ragged,
    groups: Sequence[int],
    included: Sequence[bool],
    *,
    divide_by_std: bool = True,
    ddof: int = 0,
    eps: float = 1e-6,
) -> list[list[float]]:
    """`(x − mean) / (std + eps)` over every entry of every included row of the row's group."""
    result = []
    for row, group, keep in zip(values, groups, included, strict=True):
        pool = [
            x
            for other, g, k in zip(values, groups, included, strict=True)
            if g == group and k
            for x in other
        ]
        if not keep or len(pool) <= ddof or max(pool) == min(pool):
            result.append([0.0] * len(row))
            continue
        mean = sum(pool) / len(pool)
        std = math.sqrt(sum((x - mean) ** 2 for x in pool) / (len(pool) - ddof))
        scale = 1.0 / (std + eps) if divide_by_std else 1.0
        result.append([(x - mean) * scale for x in row])
    return result


def gtpo(rewards: Ragged, groups, included, *, discount: float, **options) -> list[list[float]]:
    """GTPO: discounted returns, normalized over all turns of the group."""
    return normalized(returns(rewards, discount), groups, included, **options)


def grpo(rewards: Ragged, groups, included, **options) -> list[list[float]]:
    """GRPO: one value a trajectory, normalized over the group, repeated for each of its turns."""
    totals = normalized([[sum(row)] for row in rewards], groups, included, **options)
    return [total * len(row) for total, row in zip(totals, rewards, strict=True)]


def shaped_outcomes(success, included, groups, similarity, weight: float) -> list[float]:
    """1 for a success, `(weight / |P|) Σ_{p ∈ P} max(similarity, 0)` for a failure."""
    outcomes = []
    for i in range(len(success)):
        if not included[i]:
            outcomes.append(0.0)
        elif success[i]:
            outcomes.append(1.0)
        else:
            passing = [
                p
                for p in range(len(success))
                if success[p] and included[p] and groups[p] == groups[i]
            ]
            credit = sum(max(float(similarity[i][p]), 0.0) for p in passing)
            outcomes.append(weight * credit / len(passing) if passing else 0.0)
    return outcomes


def log_softmax(logits: Sequence[float], temperature: float) -> list[float]:
    """Log-probabilities of `softmax(logits / temperature)`."""
    scaled = [float(x) / temperature for x in logits]
    top = max(scaled)
    log_sum = top + math.log(sum(math.exp(x - top) for x in scaled))
    return [x - log_sum for x in scaled]


def token_logprobs(logits, tokens, temperature: float) -> np.ndarray:
    """Log-prob of token t under the logits of t−1; 0 for the first token of a row."""
    out = np.zeros(tokens.shape)
    for b in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            out[b, t] = log_softmax(logits[b, t - 1], temperature)[tokens[b, t]]
    return out


def token_entropies(logits, temperature: float) -> np.ndarray:
    """Entropy in nats of the distribution behind token t; 0 for the first token of a row."""
    out = np.zeros(logits.shape[:2])
    for b in range(out.shape[0]):
        for t in range(1, out.shape[1]):
            log_p = log_softmax(logits[b, t - 1], temperature)
            out[b, t] = -sum(math.exp(x) * x for x in log_p if x > -math.inf)
    return out


def surrogate(
    log_ratio: float, advantage: float, clip_low: float, clip_high: float
) -> tuple[float, float]:
    """Loss `−min(ρ A, clip(ρ) A)` of one token and its derivative by the log-ratio."""
    ratio = math.exp(log_ratio)
    bounded = min(max(ratio, 1.0 - clip_low), 1.0 + clip_high)
    free, held = ratio * advantage, bounded * advantage
    return -min(free, held), -free if free <= held else 0.0


def trajectory(
    rng: np.random.Generator,
    *,
    turns: int,
    group: int = 0,
    sample: int = 0,
    stop_reason: StopReason = StopReason.ANSWERED,
    verdict: Verdict = Verdict.RIGHT,
    observation: int | None = None,
) -> Trajectory:
    """A trajectory of random tokens, all ≥ 1; `observation` fixes the length of tool outputs."""

    def ids(count: int) -> np.ndarray:
        return rng.integers(1, 30_000, count).astype(np.int32)

    written = []
    for _ in range(turns):
        count = int(rng.integers(1, 6))
        reply = int(rng.integers(0, 4)) if observation is None else observation
        written.append(
            Turn(
                tokens=ids(count),
                logprobs=-rng.random(count).astype(np.float32) - 0.01,
                text="",
                observation=ids(reply),
            )
        )
    return Trajectory(
        problem=Problem(id=f"p{group}", question="", answer=""),
        group=group,
        sample=sample,
        prompt=ids(int(rng.integers(1, 6))),
        turns=tuple(written),
        stop_reason=stop_reason,
        verdict=verdict,
    )
