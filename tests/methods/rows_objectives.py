"""Rows of the suite of relatives: baselines, rejection and selection of rows.

Modifiers that act on tokens leave the advantages of turns alone: `test_token_relatives.py` tries
them.
"""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np

from gtpo_jax import methods
from gtpo_jax.maths import draws
from tests.methods import relatives
from tests.methods.relatives import Row, members, outcome_and_forfeit, spread, standard_scores
from tests.methods.rows_credit import after_grpo, base, present

relatives.FACTS["resampled"] = lambda rng, e: (rng.random(len(e.success)) < 0.3).astype(np.int32)


def minus(batch, baseline):
    """Trajectory rewards minus a baseline of those of the group, on every turn."""
    totals = outcome_and_forfeit(batch)
    out = np.zeros(len(totals))
    for i in present(batch):
        pool = members(batch, i)
        out[i] = totals[i] - baseline(batch, totals[pool], pool)
    return spread(batch, out)


def length_weighted(batch, rewards, pool):
    lengths = batch.facts["response_tokens"][pool].astype(np.float64)
    return rewards @ lengths / lengths.sum()


def log_mean_exp(batch, rewards, pool, *, tau):
    del batch, pool
    return tau * np.log(np.mean(np.exp(rewards / tau)))


def signed(batch):
    """±1 for successes and failures."""
    return np.where(batch.success & batch.included, 1.0, -1.0)


def reinforce_rej(batch):
    out = np.zeros(len(batch.success))
    for i in present(batch):
        if len({bool(batch.success[j]) for j in members(batch, i)}) > 1:
            out[i] = signed(batch)[i]
    return spread(batch, out)


def drawn(batch):
    """The number that rows are drawn by."""
    return np.asarray(draws.of_rows(jnp.asarray(batch.facts["turn_logprobs"]), batch.turn_mask))


def red_drop(batch):
    """Surplus failures of a group are dropped, the mean is that of the others."""
    totals, keys = outcome_and_forfeit(batch), drawn(batch)
    out = np.zeros(len(totals))
    for i in present(batch):
        pool = members(batch, i)
        mean = np.mean([totals[j] for j in pool])
        below = sorted((j for j in pool if totals[j] < mean), key=lambda j: keys[j])
        above = [j for j in pool if totals[j] >= mean]
        stay = [*above, *below[: len(above)]]
        if i in stay:
            out[i] = totals[i] - np.mean([totals[j] for j in stay])
    return spread(batch, out)


def grpo_d(batch):
    broken = (batch.violations & batch.turn_mask).any(1)
    kept = batch.included & batch.turn_mask.any(1)
    return spread(batch, standard_scores(batch, (batch.success + 1.0 * ~broken) * kept))


def d3s_rows(batch, *, share):
    """The subset of this size whose advantages vary most, among all; ties by the hash."""
    out, keys = base(batch), drawn(batch)
    rows = present(batch)
    ordered = sorted(rows, key=lambda i: (round(float(out[i, 0]), 5), keys[i]))
    number = int(np.ceil(share * len(rows) - 1e-3))
    best = max(
        np.var([out[i, 0] for i in chosen]) for chosen in itertools.combinations(rows, number)
    )
    for low in range(number + 1):
        chosen = [*ordered[:low], *ordered[len(ordered) - (number - low) :]]
        if np.var([out[i, 0] for i in chosen]) > best - 1e-6:
            break
    for i in set(rows) - set(chosen):
        out[i] = 0.0
    return out


def aepo_arbitrary(batch):
    """GRPO of the rows at the temperature of the sampler."""
    resampled = batch.facts["resampled"] > 0
    return base(dataclasses.replace(batch, included=batch.included & ~resampled))


def keeping(share):
    """D3S with a constant share of rows, and all tokens."""
    return methods.d3s(rows=share, last_rows=share, tokens=1.0, last_tokens=1.0)


def on_tokens(modifier):
    """A row of a modifier that leaves the advantages of turns as they are."""
    return Row(after_grpo(modifier), base)


ROWS: dict[str, Row] = {
    "opo": Row(methods.opo, functools.partial(minus, baseline=length_weighted)),
    "opmd": Row(methods.opmd, functools.partial(minus, baseline=lambda b, r, pool: r.mean())),
    "opmd soft": Row(
        lambda: methods.opmd(baseline="log_mean_exp", tau=0.5),
        functools.partial(minus, baseline=functools.partial(log_mean_exp, tau=0.5)),
        neutral=lambda: methods.opmd(baseline="log_mean_exp", tau=1e4),
        parent=methods.opmd,
        atol=5e-5,
    ),
    "asymre": Row(
        methods.asymre,
        functools.partial(minus, baseline=lambda b, r, pool: r.mean() - 0.1),
        neutral=lambda: methods.asymre(shift=0.0),
        parent=lambda: methods.rec(sides="none"),
    ),
    "rec drop": Row(lambda: methods.rec(drop=True), red_drop),
    "rec": Row(
        lambda: methods.rec(divide_by_std=True),
        base,
        neutral=lambda: methods.rec(divide_by_std=True),
        parent=methods.grpo,
    ),
    "raft": Row(methods.raft, lambda b: spread(b, np.maximum(signed(b), 0.0))),
    "raft_pp": Row(methods.raft_pp, lambda b: spread(b, np.maximum(signed(b), 0.0))),
    "reinforce_rej": Row(methods.reinforce_rej, reinforce_rej),
    "grpo_d": Row(methods.grpo_d, grpo_d),
    "d3s": Row(
        after_grpo(keeping(0.4)),
        functools.partial(d3s_rows, share=0.4),
        neutral=after_grpo(keeping(1.0)),
        parent=methods.grpo,
    ),
    "aepo_arbitrary": Row(after_grpo(methods.aepo_arbitrary()), aepo_arbitrary),
    "clip_cov": on_tokens(methods.clip_cov()),
    "high_entropy": on_tokens(methods.high_entropy()),
    "lambda_grpo": on_tokens(methods.lambda_grpo()),
}
