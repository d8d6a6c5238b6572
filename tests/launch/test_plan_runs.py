"""Runs whose method has a plan that keeps files or meets other runs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs.methods import make_method
from configs.training import check_facts
from gtpo_jax.parts.plans.experienced import Edit
from gtpo_jax.types import Problem
from launch.run.services import Services
from launch.run.session import Session
from launch.train import TrainArguments, Trainer, run_training
from tests.launch import small
from tests.launch.test_train import Numbers, ScriptedEngine

pytestmark = pytest.mark.slow


def note(problem, group, experiences):
    """A summary that tells which group it is of, and how much was known."""
    return [Edit("add", f"{problem.id} knew {len(experiences)}")]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A trainer whose rollouts are scripted: the first sample of a group succeeds."""
    config = small.parse(TrainArguments, "--train.method", "grpo").config
    with Session(config, tmp_path_factory.mktemp("runs") / "run") as session:
        session.source = Numbers()
        made = Trainer(session, session.network.random())
        made.engine = ScriptedEngine(lambda problem, sample: sample == 0)
        yield made


def begin(trainer, folder, *words):
    """The trainer as a run in a folder, fresh or resumed, whose method has a modifier."""
    session = trainer.session
    session.run_dir, session.method = folder, make_method(["grpo", "+", *words])
    trainer.services = Services(session, folder / "train" / "plan")
    return trainer


def steps(trainer, numbers):
    """The requests of each step."""
    found = {}
    for number in numbers:
        trainer.engine.requests.clear()
        trainer.sample(number, trainer.state)
        asked = trainer.engine.requests
        found[number] = [(r.problem.id, r.sample, r.question, r.script) for r in asked]
    return found


def test_experiences_of_a_resumed_run_are_those_of_the_run_that_was_not_killed(trainer, tmp_path):
    learning = ("training_free_grpo", f"summarize={__name__}:note", "update=true")
    whole = steps(begin(trainer, tmp_path / "whole", *learning), range(4))
    assert all(question is None for _, _, question, _ in whole[0])
    assert "1. 0 knew 0\n2. 1 knew 0\n3. 2 knew 2" in whole[2][0][2]
    first = steps(begin(trainer, tmp_path / "killed", *learning), range(3))
    # Steps 1 and 2 are repeated.
    resumed = steps(begin(trainer, tmp_path / "killed", *learning), range(1, 4))
    assert {**first, **resumed} == whole
    at = "train/plan/experiences.jsonl"
    files = [tmp_path / name / at for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_of_a_swarm_resumes_with_what_it_had_read(trainer, tmp_path):
    words = ("sapo_swarm", f"address={tmp_path / 'common'}", "local=1", "external=1")
    found = {}
    for number in range(3):
        steps(begin(trainer, tmp_path / "one", *words), [number])
        found |= steps(begin(trainer, tmp_path / "two", *words), [number])
    scripts = [script for step in found.values() for *_, script in step if script]
    assert scripts and all(len(script) == 2 for script in scripts)
    assert steps(begin(trainer, tmp_path / "two", *words), range(3)) == found
    assert sorted(path.name for path in (tmp_path / "common").iterdir()) == ["one", "two"]


def test_a_swarm_without_an_address_is_refused(trainer, tmp_path):
    with pytest.raises(ValueError, match="sapo_swarm needs a place that the runs have in common"):
        begin(trainer, tmp_path / "run", "sapo_swarm")


class Hinted(Numbers):
    """Hints, one of which is too long."""

    def train_problem(self, index):
        info = {"knowledge": ["x" * 400]} if index == 3 else {"knowledge": ["add"]}
        return Problem(id=str(index), question="1+1", answer="2", info=info)


def test_missing_hints_and_hints_without_room_are_refused_before_the_model_works(trainer, tmp_path):
    begin(trainer, tmp_path / "run", "scaf_grpo")
    session = trainer.session
    with pytest.raises(ValueError, match="reads hints from the fields knowledge, planning"):
        check_facts(session.method, session.source)
    check_facts(session.method, Hinted())
    with pytest.raises(ValueError, match=r"that the plan makes for problem '3' has .* tokens"):
        session.check_prompts(map(Hinted().train_problem, range(5)))


@pytest.mark.long
def test_no_update_leaves_the_parameters_and_keeps_the_figures(tmp_path):
    words = ("--train.method", "grpo", "+", "training_free_grpo", "--train.steps", "2")
    config = small.parse(TrainArguments, *words).config
    train = dataclasses.replace(config.train, eval_every=0)
    with Session(dataclasses.replace(config, train=train), tmp_path / "run") as session:
        start = session.network.random()
        before = [np.array(leaf) for leaf in jax.tree.leaves(start)]
        after = run_training(session, start, lambda *a, **k: (Result(), None))
    assert all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(after), strict=True))
    lines = (tmp_path / "run" / "train" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and "rollout/success" in json.loads(lines[0])


class Result:
    success = violations = 0.0
