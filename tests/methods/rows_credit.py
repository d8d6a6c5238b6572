"""Rows of the suite of relatives: advantages over other sets of turns, and other baselines."""

import functools

import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import credit
from tests.methods import relatives
from tests.methods.relatives import (
    Row,
    kept,
    members,
    outcome_and_forfeit,
    spread,
    standard_scores,
)


def after_grpo(*modifiers):
    """GRPO with modifiers."""
    return lambda: methods.chain(methods.grpo(), *modifiers)


def base(batch):
    """Advantages of GRPO on every turn."""
    return spread(batch, standard_scores(batch, outcome_and_forfeit(batch)))


def places(batch, row=None):
    """Turns `(row, turn)` of included trajectories, of one row's group or of all."""
    rows = range(len(batch.group_ids)) if row is None else members(batch, row)
    return [(i, k) for i in rows for k in range(kept(batch).shape[1]) if kept(batch)[i, k]]


def discounted(batch, totals, discount):
    """`discount^(T − 1 − k) · total` on every turn, for a reward of the last turn."""
    out = np.zeros(batch.turn_mask.shape)
    for i, k in places(batch):
        out[i, k] = discount ** (batch.turn_mask[i].sum() - 1 - k) * totals[i]
    return out


def scores_within(batch, values, key, *, std, ddof, eps=1e-6):
    """`(x − mean) [/ (std + eps)]` over the turns of the group with an equal key."""
    out = np.zeros(batch.turn_mask.shape)
    for i, k in places(batch):
        pool = np.array([values[j, t] for j, t in places(batch, i) if key(j, t) == key(i, k)])
        if len(pool) > max(ddof, 1) and np.ptp(pool) > 0:
            scale = np.std(pool, ddof=ddof) + eps if std else 1.0
            out[i, k] = (values[i, k] - pool.mean()) / scale
    return out


def present(batch, row=None):
    """Included rows with turns of the whole batch, whatever the row."""
    return [i for i in range(len(batch.success)) if kept(batch)[i].any()]


def sample_scores(batch, totals, *, ddof, eps=1e-6, std=True, pool_of=members):
    """`(R − mean) / (std + eps)` over rows, with the deviation of a sample."""
    out = np.zeros(len(totals))
    for i in range(len(totals)):
        pool = np.array([totals[j] for j in pool_of(batch, i)], np.float64)
        if len(pool) > ddof and np.ptp(pool) > 0:
            out[i] = (totals[i] - pool.mean()) / (pool.std(ddof=ddof) + eps if std else 1.0)
    return out


def gigpo(batch, *, std):
    totals, anchors = outcome_and_forfeit(batch), batch.facts["anchors"]
    episode = spread(batch, sample_scores(batch, totals, ddof=1, std=std))
    step = scores_within(
        batch, discounted(batch, totals, 0.95), lambda i, k: anchors[i, k], std=std, ddof=1
    )
    return episode + step


def salt(batch):
    anchors, actions, values = batch.facts["anchors"], batch.facts["actions"], base(batch)

    def transition(i, k):
        ends = k + 1 == batch.turn_mask[i].sum()
        return anchors[i, k], actions[i, k], None if ends else anchors[i, k + 1]

    out = np.zeros_like(values)
    for i, k in places(batch):
        same = [p for p in places(batch, i) if transition(*p) == transition(i, k)]
        out[i, k] = np.mean([values[p] for p in same])
    return out


def flow_grpo(batch, *, over_turns):
    totals = outcome_and_forfeit(batch)
    if not over_turns:
        return spread(batch, sample_scores(batch, totals, ddof=1))
    values = np.repeat(totals[:, None], batch.turn_mask.shape[1], axis=1)
    return scores_within(batch, values, lambda i, k: 0, std=True, ddof=1)


def spo(batch):
    raw = outcome_and_forfeit(batch) - 0.5  # no problem was met before
    return spread(batch, sample_scores(batch, raw, ddof=1, eps=1e-8, pool_of=present))


def turn_rewards(batch):
    """1 on the last turn of a success, −.1 on broken turns."""
    out = np.zeros(batch.turn_mask.shape)
    for i, k in places(batch):
        ends = k + 1 == batch.turn_mask[i].sum()
        out[i, k] = float(ends and batch.success[i]) - 0.1 * batch.violations[i, k]
    return out


def rank_grpo(batch, *, skip):
    earned, out = turn_rewards(batch), np.zeros(batch.turn_mask.shape)
    gains = [earned[:, j] / np.log2(j + 2) for j in range(earned.shape[1])]
    returns = np.stack([np.sum(gains[k:], axis=0) for k in range(len(gains))], axis=1)
    for i, k in places(batch):
        pool = [
            returns[j, k] if batch.turn_mask[j, k] else 0.0
            for j in members(batch, i)
            if batch.turn_mask[j, k] or not skip
        ]
        if len(pool) > 1 and np.ptp(pool) > 1e-9:
            out[i, k] = (returns[i, k] - np.mean(pool)) / (np.std(pool, ddof=1) + 1e-4)
    return out


def brpo(batch, *, weigh):
    out, scores = np.zeros(batch.turn_mask.shape), batch.facts["budget_scores"].astype(np.float64)
    for i in present(batch):
        scores[i, batch.turn_mask[i].sum() - 1] = outcome_and_forfeit(batch)[i]

    def returns(j, longest):
        own = scores[j][batch.turn_mask[j]]
        held = np.concatenate([own, np.full(longest - len(own), own[-1])])
        p = np.array([weigh(s, longest) for s in range(longest)], np.float64)
        return held, p / p.sum(), [(held * p)[s:].sum() / p.sum() for s in range(longest)]

    for i, s in places(batch):
        pool = members(batch, i)
        longest = max(batch.turn_mask[j].sum() for j in pool)
        held, p, own = returns(i, longest)
        powers = 2.0 ** np.arange(s)
        first = powers @ held[:s] / powers.sum() * p[s:].sum() if s else 0.0
        second = np.mean([returns(j, longest)[2][s] for j in pool])
        out[i, s] = own[s] - (s * first + (longest - s) * second) / longest
    return out


def step_grpo(batch):
    anchors, actions = batch.facts["anchors"], batch.facts["actions"]

    def context(i, k):
        return k, tuple(anchors[i, : k + 1]), tuple(actions[i, :k])

    return scores_within(batch, turn_rewards(batch), context, std=True, ddof=0)


def eapo(batch):
    returns = discounted(batch, outcome_and_forfeit(batch), 0.95)
    return scores_within(batch, returns, lambda i, k: 0, std=True, ddof=0)


relatives.FACTS["budget_scores"] = lambda rng, e: rng.random(e.turn_mask.shape, np.float32)

ROWS: dict[str, Row] = {
    "gigpo": Row(
        methods.gigpo,
        functools.partial(gigpo, std=False),
        neutral=lambda: methods.gigpo(step_weight=0.0),
        parent=lambda: methods.grpo(divide_by_std=False),
    ),
    "gigpo with deviation": Row(
        lambda: methods.gigpo(divide_by_std=True), functools.partial(gigpo, std=True)
    ),
    "salt": Row(after_grpo(methods.salt()), salt),
    "flow_grpo": Row(
        methods.flow_grpo,
        functools.partial(flow_grpo, over_turns=False),
        neutral=lambda: methods.flow_grpo(ddof=0),
        parent=methods.grpo,
    ),
    "flow_grpo over turns": Row(
        lambda: methods.flow_grpo(normalize=credit.group),
        functools.partial(flow_grpo, over_turns=True),
    ),
    "spo": Row(lambda: methods.spo(slots=64), spo),
    "rank_grpo": Row(methods.rank_grpo, functools.partial(rank_grpo, skip=False)),
    "rank_grpo of own turns": Row(
        lambda: methods.rank_grpo(missing="skip"), functools.partial(rank_grpo, skip=True)
    ),
    "brpo": Row(methods.brpo, functools.partial(brpo, weigh=lambda s, longest: 1)),
    "brpo linear": Row(
        lambda: methods.brpo(prior="linear"),
        functools.partial(brpo, weigh=lambda s, longest: s + 1),
    ),
    "brpo base": Row(
        lambda: methods.brpo(prior="base"),
        functools.partial(brpo, weigh=lambda s, longest: s + 1 == longest),
    ),
    "step_grpo": Row(methods.step_grpo, step_grpo),
    "eapo": Row(
        methods.eapo,
        eapo,
        neutral=lambda: methods.eapo(discount=0.9),
        parent=lambda: methods.gtpo(silence_equal=False)._replace(rewards=methods.grpo().rewards),
    ),
}
