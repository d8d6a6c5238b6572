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
import numpy as np

from configs.functions import make_optimizer
from gtpo_jax import credit, evaluation, learner, packing, rollout, sampling
from gtpo_jax.types import Params, Trajectory
from launch import cli, display
from launch.gate import check_gate
from launch.phase import Phase
from launch.session import MODES, Evaluator, Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(cli.RunArguments):
    """Reinforcement learning with turn-level credit, from a cold start."""

    resume: bool = False
    """Go on from the newest checkpoint of the run."""
    cold_start: pathlib.Path | None = None
    """Run folder whose cold start to begin with; by default the one in the run's own folder."""


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
            for index in range(self.config.steps * self.config.prompts)
        )
        algorithm = session.algorithm
        self.assign = jax.jit(
            functools.partial(
                credit.assign,
                turn_rewards=algorithm.turn_rewards,
                turn_advantages=algorithm.turn_advantages,
            )
        )
        total = self.config.steps * self.config.minibatches
        optimizer = make_optimizer(self.config.optimizer, steps=total)
        update = learner.make_update(
            session.forward,
            optimizer,
            algorithm.token_loss,
            algorithm.reduce,
            temperature=self.config.temperature,
            chunk=self.config.logprob_chunk,
        )
        self.state = learner.init_state(cold_start, optimizer)
        self.update = learner.jit_update(update, self.state)
        self.gap = jax.jit(
            functools.partial(
                learner.logprob_gap,
                session.forward,
                temperature=self.config.temperature,
                chunk=self.config.logprob_chunk,
            )
        )

    def step(
        self, step: int, state: learner.TrainState
    ) -> tuple[learner.TrainState, list[Trajectory], dict[str, float]]:
        """One step: new state, its trajectories, its figures."""
        config = self.config
        began = time.monotonic()
        first = step * config.prompts
        problems = [self.session.source.train_problem(first + i) for i in range(config.prompts)]
        requests = [
            rollout.Request(problem=problem, group=group, sample=sample)
            for group, problem in enumerate(problems)
            for sample in range(config.group_size)
        ]
        trajectories, stats = self.engine.run(
            state.params, requests, seed=self.session.config.seed, step=step
        )
        rolled_out = time.monotonic()
        max_turns = self.session.config.rollout.max_turns
        episodes = packing.episode_batch(trajectories, max_turns=max_turns)
        turn_credit = jax.device_get(self.assign(episodes))
        batches = list(self._minibatches(step, trajectories, turn_credit.advantages))
        figures = rollout_figures(trajectories, episodes, turn_credit)
        figures["rollout/logprob_gap"] = float(self.gap(state.params, batches[0]))
        updates = []
        for batch in batches:
            state, metrics = self.update(state, batch)
            updates.append(metrics)
        updates = jax.device_get(updates)
        figures |= {
            f"update/{name}": float(np.mean([metrics[name] for metrics in updates]))
            for name in updates[0]
        }
        ended = time.monotonic()
        figures |= {
            "time/rollout_seconds": rolled_out - began,
            "time/update_seconds": ended - rolled_out,
            "time/tool_seconds": stats.tool_seconds,
            "time/tokens_per_second": stats.sampled_tokens / (rolled_out - began),
            "rollout/busy_rows": stats.sampled_tokens / max(stats.row_steps, 1),
        }
        return state, trajectories, figures

    def _minibatches(self, step: int, trajectories: list[Trajectory], advantages: np.ndarray):
        """The trajectories dealt at random into packed batches of equal shape."""
        config = self.config
        order = list(range(len(trajectories)))
        random.Random(f"{self.session.config.seed}/minibatch/{step}").shuffle(order)
        share = -(-len(order) // config.minibatches)
        for start in range(0, len(order), share):
            part = order[start : start + share]
            batch = packing.pack(
                [trajectories[index] for index in part],
                advantages[part],
                micro_batches=-(-share // config.rows),
                rows=config.rows,
                row_length=self.session.config.rollout.context,
            )
            yield self.session.put_batch(batch)


def rollout_figures(
    trajectories: Sequence[Trajectory], episodes, turn_credit: credit.TurnCredit
) -> dict[str, float]:
    """What the trajectories of a step were like."""
    summary = evaluation.evaluate_trajectories(trajectories)
    success = np.asarray(episodes.success, np.float32)
    groups = np.asarray(episodes.group_ids)
    shares = np.array([success[groups == group].mean() for group in np.unique(groups)])
    mask = np.asarray(episodes.turn_mask)
    entropies = np.concatenate([turn.entropies for t in trajectories for turn in t.turns])
    return {
        "rollout/success": summary.success,
        "rollout/violations": summary.violations,
        "rollout/turns": summary.turns,
        "rollout/tool_errors": summary.tool_errors,
        "rollout/tokens": summary.tokens,
        "rollout/truncated": summary.truncated,
        "rollout/excluded": summary.excluded,
        "rollout/entropy": float(entropies.mean()),
        "credit/reward": float(turn_credit.rewards.sum(axis=1).mean()),
        "credit/advantage_size": float(np.abs(turn_credit.advantages[mask]).mean()),
        # Judged by outcomes: with a discount, equal outcomes still give unequal returns.
        "credit/groups_without_signal": float(np.mean((shares == 0) | (shares == 1))),
    }


def run_training(
    session: Session,
    cold_start: Params,
    evaluator: Evaluator,
    *,
    resume: bool = False,
    go_on: str = "",
) -> Params:
    """Reinforcement learning of a session; returns the parameters it ends with.

    `go_on` is what to run after an interrupt, `launch.train --resume` by default.
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
        go_on=go_on or f"launch.train --resume --run-dir {session.run_dir}",
    ) as phase:
        with display.Display(config.algorithm.name, config.steps, phase.start) as bar:
            held_out = {}
            for step in phase.steps(config.steps):
                phase.state, _, figures = trainer.step(step, phase.state)
                done = step + 1
                if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                    result, _ = evaluator(phase.state.params, "sampled")
                    held_out = {"held-out": result.success}
                    figures |= {
                        "eval/sampled_success": result.success,
                        "eval/sampled_violations": result.violations,
                    }
                phase.metrics.write(done, figures)
                shown = {
                    "success": figures["rollout/success"],
                    "reward": figures["credit/reward"],
                    "tokens/s": figures["time/tokens_per_second"],
                }
                bar.update(done, shown | held_out)
        return phase.state.params


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(TrainArguments, argv, program="launch.train")
    with Session(arguments.config, arguments.run_dir) as session:
        cold_start = session.load_params(arguments.cold_start or arguments.run_dir, "sft")
        evaluator = Evaluator(session)
        if not arguments.resume:
            check_gate(session, evaluator, cold_start)
        params = run_training(session, cold_start, evaluator, resume=arguments.resume)
        figures = {mode: evaluator(params, mode)[0].record() for mode in MODES}
    if arguments.json is not None:
        cli.write_json(arguments.json, figures)
    display.CONSOLE.print(
        f"held-out success {figures['sampled']['success']:.3f} sampled,"
        f" {figures['greedy']['success']:.3f} greedy; run in {arguments.run_dir}"
    )


if __name__ == "__main__":
    cli.main(run)
