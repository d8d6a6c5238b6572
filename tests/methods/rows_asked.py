"""Rows of the suite of relatives: what users ask for beside rewards and baselines."""

import math

import numpy as np

from gtpo_jax import methods
from gtpo_jax.methods.gtpo import gtpo_credit
from gtpo_jax.parts import credit, rewards
from tests.methods import relatives
from tests.methods.relatives import ROWS as COUNT
from tests.methods.relatives import Row


def with_gaps(rng, e):
    """Scores of states, a fifth of them NaN: not scored."""
    scores = rng.uniform(0, 1, e.turn_mask.shape)
    return np.where(rng.random(scores.shape) < 0.2, np.nan, scores).astype(np.float32)


relatives.FACTS |= {
    "answer_logprobs": lambda rng, e: -rng.uniform(0, 3, e.turn_mask.shape).astype(np.float32),
    "answer_logprobs_before": lambda rng, e: -rng.uniform(1, 4, COUNT).astype(np.float32),
    "turn_states": lambda rng, e: rng.standard_normal((*e.turn_mask.shape, 6)).astype(np.float32),
    "progress": with_gaps,
}


def turn_method() -> methods.Method:
    """GTPO's credit on the outcome and the format penalty, without a resemblance of code."""
    parts = {"outcome": rewards.outcome(), "format": rewards.format_penalty(0.1)}
    return methods.grpo()._replace(rewards=parts, credit=gtpo_credit())


def turns_of(batch, row):
    return int(batch.turn_mask[row].sum())


def turn_rewards(batch, penalty=0.1):
    """The rewards of `turn_method` as ragged lists."""
    out = []
    for i in range(COUNT):
        earned = [-penalty * float(batch.violations[i, k]) for k in range(turns_of(batch, i))]
        if earned and batch.success[i]:
            earned[-1] += 1.0
        out.append(earned)
    return out


def discounted(rewards, discount):
    return [
        [sum(discount ** (j - k) * row[j] for j in range(k, len(row))) for k in range(len(row))]
        for row in rewards
    ]


def scored(batch, ragged, groups, *, ddof=0, eps=1e-6, places=None):
    """z of all turns of a group, of those whose `places(i, k)` are equal; ragged in, [M, K] out."""
    sets: dict = {}
    for i, row in enumerate(ragged):
        for k in range(len(row)):
            if batch.included[i]:
                sets.setdefault((groups[i], places(i, k) if places else 0), []).append((i, k))
    out = np.zeros(batch.turn_mask.shape)
    for members in sets.values():
        pool = np.array([ragged[i][k] for i, k in members], np.float64)
        if len(pool) > ddof and np.ptp(pool) > 1e-9:
            for (i, k), x in zip(members, pool, strict=True):
                out[i, k] = (x - pool.mean()) / (pool.std(ddof=ddof) + eps)
    return out


def gtpo_turns(batch):
    return scored(batch, discounted(turn_rewards(batch), 0.9), batch.group_ids)


def centered(batch):
    return relatives.spread(
        batch,
        relatives.standard_scores(batch, relatives.outcome_and_forfeit(batch), std=False),
    )


def mean_entropy(batch, row):
    n = turns_of(batch, row)
    weights = batch.facts["turn_tokens"][row, :n].astype(np.float64)
    return float(np.sum(batch.facts["turn_entropies"][row, :n] * weights) / weights.sum())


def grpo_s(batch, weight=0.1):
    earned = relatives.outcome_and_forfeit(batch)
    shaped = np.zeros(COUNT)
    for i in range(COUNT):
        group = relatives.members(batch, i)
        if i not in group:
            continue
        alike = [j for j in group if (earned[j] > 0) == (earned[i] > 0)]
        if len(alike) == len(group):
            continue
        if earned[i] > 0:
            share = mean_entropy(batch, i) / sum(mean_entropy(batch, j) for j in alike)
            shaped[i] = earned[i] + weight * share * len(alike)
        else:
            inverse = [1 / max(mean_entropy(batch, j), 0.2) for j in alike]
            share = 1 / max(mean_entropy(batch, i), 0.2) / sum(inverse)
            shaped[i] = -1 - weight * share * len(alike)
    return relatives.spread(batch, relatives.standard_scores(batch, shaped))


def igpo(batch, discount=0.8):
    earned = relatives.outcome_and_forfeit(batch)
    ragged = []
    for i in range(COUNT):
        before = math.exp(batch.facts["answer_logprobs_before"][i])
        row = []
        for k in range(turns_of(batch, i)):
            after = math.exp(batch.facts["answer_logprobs"][i, k])
            row.append(after - before)
            before = after
        ragged.append([*row[:-1], earned[i]] if row else [])
    z = scored(batch, ragged, batch.group_ids, places=lambda i, k: k == turns_of(batch, i) - 1)
    kinds = [list(z[i, : turns_of(batch, i)]) for i in range(COUNT)]
    return padded(discounted(kinds, discount), batch)


def padded(ragged, batch):
    out = np.zeros(batch.turn_mask.shape)
    for i, row in enumerate(ragged):
        out[i, : len(row)] = row
    return out


def turn_ppo(batch):
    """The first step, when all values are 0."""
    returns = discounted(turn_rewards(batch), 0.99 * 0.9)
    return scored(batch, returns, np.zeros(COUNT, int))


def progress(batch, weight=0.5, smear=0.6):
    """GTPO's credit on rewards with the smeared changes of scores."""
    earned = turn_rewards(batch)
    for i in range(COUNT):
        before = 0.1
        for k in range(turns_of(batch, i)):
            score = float(batch.facts["progress"][i, k])
            if math.isnan(score):
                continue
            shares = [smear ** (k - j) for j in range(k + 1)]
            for j, share in enumerate(shares):
                earned[i][j] += weight * (score - before) * share / sum(shares)
            before = score
    return scored(batch, discounted(earned, 0.9), batch.group_ids)


def decoupled(batch):
    outcome = scored(batch, discounted(turn_rewards(batch, 0.0), 0.9), batch.group_ids)
    violations = [
        [-0.1 * float(v) for v in batch.violations[i, : turns_of(batch, i)]] for i in range(COUNT)
    ]
    form = scored(batch, discounted(violations, 0.9), batch.group_ids)
    total = outcome + 0.5 * form
    ragged = [list(total[i, : turns_of(batch, i)]) for i in range(COUNT)]
    return scored(batch, ragged, np.zeros(COUNT, int), ddof=1, eps=1e-4)


def aem(batch, rate=1.0):
    plain = gtpo_turns(batch)
    out = np.zeros_like(plain)
    for i in range(COUNT):
        group = relatives.members(batch, i)
        entropies = batch.facts["turn_entropies"].astype(np.float64)
        pool = [entropies[j, k] for j in group for k in range(turns_of(batch, j))]
        if i not in group:
            continue
        low, width = min(pool), max(pool) - min(pool)
        weights = [math.exp(-rate * (h - low) / width) if width else 1.0 for h in pool]
        for k in range(turns_of(batch, i)):
            h = (entropies[i, k] - low) / width if width else 0.0
            out[i, k] = plain[i, k] * math.exp(-rate * h) / np.mean(weights)
    return out


def changed(*modifiers, base=turn_method):
    return lambda: methods.chain(base(), *modifiers)


ROWS: dict[str, Row] = {
    "gtpo_conflicts": Row(
        make=methods.gtpo_conflicts,
        reference=centered,
        neutral=methods.gtpo_conflicts,
        parent=methods.dr_grpo,
    ),
    "gtpo_tokens": Row(
        make=methods.gtpo_tokens,
        reference=lambda batch: relatives.spread(batch, relatives.outcome_and_forfeit(batch)),
    ),
    "grpo_s": Row(
        make=methods.grpo_s,
        reference=grpo_s,
        neutral=lambda: methods.grpo_s(weight=0.0),
        parent=methods.grpo,
    ),
    "igpo": Row(
        make=lambda: methods.igpo(discount=0.8),
        reference=igpo,
        neutral=lambda: methods.igpo(turn_weight=0.0),
        parent=methods.grpo,
    ),
    "turn_ppo": Row(
        make=lambda: methods.turn_ppo(width=5),
        reference=turn_ppo,
        neutral=lambda: methods.turn_ppo(width=5, discount=1.0, trace=1.0, whiten=False),
        parent=lambda: turn_method()._replace(credit=credit.discounted(1.0)),
    ),
    "progress": Row(
        make=changed(methods.progress(weight=0.5, start=0.1, smear=0.6)),
        reference=progress,
        neutral=changed(methods.progress(weight=0.0)),
        parent=turn_method,
    ),
    "decoupled": Row(
        make=changed(methods.decoupled(weights={"format": 0.5})),
        reference=decoupled,
        neutral=changed(methods.decoupled(whiten=False), base=methods.rloo),
        parent=methods.rloo,
    ),
    "aepo_entropy": Row(make=changed(methods.aepo_entropy()), reference=gtpo_turns),
    "aem": Row(
        make=changed(methods.aem()),
        reference=aem,
        neutral=changed(methods.aem(rate=0.0)),
        parent=turn_method,
    ),
}
