"""Rows of the suite of relatives: modifiers that weigh or replace finished advantages."""

import dataclasses
import functools

import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import credit, rewards
from tests.methods import relatives
from tests.methods.relatives import Row, members, outcome_and_forfeit, spread, standard_scores
from tests.methods.rows_credit import after_grpo, base, present

relatives.FACTS.update(
    {
        name: lambda rng, e: rng.normal(size=(len(e.success), 3)).astype(np.float32)
        for name in ("response_states", "resampled_states", "resampled_means")
    }
)
relatives.FACTS.update(
    {
        "demonstration_distance": lambda rng, e: rng.random(len(e.success)).astype(np.float32),
        "off_policy": lambda rng, e: rng.random(len(e.success)) < 0.3,
        "demonstration_gap": lambda rng, e: rng.normal(size=len(e.success)).astype(np.float32),
    }
)


def token_means(batch, name):
    """The mean over the tokens of each row of a fact of turns."""
    out = np.zeros(len(batch.success))
    for i, mask in enumerate(batch.turn_mask):
        tokens = batch.facts["turn_tokens"][i][mask].astype(np.float64)
        if len(tokens):
            out[i] = tokens @ batch.facts[name][i][mask].astype(np.float64) / tokens.sum()
    return out


def semantic_entropy(logprobs, answers, *, estimator):
    clusters = {}
    for row, (logprob, answer) in enumerate(zip(logprobs, answers, strict=True)):
        key = answer if answer >= 0 else (row,)
        clusters[key] = clusters.get(key, 0.0) + np.exp(logprob)
    p = np.array(list(clusters.values())) / sum(clusters.values())
    return -np.sum(p * np.log(p)) if estimator == "rao" else -np.mean(np.log(p))


def seed_grpo(batch, *, alpha, estimator, form):
    out, logprobs = base(batch), token_means(batch, "turn_logprobs")
    for i in present(batch):
        pool = members(batch, i)
        if len(pool) < 2:
            continue
        answers = batch.facts["answers"][pool]
        entropy = semantic_entropy(logprobs[pool], answers, estimator=estimator)
        share = alpha * entropy / np.log(len(pool))
        out[i] *= 1 / (1 + share) if form == "reciprocal" else max(1 - share, 0)
    return out


def edge_grpo(batch, *, pool_of):
    out, entropies = base(batch), token_means(batch, "turn_entropies")
    for i in present(batch):
        out[i] *= np.mean(entropies[pool_of(batch, i)]) / entropies[i]
    return out


def egpo(batch):
    out, entropies = base(batch), token_means(batch, "turn_entropies")
    bound = np.abs(out) / 2
    return out + 0.4 * np.minimum(np.maximum(entropies[:, None], -bound), bound)


def gcpo(batch):
    states, resampled, means = (
        batch.facts[name].astype(np.float64)
        for name in ("response_states", "resampled_states", "resampled_means")
    )
    out = base(batch)
    for i in present(batch):
        target = resampled[i] - means[i] + states[members(batch, i)].mean(0)
        out[i] *= 2 * states[i] @ target / np.linalg.norm(states[i]) / np.linalg.norm(target)
    return out


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dr_irl(batch, *, tau):
    distances = batch.facts["demonstration_distance"].astype(np.float64)
    gaps, rows = batch.facts["demonstration_gap"].astype(np.float64), present(batch)
    near = [i for i in rows if (gaps[i] - gaps[rows].mean()) ** 2 <= tau]
    model = sigmoid(gaps[near].mean()) / sigmoid(gaps[rows].mean())
    return base(batch) * (sigmoid(distances) / sigmoid(distances[rows].mean()) * model)[:, None]


def turn_credit():
    """GTPO without partial rewards, which need code."""
    parts = {"outcome": rewards.outcome(), "format": rewards.format_penalty(0.1)}
    return methods.gtpo(silence_equal=False)._replace(rewards=parts)


def silenced(batch):
    out = unsilenced(batch)
    for i in range(len(out)):
        if len({bool(batch.success[j]) for j in members(batch, i)}) < 2:
            out[i] = 0
    return out


def unsilenced(batch):
    """Discounted outcomes and format penalties, normalized over all turns of the group."""
    values = np.zeros(batch.turn_mask.shape)
    for i in present(batch):
        last = batch.turn_mask[i].sum() - 1
        after = 0.0
        for k in range(last, -1, -1):
            earned = float(batch.success[i]) * (k == last) - 0.1 * batch.violations[i, k]
            values[i, k] = after = earned + 0.9 * after
    out = np.zeros_like(values)
    for i in present(batch):
        pool = np.concatenate([values[j][batch.turn_mask[j]] for j in members(batch, i)])
        if np.ptp(pool) > 0:
            out[i] = (values[i] - pool.mean()) / (pool.std() + 1e-6)
    return out


def soft(r):
    if r >= 0.8:
        return 0.8 + 0.01 * np.log(1 + r - 0.8)
    return 0.8 - (np.exp(0.8 - r) - 1) / (np.e - 1)


def tempsamp_soft(batch):
    rewards = np.array([soft(r) for r in outcome_and_forfeit(batch)])
    return spread(batch, standard_scores(batch, rewards))


def tempsamp_anchor(batch):
    elsewhere = batch.facts["off_policy"]
    sampled = dataclasses.replace(batch, included=batch.included & ~elsewhere)
    scores = standard_scores(sampled, outcome_and_forfeit(batch))
    for i in np.flatnonzero(elsewhere):
        scores[i] = 1.2 * max((scores[j] for j in members(sampled, i)), default=0.0)
    return spread(batch, scores)


def grpo_lead(batch):
    lengths, earned = batch.facts["response_tokens"], np.zeros(len(batch.success))
    rates = np.zeros(len(batch.success))
    for i in present(batch):
        right = [j for j in members(batch, i) if batch.success[j]]
        rates[i] = len(right) / len(members(batch, i))
        earned[i] = -1.0
        if batch.success[i]:
            pool = lengths[right].astype(np.float64)
            several = len(right) > 1 and np.ptp(pool) > 0
            z = (lengths[i] - pool.mean()) / (pool.std(ddof=1) + 1e-6) if several else 0.0
            broken = (batch.violations[i] & batch.turn_mask[i]).any()
            earned[i] = np.exp(-0.05 * z) - float(broken)
    scores = standard_scores(batch, earned)
    weigh = lambda p: 0.4 + 1.1 / (1 + np.exp(10 * (p - 0.75)))  # noqa: E731
    return spread(batch, scores * np.where(scores > 0, weigh(rates), weigh(1 - rates)))


ROWS: dict[str, Row] = {
    "tempsamp": Row(after_grpo(methods.tempsamp()), tempsamp_soft),
    "tempsamp anchor": Row(after_grpo(methods.tempsamp(shaping="anchor")), tempsamp_anchor),
    "grpo_lead": Row(
        after_grpo(methods.grpo_lead()),
        grpo_lead,
        neutral=after_grpo(methods.grpo_lead(weight=0.0, wrong=0.0, lowest=1.0, highest=1.0)),
        parent=methods.grpo,
    ),
    "seed_grpo": Row(
        after_grpo(methods.seed_grpo(alpha=0.8)),
        functools.partial(seed_grpo, alpha=0.8, estimator="rao", form="reciprocal"),
        neutral=after_grpo(methods.seed_grpo(alpha=0.0)),
        parent=methods.grpo,
    ),
    "seed_grpo as printed": Row(
        after_grpo(methods.seed_grpo(alpha=0.3, estimator="mean", form="linear")),
        functools.partial(seed_grpo, alpha=0.3, estimator="mean", form="linear"),
    ),
    "edge_grpo": Row(
        after_grpo(methods.edge_grpo()),
        functools.partial(edge_grpo, pool_of=present),
        neutral=after_grpo(methods.edge_grpo(floor=100.0)),
        parent=methods.grpo,
    ),
    "edge_grpo in the group": Row(
        after_grpo(methods.edge_grpo(over=credit.group)),
        functools.partial(edge_grpo, pool_of=members),
    ),
    "egpo": Row(
        after_grpo(methods.egpo()),
        egpo,
        neutral=after_grpo(methods.egpo(weight=0.0)),
        parent=methods.grpo,
    ),
    "gcpo": Row(after_grpo(methods.gcpo()), gcpo),
    "dr_irl": Row(after_grpo(methods.dr_irl()), functools.partial(dr_irl, tau=1.0)),
    "silenced": Row(lambda: methods.chain(turn_credit(), methods.silenced()), silenced),
    "silenced by reward": Row(
        after_grpo(methods.silenced(equal="reward")),
        base,
        neutral=after_grpo(methods.silenced(equal="reward")),
        parent=methods.grpo,
    ),
}
