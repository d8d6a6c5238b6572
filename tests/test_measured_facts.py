"""Facts that only a policy can compute: packed batches against one forward pass a trajectory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import learner, methods, training
from gtpo_jax.learner import measured, packing
from gtpo_jax.parts import credit, facts
from gtpo_jax.types import GoldAnswer, StopReason
from tests import test_training as toys
from tests.learner.test_learner import TOY_WIDTH
from tests.learner.test_prefix import make_groups
from tests.tiny import CONFIG, FORWARD, make_params

LENGTH, TURNS, PART = 40, 3, 5
ANSWERS = {
    "0": GoldAnswer(np.array([5, 6], np.int32), np.array([7, 8, 9], np.int32)),
    "1": GoldAnswer(np.array([4], np.int32), np.array([3], np.int32)),
}
ALL = measured.FACTS


def answer_tokens(problem):
    return ANSWERS[problem.answer]


def make_trajectories():
    """Groups with a prompt each; one trajectory is excluded."""
    made = [
        dataclasses.replace(t, problem=dataclasses.replace(t.problem, answer=str(t.group % 2)))
        for t in make_groups()
    ]
    made[1] = dataclasses.replace(made[1], stop_reason=StopReason.TOOL_FAILURE)
    turns = [dataclasses.replace(turn, codes=("x",)) for turn in made[0].turns[:1]]
    made[0] = dataclasses.replace(made[0], turns=(*turns, *made[0].turns[1:]))
    return made


@functools.cache
def plain():
    """Hidden states and log-probs of one sequence by itself, padded on the right."""

    def run(params, tokens):
        positions = jnp.arange(LENGTH)[None]
        hidden, _ = FORWARD.hidden(params, tokens[None], positions)
        scores = jax.nn.log_softmax(FORWARD.logits(params, hidden))[0]
        return hidden[0], scores

    return jax.jit(run)


def by_itself(params, tokens):
    """Hidden states of the tokens, and the log-prob of each given those before it."""
    padded = np.pad(tokens, (0, LENGTH - len(tokens)))
    hidden, scores = jax.device_get(plain()(params, padded))
    return hidden, np.array([scores[t - 1, tokens[t]] for t in range(1, len(tokens))])


def expected(trajectory, params, reference):
    """The facts of a trajectory, one forward pass after the other."""
    width, gold = CONFIG.width, answer_tokens(trajectory.problem)
    states, answers = np.zeros((TURNS, width)), np.zeros(TURNS)
    pooled, before, last = np.zeros(width), 0.0, 0.0
    if trajectory.included:
        context, score = trajectory.prompt, None
        for k, turn in enumerate((None, *trajectory.turns)):
            if turn is not None:
                hidden, _ = by_itself(params, np.concatenate([context, turn.tokens]))
                states[k - 1] = hidden[len(context) - 1]
                if turn.codes:
                    pooled = hidden[len(context) : len(context) + len(turn.tokens)].mean(axis=0)
                _, scores = by_itself(reference, np.concatenate([context, turn.tokens]))
                last = scores[-len(turn.tokens) :].mean()
                context = np.concatenate([context, turn.tokens, turn.observation])
            if turn is None or len(turn.observation):
                _, scores = by_itself(params, np.concatenate([context, *gold]))
                score = scores[-len(gold.answer) :].mean()
            if turn is None:
                before = score
            else:
                answers[k - 1] = score
    return {
        "policy_states": pooled,
        "turn_states": states,
        "reference_answer_logprobs": last,
        "answer_logprobs": answers,
        "answer_logprobs_before": before,
    }


@pytest.mark.parametrize("shared_prompts", [False, True])
def test_packed_batches_measure_what_single_passes_do(shared_prompts):
    logprobs = jax.jit(functools.partial(learner.stepwise_logprobs, FORWARD))
    measures = measured.Measures(
        FORWARD,
        logprobs,
        ALL,
        trajectories=PART,
        max_turns=TURNS,
        row_tokens=LENGTH,
        answer_tokens=answer_tokens,
    )

    def pack(trajectories, advantages, parts):
        for part in parts:
            yield packing.pack(
                [trajectories[index] for index in part],
                advantages[list(part)],
                micro_batches=2,
                rows=3,
                row_length=LENGTH,
                shared_prompts=shared_prompts,
            )

    given, params, reference = make_trajectories(), make_params(), make_params(seed=1)
    parts = [[8, 2, 0, 4, 1], [3, 5, 7, 6]]
    found, scores = measures(params, reference, given, parts, pack)
    assert set(found) == {fact.name for fact in ALL} and len(scores) == len(parts)
    for row, trajectory in enumerate(given):
        for name, value in expected(trajectory, params, reference).items():
            np.testing.assert_allclose(
                found[name][row], value, atol=2e-4, rtol=1e-4, err_msg=f"{name} of {row}"
            )
    assert np.abs(found["turn_states"][2]).max() > 0.1
    assert np.ptp(found["answer_logprobs"][4][:2]) > 1e-3  # an observation changes the score


def test_answers_that_do_not_fit_are_those_of_the_turn_before():
    given = [t for t in make_trajectories() if t.included][:3]
    # A prompt has 9 tokens, the answer 5: after a turn and its observation they are more than 20.
    whole = measured.answer_sequences(given, answer_tokens, max_turns=TURNS, row_tokens=LENGTH)
    assert [len(t.turns) for t in given] == [2, 1, 2]
    assert whole.index.tolist() == [[0, 1, 1, -1], [0, 0, -1, -1], [0, 2, 2, -1]]
    [short] = [t for t in whole.sequences if t.length == 9 + 5]
    np.testing.assert_array_equal(short.prompt, [*given[0].prompt, 5, 6])
    tight = measured.answer_sequences(given, answer_tokens, max_turns=TURNS, row_tokens=20)
    assert tight.index.tolist() == [[0, 0, 0, -1], [0, 0, -1, -1], [0, 1, 1, -1]]
    none = measured.answer_sequences(given, answer_tokens, max_turns=TURNS, row_tokens=10)
    assert np.all(none.index == -1) and not none.sequences
    values = measured.answer_facts(none.index, np.zeros(0))
    assert not np.any(values["answer_logprobs"]) and values["answer_logprobs"].shape == (3, TURNS)


def asking(*needs):
    """A method whose credit reads facts, and is as without them."""

    def read(values, episodes):
        return values + 0.0 * sum(jnp.sum(facts.read(episodes, fact)) for fact in needs)

    return methods.method.add_link(methods.grpo(), credit.stateless(read, name="read", needs=needs))


def test_a_step_measures_what_its_method_asks_for_and_scores_the_reference_once():
    step = toys.make(methods.chain(asking(*ALL), methods.kl(weight=0.1)))
    state = toys.start(step)
    listed = {p.name: p for p in step.programs(state, jax.ShapeDtypeStruct)}
    assert set(listed) == {
        *("update", "log-prob gap", "reference log-probs", "policy states", "answer log-probs")
    }
    calls, logprobs = [], step.logprobs
    step.logprobs = step.measures.logprobs = lambda params, batch: (
        calls.append(params is step.reference) or logprobs(params, batch)
    )
    state, report = step.step(0, state, toys.make_trajectories())
    assert calls.count(True) == listed["reference log-probs"].calls == toys.LAYOUT.minibatches
    assert 0 < calls.count(False) <= listed["answer log-probs"].calls
    assert set(report.episodes.facts) == {fact.name for fact in ALL}
    assert report.episodes.facts["turn_states"].shape == (12, 3, TOY_WIDTH)
    _, empty = step.step(1, state, [])
    assert empty.episodes.facts["answer_logprobs"].shape == (0, 3)


def test_only_the_facts_that_a_method_asks_for_are_measured():
    step = toys.make(asking(facts.REFERENCE_ANSWER_LOGPROBS))
    state = toys.start(step)
    assert step.needs_reference and step.reference is not None
    _, report = step.step(0, state, toys.make_trajectories())
    assert set(report.episodes.facts) == {"reference_answer_logprobs"}
    names = {p.name for p in toys.make(asking(facts.STEP)).programs(state, jax.ShapeDtypeStruct)}
    assert names == {"update", "log-prob gap"}


def test_gold_answers_are_refused_where_nobody_writes_them():
    with pytest.raises(ValueError, match=r"'answer_logprobs' .* if it is given `answer_tokens`"):
        training.Training(toys.TOY, optax.sgd(0.1), asking(facts.ANSWER_LOGPROBS), toys.LAYOUT)
