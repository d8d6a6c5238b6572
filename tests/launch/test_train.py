"""The outer loop with dynamic sampling: which problems a step takes, and how it handles few or no
groups.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from gtpo_jax import methods
from gtpo_jax.learner import measured, packing
from gtpo_jax.parts import credit, facts
from gtpo_jax.parts.prompts import Prompts, Proposal
from gtpo_jax.results import metrics, records
from gtpo_jax.rollout import RolloutProgress, RolloutStats
from gtpo_jax.types import (
    Problem,
    StopReason,
    ToolResult,
    Trajectory,
    Turn,
    Verdict,
)
from launch.run import display, trajectory_files
from launch.run.evaluator import MODES, Evaluator
from launch.run.session import Session
from launch.train import TrainArguments, Trainer, run_training
from tests.launch import small
from tests.tiny import compilations

pytestmark = pytest.mark.slow

PROMPTS, GROUP_SIZE, ROUNDS = 2, 3, 3


def make_trajectory(request, success):
    """Two turns of random ids that depend only on the request."""
    rng = np.random.default_rng([*request.problem.id.encode(), request.sample])

    def turn(code):
        ids = rng.integers(0, 200, 6).astype(np.int32)
        values = -rng.random(6).astype(np.float32)
        return Turn(tokens=ids, logprobs=values, entropies=-values, text="", codes=code)

    return Trajectory(
        problem=request.problem,
        group=request.group,
        sample=request.sample,
        prompt=np.arange(3, dtype=np.int32),
        turns=(turn((f"print({request.sample})",)), turn(())),
        stop_reason=StopReason.ANSWERED,
        verdict=Verdict.RIGHT if success else Verdict.WRONG,
    )


class ScriptedEngine:
    """An engine whose rollouts succeed if a function of problem and sample says so."""

    def __init__(self, success):
        self.success = success
        self.calls = []  # ids of the problems of each
        self.requests = []

    def rounds(self, params, *, seed, step):
        return lambda requests, **options: self.run(
            params, requests, seed=seed, step=step, **options
        )

    def run(self, params, requests, *, seed, step, on_progress=None):
        self.calls.append(list(dict.fromkeys(r.problem.id for r in requests)))
        self.requests += requests
        counts = {field.name: 10 for field in dataclasses.fields(RolloutStats)}
        if on_progress is not None:
            on_progress(
                RolloutProgress(
                    finished=1,
                    total=len(requests),
                    sampled_tokens=10,
                    active_rows=5,
                    tools_in_flight=2,
                )
            )
        ended = [make_trajectory(r, self.success(r.problem.id, r.sample)) for r in requests]
        return ended, RolloutStats(**counts)


class Numbers:
    """A source whose problem n has the id n."""

    def held_out(self, count):
        return [self.train_problem(index) for index in range(count)]

    def train_problem(self, index):
        return Problem(id=str(index), question="1+1", answer="2")


def dynamic(rounds):
    """Options for groups with signal in this many rounds; a single round keeps all groups."""
    words = ("gtpo", "+", "dynamic_sampling", f"rounds={rounds}") if rounds > 1 else ("gtpo",)
    return ("--train.method", *words)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Sessions with dynamic sampling off and on, by the number of rounds."""
    opened = {}
    for rounds in (1, ROUNDS):
        arguments = small.parse(TrainArguments, *dynamic(rounds))
        opened[rounds] = Session(arguments.config, tmp_path_factory.mktemp("train"))
        opened[rounds].source = Numbers()
    yield opened
    for session in opened.values():
        session.tool.close()


@pytest.fixture(scope="module")
def trainers(sessions):
    return {
        rounds: Trainer(session, session.network.random()) for rounds, session in sessions.items()
    }


@pytest.fixture
def trainer(trainers):
    return trainers[ROUNDS]


def fresh(trainer):
    """The state at step 0; a copy, because an update consumes its input."""
    return jax.tree.map(lambda leaf: leaf.copy(), trainer.state)


def some_succeed(names):
    """Sample 0 succeeds on these problems; nothing else succeeds."""
    return lambda problem, sample: problem in names and sample == 0


def same(first, second):
    return jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, second))


def test_step_takes_its_own_block_of_problems(trainer):
    trainer.engine = ScriptedEngine(some_succeed({"19", "22"}))
    _, groups = trainer.sample(3, trainer.state)
    assert trainer.engine.calls == [["18", "19"], ["20", "21"], ["22", "23"]]
    assert [t.problem.id for t in groups.kept] == ["19"] * GROUP_SIZE + ["22"] * GROUP_SIZE
    assert [t.group for t in groups.kept] == [0] * GROUP_SIZE + [1] * GROUP_SIZE
    trainer.engine = ScriptedEngine(some_succeed({"24", "25"}))
    trainer.sample(4, trainer.state)
    assert trainer.engine.calls == [["24", "25"]], "however few problems step 3 needed"


def test_single_round_keeps_every_group(trainers):
    trainer = trainers[1]
    trainer.engine = ScriptedEngine(some_succeed({"7"}))
    _, groups = trainer.sample(3, trainer.state)
    assert trainer.engine.calls == [["6", "7"]]
    assert groups.kept == groups.sampled and len(groups.kept) == PROMPTS * GROUP_SIZE


def test_figures_are_of_all_that_was_sampled_and_credit_of_what_was_kept(trainer):
    trainer.engine = ScriptedEngine(some_succeed({"1", "4"}))
    state, trajectories, figures = trainer.step(0, fresh(trainer))
    assert {t.problem.id for t in trajectories} == {"1", "4"}
    assert figures["rollout/rounds"] == 3
    assert (figures["rollout/groups_kept"], figures["rollout/groups_dropped"]) == (2, 4)
    assert figures["rollout/success"] == pytest.approx(2 / 18)
    assert figures["credit/groups_without_signal"] == pytest.approx(4 / 6)
    tokens = figures["time/tokens_per_second"] * figures["time/rollout_seconds"]
    assert tokens == pytest.approx(30) and figures["time/tool_seconds"] == 30
    assert figures["update/trained_tokens"] * trainer.config.minibatches == 6 * 12
    assert int(state.step) == trainer.config.minibatches


def test_prompts_with_state_learn_from_what_was_tried(trainer, monkeypatch):
    """Problems that were solved are not proposed again; the state is one of the train state."""

    def propose(state, key, step, *, wanted, rounds, group_size):
        left = jnp.argsort(state, stable=True)[: wanted * rounds]
        return Proposal(left, group_size - 1 + 2 * (jnp.arange(len(left)) % 2))

    def observe(state, outcomes):
        return state.at[outcomes.problems].add((outcomes.successes > 0).astype(int))

    keen = Prompts(lambda count: jnp.zeros(8, int), propose, observe)
    monkeypatch.setattr(trainer.session, "method", trainer.session.method._replace(prompts=keen))
    learner = Trainer(trainer.session, trainer.session.network.random())
    learner.engine = ScriptedEngine(some_succeed({"0", "2"}))
    state, groups = learner.sample(0, learner.state)
    assert np.asarray(state.method["prompts"]).tolist() == [1] + [0] * 7
    sizes = [sum(t.group == group for t in groups.kept) for group in (0, 1)]
    assert sizes == [GROUP_SIZE - 1, GROUP_SIZE + 1]
    state, groups = learner.sample(1, state)
    assert {t.problem.id for t in groups.sampled} == {"1", "2"}
    assert np.asarray(state.method["prompts"]).tolist() == [1, 0, 1] + [0] * 5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_credit_of_few_groups_is_what_it_is_without_the_filling(trainer, count):
    engine = ScriptedEngine(some_succeed({"0", "1"}))
    trainer.engine = engine
    kept = trainer.sample(0, trainer.state)[1].kept[: count * GROUP_SIZE]
    _, figures = trainer.learn(0, fresh(trainer), kept)
    if count == 0:
        assert figures["credit/reward"] == figures["credit/advantage_size"] == 0.0
        return
    method = trainer.session.method
    episodes = packing.episode_batch(
        kept, max_turns=trainer.session.config.rollout.max_turns, needs=method.facts
    )
    alone = jax.jit(lambda e: methods.assign(method, method.credit.init(), e)[1])(episodes)
    sizes = np.abs(alone.advantages[np.asarray(episodes.turn_mask)])
    assert figures["credit/reward"] == pytest.approx(float(alone.rewards.sum(axis=1).mean()))
    assert figures["credit/advantage_size"] == pytest.approx(float(sizes.mean()))
    firsts = [
        float(row[0])
        for row, t in zip(alone.advantages, kept, strict=True)
        if t.success and t.included and len(t.turns) > 1
    ]
    assert figures["credit/pushed_down"] == pytest.approx(np.mean([x < 0 for x in firsts or [0]]))
    assert figures["credit/first_turn_of_right"] == pytest.approx(np.mean(firsts or [0]), abs=1e-6)


def test_step_without_any_signal_leaves_the_state_as_it_is(trainer):
    trainer.engine = ScriptedEngine(some_succeed(()))
    before = jax.device_get(trainer.state)
    state, trajectories, figures = trainer.step(0, fresh(trainer))
    assert trajectories == []
    assert same(jax.device_get(state), before)
    assert all(map(math.isfinite, figures.values()))
    assert figures["update/trained_tokens"] == 0 and figures["rollout/groups_dropped"] == 6
    assert figures["rollout/entropy"] > 0


def test_few_groups_are_learned_from_in_as_few_updates_as_hold_them(trainer):
    trainer.engine = ScriptedEngine(some_succeed({"3"}))
    before = jax.device_get(trainer.state)
    state, trajectories, figures = trainer.step(0, fresh(trainer))
    # Three trajectories fill one of the two minibatches of three.
    assert len(trajectories) == 3 and int(state.step) == 1
    assert figures["update/trained_tokens"] == 3 * 12 and figures["update/grad_norm"] > 0
    assert not same(jax.device_get(state.params), before.params)
    assert all(map(math.isfinite, figures.values()))


def test_steps_of_fewer_groups_compile_nothing(trainer):
    state = fresh(trainer)
    trainer.engine = ScriptedEngine(some_succeed({"0", "1"}))
    state, _, _ = trainer.step(0, state)
    with compilations() as compiled:
        for step, names in enumerate([{"6"}, (), {"18", "23"}], 1):
            trainer.engine = ScriptedEngine(some_succeed(names))
            state, kept, _ = trainer.step(step, state)
            assert len(kept) == len(names) * GROUP_SIZE
    assert compiled == []
    assert int(state.step) == 2 + 1 + 0 + 2
    # Other tests compiled no further shapes either: every step had the same ones.
    training = trainer.training
    programs = (training.assign, training.update.program, training.gap)
    assert [program._cache_size() for program in programs] == [1, 1, 1]


@pytest.mark.parametrize("rounds", [1, ROUNDS])
def test_prompts_of_all_problems_that_a_run_may_need_are_checked(sessions, rounds):
    session = sessions[rounds]
    params = session.network.random()
    end = session.config.train.steps * PROMPTS * rounds

    class OneTooLong(Numbers):
        def __init__(self, index):
            self.index = index

        def train_problem(self, index):
            problem = super().train_problem(index)
            long = "1+" * 99 if index == self.index else problem.question
            return dataclasses.replace(problem, question=long)

    try:
        session.source = OneTooLong(end)
        Trainer(session, params)
        session.source = OneTooLong(end - 1)
        with pytest.raises(ValueError, match=f"'{end - 1}'.*prompt_tokens"):
            Trainer(session, params)
    finally:
        session.source = Numbers()


def test_step_has_the_same_finite_figures_whatever_it_learned_from(trainer):
    seen = []
    state = fresh(trainer)
    for step, names in enumerate([{"0", "1"}, (), {"15"}]):
        trainer.engine = ScriptedEngine(some_succeed(names))
        state, _, of_step = trainer.step(step, state)
        seen.append(of_step)
    assert seen[0].keys() == seen[1].keys() == seen[2].keys()
    assert all(math.isfinite(value) for of_step in seen for value in of_step.values())
    groups = {name.partition("/")[0] for name in seen[0]}
    assert groups == {"rollout", "length", "tool", "credit", "update", "time"}
    for of_step in seen:
        parts = [of_step[f"credit/{name}"] for name in ("outcome", "partial", "format")]
        assert sum(parts) == pytest.approx(of_step["credit/reward"], abs=1e-6)
    assert seen[0]["credit/outcome"] == pytest.approx(1 / 3)
    assert seen[0]["update/ratio_max"] >= seen[0]["update/ratio"] > 0
    turns = [seen[0][f"credit/advantage_turn_{k}"] for k in range(trainer_turns(trainer))]
    assert turns[0] > 0 and turns[1] > 0 and turns[2:] == [0.0] * (len(turns) - 2)
    assert seen[1]["credit/advantage_turn_0"] == 0.0


def trainer_turns(trainer):
    return trainer.session.config.rollout.max_turns


def with_results(*results):
    """A trajectory whose first turn made these calls."""
    request = dataclasses.make_dataclass("Request", ["problem", "group", "sample"])
    trajectory = make_trajectory(request(Numbers().train_problem(0), 0, 0), False)
    made = [ToolResult(status=status, wall_seconds=seconds) for status, seconds in results]
    turns = (dataclasses.replace(trajectory.turns[0], results=tuple(made)), trajectory.turns[1])
    return dataclasses.replace(trajectory, turns=turns)


def test_named_project_of_weights_and_biases_gets_the_figures_of_training(tmp_path, monkeypatch):
    opened, sent = [], []
    service = types.SimpleNamespace(
        Settings=dict,
        init=lambda **options: opened.append(options) or service,
        resumed=False,
        log=lambda values, step: sent.append((step, values)),
        finish=lambda: None,
    )
    monkeypatch.setattr(metrics, "import_wandb", lambda: service)
    options = ("--wandb", "tests", "--train.steps", "2", "--train.eval-every", "0")
    with Session(small.parse(TrainArguments, *options).config, tmp_path) as session:
        session.source = Numbers()
        engine = ScriptedEngine(lambda problem, sample: sample == 0)
        monkeypatch.setattr(session, "engine", lambda sampler: engine)
        run_training(session, session.network.random(), Evaluator(session))
        assert opened[0]["project"] == "tests" and opened[0]["config"]["train"]["steps"] == 2
    told = metrics.read_metrics(tmp_path / "train" / "metrics.jsonl")
    assert [{"step": step, **values} for step, values in sent] == told and len(told) == 2


def asking() -> methods.Modifier:
    """A method reads facts of all kinds, and is as without them."""
    needs = (*measured.FACTS, facts.CALLS, facts.CODE, facts.STEP)
    link = credit.stateless(lambda values, _: values, needs=needs)
    return lambda method: methods.method.add_link(method, link)


def test_training_keeps_the_trajectories_of_some_steps_with_facts_and_credit(tmp_path, monkeypatch):
    options = ("--train.keep-every", "2", "--train.steps", "5", "--train.eval-every", "0")
    options += ("--train.method", "gtpo", "+", f"{__name__}:asking")
    with Session(small.parse(TrainArguments, *options).config, tmp_path) as session:
        session.source = Numbers()
        engine = ScriptedEngine(lambda problem, sample: sample == 0)
        monkeypatch.setattr(session, "engine", lambda sampler: engine)
        folder = tmp_path / "train" / "trajectories"
        records.write_records(records.step_path(folder, 9), [])  # of a run that never saved
        run_training(session, session.network.random(), Evaluator(session))
        saved = dict(records.saved_records(folder))
        assert list(saved) == [1, 2, 4, 5]
        kept = list(records.read_records(saved[4]))
        told = metrics.read_metrics(tmp_path / "train" / "metrics.jsonl")
    assert [(r["group"], r["sample"]) for r in kept] == [(g, s) for g in (0, 1) for s in range(3)]
    for record in kept:
        read = record["facts"]
        before, after = read.pop("answer_logprobs_before"), read.pop("answer_logprobs")
        assert before < 0 and after == [before, before]  # no turn has an observation
        assert read.pop("reference_answer_logprobs") < 0
        assert read == {"calls": [1, 0], "step": 3}
    credits = [turn["credit"] for record in kept for turn in record["turns"]]
    names = {"reward", "return", "advantage", "outcome", "partial", "format"}
    assert all(set(given) == names for given in credits)
    for given in credits:
        parts = given["outcome"] + given["partial"] + given["format"]
        assert parts == pytest.approx(given["reward"], abs=1e-5)
    glossary = (small.ROOT / "docs" / "evaluation.md").read_text()
    names = {re.sub(r"turn_\d+", "turn_0", name) for name in told[-1]} - {"step"}
    assert [name for name in sorted(names) if f"`{name}`" not in glossary] == []
    mean = sum(given["reward"] for given in credits) / len(kept)
    assert mean == pytest.approx(told[3]["credit/reward"], abs=1e-5)
    split = ("rollout", "credit", "update", "evaluation", "checkpoint", "keep")
    assert all(record[f"time/{name}_seconds"] >= 0 for record in told for name in split)
    assert all(record["memory/host_bytes"] > 0 for record in told)


def test_trajectories_of_steps_that_are_done_again_are_removed(tmp_path, trainer):
    tokenizer = trainer.session.dialogue.tokenizer
    folder = tmp_path / "trajectories"
    for step in (0, 1, 10, 20):
        trajectory_files.write(folder, tokenizer, step, [with_results()])
    keeper = trajectory_files.Keeper(tmp_path, tokenizer, every=10, steps=35, start=12)
    assert [step for step, _ in records.saved_records(folder)] == [0, 1, 10]
    assert [step for step in range(1, 36) if keeper.due(step)] == [1, 10, 20, 30, 35]
    none = trajectory_files.Keeper(tmp_path, tokenizer, every=0, steps=35, start=12)
    assert not any(none.due(step) for step in range(1, 36))


@pytest.fixture
def bar(monkeypatch):
    """The bar of a phase on a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    monkeypatch.setattr(display, "CONSOLE", console)
    with display.Display("gtpo", 6) as bar:
        yield bar


def lines(bar):
    """Name, total and figures of every visible bar, without the speed."""
    return [
        (task.description, task.total, task.fields["figures"].partition("  ")[2])
        for task in bar.progress.tasks
    ]


def watch(engine, bar):
    """Collects the lines shown at the end of each of the engine's rollouts."""
    shown, run = [], engine.run

    def watched(*arguments, **options):
        result = run(*arguments, **options)
        shown.append(lines(bar)[1:])
        return result

    engine.run = watched
    return shown


def test_every_round_of_a_step_is_shown_under_the_phase(trainer, bar):
    trainer.engine = ScriptedEngine(some_succeed(()))
    shown = watch(trainer.engine, bar)
    trainer.step(0, fresh(trainer), bar)
    assert shown == [[("rollout", PROMPTS * GROUP_SIZE, "rows 5  tools 2")]] * ROUNDS
    assert len(lines(bar)) == 1


def test_evaluation_is_shown_under_the_phase(sessions, bar):
    evaluator = Evaluator(sessions[1])
    for mode in MODES:
        evaluator.engines[mode] = ScriptedEngine(some_succeed({"1"}))
        shown = watch(evaluator.engines[mode], bar)
        result, _ = evaluator({}, mode, bar=bar)
        assert shown == [[(f"{mode} eval", 6, "rows 5  tools 2")]]
        assert result.success == pytest.approx(1 / 6) and len(lines(bar)) == 1
