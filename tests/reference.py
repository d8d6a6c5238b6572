"""Slow float64 references over ragged lists, written from the equations, and builders of inputs."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from gtpo_jax.types import Problem, StopReason, TokenBatch, Trajectory, Turn, Verdict

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


def standardized(x: float, pool, *, divide_by_std=True, ddof=0, eps=1e-6) -> float:
    """`(x − mean) / (std + eps)` over a pool of values; 0 when they are equal or at most `ddof`."""
    if len(pool) <= ddof or max(pool) == min(pool):
        return 0.0
    mean = sum(pool) / len(pool)
    std = math.sqrt(sum((y - mean) ** 2 for y in pool) / (len(pool) - ddof))
    return (x - mean) / (std + eps) if divide_by_std else x - mean


def normalized(values: Ragged, groups, included, *, over: str = "group", **options):
    """Normalizes every entry among its peers: the entries of included rows in the same set.

    `over` names the set: all turns of the "group", the same turn "index" of the group, the "first"
    turns of the group, or the whole "batch".
    """
    rows = range(len(values))
    entries = [(i, k, values[i][k]) for i in rows if included[i] for k in range(len(values[i]))]

    def peers(i: int, k: int, other: int, turn: int) -> bool:
        same_turn = {"index": turn == k, "first": turn == 0}.get(over, True)
        return same_turn and (over == "batch" or groups[i] == groups[other])

    result = [[0.0] * len(row) for row in values]
    for i, k, x in entries:
        pool = [y for other, turn, y in entries if peers(i, k, other, turn)]
        result[i][k] = standardized(x, pool, **options)
    return result


def gtpo(rewards: Ragged, groups, included, *, discount: float, **options) -> list[list[float]]:
    """GTPO: discounted returns, normalized."""
    return normalized(returns(rewards, discount), groups, included, **options)


def repeated(totals: Sequence[float], rewards: Ragged) -> list[list[float]]:
    """Repeats the value of a trajectory for each of its turns."""
    return [[total] * len(row) for total, row in zip(totals, rewards, strict=True)]


def grpo(rewards: Ragged, groups, included, **options) -> list[list[float]]:
    """GRPO: one value a trajectory, normalized over those of the group that have turns."""
    totals = [[sum(row)] if row else [] for row in rewards]
    result = normalized(totals, groups, included, **options)
    return repeated([row[0] if row else 0.0 for row in result], rewards)


def dr_grpo(rewards: Ragged, groups, included) -> list[list[float]]:
    """Dr.GRPO: the same without the deviation."""
    return grpo(rewards, groups, included, divide_by_std=False)


def rloo(rewards: Ragged, groups, included) -> list[list[float]]:
    """RLOO: each trajectory minus the mean of the others of its group; 0 without others."""
    kept = [i for i in range(len(rewards)) if included[i] and rewards[i]]
    totals = [0.0] * len(rewards)
    for i in kept:
        others = [sum(rewards[j]) for j in kept if j != i and groups[j] == groups[i]]
        if others:
            totals[i] = sum(rewards[i]) - sum(others) / len(others)
    return repeated(totals, rewards)


def mt_grpo(rewards: Ragged, groups, included, *, turn_weight: float = 1.0, **options):
    """MT-GRPO: `A_O + λ A_T` before the last turn, `A_O` on it."""
    outcome = normalized([row[-1:] for row in rewards], groups, included, **options)
    turn = normalized([row[:-1] for row in rewards], groups, included, over="index", **options)
    return [
        [
            outcome[i][0] + (turn_weight * turn[i][k] if k < len(row) - 1 else 0.0)
            for k in range(len(row))
        ]
        for i, row in enumerate(rewards)
    ]


def reinforce_plus_plus(rewards: Ragged, groups, included, *, discount: float = 1.0, **options):
    """REINFORCE++: returns whitened over all turns of the batch."""
    return normalized(returns(rewards, discount), groups, included, over="batch", **options)


def reinforce_plus_plus_baseline(rewards: Ragged, groups, included, *, ddof=0, eps=1e-6):
    """REINFORCE++ with baseline: minus the mean of the group, over the std of the batch."""
    centered = [row[0] if row else 0.0 for row in dr_grpo(rewards, groups, included)]
    pool = [x for x, row, keep in zip(centered, rewards, included, strict=True) if keep and row]
    if len(pool) <= ddof or not any(pool):
        return repeated([0.0] * len(rewards), rewards)
    std = math.sqrt(sum(x * x for x in pool) / (len(pool) - ddof))
    return repeated([x / (std + eps) for x in centered], rewards)


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
    log_ratio: float,
    advantage: float,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    *,
    dual_clip: float | None = None,
    ratio_cap: float | None = None,
) -> tuple[float, float]:
    """Loss of one token and its derivative by the log-ratio, from the truth table of the clip.

    The ratio counts up to `1 + clip_high` for A > 0; for A < 0 from `1 − clip_low` up to the lower
    of the bounds given.
    """
    ratio = math.exp(log_ratio)
    if advantage > 0:
        low, high = 0.0, 1.0 + clip_high
    else:
        high = min(math.inf if x is None else x for x in (dual_clip, ratio_cap))
        low = 1.0 - clip_low
    held = min(max(ratio, low), high)
    return -held * advantage, -ratio * advantage if low <= ratio <= high else 0.0


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


Documents = Sequence[Sequence[tuple[str, int]]]
"""The documents of a row, each a list of pieces: "given" tokens, or a turn's "trained" ones."""


def token_batch(rows: Sequence[Documents], *, width: int) -> TokenBatch:
    """Packed rows laid out piece by piece, the rest padding; every "trained" piece is a turn."""
    ids = np.zeros((3, len(rows), width), np.int32)  # segment, turn, trajectory
    ids[1:] = -1
    mask = np.zeros((len(rows), width), bool)
    trajectory = 0
    for row, documents in enumerate(rows):
        at = 0
        for segment, pieces in enumerate(documents, 1):
            turn = 0
            for kind, count in pieces:
                here = (row, slice(at, at + count))
                ids[0][here], ids[2][here] = segment, trajectory
                if kind == "trained":
                    ids[1][here], mask[here] = turn, True
                    turn += 1
                at += count
            trajectory += 1
    zeros = jnp.zeros(mask.shape)
    return TokenBatch(
        tokens=jnp.asarray(ids[0]),
        positions=jnp.asarray(ids[0]),
        segment_ids=jnp.asarray(ids[0]),
        loss_mask=jnp.asarray(mask),
        turn_ids=jnp.asarray(ids[1]),
        trajectory_ids=jnp.asarray(ids[2]),
        behavior_logprobs=zeros,
        token_advantages=zeros,
    )


def reduced(per_token, batch: TokenBatch, how: str, *, length: float = 1.0) -> float:
    """A loss per token as one number: a dictionary of units, each a list of its losses."""
    sequences, turns = {}, {}
    for b, t in np.argwhere(batch.loss_mask):
        row = int(batch.trajectory_ids[b, t])
        value = float(per_token[b, t])
        sequences.setdefault(row, []).append(value)
        turns.setdefault((row, int(batch.turn_ids[b, t])), []).append(value)
    losses = [x for unit in sequences.values() for x in unit]
    if not losses:
        return 0.0
    if how == "token_mean":
        return sum(losses) / len(losses)
    if how == "constant_length":
        return sum(losses) / (len(sequences) * length)
    units = (sequences if how == "sequence_mean" else turns).values()
    return sum(sum(unit) / len(unit) for unit in units) / len(units)
