"""Rejection sampling: which successes are saved, and that none is lost."""

from __future__ import annotations

import functools
import json
import signal
import types

import numpy as np
import pytest

from gtpo_jax import rollout as rollouts
from gtpo_jax.decoding import sampling
from gtpo_jax.rollout import RolloutLimits
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, StopReason, Trajectory, Turn, Verdict
from gtpo_jax.verifiers import numeric_or_exact
from launch import rollout
from launch.run import rejection
from launch.run.rejection import Kept, Wanted, worth_imitating
from tests.launch import small
from tests.tiny import BYTES, DIALOGUE


def sampled(*texts, sample=0, right=True, violation=None, group=0):
    turns = [
        Turn(
            tokens=DIALOGUE.turn(text),
            logprobs=np.zeros(len(DIALOGUE.turn(text)), np.float32),
            text=f"{text}<|end|>",
            violation=violation,
        )
        for text in texts
    ]
    return Trajectory(
        problem=Problem(id=f"p{group}", question="q", answer="4"),
        group=group,
        sample=sample,
        prompt=DIALOGUE.prompt("q"),
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
        verdict=Verdict.RIGHT if right else Verdict.WRONG,
        answer="4",
    )


def wanted(tmp_path, **settings):
    return Wanted(path=tmp_path / "out.jsonl", **settings)


def test_right_and_well_formed_trajectories_are_kept_in_the_order_of_samples(tmp_path):
    samples = [
        sampled("long enough", sample=0, right=False),
        sampled("a b c d", sample=1),
        sampled("a b c d", sample=2),
        sampled("bad", sample=3, violation="it broke a rule"),
        sampled("a", "b", sample=4),
        sampled("ab", sample=5),
    ]

    def kept(**settings):
        return [t.sample for t in worth_imitating(samples, wanted(tmp_path, samples=6, **settings))]

    assert kept() == [1]
    assert kept(most_per_problem=6) == [1, 4, 5]
    assert kept(most_per_problem=6, violations=True) == [1, 3, 4, 5]


def test_figures_count_problems_and_trajectories(tmp_path):
    session = types.SimpleNamespace(dialogue=DIALOGUE)
    kept = Kept()
    answer = "<answer>4</answer>"
    kept.add(session, wanted(tmp_path), [sampled(answer, sample=i) for i in range(4)])
    kept.add(
        session,
        wanted(tmp_path),
        [sampled(answer, sample=i, right=i == 0, group=1 + i // 2) for i in range(4)],
    )
    assert kept.figures() == {
        "problems": 3, "trajectories": 8, "right": 5, "solved": 2, "turns": 2,
        "turns_with_ids": 0, "records": 2,
    }  # fmt: skip
    assert str(kept) == "2 of 3 problems solved, 5 of 8 trajectories right, 2 kept"


LIMITS = RolloutLimits(slots=2, context=90, turn_tokens=40, segment_steps=8)
# Those with an even number are solved; the others have wrong answers.
PROBLEMS = [
    Problem(id=f"p{i}", question=f"{i}?", answer="4" if i % 2 == 0 else "5") for i in range(12)
]


@functools.cache
def engine():
    """An engine whose policy solves each problem with one call."""
    dialogues = [
        np.concatenate(
            [
                DIALOGUE.prompt(problem.question),
                DIALOGUE.call("Go ", "2+2"),
                DIALOGUE.observation("4", budget=32)[0],
                DIALOGUE.answer("It is ", "4"),
            ]
        )
        for problem in PROBLEMS
    ]
    policy = scripted_forward(dialogues, vocab_size=BYTES.vocab_size, otherwise=0)
    tool = FakeTool({"2+2": "4"})
    return rollouts.RolloutEngine(
        policy, DIALOGUE, tool, numeric_or_exact, LIMITS, sampling.categorical
    )


class Played:
    """The parts of a session that `keep_successes` uses. The problems repeat after this many."""

    dialogue = DIALOGUE
    config = types.SimpleNamespace(rollout=LIMITS, seed=0)

    def __init__(self, count=12):
        problems = [*PROBLEMS[:count], PROBLEMS[0]]
        self.source = types.SimpleNamespace(train_problem=problems.__getitem__)

    def check_prompts(self, problems):
        assert list(problems)

    def localize(self, params):
        return params

    def engine(self, sampler):
        return engine()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_successes_on_training_problems_are_written(tmp_path, capsys):
    goal = wanted(tmp_path, problems=6, samples=2)
    kept = rejection.keep_successes(Played(5), {}, goal)
    assert "1 of 6 problems repeat others and are left out" in capsys.readouterr().out
    assert (kept.problems, kept.solved, kept.right, kept.trajectories) == (5, 3, 6, 10)
    assert [record["id"] for record in lines(goal.path)] == ["p0", "p2", "p4"]
    assert lines(goal.path)[1] == {
        "id": "p2",
        "problem": "2?",
        "answer": "4",
        "messages": [
            {"role": "user", "content": "2?"},
            {"role": "assistant", "content": "Go <code>2+2</code>"},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is <answer>4</answer>"},
        ],
    }


def test_interrupt_keeps_what_was_found_and_says_how_to_go_on(tmp_path, monkeypatch, interruptible):
    goal = wanted(tmp_path, first=2, problems=9, samples=8)  # one problem at a time
    write = rejection.records.write_records

    def write_and_interrupt(*arguments):
        write(*arguments)
        if len(arguments[1]) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(rejection.records, "write_records", write_and_interrupt)
    with pytest.raises(KeyboardInterrupt, match="--first-problem 5 --problems 6") as stop:
        rejection.keep_successes(Played(), {}, goal)
    assert "2 of 3 problems solved" in str(stop.value)
    assert [record["id"] for record in lines(goal.path)] == ["p2", "p4"]


def test_nothing_is_written_without_a_success(tmp_path):
    goal = wanted(tmp_path, first=1, problems=1)
    assert rejection.keep_successes(Played(), {}, goal).records == []
    assert not goal.path.exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"first": -1}, "first must be at least 0"),
        ({"most_per_problem": 5}, "most_per_problem is 5, and a problem has 4 samples"),
        ({"temperature": 0.0}, "4 samples at temperature 0 are equal"),
    ],
)
def test_what_cannot_be_wanted_is_refused(settings, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        wanted(tmp_path, **settings)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--prompt", "2?", "--samples", "2"], "--samples needs --keep-successes"),
        (["--keep-violations"], "--prompt is missing"),
        (["--prompt", "2?", "--keep-successes", "x"], "give one"),
        (["--prompt", "2?", "--temperature", "-1"], "temperature must be 0 or more"),
        (["--keep-successes", "OUT"], "OUT exists; choose another name"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT").touch()
    with pytest.raises(ValueError, match=match):
        rollout.run([*small.OPTIONS, *options])
