"""Reinforcement learning from a cold start: rollouts with the tool, turn credit, clipped updates.

python -m launch.train tiny --run-dir runs/mine
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import random
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from configs.functions import make_optimizer
from gtpo_jax import credit, learner, rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.learner import packing
from gtpo_jax.rollout import sharing
from gtpo_jax.types import EpisodeBatch, Params, TokenBatch, Trajectory
from launch import cli
from launch.run import cluster, display, own, trajectory_files
from launch.run import step_metrics as figures_of
from launch.run.evaluator import MODES, Evaluator
from launch.run.gate import check_gate
from launch.run.phase import Phase, check_unused
from launch.run.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(cli.PhaseArguments):
    """Reinforcement learning with turn-level credit, from a cold start."""

    cold_start: pathlib.Path | None = None
    """Run folder whose cold start, or imported model, to begin with; by default the run's own."""

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        run_dir = cls.folder(argv)
        resumed = own.flag(argv, "resume", "resume-if-any")
        found = own.of_phase(run_dir, "train", goes_on=True) if resumed else None
        return found or own.of_phase(pathlib.Path(own.option(argv, "cold-start") or run_dir), "sft")


class Trainer:
    """The step of the outer loop: rollout, credit, updates.

    `state` is the state at step 0; the first update takes it, and the cold start with it.
    """

    def __init__(self, session: Session, cold_start: Params):
        self.session = session
        self.config = session.config.train
        self.engine = session.engine(
            functools.partial(sampling.categorical, temperature=self.config.temperature)
        )
        session.check_prompts(
            session.source.train_problem(index)
            for index in range(self.config.steps * self.step_problems)
        )
        algorithm = session.algorithm
        self.assign = jax.jit(
            functools.partial(
                credit.assign,
                turn_rewards=algorithm.turn_rewards,
                turn_advantages=algorithm.turn_advantages,
                turn_returns=algorithm.turn_returns,
            )
        )
        optimizer = make_optimizer(
            self.config.optimizer,
            steps=self.config.steps,
            updates=self.config.minibatches * self.config.epochs,
        )
        update = learner.make_update(
            session.forward,
            optimizer,
            algorithm.token_loss,
            algorithm.reduce,
            temperature=self.config.temperature,
            chunk=self.config.logprob_chunk,
        )
        self.state = learner.init_state(cold_start, optimizer, trained=session.network.trained)
        self.update = learner.CompiledUpdate(update, self.state)
        # Updates take the trained parts of the cold start with them; the reference stays.
        held = self.config.algorithm.kl_weight > 0
        trained = jax.tree.map(jnp.copy, self.state.trained) if held else {}
        self.reference = {**self.state.frozen, **trained} if held else None
        options = {
            "temperature": self.config.temperature,
            "chunk": self.config.logprob_chunk,
        }
        self.gap = jax.jit(functools.partial(learner.logprob_gap, session.forward, **options))
        self.logprobs = jax.jit(
            functools.partial(learner.stepwise_logprobs, session.forward, **options)
        )

    @property
    def step_problems(self) -> int:
        """Problems that a step may need: those of step s begin at number s · step_problems."""
        return self.config.prompts * self.config.sampling_rounds

    def step(
        self, step: int, state: learner.TrainState, bar: display.Display | None = None
    ) -> tuple[learner.TrainState, list[Trajectory], dict[str, float]]:
        """One step: new state, the trajectories it learned from, its figures.

        `last_credit` then is what their turns were given.
        """
        began = time.monotonic()
        groups = self.sample(step, state.params, bar)
        seconds = time.monotonic() - began
        state, figures = self.learn(step, state, groups.kept)
        return state, groups.kept, figures_of.sampled(groups, seconds) | figures

    def sample(
        self, step: int, params: Params, bar: display.Display | None = None
    ) -> rollout.CollectedGroups:
        """The groups of a step, from its own problems."""
        config, local = self.config, self.session.localize(params)

        def run(requests: Sequence[rollout.Request]):
            with display.rollout("rollout", bar) as on_progress:
                return self.engine.run(
                    local,
                    requests,
                    seed=self.session.config.seed,
                    step=step,
                    on_progress=on_progress,
                )

        # A single round has no other groups to put in the place of those without signal.
        several = config.sampling_rounds > 1
        first = step * self.step_problems
        return rollout.collect_groups(
            functools.partial(sharing.share, run),
            map(self.session.source.train_problem, range(first, first + self.step_problems)),
            wanted=config.prompts,
            group_size=config.group_size,
            rounds=config.sampling_rounds,
            has_signal=rollout.unequal_outcomes if several else lambda group: True,
        )

    def learn(
        self, step: int, state: learner.TrainState, trajectories: list[Trajectory]
    ) -> tuple[learner.TrainState, dict[str, float]]:
        """New state and figures of credit and updates; without trajectories the state stays."""
        began = time.monotonic()
        max_turns = self.session.config.rollout.max_turns
        episodes = packing.episode_batch(trajectories, max_turns=max_turns)
        turn_credit = jax.device_get(self.assign(self._fill(episodes)))
        self.last_credit = jax.tree.map(lambda x: x[: len(trajectories)], turn_credit)
        credited = time.monotonic()
        batches = list(self._minibatches(step, trajectories, self.last_credit.advantages))
        gap = float(self.gap(state.params, batches[0]))
        batches = [self._with_logprobs(state.params, batch) for batch in batches]
        updates = []
        for _ in range(self.config.epochs):
            for batch in batches:
                state, metrics = self.update(state, batch)
                updates.append(metrics)
        updates = jax.device_get(updates)
        for metrics in updates:
            display.skipped_update(step, learner.nonfinite_names(state, metrics.pop("nonfinite")))
        return state, {
            "rollout/logprob_gap": gap,
            **figures_of.credit(episodes, self.last_credit),
            **figures_of.update(updates),
            "time/credit_seconds": credited - began,
            "time/update_seconds": time.monotonic() - credited,
        }

    def _with_logprobs(self, params: Params, batch: TokenBatch) -> TokenBatch:
        """The batch with the log-probs of further policies that its loss asks for."""
        if self.config.algorithm.recompute:
            batch = dataclasses.replace(batch, proximal_logprobs=self.logprobs(params, batch))
        if self.reference is not None:
            reference = self.logprobs(self.reference, batch)
            batch = dataclasses.replace(batch, reference_logprobs=reference)
        return batch

    def _fill(self, episodes: EpisodeBatch) -> EpisodeBatch:
        """As many episodes as a step has at most, the further ones without turns and excluded."""
        missing = self.config.prompts * self.config.group_size - len(episodes.included)
        return jax.tree.map(lambda x: np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]), episodes)

    def _minibatches(self, step: int, trajectories: list[Trajectory], advantages: np.ndarray):
        """The trajectories dealt at random into packed batches of equal shape, group by group if
        they share prompts.

        As few as hold them at the size that they have in a full step; one at least, empty perhaps.
        """
        config = self.config
        dealt = [[index] for index in range(len(trajectories))]
        if config.shared_prompts:
            groups: dict[int, list[int]] = {}
            for index, trajectory in enumerate(trajectories):
                groups.setdefault(trajectory.group, []).append(index)
            dealt = list(groups.values())
        size = config.group_size if config.shared_prompts else 1
        random.Random(f"{self.session.config.seed}/minibatch/{step}").shuffle(dealt)
        most = -(-config.prompts * config.group_size // (config.minibatches * size))
        count = max(-(-len(dealt) // most), 1)
        share = -(-len(dealt) // count)
        rows, row_length = packing.row_shape(
            trajectories,
            rows=config.rows,
            row_length=config.row_tokens or self.session.config.rollout.context,
            buckets=config.row_buckets,
            shared_prompts=config.shared_prompts,
        )
        for i in range(count):
            part = [index for unit in dealt[i * share : (i + 1) * share] for index in unit]
            batch = packing.pack(
                [trajectories[index] for index in part],
                advantages[part],
                micro_batches=-(-most * size // rows),
                rows=rows,
                row_length=row_length,
                shared_prompts=config.shared_prompts,
            )
            yield self.session.put_batch(batch)


def run_training(
    session: Session,
    cold_start: Params,
    evaluator: Evaluator,
    *,
    resume: bool = False,
    go_on: str = "",
) -> Params:
    """Reinforcement learning of a session; returns the parameters it ends with.

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
        with display.Display(config.algorithm.name, config.steps, phase.start) as bar:
            held_out = {}
            ended = time.monotonic()
            for step in phase.steps(config.steps):
                began = time.monotonic()
                phase.state, trajectories, figures = trainer.step(step, phase.state, bar)
                learned = time.monotonic()
                done = step + 1
                keeper.keep(done, trajectories, trainer.last_credit)
                kept = time.monotonic()
                if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                    result, _ = evaluator(phase.state.params, "sampled", bar=bar)
                    held_out = {"held-out": result.success}
                    figures |= {
                        "eval/sampled_success": result.success,
                        "eval/sampled_violations": result.violations,
                    }
                figures |= figures_of.memory() | {
                    # Between two steps stands the checkpoint of the earlier one.
                    "time/checkpoint_seconds": began - ended,
                    "time/keep_seconds": kept - learned,
                    "time/evaluation_seconds": time.monotonic() - kept,
                }
                phase.metrics.write(done, figures)
                ended = time.monotonic()
                shown = {
                    "success": figures["rollout/success"],
                    "reward": figures["credit/reward"],
                    "tokens/s": figures["time/tokens_per_second"],
                }
                bar.update(done, shown | held_out)
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
