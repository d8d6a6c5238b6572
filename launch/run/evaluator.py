"""Rollouts on held-out problems, sampled and greedy, by the same loop as in training."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gtpo_jax import rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.results.evaluation import Evaluation, evaluate_trajectories
from gtpo_jax.rollout import sharing
from gtpo_jax.types import Params, Problem, Trajectory
from launch.run import display
from launch.run.session import Session

EVALUATION_STEP = 2**32 - 1
"""Step in the random keys of evaluations: every evaluation of a run draws the same numbers."""

MODES = ("sampled", "greedy")
"""How an evaluation chooses tokens: at `evaluation.temperature`, or the most likely one."""


class Evaluator:
    """Evaluates a policy on the held-out problems, sampled and greedy."""

    def __init__(self, session: Session):
        config = session.config.evaluation
        self.session = session
        self.problems = session.source.held_out(config.problems)
        sampled = functools.partial(sampling.categorical, temperature=config.temperature)
        self.engines = {
            "sampled": session.engine(sampled),
            "greedy": session.engine(sampling.greedy),
        }
        session.check_prompts(self.problems)

    def __call__(
        self, params: Params, mode: str, *, bar: display.Display | None = None
    ) -> tuple[Evaluation, list[Trajectory]]:
        """Evaluates one sample per problem. `mode` is `sampled` or `greedy`. Progress is shown
        under `bar`, or alone.
        """
        return self.on(self.problems, params, mode, bar=bar)

    def final(self, params: Params, mode: str) -> tuple[Evaluation, list[Trajectory]]:
        """Evaluates as many samples per problem as the config says."""
        requests = self.requests(self.problems, self.samples(mode))
        trajectories = self.run(params, mode, requests)
        return evaluate_trajectories(trajectories), trajectories

    def on(
        self,
        problems: Sequence[Problem],
        params: Params,
        mode: str,
        *,
        bar: display.Display | None = None,
    ) -> tuple[Evaluation, list[Trajectory]]:
        """Evaluates one sample per problem, on other problems."""
        trajectories = self.run(params, mode, self.requests(problems, 1), bar=bar)
        return evaluate_trajectories(trajectories), trajectories

    def samples(self, mode: str) -> int:
        """Samples per problem in a final evaluation. Greedy samples would all be equal."""
        return self.session.config.evaluation.samples if mode == "sampled" else 1

    def requests(self, problems: Sequence[Problem], samples: int) -> list[rollout.Request]:
        """Requests for `samples` samples of each problem, problem by problem."""
        return [
            rollout.Request(problem=problem, group=group, sample=sample)
            for group, problem in enumerate(problems)
            for sample in range(samples)
        ]

    def run(
        self,
        params: Params,
        mode: str,
        requests: Sequence[rollout.Request],
        *,
        bar: display.Display | None = None,
    ) -> list[Trajectory]:
        """One trajectory per request. All processes take part, and each gets all trajectories."""
        local = self.session.localize(params)

        def run(requests: Sequence[rollout.Request]):
            with display.rollout(f"{mode} eval", bar) as on_progress:
                return self.engines[mode].run(
                    local,
                    requests,
                    seed=self.session.config.seed,
                    step=EVALUATION_STEP,
                    on_progress=on_progress,
                )

        return sharing.share(run, requests, "the evaluation")[0]
