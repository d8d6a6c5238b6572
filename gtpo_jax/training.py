"""One training step: groups → credit → minibatches → scores that the loss needs → updates.

    training = Training(forward, optimizer, methods.gtpo(), layout)
    state = training.init(params)
    for number in range(steps):
        trajectories, _ = engine.run(state.params, requests, seed=seed, step=number)
        state, report = training.step(number, state, trajectories)

It knows neither sessions nor folders. A run is this class with a rollout before it, and
`launch.plan` compiles the programs that `programs` lists, so a plan has the programs of the run.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gtpo_jax import learner
from gtpo_jax.learner import measured, packing
from gtpo_jax.learner.layout import Layout
from gtpo_jax.methods import Method, TurnCredit, assign
from gtpo_jax.methods.method import token_numbers
from gtpo_jax.parts import facts, losses
from gtpo_jax.parts.spreads import evenly, written_tokens
from gtpo_jax.types import (
    AnswerTokens,
    EpisodeBatch,
    ForwardFn,
    Params,
    TokenBatch,
    Trajectory,
)


class StepReport(NamedTuple):
    """The results of a step."""

    episodes: EpisodeBatch
    credit: TurnCredit  # NumPy arrays, one row per trajectory
    logprob_gap: float  # largest |log π − log μ| of trained tokens, before any update
    updates: list[Mapping[str, np.ndarray]]  # metrics of each update
    credit_seconds: float
    update_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A jitted function of a step, with abstract arguments."""

    name: str
    function: Any  # has `.lower`
    arguments: tuple[Any, ...]
    calls: int  # calls per step
    shape: tuple[int, int, int]  # shape [A, B, T] of the batch of a call


Put = Callable[[TokenBatch], TokenBatch]
"""Places a batch `[A, B, T]` on the devices."""


COMPUTED = (facts.STEP, *measured.FACTS, *measured.OF_GROUPS)
"""Facts that a step computes itself; those of `measured.OF_ANSWERS` if it has `answer_tokens`."""


def with_method_states(state: learner.TrainState, states: Mapping[str, Any]) -> learner.TrainState:
    """The train state with states of parts of the method, which lie where its counter does."""
    placed = jax.device_put(dict(states), state.step.sharding)
    return dataclasses.replace(state, method={**state.method, **placed})


def _with_logprobs(batch: TokenBatch, logprobs: jax.Array) -> TokenBatch:
    """The batch with the log-probs of tokens that nobody sampled: the ratio to them begins at 1."""
    known = batch.behavior_logprobs
    filled = jnp.where(jnp.isnan(known), jax.lax.stop_gradient(logprobs), known)
    return dataclasses.replace(batch, behavior_logprobs=filled)


class Training:
    """The training step of a method, compiled.

    Call `init` first. `put` places batches on the devices, as `sharding.distribute` does.
    """

    def __init__(
        self,
        forward: ForwardFn,
        optimizer: optax.GradientTransformation,
        method: Method,
        layout: Layout,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
        seed: int = 0,
        put: Put = jax.device_put,
        answer_tokens: AnswerTokens | None = None,
    ):
        """`answer_tokens` writes the gold answers that some facts need."""
        absent = measured.OF_ANSWERS if answer_tokens is None else ()
        facts.check_provided(method.facts, [fact for fact in COMPUTED if fact not in absent])
        compares = bool({fact.name for fact in method.facts} & {f.name for f in measured.OF_GROUPS})
        if method.loss.group_terms or compares:
            layout = dataclasses.replace(layout, whole_groups=True)
        self.method, self.layout, self.optimizer = method, layout, optimizer
        self.seed, self.put = seed, put
        options = {"temperature": temperature, "chunk": chunk}
        self._update = learner.make_update(
            forward,
            optimizer,
            method.loss,
            method.reduce,
            trajectories=layout.minibatch_trajectories,
            **options,
        )
        self.assign = jax.jit(functools.partial(assign, method))
        self.token_numbers = jax.jit(functools.partial(token_numbers, method))
        self.gap = jax.jit(functools.partial(learner.logprob_gap, forward, **options))
        self.logprobs = jax.jit(functools.partial(learner.stepwise_logprobs, forward, **options))
        self._filled = jax.jit(_with_logprobs)
        self.measures = measured.Measures(
            forward,
            self.logprobs,
            method.facts,
            trajectories=layout.minibatch_trajectories,
            max_turns=layout.max_turns,
            row_tokens=layout.row_tokens,
            answer_tokens=answer_tokens,
            groups=min(layout.groups, layout.minibatch_trajectories),
            **options,
        )
        self.reference: Params | None = None

    @property
    def needs_reference(self) -> bool:
        """True if the loss or a fact compares with the policy that training began with."""
        return "reference_logprobs" in self.method.loss.needs or self.measures.needs_reference

    def init(
        self,
        params: Params,
        *,
        trained: Sequence[str] | None = None,
        problems: int | None = None,
    ) -> learner.TrainState:
        """The state at step 0. The first update consumes it, and the parameters with it.

        `trained` names the parts of the parameters that updates change; None: all of them.
        `problems` is the number of training problems; None: endless.
        """
        state = learner.init_state(params, self.optimizer, trained=trained)
        states = {
            "credit": self.method.credit.init(),
            "prompts": self.method.prompts.init(problems),
        }
        state = with_method_states(
            state, {name: value for name, value in states.items() if jax.tree.leaves(value)}
        )
        self.update = learner.CompiledUpdate(self._update, state)
        if self.needs_reference:
            # Updates consume the trained parts; the reference must stay.
            self.reference = {**state.frozen, **jax.tree.map(jnp.copy, state.trained)}
        return state

    def step(
        self, number: int, state: learner.TrainState, trajectories: Sequence[Trajectory]
    ) -> tuple[learner.TrainState, StepReport]:
        """Credit and updates of the trajectories of step `number`, counted from 0.

        Turns that were written for the policy get the log-probs of the policy that the step begins
        with, so the ratio of their first update is 1.

        Without trajectories the parameters stay the same.
        """
        began = time.monotonic()
        parts = self.layout.minibatches_of(trajectories, seed=f"{self.seed}/minibatch/{number}")
        episodes = packing.episode_batch(
            trajectories, max_turns=self.layout.max_turns, needs=self.method.facts
        )
        found, reference = self.measures(
            state.params, self.reference, trajectories, parts, self._batches
        )
        if facts.STEP in self.method.facts:
            found[facts.STEP.name] = np.full(len(trajectories), number, np.int32)
        episodes = dataclasses.replace(episodes, facts={**episodes.facts, **found})
        credit_state, turn_credit = self.assign(
            state.method.get("credit", self.method.credit.init()), self._fill(episodes)
        )
        if "credit" in state.method:
            state = with_method_states(state, {"credit": credit_state})
        spread, marks = self._token_numbers(turn_credit.advantages, episodes, trajectories)
        turn_credit = jax.device_get(turn_credit)
        turn_credit = jax.tree.map(lambda x: x[: len(trajectories)], turn_credit)
        credited = time.monotonic()
        learned, reference = self._left_in(trajectories, reference)
        batches = list(self._batches(learned, turn_credit.advantages, parts, spread, marks))
        if any(trajectory.off_policy for trajectory in trajectories):
            batches = [self._filled(batch, self.logprobs(state.params, batch)) for batch in batches]
        gap = float(self.gap(state.params, batches[0]))
        batches = [
            self._with_scores(state.params, batch, known)
            for batch, known in itertools.zip_longest(batches, reference)
        ]
        updates = []
        for _ in range(self.layout.epochs):
            for batch in batches:
                state, metrics = self.update(state, batch)
                updates.append(metrics)
        return state, StepReport(
            episodes=episodes,
            credit=turn_credit,
            logprob_gap=gap,
            updates=jax.device_get(updates),
            credit_seconds=credited - began,
            update_seconds=time.monotonic() - credited,
        )

    def _left_in(
        self, trajectories: Sequence[Trajectory], reference: Sequence[jax.Array]
    ) -> tuple[Sequence[Trajectory], Sequence[jax.Array]]:
        """The trajectories with those that the prompts leave out of the loss marked as not
        trained, which packing skips; known scores of batches with them are of no use then.
        """
        left_out = self.method.prompts.left_out
        if left_out is None or not trajectories:
            return trajectories, reference
        assert left_out.gather is not None
        out = left_out.gather(trajectories, self.layout.max_turns)
        if not np.any(out):
            return trajectories, reference
        return [
            dataclasses.replace(trajectory, trained=trajectory.trained and not skip)
            for trajectory, skip in zip(trajectories, out, strict=True)
        ], ()

    def programs(
        self, state: learner.TrainState, place: Callable[[tuple[int, ...], Any], Any]
    ) -> Iterator[Program]:
        """The programs of a step for an abstract state, at every shape that a batch may have.

        `place(shape, dtype)` makes the abstract array of a field of a batch, with its placement.
        """
        calls = self.layout.minibatches
        for shape in self.layout.shapes():
            batch = jax.tree.map(
                lambda leaf, shape=shape: place((*shape, *leaf.shape[2:]), leaf.dtype),
                packing.empty_batch(
                    1,
                    1,
                    shared_prompts=self.layout.shared_prompts,
                    candidates=self.method.loss.candidates,
                    groups=self._packs_groups,
                    marks=[mark.name for mark in self.method.loss.marks],
                ),
            )
            scored = dataclasses.replace(
                batch, **{name: place(shape, jnp.float32) for name in self._scored}
            )
            yield Program(
                name="update",
                function=learner.CompiledUpdate(self._update, state).program,
                arguments=(learner.changing(state), state.frozen, scored),
                calls=calls * self.layout.epochs,
                shape=shape,
            )
            passes = {"log-prob gap": (self.gap, 1)}
            if self.method.plan.off_policy:
                passes["log-probs of written turns"] = (self.logprobs, calls)
            if "proximal_logprobs" in self.method.loss.needs:
                passes["proximal log-probs"] = (self.logprobs, calls)
            if self.needs_reference:
                passes["reference log-probs"] = (self.logprobs, calls)
            passes |= self.measures.passes(calls)
            for name, (function, count) in passes.items():
                yield Program(
                    name=name,
                    function=function,
                    arguments=(state.params, batch),
                    calls=count,
                    shape=shape,
                )

    def _token_numbers(
        self, advantages: jax.Array, episodes: EpisodeBatch, trajectories: Sequence[Trajectory]
    ) -> tuple[list[np.ndarray] | None, dict[str, list[np.ndarray]]]:
        """The advantages of the tokens of each trajectory, or None for those of their turns; and
        the marks of its tokens that the loss reads.
        """
        if self.method.spread is evenly and not self.method.loss.marks:
            return None, {}
        written = written_tokens(trajectories, rows=len(advantages))
        spread, marks = jax.device_get(
            self.token_numbers(advantages, written, self._fill(episodes))
        )
        counts = np.sum(written.turn_ids >= 0, axis=1)

        def ragged(values: np.ndarray) -> list[np.ndarray]:
            return [values[row, : counts[row]] for row in range(len(trajectories))]

        return ragged(spread), {name: ragged(values) for name, values in marks.items()}

    def _fill(self, episodes: EpisodeBatch) -> EpisodeBatch:
        """The episodes, padded to the largest number of a step with excluded episodes without
        turns.
        """
        missing = self.layout.trajectories - len(episodes.included)
        if missing < 0:
            raise ValueError(
                f"a step has {len(episodes.included)} trajectories, its layout has room for"
                f" {self.layout.trajectories}; a plan says how many it returns (`Plan.returned`)"
            )
        return jax.tree.map(
            lambda x: np.pad(np.asarray(x), [(0, missing), *[(0, 0)] * (np.ndim(x) - 1)]), episodes
        )

    def _batches(
        self,
        trajectories: Sequence[Trajectory],
        advantages: np.ndarray,
        parts: Sequence[Sequence[int]],
        spread: Sequence[np.ndarray] | None = None,
        marks: Mapping[str, Sequence[np.ndarray]] | None = None,
    ) -> Iterator[TokenBatch]:
        """The packed minibatches of a step, all of one shape."""
        layout = self.layout
        rows, row_length = packing.row_shape(
            trajectories,
            rows=layout.rows,
            row_length=layout.row_tokens,
            buckets=layout.row_buckets,
            shared_prompts=layout.shared_prompts,
        )
        for part in parts:
            batch = packing.pack(
                [trajectories[index] for index in part],
                advantages[list(part)],
                micro_batches=layout.micro_batches(rows),
                rows=rows,
                row_length=row_length,
                shared_prompts=layout.shared_prompts,
                token_advantages=None if spread is None else [spread[index] for index in part],
                candidates=self.method.loss.candidates,
                groups=self._packs_groups,
                marks={
                    name: [values[index] for index in part]
                    for name, values in (marks or {}).items()
                },
            )
            yield self.put(batch)

    def _with_scores(
        self, params: Params, batch: TokenBatch, reference: jax.Array | None
    ) -> TokenBatch:
        """The batch with the log-probs under further policies that the loss needs.

        `reference`: those under the reference policy, if a fact needed them.
        """
        policies = {"proximal_logprobs": params, "reference_logprobs": self.reference}
        known = {} if reference is None else {"reference_logprobs": reference}
        scores = {
            name: known[name] if name in known else self.logprobs(policies[name], batch)
            for name in self._scored
        }
        return dataclasses.replace(batch, **scores)

    @property
    def _packs_groups(self) -> bool:
        """True if the loss or a fact needs the groups and successes of trajectories."""
        return self.layout.whole_groups or bool(self.method.loss.needs & set(losses.GROUP_FIELDS))

    @property
    def _scored(self) -> list[str]:
        """Fields of a batch that hold log-probs under further policies, which the loss needs."""
        return sorted(self.method.loss.needs & {"proximal_logprobs", "reference_logprobs"})
