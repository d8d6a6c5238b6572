"""Rows of the suite of relatives: shaping of rewards."""

import itertools
import math

import numpy as np

from gtpo_jax import methods
from gtpo_jax.parts import rewards
from tests.methods import relatives
from tests.methods.relatives import GROUPS, Row, members, spread, standard_scores

SUBS = np.arange(len(GROUPS)) % 2 == 1
"""Rows of the sub agent; each belongs to a main row of its group."""
WORDS = ("so", "the", "sum", "is", "four", "or", "five", "then")


def main_rows(rng, e):
    mains = [[j for j in range(len(GROUPS)) if GROUPS[j] == g and not SUBS[j]] for g in range(4)]
    return np.array(
        [mains[g][i % len(mains[g])] if SUBS[i] else i for i, g in enumerate(GROUPS)],
        np.int32,
    )


def texts(rng, e):
    counts = [rewards.count_ngrams(" ".join(rng.choice(WORDS, 3 + i % 4))) for i in range(16)]
    counts[3] = np.zeros_like(counts[3])  # a text without words
    return np.stack(counts)


relatives.FACTS |= {
    "entity_hits": lambda rng, e: rng.integers(0, 4, len(e.success)).astype(np.int32),
    "entity_count": lambda rng, e: np.full(len(e.success), 4, np.int32),
    "cut_off": lambda rng, e: rng.random(len(e.success)) < 0.2,
    "answer_turns": lambda rng, e: rng.random(e.turn_mask.shape) < 0.5,
    "plans": lambda rng, e: rng.integers(0, 3, len(e.success)).astype(np.int32),
    "prefix_preferences": lambda rng, e: rng.random(e.turn_mask.shape).astype(np.float32),
    "families": lambda rng, e: (e.group_ids // 2).astype(np.int32),
    "last_text": texts,
    "diversity": lambda rng, e: rng.random((len(e.success), 8)).astype(np.float32),
    "scores": lambda rng, e: rng.random((len(e.success), 3)).astype(np.float32),
    "reference_answer_logprobs": lambda rng, e: (
        -rng.uniform(0.01, 2, len(e.success)).astype(np.float32)
    ),
    "reward judge": lambda rng, e: rng.random(e.turn_mask.shape).astype(np.float32),
    "agents": lambda rng, e: SUBS.astype(np.int32),
    "parents": main_rows,
}


def turns(batch, row):
    """Numbers of the turns of a row."""
    return [k for k in range(batch.turn_mask.shape[1]) if batch.turn_mask[row, k]]


def broken(batch, row):
    """True if a turn of the row broke the rules."""
    return any(batch.violations[row, k] for k in turns(batch, row))


def earned(batch, function):
    """`function(row)` of included rows with turns, [M]; 0 for others."""
    rows = range(len(batch.success))
    return np.array([float(function(i)) if i in members(batch, i) else 0.0 for i in rows])


def plain(batch, row):
    """The reward of `grpo`."""
    return float(batch.success[row] and not broken(batch, row))


def scored(batch, function):
    """GRPO's advantages of a reward per trajectory."""
    return spread(batch, standard_scores(batch, earned(batch, function)))


def otc_po(batch):
    calls = [sum(int(batch.facts["calls"][i, k]) for k in turns(batch, i)) for i in range(16)]

    def reward(i):
        least = min((calls[j] for j in members(batch, i) if batch.success[j]), default=0)
        m = calls[i]
        if m == least == 0:
            tool = 1.0
        elif least == 0:
            tool = math.cos(m * math.pi / (2 * m + 3))
        else:
            f = 2 * least * m / (m + least)
            tool = math.sin(f * math.pi / (2 * least))
        return plain(batch, i) * tool if batch.success[i] else 0.0

    return scored(batch, reward)


def e_grpo(batch):
    hits, count = batch.facts["entity_hits"], batch.facts["entity_count"]

    def reward(i):
        gamma = [hits[j] / count[j] for j in members(batch, i)]
        found = hits[i] / count[i] / max(gamma) if max(gamma) > 0 else 0.0
        if broken(batch, i):
            return 0.0
        return 1.0 if batch.success[i] else 0.3 * found

    return np.where(batch.facts["cut_off"][:, None], 0.0, scored(batch, reward))


def tp_grpo(batch):
    out = scored(batch, lambda i: plain(batch, i))
    for i in range(16):
        group = members(batch, i)
        accuracy = sum(bool(batch.success[j]) for j in group) / max(len(group), 1)
        for k in turns(batch, i):
            bad = batch.facts["call_errors"][i, k] > 0 or batch.violations[i, k]
            if batch.success[i]:
                out[i, k] -= 0.7 * accuracy * bad
            elif not batch.facts["answer_turns"][i, k]:
                out[i, k] = 0.0
    return out


def pta_grpo(batch):
    plans = batch.facts["plans"]

    def quality(i):
        same = [float(batch.success[j]) for j in members(batch, i) if plans[j] == plans[i]]
        return sum(same) / len(same)

    out = scored(batch, lambda i: plain(batch, i) + 0.6 * quality(i))
    for i in range(16):
        group = members(batch, i)
        if i in group:
            pool = np.array(list({int(plans[j]): quality(j) for j in group}.values()))
            z = (quality(i) - pool.mean()) / (pool.std() + 1e-6) if np.ptp(pool) > 0 else 0.0
            out[i, 0] = z
    return out


def ws_grpo(batch):
    likes = batch.facts["prefix_preferences"]
    return scored(
        batch,
        lambda i: plain(batch, i) + 5.0 * np.mean([float(likes[i, k]) for k in turns(batch, i)]),
    )


def text_similarity(own, other):
    """BLEU-2 of a text against one reference, from its counts of words and of pairs."""
    precisions = []
    for mine, theirs in zip(own.tolist(), other.tolist(), strict=True):
        if sum(mine):
            both = sum(min(a, b) for a, b in zip(mine, theirs, strict=True))
            precisions.append(both / sum(mine))
    if not precisions:
        return 0.0
    brevity = min(1.0, math.exp(1.0 - sum(other[0].tolist()) / sum(own[0].tolist())))
    return brevity * math.prod(precisions) ** (1 / len(precisions))


def ps_grpo(batch):
    families, counts = batch.facts["families"], batch.facts["last_text"]

    def reward(i):
        others = [
            text_similarity(counts[i], counts[j])
            for j in range(16)
            if j in members(batch, j)
            and families[j] == families[i]
            and batch.group_ids[j] != batch.group_ids[i]
        ]
        return plain(batch, i) + 0.5 * (sum(others) / len(others) if others else 0.0)

    return scored(batch, reward)


def multirole_r1(batch):
    d = batch.facts["diversity"].astype(np.float64)
    return scored(batch, lambda i: 0.8 * plain(batch, i) + 0.2 * d[i].sum() / 8)


def multi_objective(batch):
    s = batch.facts["scores"].astype(np.float64)
    return scored(batch, lambda i: 0.5 * s[i, 0] + 0.2 * s[i, 1] + 2.0 * s[i, 2])


def conciser(batch):
    lengths = batch.facts["response_tokens"]

    def reward(i):
        right = all(batch.success[j] for j in members(batch, i))
        return plain(batch, i) + (max(1 - lengths[i] / 40, 0) if right else 0.0)

    return scored(batch, reward)


def length_curriculum(batch):
    def reward(i):
        budget = max(1.0, 40 * 0.7 ** (batch.facts["step"][i] // 2))
        length = float(batch.facts["response_tokens"][i])
        if length <= budget:
            near = length / budget
        elif length <= 2 * budget:
            near = 1 - (length - budget) / budget
        else:
            near = 0.0
        return 0.6 * batch.success[i] + 0.3 * near + 0.1 * (not broken(batch, i))

    return scored(batch, reward)


def grpo_care(batch):
    logprobs = batch.facts["reference_answer_logprobs"].astype(np.float64)

    def reward(i):
        likely = {j: min(math.exp(logprobs[j]), 0.95) for j in members(batch, i)}
        right = [likely[j] for j in likely if batch.success[j]]
        bonus = bool(right) and batch.success[i] and likely[i] >= np.mean(right) - 0.01
        return plain(batch, i) + 0.5 * bonus

    return scored(batch, reward)


def unlikeliness(batch):
    tokens, logprobs = batch.facts["turn_tokens"], batch.facts["turn_logprobs"]

    def mean(i):
        written = list(
            itertools.chain.from_iterable(
                [float(logprobs[i, k])] * int(tokens[i, k]) for k in turns(batch, i)
            )
        )
        return sum(written) / len(written)

    def reward(i):
        order = sorted(members(batch, i), key=mean)
        return plain(batch, i) * (1 - 0.25 * order.index(i) / len(order))

    return scored(batch, reward)


def craft_gui(batch):
    judged = batch.facts["reward judge"].astype(np.float64)
    return scored(
        batch, lambda i: plain(batch, i) + 0.5 * sum(judged[i, k] for k in turns(batch, i))
    )


def open_rs(batch):
    lengths = batch.facts["response_tokens"]

    def reward(i):
        low, high = (0.5, 1.0) if batch.success[i] else (-0.5, 0.0)
        wave = 1 + math.cos(math.pi * min(lengths[i] / 40, 1.0))
        return (not broken(batch, i)) + 2 * (low + 0.5 * (high - low) * wave)

    return scored(batch, reward)


def wireless_math(batch):
    return scored(batch, lambda i: 0.1 * (not broken(batch, i)) + 0.9 * batch.success[i])


def m_grpo(batch):
    agents, parents = batch.facts["agents"], batch.facts["parents"]

    def reward(i):
        if broken(batch, i):
            return 0.0
        if agents[i]:
            return max(reward(parents[i]) if parents[i] in members(batch, i) else 0.1, 0.1)
        return 1.0 if batch.success[i] else 0.1

    totals = earned(batch, reward)
    out = np.zeros(16)
    for i in range(16):
        pool = np.array([totals[j] for j in members(batch, i) if agents[j] == agents[i]])
        if len(pool) and np.ptp(pool) > 0:
            out[i] = (totals[i] - pool.mean()) / (pool.std() + 1e-6)
    return spread(batch, out)


def on_grpo(modifier):
    """GRPO with a modifier."""
    return lambda: methods.chain(methods.grpo(), modifier)


def ignored(trajectory):
    """A function of one's own that is not called: rows bring the facts it would give."""
    raise AssertionError


WEIGHTS = (0.5, 0.2, 2.0)
ROWS: dict[str, Row] = {
    "otc_po": Row(on_grpo(methods.otc_po(memory=16)), otc_po),
    "e_grpo": Row(
        on_grpo(methods.e_grpo()),
        e_grpo,
        neutral=on_grpo(methods.e_grpo(alpha=0.0, skip_cut_off=False)),
        parent=methods.grpo,
    ),
    "tp_grpo": Row(
        on_grpo(methods.tp_grpo(alpha=0.7)),
        tp_grpo,
        neutral=on_grpo(methods.tp_grpo(alpha=0.0, match=False)),
        parent=methods.grpo,
    ),
    "pta_grpo": Row(on_grpo(methods.pta_grpo(weight=0.6)), pta_grpo),
    "ws_grpo": Row(
        on_grpo(methods.ws_grpo()),
        ws_grpo,
        neutral=on_grpo(methods.ws_grpo(weight=0.0)),
        parent=methods.grpo,
    ),
    "ps_grpo": Row(
        on_grpo(methods.ps_grpo(weight=0.5)),
        ps_grpo,
        neutral=on_grpo(methods.ps_grpo(weight=0.0)),
        parent=methods.grpo,
    ),
    "multirole_r1": Row(
        on_grpo(methods.multirole_r1()),
        multirole_r1,
        neutral=on_grpo(methods.multirole_r1(delta=1.0)),
        parent=methods.grpo,
    ),
    "multi_objective": Row(
        on_grpo(methods.multi_objective(scores=ignored, weights=WEIGHTS)),
        multi_objective,
        neutral=on_grpo(methods.multi_objective(scores=ignored, weights=[0.0] * 3, replace=False)),
        parent=methods.grpo,
    ),
    "conciser": Row(
        on_grpo(methods.conciser(longest=40)),
        conciser,
        neutral=on_grpo(methods.conciser(weight=0.0)),
        parent=methods.grpo,
    ),
    "length_curriculum": Row(
        on_grpo(methods.length_curriculum(start=40, every=2)),
        length_curriculum,
        neutral=on_grpo(methods.length_curriculum(correct=1.0, length=0.0, form=0.0)),
        parent=lambda: methods.grpo()._replace(rewards={"outcome": rewards.outcome()}),
    ),
    "grpo_care": Row(
        on_grpo(methods.grpo_care()),
        grpo_care,
        neutral=on_grpo(methods.grpo_care(coefficient=0.0)),
        parent=methods.grpo,
    ),
    "unlikeliness": Row(
        on_grpo(methods.unlikeliness()),
        unlikeliness,
        neutral=on_grpo(methods.unlikeliness(penalty=0.0)),
        parent=methods.grpo,
    ),
    "craft_gui": Row(
        on_grpo(methods.craft_gui(judge=ignored, weight=0.5)),
        craft_gui,
        neutral=on_grpo(methods.craft_gui(judge=ignored, weight=0.0)),
        parent=methods.grpo,
    ),
    "open_rs": Row(lambda: methods.open_rs(longest=40), open_rs),
    "wireless_math": Row(
        methods.wireless_math,
        wireless_math,
        neutral=lambda: methods.wireless_math(form=0.0, accuracy=1.0),
        parent=lambda: methods.grpo()._replace(rewards={"outcome": rewards.outcome()}),
    ),
    "m_grpo": Row(on_grpo(methods.m_grpo()), m_grpo),
}
