"""Random episodes on random schedules, against a reference that plays one row at a time."""

from __future__ import annotations

import dataclasses
import functools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from gtpo_jax.decoding import sampling
from gtpo_jax.language import grammar
from gtpo_jax.language.grammar import NO_ACTION, violation_output
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, StopReason
from gtpo_jax.verifiers import numeric_or_exact
from tests.tiny import BYTES, DIALOGUE

pytestmark = pytest.mark.slow

LIMITS = RolloutLimits(
    slots=4,
    context=54,
    prompt_tokens=12,
    max_turns=3,
    turn_tokens=20,
    observation_tokens=14,
    segment_steps=5,
    prefill_prompts=2,
    extend_width=6,
    first_cache=24,
)
END = BYTES.control_id(grammar.END)
EPISODES = 60


def output(code):
    """Some text that only the code determines, now and then too long."""
    return "".join(chr(97 + (ord(c) * 7) % 26) for c in code) * (1 + len(code) % 3)


@functools.cache
def written_turns():
    """Question → what the policy writes in each turn: calls, answers, slips, texts without end."""
    rng = np.random.default_rng(7)
    episodes = {}
    for number in range(EPISODES):
        turns = []
        for _ in range(LIMITS.max_turns + 1):
            text = "".join(map(chr, rng.integers(97, 123, rng.integers(1, 9))))
            kinds = [
                DIALOGUE.call("", text),
                DIALOGUE.call("", text),
                DIALOGUE.call(text, text),
                DIALOGUE.answer("", "4"),
                DIALOGUE.unclosed_call("", text),
                np.array([*text.encode(), END], np.int32),
                np.full(int(rng.integers(15, 40)), ord("z"), np.int32),
            ]
            turns.append(kinds[rng.choice(7, p=[0.25, 0.2, 0.15, 0.2, 0.1, 0.04, 0.06])])
        episodes[f"q{number}"] = turns
    return episodes


@dataclasses.dataclass(frozen=True)
class Episode:
    """The expected result of one question, and the ids of the row that the policy replays."""

    row: tuple[int, ...]
    turns: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # written, observed
    stop: StopReason


@functools.cache
def expected(question):
    """One row, one token after the other, from the rules alone."""
    row = list(DIALOGUE.prompt(question))
    turns = []
    for index, script in enumerate(written_turns()[question], start=1):
        tokens, budget = [], min(LIMITS.turn_tokens, LIMITS.context - len(row))
        for token in map(int, script):
            tokens.append(token)
            if token == END or len(tokens) == budget:
                break
        row += tokens
        if tokens[-1] != END:
            while len(tokens) < budget:  # the script is over, and the policy repeats itself
                tokens.append(ord("?"))
            full = len(tokens) == LIMITS.turn_tokens
            stop = StopReason.TURN_LIMIT if full else StopReason.CONTEXT_FULL
            return Episode(tuple(row), (*turns, (tuple(tokens), ())), stop)
        parsed = DIALOGUE.parse(tokens)
        stop = None
        if parsed.answer is not None:
            stop = StopReason.ANSWERED
        elif parsed.violation == NO_ACTION:
            stop = StopReason.NO_ACTION
        elif index == LIMITS.max_turns:
            stop = StopReason.MAX_TURNS
        text = output(parsed.codes[0]) if parsed.codes else violation_output(parsed.violation or "")
        reply, _ = DIALOGUE.observation(text, budget=LIMITS.observation_tokens)
        if stop is None and len(row) + len(reply) >= LIMITS.context:
            stop = StopReason.CONTEXT_FULL
        if stop is not None:
            return Episode(tuple(row), (*turns, (tuple(tokens), ())), stop)
        turns.append((tuple(tokens), tuple(map(int, reply))))
        row += map(int, reply)
    raise AssertionError("the last turn ends every episode")


@functools.cache
def engine(parked):
    forward = scripted_forward(
        [np.array(expected(question).row, np.int32) for question in written_turns()],
        vocab_size=BYTES.vocab_size,
        otherwise=ord("?"),
    )
    limits = dataclasses.replace(LIMITS, parked=parked)
    return RolloutEngine(
        forward, DIALOGUE, FakeTool(output), numeric_or_exact, limits, sampling.greedy
    )


def test_episodes_under_test_end_in_every_way():
    stops = {expected(question).stop for question in written_turns()}
    assert stops == set(StopReason) - {StopReason.TOOL_FAILURE}


@hypothesis.given(
    order=strategies.permutations(range(EPISODES)),
    count=strategies.integers(1, EPISODES),
    latencies=strategies.lists(strategies.floats(0, 0.02), min_size=1, max_size=20),
    threads=strategies.integers(1, 5),
    looks=strategies.sets(strategies.integers(0, 20), max_size=3),
    parked=strategies.sampled_from([0, 2, 7]),
)
@hypothesis.settings(max_examples=25)
@pytest.mark.slow
def test_any_schedule_gives_the_trajectories_of_the_reference(
    order, count, latencies, threads, looks, parked
):
    """Shared slots, slow tools, parked rows and dropped caches change no trajectory."""
    questions = [f"q{number}" for number in order[:count]]
    questions += questions[::3]  # whose prompts are in some row already
    requests = [
        Request(problem=Problem(id=q, question=q, answer="4"), group=0, sample=sample)
        for sample, q in enumerate(questions)
    ]
    times, seen = iter(range(10**9)), iter(range(10**9))

    def seconds(code):
        return latencies[next(times) % len(latencies)]

    def refresh():
        look = next(seen)
        return ({}, look) if look in looks else None

    running = engine(parked)
    with FakeTool(output, seconds=seconds, threads=threads) as running.tool:
        trajectories, stats = running.run({}, requests, seed=0, step=0, refresh=refresh)
    for question, trajectory in zip(questions, trajectories, strict=True):
        episode = expected(question)
        assert trajectory.stop_reason is episode.stop, question
        turns = tuple((tuple(t.tokens), tuple(t.observation)) for t in trajectory.turns)
        assert turns == episode.turns, question
    assert stats.sampled_tokens == sum(len(u.tokens) for t in trajectories for u in t.turns)
