"""Verdicts of a rollout: who waits for them, what is judged, and what unknown ones count for."""

import dataclasses
from concurrent import futures

import jax
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.decoding import sampling
from gtpo_jax.learner import packing
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.tasks.demonstrations import demonstrate
from gtpo_jax.tasks.source import Answer, Call
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, StopReason, Verdict
from gtpo_jax.verifiers import KindVerifier, numeric_or_exact
from tests.tiny import BYTES, DIALOGUE

LIMITS = RolloutLimits(
    slots=2,
    context=96,
    prompt_tokens=12,
    max_turns=3,
    turn_tokens=32,
    observation_tokens=40,
    segment_steps=8,
)
PRINTED = "\\boxed{4} <answer>4</answer> x = 4"


def observed(output):
    return DIALOGUE.observation(output, budget=LIMITS.observation_tokens)[0]


def raw(text):
    return np.array([*text.encode(), BYTES.control_id("<|end|>")], np.int32)


# Question → what follows the prompt. The tool prints the answer, 4, whatever the policy says.
SCRIPTS = {
    "right": [DIALOGUE.call("", "p"), observed(PRINTED), DIALOGUE.answer("", "4")],
    "wrong": [DIALOGUE.call("", "p"), observed(PRINTED), DIALOGUE.answer("", "5")],
    "blank": [DIALOGUE.call("", "p"), observed(PRINTED), DIALOGUE.answer("", " ")],
    "silent": [DIALOGUE.call("", "p"), observed(PRINTED), raw("hm")],
    "endless": [DIALOGUE.call("", "p"), observed(PRINTED)] * 3,
}


def problem(question):
    return Problem(id=question, question=question, answer="4")


def requests(*questions):
    return [
        Request(problem=problem(question), group=group, sample=0)
        for group, question in enumerate(questions)
    ]


@pytest.fixture(scope="module")
def engine():
    dialogues = [np.concatenate([DIALOGUE.prompt(q), *parts]) for q, parts in SCRIPTS.items()]
    forward = scripted_forward(dialogues, vocab_size=BYTES.vocab_size, otherwise=ord("?"))
    tool = FakeTool({"p": PRINTED})
    return RolloutEngine(forward, DIALOGUE, tool, numeric_or_exact, LIMITS, sampling.categorical)


def run(engine, *questions, **options):
    return engine.run({}, requests(*questions), seed=0, step=0, **options)[0]


class Later:
    """A verifier whose verdicts come when it is told to give them."""

    def __init__(self):
        self.asked = []

    def __call__(self, problem, answer):
        raise AssertionError("a rollout must not wait for a verdict")

    def submit(self, problem, answer):
        future = futures.Future()
        self.asked.append((future, problem, answer))
        return future

    def give(self):
        for future, problem, answer in reversed(self.asked):
            future.set_result(numeric_or_exact(problem, answer))


@pytest.mark.parametrize("kind", ["numeric", "exact", "math"])
def test_what_the_tool_printed_is_no_answer(engine, monkeypatch, kind):
    if kind == "math":
        pytest.importorskip("math_verify", reason="needs the extra `tasks`")
    with KindVerifier(kind, workers=1, seconds=60.0) as verifier:
        monkeypatch.setattr(engine, "verifier", verifier)
        trajectories = run(engine, *SCRIPTS)
    outcomes = [(t.stop_reason, t.verdict) for t in trajectories]
    assert outcomes == [
        (StopReason.ANSWERED, Verdict.RIGHT),
        (StopReason.ANSWERED, Verdict.WRONG),
        (StopReason.ANSWERED, Verdict.NO_ANSWER),
        (StopReason.NO_ACTION, Verdict.NO_ANSWER),
        (StopReason.MAX_TURNS, Verdict.NO_ANSWER),
    ]
    assert all(PRINTED in BYTES.decode(list(t.turns[0].observation)) for t in trajectories)


def test_verdicts_are_gathered_when_everything_has_ended(engine, monkeypatch):
    questions = ["right", "wrong", "blank", "right", "endless", "wrong", "silent"]
    at_once = run(engine, *questions)
    later = Later()
    monkeypatch.setattr(engine, "verifier", later)

    def on_progress(progress):
        if progress.finished == progress.total:
            later.give()

    gathered = run(engine, *questions, on_progress=on_progress)
    assert [t.verdict for t in gathered] == [t.verdict for t in at_once]
    assert [t.answer for t in gathered] == [t.answer for t in at_once]
    assert len(later.asked) == len(questions)


def test_rollout_that_is_given_up_owes_no_verdicts(engine, monkeypatch):
    later = Later()
    monkeypatch.setattr(engine, "verifier", later)

    def on_progress(progress):
        if progress.finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(engine, "right", "wrong", "blank", on_progress=on_progress)
    assert later.asked and all(future.cancelled() for future, *_ in later.asked)


def test_verifier_that_fails_ends_the_rollout(engine, monkeypatch):
    class Broken(Later):
        def submit(self, problem, answer):
            future = futures.Future()
            future.set_exception(RuntimeError("the workers do not start"))
            return future

    monkeypatch.setattr(engine, "verifier", Broken())
    with pytest.raises(RuntimeError, match="do not start"):
        run(engine, "right")


def test_unverifiable_trajectories_enter_neither_baselines_nor_the_loss(engine):
    # A group of four, of which one is not known: the others get what a group of three gets.
    four = [
        dataclasses.replace(t, group=0) for t in run(engine, "right", "wrong", "right", "wrong")
    ]
    unknown = dataclasses.replace(four[3], verdict=Verdict.UNVERIFIABLE)

    grpo = methods.grpo()
    assign = jax.jit(lambda episodes: methods.assign(grpo, grpo.credit.init(), episodes)[1])

    def assigned(trajectories):
        episodes = packing.episode_batch(trajectories, max_turns=LIMITS.max_turns)
        return np.asarray(assign(episodes).advantages)

    def packed(trajectories):
        given = assigned(trajectories)
        return packing.pack(trajectories, given, micro_batches=1, rows=4, row_length=LIMITS.context)

    with_unknown, without = assigned([*four[:3], unknown]), assigned(four[:3])
    np.testing.assert_array_equal(with_unknown[:3], without)
    np.testing.assert_array_equal(with_unknown[3], 0)
    assert not np.array_equal(assigned(four)[:3], without)  # as a wrong one it would have counted
    batch, known = packed([*four[:3], unknown]), packed(four[:3])
    assert batch.loss_mask.sum() == known.loss_mask.sum() > 0
    np.testing.assert_array_equal(batch.tokens, known.tokens)


def test_demonstrations_are_judged_together():
    def script():
        output = yield Call(code="p")
        yield Answer(text=output[:1])

    class Batch(Later):
        def submit(self, problem, answer):
            future = super().submit(problem, answer)
            if len(self.asked) == 3:
                self.give()
            return future

    shown = demonstrate(
        [(problem(text), script()) for text in "abc"],
        DIALOGUE,
        FakeTool({"p": "4"}),
        Batch(),
        max_observation_tokens=40,
    )
    assert [t.verdict for t in shown] == [Verdict.RIGHT] * 3
