"""Runs whose method has a plan that keeps files or meets other runs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from gtpo_jax.parts.plans.experienced import Edit
from gtpo_jax.types import Problem
from launch.run.session import Session
from launch.train import TrainArguments, Trainer, run_training
from tests.launch import small
from tests.launch.test_train import Numbers, ScriptedEngine

pytestmark = pytest.mark.slow


def note(problem, group, experiences):
    """A summary that tells which group it is of, and how much was known."""
    return [Edit("add", f"{problem.id} knew {len(experiences)}")]


LEARNING = ("training_free_grpo", f"summarize={__name__}:note", "update=true")


def open_session(folder, *modifier):
    words = ("--train.method", "grpo", "+", *modifier)
    session = Session(small.parse(TrainArguments, *words).config, folder)
    session.source = Numbers()
    return session


def make_trainer(session):
    trainer = Trainer(session, session.network.random())
    trainer.engine = ScriptedEngine(lambda problem, sample: sample == 0)
    return trainer


def told(trainer):
    return [(r.problem.id, r.sample, r.question, r.script) for r in trainer.engine.requests]


def steps(trainer, numbers):
    """The requests of each step."""
    found = {}
    for number in numbers:
        trainer.engine.requests.clear()
        trainer.sample(number, trainer.state)
        found[number] = told(trainer)
    return found


def test_experiences_of_a_resumed_run_are_those_of_the_run_that_was_not_killed(tmp_path):
    with open_session(tmp_path / "whole", *LEARNING) as session:
        whole = steps(make_trainer(session), range(4))
    assert all(question is None for _, _, question, _ in whole[0])
    assert "1. 0 knew 0\n2. 1 knew 0\n3. 2 knew 2" in whole[2][0][2]
    with open_session(tmp_path / "killed", *LEARNING) as session:
        first = steps(make_trainer(session), range(3))
        resumed = steps(make_trainer(session), range(1, 4))  # steps 1 and 2 are repeated
    assert {**first, **resumed} == whole
    files = [
        tmp_path / name / "train" / "plan" / "experiences.jsonl" for name in ("whole", "killed")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_of_a_swarm_resumes_with_what_it_had_read(tmp_path):
    address = f"address={tmp_path / 'common'}"
    modifier = ("sapo_swarm", address, "local=1", "external=1")
    with (
        open_session(tmp_path / "one", *modifier) as one,
        open_session(tmp_path / "two", *modifier) as two,
    ):
        other, trainer = make_trainer(one), make_trainer(two)
        found = {}
        for number in range(3):
            steps(other, [number])
            found |= steps(trainer, [number])
        scripts = [script for step in found.values() for *_, script in step if script]
        assert scripts and all(len(script) == 2 for script in scripts)
        again = steps(make_trainer(two), range(3))
    assert again == found
    assert sorted(path.name for path in (tmp_path / "common").iterdir()) == ["one", "two"]


def test_a_swarm_without_an_address_is_refused(tmp_path):
    with (
        open_session(tmp_path / "run", "sapo_swarm") as session,
        pytest.raises(ValueError, match="sapo_swarm needs a place that the runs have in common"),
    ):
        make_trainer(session)


def test_a_problem_without_hints_is_refused_before_the_model_works(tmp_path):
    with pytest.raises(ValueError, match="reads hints from the fields knowledge, planning"):
        open_session(tmp_path / "run", "scaf_grpo")


class Hinted(Numbers):
    def train_problem(self, index):
        info = {"knowledge": ["x" * 400]} if index == 3 else {"knowledge": ["add"]}
        return Problem(id=str(index), question="1+1", answer="2", info=info)


def test_a_hint_without_room_is_refused_before_the_model_works(tmp_path, monkeypatch):
    monkeypatch.setattr("launch.run.session.make_source", lambda config: Hinted())
    with (
        open_session(tmp_path / "run", "scaf_grpo") as session,
        pytest.raises(ValueError, match=r"that the plan makes for problem '3' has .* tokens"),
    ):
        session.source = Hinted()
        make_trainer(session)


@pytest.mark.long
def test_no_update_leaves_the_parameters_and_keeps_the_figures(tmp_path):
    words = ("--train.method", "grpo", "+", "training_free_grpo", "--train.steps", "2")
    config = small.parse(TrainArguments, *words).config
    train = dataclasses.replace(config.train, eval_every=0)
    with Session(dataclasses.replace(config, train=train), tmp_path / "run") as session:
        start = session.network.random()
        before = [np.array(leaf) for leaf in _leaves(start)]
        after = run_training(session, start, lambda *a, **k: (Result(), None))
    assert all(np.array_equal(a, b) for a, b in zip(before, _leaves(after), strict=True))
    lines = (tmp_path / "run" / "train" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and "rollout/success" in json.loads(lines[0])


class Result:
    success = violations = 0.0


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
