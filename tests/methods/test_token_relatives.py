"""Modifiers that choose or weigh tokens, and marks that losses read: slow references on ragged
tokens, worked examples, invariances, and a training step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import methods, training
from gtpo_jax.lab import learning
from gtpo_jax.lab.worlds import chain
from gtpo_jax.learner import packing
from gtpo_jax.maths import draws
from gtpo_jax.methods.method import token_numbers
from gtpo_jax.parts import facts, spreads
from tests.learner.test_learner import TOY, TOY_VOCABULARY, toy_params
from tests.methods.test_spreads import ROWS, arrays, evenly, ragged
from tests.tiny import make_trajectory

SEEDS, TURNS = 3, 3


def given(seed):
    """Ragged trajectories, and what a spread takes: log-probs and the facts that it may need."""
    data = ragged(seed, kind="turns")
    advantages, written, episodes = arrays(data)
    rng = np.random.default_rng(100 + seed)
    logprobs = -rng.uniform(0.0, 3.0, written.tokens.shape).astype(np.float32)
    found = {"step": np.full(ROWS, 25, np.int32), "contexts": contexts(data)}
    episodes = dataclasses.replace(episodes, facts=found)
    return data, (advantages, written._replace(logprobs=logprobs), episodes)


def seen(data, row, turn):
    """Everything before a turn: even rows of a group see the same tool output, odd ones another."""
    before = tuple(map(tuple, data.tokens[row][:turn]))
    return (data.groups[row], row % 2 if turn else 0, before)


def contexts(data):
    """An id of everything before each turn."""
    ids = np.zeros((ROWS, TURNS), np.int32)
    for i in range(ROWS):
        for k in range(len(data.tokens[i])):
            ids[i, k] = facts.text_id(repr(seen(data, i, k)))
    return ids


def tokens_of(data, args):
    """Places (row, place) of the tokens of included rows."""
    del args
    return [
        (i, t) for i in range(ROWS) if data.included[i] for t in range(len(data.flat("tokens", i)))
    ]


def lambda_grpo(data, args):
    """Prefixes written out, with the tool output of each turn among them."""

    def prefixes(i):
        return [
            (seen(data, i, k), tuple(turn[: t + 1]))
            for k, turn in enumerate(data.tokens[i])
            for t in range(len(turn))
        ]

    out = evenly(data)
    for i, t in tokens_of(data, args):
        sharing = [
            j
            for j in range(ROWS)
            if data.included[j]
            and data.groups[j] == data.groups[i]
            and prefixes(i)[t] in prefixes(j)
        ]
        out[i][t] /= len(sharing)
    return out


def high_entropy(data, args, *, share):
    places = tokens_of(data, args)
    count = int(np.ceil(share * len(places) - 1e-3))
    ranked = sorted(places, key=lambda place: -args[1].entropies[place])
    return only(data, set(ranked[:count]))


def only(data, chosen):
    """The advantages of turns on these tokens, 0 on the others."""
    return [
        [x if (i, t) in chosen else 0.0 for t, x in enumerate(row)]
        for i, row in enumerate(evenly(data))
    ]


def d3s_tokens(data, args, *, share):
    values = evenly(data)
    places = [(i, t) for i, t in tokens_of(data, args) if values[i][t] != 0]
    count = int(np.ceil(share * len(places) - 1e-3))
    size = {(i, t): abs(values[i][t]) * float(args[1].entropies[i, t]) for i, t in places}
    return only(data, set(sorted(places, key=lambda place: -size[place])[:count]))


def covariances(data, args):
    values, places = evenly(data), tokens_of(data, args)
    logprobs = {place: float(args[1].logprobs[place]) for place in places}
    mean_a = np.mean([values[i][t] for i, t in places])
    mean_l = np.mean(list(logprobs.values()))
    return {(i, t): (values[i][t] - mean_a) * (logprobs[i, t] - mean_l) for i, t in places}


def clip_cov(data, args, *, share, low, high):
    found = covariances(data, args)
    number = max(int(share * len(found)), 1)
    within = [place for place, x in found.items() if low < x < high]
    written = args[1]

    def key(place):
        hashed = draws.of_numbers(jnp.float32(written.logprobs[place]))
        return int(draws.mixed(draws.mixed(hashed, place[1]), int(written.tokens[place])))

    dropped = set(sorted(within, key=key)[:number])
    assert 0 < len(dropped) < len(within)
    return only(data, set(found) - dropped)


def kl_cov(data, args, *, share):
    found = covariances(data, args)
    number = max(int(share * len(found)), 1)
    chosen = sorted(found, key=lambda place: -found[place])[:number]
    return [
        [float((i, t) in chosen) for t in range(len(row))] for i, row in enumerate(evenly(data))
    ]


def spread_of(*modifiers):
    return methods.chain(methods.grpo(), *modifiers).spread


def mark_of(name, *modifiers):
    [mark] = [m for m in methods.chain(methods.grpo(), *modifiers).loss.marks if m.name == name]
    return lambda advantages, written, episodes: mark.function(
        spreads.evenly(advantages, written, episodes), written, episodes
    )


tokens_only = methods.d3s(rows=1.0, last_rows=1.0, tokens=0.2, last_tokens=0.6, steps=50.0)
CASES = {
    "lambda_grpo": (spread_of(methods.lambda_grpo()), lambda_grpo),
    "high_entropy": (
        spread_of(methods.high_entropy(share=0.3)),
        functools.partial(high_entropy, share=0.3),
    ),
    "d3s": (spread_of(tokens_only), functools.partial(d3s_tokens, share=0.4)),  # at half its steps
    "clip_cov": (
        spread_of(methods.clip_cov(share=0.05, low=0.1, high=0.9)),
        functools.partial(clip_cov, share=0.05, low=0.1, high=0.9),
    ),
    "kl_cov": (
        mark_of("covariant", methods.kl_cov(share=0.1)),
        functools.partial(kl_cov, share=0.1),
    ),
}
each = pytest.mark.parametrize("name", CASES)
ORDER = np.random.default_rng(1).permutation(ROWS)


def with_junk(args):
    """Other numbers on padding and on excluded rows."""
    advantages, written, episodes = args
    outside = (written.turn_ids < 0) | ~episodes.included[:, None]
    other = written._replace(
        tokens=np.where(outside, 1 - written.tokens, written.tokens),
        entropies=np.where(outside, np.float32(np.nan), written.entropies),
        logprobs=np.where(outside, np.float32(np.nan), written.logprobs),
    )
    return np.where(episodes.included[:, None], advantages, np.float32(9)), other, episodes


@functools.cache
def stacked():
    """Seeds; then the first with its rows permuted, with junk, and without a token."""
    made = [given(seed) for seed in range(SEEDS)]
    first = made[0][1]
    empty = first[1]._replace(turn_ids=np.full_like(first[1].turn_ids, -1))
    variants = [
        jax.tree.map(lambda x: np.asarray(x)[ORDER], first),
        with_junk(first),
        (first[0], empty, first[2]),
    ]
    return made, jax.tree.map(lambda *xs: np.stack(xs), *[args for _, args in made], *variants)


@functools.cache
def found(name):
    _, stack = stacked()
    values = np.asarray(jax.jit(jax.vmap(CASES[name][0]))(*stack))
    trained = (stack[1].turn_ids >= 0) & stack[2].included[..., None]
    return np.where(trained, values, 0.0)


@each
def test_tokens_have_the_numbers_of_the_reference(name):
    for seed, (data, args) in enumerate(stacked()[0]):
        expected = CASES[name][1](data, args)
        for i in range(ROWS):
            if data.included[i]:
                shown = found(name)[seed, i, : len(expected[i])]
                np.testing.assert_allclose(shown, expected[i], atol=1e-6, err_msg=f"{seed} {i}")
    assert np.any(found(name))


@each
def test_order_padding_and_excluded_rows_change_nothing(name):
    first, permuted, junk, empty = found(name)[[0, SEEDS, SEEDS + 1, SEEDS + 2]]
    np.testing.assert_allclose(permuted, first[ORDER], atol=1e-6)
    np.testing.assert_allclose(junk, first, atol=1e-6)
    assert not np.any(empty)


def test_neutral_options_keep_the_advantages_of_turns():
    _, args = stacked()[0][0]
    neutral = [
        methods.high_entropy(share=1.0),
        methods.d3s(rows=1.0, last_rows=1.0, tokens=1.0, last_tokens=1.0),
        methods.clip_cov(low=50.0, high=60.0),
    ]
    functions = [spread_of(), *map(spread_of, neutral)]
    expected, *found = jax.jit(lambda *args: [function(*args) for function in functions])(*args)
    kept = args[2].included[:, None]
    for values in found:
        np.testing.assert_array_equal(np.where(kept, values, 0.0), np.where(kept, expected, 0.0))


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


def test_a_training_step_packs_the_marks_that_its_loss_reads():
    method = methods.chain(
        methods.grpo(), methods.kl_cov(share=0.3), methods.kl_schedule(steps=10.0), tokens_only
    )
    layout = training.Layout(groups=1, group_size=4, max_turns=2, row_tokens=24, rows=2)
    step = training.Training(TOY, optax.sgd(0.1), method, layout)
    state = step.init(jax.device_put(toy_params()))
    seen_batches, update = [], step.update

    def watched(state, batch):
        seen_batches.append(jax.device_get(batch))
        return update(state, batch)

    step.update = watched  # pyright: ignore[reportAttributeAccessIssue]
    made = trajectories()
    weights = []
    for number in (3, 6):
        state, report = step.step(number, state, made)
        weights.append(float(report.updates[0]["kl_weight"]))
    np.testing.assert_allclose(weights, [0.04, 0.04 + 0.06 * 3 / 7], rtol=1e-5)

    episodes = packing.episode_batch(made, max_turns=2, needs=method.facts)
    numbered = {**episodes.facts, "step": np.full(4, 6, np.int32)}
    written = spreads.written_tokens(made, rows=4)
    _, marks = jax.jit(functools.partial(token_numbers, method))(
        report.credit.advantages,
        written,
        dataclasses.replace(episodes, facts=numbered),
    )
    batch = seen_batches[1]
    packed = {}
    for i in range(4):
        here = (batch.trajectory_ids == i) & batch.loss_mask
        packed[tuple(batch.tokens[here])] = batch.marks["covariant"][here]
    assert not np.any(batch.marks["kl_weight"][~batch.loss_mask])
    for t, expected in zip(made, np.asarray(marks["covariant"]), strict=True):
        tokens = np.concatenate([turn.tokens for turn in t.turns])
        np.testing.assert_array_equal(packed[tuple(tokens)], expected[: len(tokens)])
    assert 0 < np.sum(np.asarray(marks["covariant"])) < 20


@pytest.mark.long
def test_marks_and_spreads_work_in_the_laboratory():
    method = methods.chain(
        methods.grpo(),
        methods.lambda_grpo(),
        methods.d3s(rows=0.9, steps=3.0),
        methods.kl_cov(share=0.1),
        methods.kl_schedule(steps=3.0),
        methods.llds(unit="turn"),
    )
    settings = learning.Settings(updates=3, groups=4, size=4, learning_rate=0.2, epochs=2)
    curves = learning.learn(chain(needed=1, turns=3), method, seeds=(0,), settings=settings)
    assert np.isfinite(np.asarray(curves.solved)).all()
    assert np.isfinite(np.asarray(curves.entropy)).all()
