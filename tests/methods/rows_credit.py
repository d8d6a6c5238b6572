"""Rows of the suite of relatives: advantages over other sets of turns, and other baselines."""

import functools

import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import credit
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
}
