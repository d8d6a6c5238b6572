"""Reinforcement learning from a cold start: rollouts with the tool, turn credit, clipped updates.

python -m launch.train tiny --run-dir runs/mine
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence

from configs.methods import spell
from configs.schema import TrainConfig
from configs.training import make_sampler, make_training
from gtpo_jax import learner, rollout
from gtpo_jax.language.gold import gold_answer
from gtpo_jax.learner import measured
from gtpo_jax.parts.prompts import Prompts
from gtpo_jax.parts.prompts.prompts import check_enough
from gtpo_jax.rollout import sharing
from gtpo_jax.rollout.proposals import Proposals
from gtpo_jax.tasks.pool import count_problems, first_problems
from gtpo_jax.tasks.source import ProblemSource
from gtpo_jax.training import with_method_states
from gtpo_jax.types import Params, Problem, Request, Trajectory
from launch import cli
from launch.run import cluster, display, own, services, step_metrics, trajectory_files
from launch.run.evaluator import MODES, Evaluator
from launch.run.gate import check_gate
from launch.run.phase import Phase, check_unused
from launch.run.services import Services
from launch.run.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(cli.PhaseArguments):
    """Reinforcement learning with turn-level credit, from a cold start."""

    cold_start: pathlib.Path | None = None
    """Run folder whose cold start, or imported model, training begins from. None: this run's own.
    """

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        run_dir = cls.folder(argv)
        resumed = own.flag(argv, "resume", "resume-if-any")
        saved = own.of_phase(run_dir, "train", goes_on=True) if resumed else None
        return saved or own.of_phase(pathlib.Path(own.option(argv, "cold-start") or run_dir), "sft")


class Trainer:
    """One step of the outer loop: rollout, credit, updates.

    `state` is the state at step 0; the first update consumes it, and the cold start with it.
    """

    def __init__(self, session: Session, cold_start: Params):
        self.session = session
        self.config = session.config.train
        self.prompts = session.method.prompts
        self.engine = session.engine(make_sampler(session.config, session.method))
        self.pool = make_pool(self.config, self.prompts, session.source)
        self.proposals = Proposals(
            self.prompts,
            wanted=self.config.prompts,
            group_size=self.config.group_size,
            seed=session.config.seed,
        )
        met = self.config.steps * self.config.prompts * self.prompts.rounds
        problems = self.pool or (session.source.train_problem(index) for index in range(met))
        self.services = Services(session, session.run_dir / "train" / services.FOLDER)
        scored = not set(session.method.facts).isdisjoint(measured.OF_ANSWERS)
        session.check_prompts(problems, scored=scored)
        self.training = make_training(
            session.config,
            session.forward,
            session.method,
            answer_tokens=functools.partial(gold_answer, session.dialogue),
            put=session.put_batch,
        )
        self.state = self.training.init(
            cold_start,
            trained=session.network.trained,
            problems=None if self.pool is None else len(self.pool),
        )

    def step(
        self, step: int, state: learner.TrainState, bar: display.Display | None = None
    ) -> tuple[learner.TrainState, list[Trajectory], dict[str, float]]:
        """Runs one step; returns the new state, the trajectories it learned from, and its metrics.

        Afterwards `last_report` is the report of its credit and updates.
        """
        began = time.monotonic()
        state, groups = self.sample(step, state, bar)
        seconds = time.monotonic() - began
        state, metrics = self.learn(step, state, groups.kept)
        return state, groups.kept, step_metrics.sampled(groups, seconds) | metrics

    def sample(
        self, step: int, state: learner.TrainState, bar: display.Display | None = None
    ) -> tuple[learner.TrainState, rollout.CollectedGroups]:
        """Samples the groups of a step, from the problems that the method proposes."""
        config, local = self.config, self.session.localize(state.params)
        rounds = self.engine.rounds(local, seed=self.session.config.seed, step=step)

        def run(requests: Sequence[Request]):
            with display.rollout("rollout", bar) as on_progress:
                return rounds(requests, on_progress=on_progress)

        before = state.method.get("prompts", ())
        proposal = self.proposals.propose(before, step)
        problems = [self.problem(number) for number in proposal.problems.tolist()]
        groups = rollout.collect_groups(
            sharing.Shared(run),
            problems,
            wanted=config.prompts,
            group_size=proposal.group_sizes.tolist(),
            rounds=self.prompts.rounds,
            has_signal=self.prompts.has_signal,
            plan=self.services.at(step),
            most=self.training.layout.trajectories,
        )
        if "prompts" in state.method:
            names = [problem.id for problem in problems]
            after = self.proposals.observe(before, proposal, names, groups.sampled)
            state = with_method_states(state, {"prompts": after})
        return state, groups

    def problem(self, number: int) -> Problem:
        """Training problem number `number`; a pool begins anew at its end."""
        if self.pool is None:
            return self.session.source.train_problem(number)
        return self.pool[number % len(self.pool)]

    def learn(
        self, step: int, state: learner.TrainState, trajectories: list[Trajectory]
    ) -> tuple[learner.TrainState, dict[str, float]]:
        """New state, and metrics of credit and updates. Without trajectories the state stays the
        same.
        """
        state, report = self.training.step(step, state, trajectories)
        self.last_report = report
        updates = [dict(metrics) for metrics in report.updates]
        for metrics in updates:
            display.skipped_update(step, learner.nonfinite_names(state, metrics.pop("nonfinite")))
        return state, {
            "rollout/logprob_gap": report.logprob_gap,
            **step_metrics.credit(report.episodes, report.credit),
            **step_metrics.update(updates),
            "time/credit_seconds": report.credit_seconds,
            "time/update_seconds": report.update_seconds,
        }


def make_pool(config: TrainConfig, prompts: Prompts, source: ProblemSource) -> list[Problem] | None:
    """The problems that a run trains on, if it needs to know all of them, or has only some.

    Raises `ValueError` if there are fewer than a step tries at once.
    """
    count = config.pool or (count_problems(source) if prompts.pooled else None)
    if count is None:
        return None
    pool = first_problems(source, count)
    check_enough(config.prompts, len(pool))
    return pool


def run_training(
    session: Session,
    cold_start: Params,
    evaluator: Evaluator,
    *,
    resume: bool = False,
    go_on: str = "",
) -> Params:
    """Trains a session by reinforcement learning; returns its final parameters.

    `go_on` is the command to run after an interrupt, `launch.train --resume` by default.
    """
    config = session.config.train
    trainer = Trainer(session, cold_start)
    with Phase(
        "train",
        session.run_dir,
        session.config,
        trainer.state,
        resume=resume,
        checkpoint_every=config.checkpoint_every,
        go_on=go_on or own.resume_command("train", session.run_dir),
    ) as phase:
        keeper = trajectory_files.Keeper(
            phase.folder,
            session.dialogue.tokenizer,
            every=config.keep_every,
            steps=config.steps,
            start=phase.start,
        )
        with display.Display(spell(config.method), config.steps, phase.start) as bar:
            held_out = {}
            ended = time.monotonic()
            for step in phase.steps(config.steps):
                began = time.monotonic()
                phase.state, trajectories, figures = trainer.step(step, phase.state, bar)
                learned = time.monotonic()
                done = step + 1
                last = trainer.last_report
                keeper.keep(done, trajectories, last.credit, last.episodes.facts)
                kept = time.monotonic()
                if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                    result, _ = evaluator(phase.state.params, "sampled", bar=bar)
                    held_out = {"held-out": result.success}
                    figures |= {
                        "eval/sampled_success": result.success,
                        "eval/sampled_violations": result.violations,
                    }
                figures |= step_metrics.memory() | {
                    # The checkpoint of a step is saved between it and the next.
                    "time/checkpoint_seconds": began - ended,
                    "time/keep_seconds": kept - learned,
                    "time/evaluation_seconds": time.monotonic() - kept,
                }
                phase.metrics.write(done, figures)
                ended = time.monotonic()
                headline = {
                    "success": figures["rollout/success"],
                    "reward": figures["credit/reward"],
                    "tokens/s": figures["time/tokens_per_second"],
                }
                bar.update(done, headline | held_out)
        return phase.state.params


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(TrainArguments, argv, program="launch.train")
    cluster.start(arguments.cluster, arguments.distributed)
    start = arguments.cold_start or arguments.run_dir
    resume = arguments.resumes("train")
    check_unused(arguments.run_dir, "train", resume=resume)
    with Session(arguments.config, arguments.run_dir) as session:
        if not resume:
            own.tell_changes(TrainArguments.begins_with(argv), session.config)
            own.tell_unfinished(start, "sft")
        cold_start = session.load_start(start)
        evaluator = Evaluator(session)
        if not resume:
            check_gate(session, evaluator, cold_start, own.resume_command("sft", start))
        go_on = cli.command("launch.train", arguments, "--resume")
        params = run_training(session, cold_start, evaluator, resume=resume, go_on=go_on)
        figures = {mode: evaluator.final(params, mode)[0].record() for mode in MODES}
    if arguments.json is not None:
        cli.write_json(arguments.json, figures)
    display.CONSOLE.print(
        f"held-out success {figures['sampled']['success']:.3f} sampled,"
        f" {figures['greedy']['success']:.3f} greedy; run in {arguments.run_dir}"
    )


if __name__ == "__main__":
    cli.main(run)
