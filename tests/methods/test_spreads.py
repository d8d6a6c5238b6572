"""Spreads of turn advantages over tokens: slow references on ragged tokens, and invariances."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from gtpo_jax import methods, training
from gtpo_jax.parts import spreads
from gtpo_jax.parts.spreads import Written
from gtpo_jax.types import EpisodeBatch
from tests.learner.test_learner import TOY, TOY_VOCABULARY, toy_params
from tests.tiny import make_trajectory

ROWS, TURNS, WIDTH = 9, 3, 16
GROUPS = np.array([0, 0, 0, 1, 1, 0, 1, 2, 2], np.int32)  # group 2 is all right


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Trajectories as lists: tokens and entropies of turns, one advantage for each turn."""

    tokens: list[list[list[int]]]
    entropies: list[list[list[float]]]
    advantages: list[list[float]]
    groups: list[int]
    included: list[bool]

    def flat(self, field: str, row: int) -> list:
        return [x for turn in getattr(self, field)[row] for x in turn]


def ragged(seed: int, *, kind: str) -> Ragged:
    """Random trajectories of two tokens, so that many of them agree; a row without turns, and an
    excluded one."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, TURNS + 1, ROWS)
    counts[(seed + 1) % ROWS] = 0
    sizes = [[int(n) for n in rng.integers(1, 6, count)] for count in counts]
    tokens = [[[int(x) for x in rng.integers(0, 2, n)] for n in row] for row in sizes]
    entropies = [[[float(x) for x in rng.uniform(0.05, 1.2, n)] for n in row] for row in sizes]
    right = rng.random(ROWS) < 0.5
    right[:5] = [True, False, False, True, False]
    right[7:] = True
    rows = {
        "signs": [[0.6 if right[i] else -0.4] * counts[i] for i in range(ROWS)],
        "rewards": [[float(right[i])] * counts[i] for i in range(ROWS)],
        "turns": [[float(x) for x in rng.standard_normal(n)] for n in counts],
    }[kind]
    included = [True] * ROWS
    included[5] = False
    return Ragged(tokens, entropies, rows, GROUPS.tolist(), included)


def arrays(data: Ragged, width: int = WIDTH):
    """The arguments of a spread, with junk where there is no token and no turn."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 2, (ROWS, width)).astype(np.int32)
    turn_ids = np.full((ROWS, width), -1, np.int32)
    entropies = rng.uniform(0, 5, (ROWS, width)).astype(np.float32)
    advantages = np.zeros((ROWS, TURNS), np.float32)
    mask = np.zeros((ROWS, TURNS), bool)
    for i in range(ROWS):
        flat = data.flat("tokens", i)
        tokens[i, : len(flat)] = flat
        entropies[i, : len(flat)] = data.flat("entropies", i)
        turn_ids[i, : len(flat)] = [k for k, turn in enumerate(data.tokens[i]) for _ in turn]
        advantages[i, : len(data.advantages[i])] = data.advantages[i]
        mask[i, : len(data.tokens[i])] = True
    episodes = EpisodeBatch(
        group_ids=np.array(data.groups, np.int32),
        included=np.array(data.included),
        success=np.zeros(ROWS, bool),
        turn_mask=mask,
        violations=np.zeros_like(mask),
    )
    return advantages, Written(tokens, turn_ids, entropies, np.zeros_like(entropies)), episodes


def evenly(data):
    return [
        [a for a, turn in zip(data.advantages[i], data.tokens[i], strict=True) for _ in turn]
        for i in range(ROWS)
    ]


def run_of_conflicts(data, row, *, end):
    """Number of tokens of the first turn (or of the last, from its end) that are in conflict."""
    place = -1 if end else 0

    def turn(i):
        return data.tokens[i][place][::-1] if end else data.tokens[i][place]

    if not data.tokens[row] or not data.included[row]:
        return 0
    sign = data.advantages[row][place]
    rivals = [
        turn(j)
        for j in range(ROWS)
        if data.groups[j] == data.groups[row]
        and data.included[j]
        and data.tokens[j]
        and data.advantages[j][place] * sign < 0
    ]
    for t, token in enumerate(turn(row)):
        if not any(t < len(other) and other[t] == token for other in rivals):
            return t
    return len(turn(row))


def conflicts(data, gain=2.0, limit=0.7, weight=0.1):
    out = []
    for i, values in enumerate(evenly(data)):
        entropies = data.flat("entropies", i)
        mean = np.mean(entropies) if entropies else 0.0
        count = len(values)
        begin, end = run_of_conflicts(data, i, end=False), run_of_conflicts(data, i, end=True)
        conflict = {*range(begin), *range(count - end, count)}
        row = []
        for t, value in enumerate(values):
            factor = 1.0
            for inside in (t < begin, t >= count - end):
                if inside:
                    factor *= gain if value > 0 else 0.0
            row.append(factor * (value - weight * mean) / max(len(conflict), 1))
        out.append(row if mean <= limit else [0.0] * count)
    return out


def raw_token_rewards(data, base=1.0, weight=0.1, floor=0.2):
    earned = [row[0] if row else 0.0 for row in data.advantages]
    out = []
    for i in range(ROWS):
        row = []
        own = data.flat("entropies", i)
        for t in range(len(own)):
            alike = [
                data.flat("entropies", j)[t]
                for j in range(ROWS)
                if data.groups[j] == data.groups[i]
                and data.included[j]
                and (earned[j] > 0) == (earned[i] > 0)
                and t < len(data.flat("entropies", j))
            ]
            if not data.included[i]:
                row.append(0.0)
            elif earned[i] > 0:
                row.append(base * earned[i] + weight * len(alike) * own[t] / sum(alike))
            else:
                inverse = sum(1 / max(h, floor) for h in alike)
                share = 1 / max(own[t], floor) / inverse
                row.append(-base - weight * len(alike) * share)
        out.append(row)
    return out


def standard(data, values, *, apart, silent):
    right = [bool(row) and row[0] > 0 for row in data.advantages]
    out = [[0.0] * len(row) for row in values]
    for i in range(ROWS):
        group = [
            j
            for j in range(ROWS)
            if data.groups[j] == data.groups[i] and data.included[j] and values[j]
        ]
        if i not in group or (silent and len({right[j] for j in group}) < 2):
            continue
        pool = [x for j in group if not apart or right[j] == right[i] for x in values[j]]
        if np.ptp(pool) > 0:
            out[i] = [(x - np.mean(pool)) / (np.std(pool) + 1e-6) for x in values[i]]
    return out


def tan(data, *, apart=False, silent=True):
    return standard(data, raw_token_rewards(data), apart=apart, silent=silent)


def scaled(data, weight=0.2):
    pool = [h for i in range(ROWS) if data.included[i] for h in data.flat("entropies", i)]
    return [
        [
            a * (1 + weight * (h - np.mean(pool)) / np.std(pool, ddof=1))
            for a, h in zip(values, data.flat("entropies", i), strict=True)
        ]
        for i, values in enumerate(evenly(data))
    ]


printed = spreads.by_entropy(apart=True, silent=False)
CASES = {
    "evenly": ("turns", spreads.evenly, evenly),
    "gtpo_conflicts": ("signs", methods.gtpo_conflicts().spread, conflicts),
    "gtpo_conflicts of turns": ("turns", methods.gtpo_conflicts().spread, conflicts),
    "gtpo_tokens": ("rewards", methods.gtpo_tokens().spread, tan),
    "gtpo_tokens as printed": (
        "rewards",
        printed,
        functools.partial(tan, apart=True, silent=False),
    ),
    "aepo_entropy": (
        "turns",
        methods.chain(methods.grpo(), methods.aepo_entropy()).spread,
        scaled,
    ),
}
each = pytest.mark.parametrize("name", CASES)


@functools.cache
def jitted(name):
    return jax.jit(CASES[name][1])


def spread(name, given):
    """The advantages of tokens, with 0 on padding and on excluded rows, which do not count."""
    values = np.asarray(jitted(name)(*given))
    return np.where((given[1].turn_ids >= 0) & given[2].included[:, None], values, 0.0)


@each
def test_tokens_have_the_advantages_of_the_reference(name):
    kind, _, reference = CASES[name]
    for seed in range(4):
        data = ragged(seed, kind=kind)
        found, expected = spread(name, arrays(data)), reference(data)
        for i in range(ROWS):
            if data.included[i]:
                shown = found[i, : len(expected[i])]
                np.testing.assert_allclose(shown, expected[i], atol=2e-5, rtol=2e-5)
        assert np.abs(found).max() > 0.05


@each
def test_order_padding_and_excluded_rows_change_nothing(name):
    data = ragged(0, kind=CASES[name][0])
    given = arrays(data)
    before = spread(name, given)
    order = np.random.default_rng(1).permutation(ROWS)
    again = spread(name, jax.tree.map(lambda x: np.asarray(x)[order], given))
    np.testing.assert_allclose(again, before[order], atol=1e-5)
    advantages, written, episodes = given
    padding = written.turn_ids < 0
    other = written._replace(
        tokens=np.where(padding, 1 - written.tokens, written.tokens),
        entropies=np.where(padding, np.float32(7), written.entropies),
    )
    out = ~episodes.included[:, None]
    other = other._replace(
        tokens=np.where(out, 1 - other.tokens, other.tokens),
        entropies=np.where(out, other.entropies + 1, other.entropies),
    )
    changed = (np.where(out, np.float32(9), advantages), other, episodes)
    np.testing.assert_allclose(spread(name, changed), before, atol=1e-5)


@each
def test_nothing_to_spread_gives_finite_values(name):
    advantages, written, episodes = arrays(ragged(0, kind=CASES[name][0]))
    empty = written._replace(turn_ids=np.full_like(written.turn_ids, -1))
    assert not np.any(spread(name, (advantages * 0, empty, episodes)))
    certain = written._replace(entropies=np.zeros_like(written.entropies))
    assert np.isfinite(spread(name, (advantages, certain, episodes))).all()


def rows_of(tokens, entropies, advantages):
    """One group of trajectories of one turn, as a spread takes them."""
    shape = np.shape(entropies)
    mask = np.ones((shape[0], 1), bool)
    episodes = EpisodeBatch(
        group_ids=np.zeros(shape[0], np.int32),
        included=mask[:, 0],
        success=mask[:, 0],
        turn_mask=mask,
        violations=~mask,
    )
    ids = np.broadcast_to(np.int32(0), shape)
    tokens = np.broadcast_to(np.array(tokens, np.int32), shape)
    entropies = np.array(entropies, np.float32)
    given = np.array(advantages, np.float32)[:, None]
    return given, Written(tokens, ids, entropies, 0 * entropies), episodes


def test_worked_example_of_conflicts():
    given = rows_of([[5, 7, 9], [5, 8, 9]], np.full((2, 3), 0.5), [0.5, -0.5])
    weights = np.array([[2, 1, 2], [0, 1, 0]])
    shaped = jitted("gtpo_conflicts")(*given)
    np.testing.assert_allclose(shaped, weights * [[0.45], [-0.55]] / 2, atol=1e-6)
    unshaped = jax.jit(spreads.protected(entropy_weight=0.0))
    np.testing.assert_allclose(unshaped(*given), weights * [[0.5], [-0.5]] / 2, atol=1e-6)
    # A token of both runs has both weights: 4 · 0.5 / 3 conflicts.
    same = rows_of([[5, 7, 9], [5, 7, 9]], np.full((2, 3), 0.5), [0.5, -0.5])
    np.testing.assert_allclose(unshaped(*same), [[2 / 3] * 3, [0] * 3], atol=1e-6)
    # A trajectory that is dropped for its entropy still puts tokens in conflict.
    uncertain = rows_of([[5, 7, 9], [5, 8, 9]], [[0.9] * 3, [0.5] * 3], [0.5, -0.5])
    np.testing.assert_allclose(unshaped(*uncertain), [[0, 0, 0], [0, -0.25, 0]], atol=1e-6)


def test_worked_examples_of_rewards_of_tokens():
    ones, group = np.ones((3, 2), bool), np.zeros(3, np.int32)
    entropies = np.array([[3, 1], [1, 3], [2, 2]], np.float32)
    earned = np.array([1, 1, 0], np.float32)
    found = jax.jit(spreads.token_rewards)(earned, entropies, ones, group)
    np.testing.assert_allclose(found, [[1.15, 1.05], [1.05, 1.15], [-1.1, -1.1]], atol=1e-6)
    entropies = np.array([[4, 1], [1, 4]], np.float32)
    found = jax.jit(spreads.token_rewards)(np.zeros(2), entropies, ones[:2], group[:2])
    np.testing.assert_allclose(found, [[-1.04, -1.16], [-1.16, -1.04]], atol=1e-6)


@pytest.mark.parametrize(
    ("ddof", "expected"),
    [(1, [0.7676, 0.9225, -1.0775, -1.2324]), (0, [0.7317, 0.9106, -1.0894, -1.2683])],
)
def test_worked_example_of_entropy_factors(ddof, expected):
    given = rows_of([[0]] * 4, [[0.2], [0.4], [0.6], [0.8]], [1, 1, -1, -1])
    found = jax.jit(spreads.entropy_scaled(ddof=ddof))(*given)
    np.testing.assert_allclose(found[:, 0], expected, atol=5e-5)


def test_right_and_wrong_tokens_have_the_same_mean_as_printed_and_not_by_default():
    data = ragged(0, kind="rewards")
    given = arrays(data)
    right = (given[0][:, 0] > 0) & (given[2].group_ids == 0) & given[2].included
    mask = right[:, None] & (given[1].turn_ids >= 0)
    assert abs(spread("gtpo_tokens as printed", given)[mask].mean()) < 1e-5
    assert spread("gtpo_tokens", given)[mask].mean() > 0.5


def test_spreads_keep_double_precision():
    with jax.enable_x64(True):
        for kind, function, _ in CASES.values():
            advantages, written, episodes = arrays(ragged(0, kind=kind))
            double = written._replace(entropies=written.entropies.astype(np.float64))
            shape = jax.eval_shape(function, advantages.astype(np.float64), double, episodes)
            assert shape.dtype == np.float64


def trajectories():
    rng = np.random.default_rng(0)
    made = []
    for sample in range(4):
        one = make_trajectory(rng, [(3, 2), (2, 0)], success=sample > 1, vocab_size=TOY_VOCABULARY)
        turns = tuple(
            dataclasses.replace(
                turn, entropies=rng.uniform(0.1, 0.6, len(turn.tokens)).astype(np.float32)
            )
            for turn in one.turns
        )
        made.append(dataclasses.replace(one, turns=turns, sample=sample))
    return made


def test_a_training_step_trains_on_the_advantages_of_tokens():
    method = methods.chain(methods.gtpo_tokens(), methods.aepo_entropy())
    layout = training.Layout(groups=1, group_size=4, max_turns=2, row_tokens=24, rows=4)
    step = training.Training(TOY, optax.sgd(0.1), method, layout)
    state = step.init(jax.device_put(toy_params()))
    seen, update = [], step.update
    step.update = lambda state, batch: seen.append(jax.device_get(batch)) or update(state, batch)
    given = trajectories()
    _, report = step.step(0, state, given)
    [batch] = seen
    trained = {}  # tokens of a trajectory → their advantages, since minibatches are shuffled
    for i in range(4):
        here = (batch.trajectory_ids == i) & batch.loss_mask
        trained[tuple(batch.tokens[here])] = batch.token_advantages[here]

    entropies = [np.concatenate([turn.entropies for turn in t.turns]) for t in given]
    data = rows_of([[0]] * 4, entropies, [float(t.success) for t in given])
    expected = jax.jit(method.spread)(*data)
    for t, values in zip(given, np.asarray(expected), strict=True):
        tokens = np.concatenate([turn.tokens for turn in t.turns])
        np.testing.assert_allclose(trained[tuple(tokens)], values, atol=1e-5)
        assert len(set(values.round(4).tolist())) == 5  # each token has its own
    assert np.isfinite(float(report.updates[0]["loss"]))
