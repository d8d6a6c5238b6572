"""The rollout engine: the decode programs of one model, one tool and one verifier."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gtpo_jax import decoding
from gtpo_jax.decoding import sampling, stops
from gtpo_jax.decoding.shapes import given
from gtpo_jax.devices import sharding
from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.rollout.calls import Calls
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.lot import Lot
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.rounds import Refresh, Rounds
from gtpo_jax.rollout.rows import Rows
from gtpo_jax.rollout.starts import render_prompt
from gtpo_jax.types import ForwardFn, Params, Problem, Request, Tool, Trajectory, Verifier


class RolloutEngine:
    """Runs rollouts of one model with one tool. Reusable: each call brings its parameters."""

    def __init__(
        self,
        forward: ForwardFn,
        dialogue: AnyDialogue,
        tool: Tool,
        verifier: Verifier,
        limits: RolloutLimits,
        sampler: sampling.Sampler,
        *,
        mesh: jax.sharding.Mesh | None = None,
    ):
        vocab_size = dialogue.tokenizer.vocab_size
        if vocab_size > forward.vocab_size:
            raise ValueError(
                f"the tokenizer has {vocab_size} tokens, the model only {forward.vocab_size};"
                " use the tokenizer that the model was made for"
            )
        # Raises when the markers of the most outputs that a turn may have do not fit.
        for ended in {True, not dialogue.stop_strings}:
            nothing = [""] * dialogue.most_calls
            dialogue.observation(nothing, budget=limits.observation_tokens, ended=ended)
        if mesh is not None:
            sharding.check_rows(limits.slots, mesh, "rollout slots")
            sharding.check_rows(limits.parked, mesh, "rollout parked")
        table = None
        if dialogue.stop_strings:
            texts = [dialogue.tokenizer.token_bytes(token) for token in range(vocab_size)]
            table = stops.build(dialogue.stop_strings, texts)
        self.stop_table = table
        self.dialogue = dialogue
        self.tool = tool
        self.verifier = verifier
        self.limits = limits
        # A few rows are gathered to be extended, unless rows lie on several devices.
        spread = mesh is not None and sharding.row_count(mesh) > 1
        few = limits.slots if spread else -(-limits.slots // 8)
        self.extend_sizes = tuple(sorted({few, limits.slots}))
        self.programs = decoding.make_programs(
            forward,
            sampler,
            segment_steps=limits.segment_steps,
            stop_ids=dialogue.stop_ids,
            vocab_size=vocab_size,
            stop_table=table,
            mesh=mesh,
        )
        self.trajectory_keys = jax.jit(sampling.trajectory_keys)

    def _make_lot(self) -> Lot:
        """An empty lot, with a cache as long as that of empty rows."""
        first, places = self.limits.cache_lengths[0], self.limits.parked
        return Lot(self.programs, places, first, exchanged=min(self.extend_sizes[0], places))

    def prompt(self, problem: Problem) -> np.ndarray:
        """Ids of the prompt of a problem; raises ValueError when it is too long."""
        return render_prompt(self.dialogue, problem, self.limits)

    def warm_up(self, params: Params) -> None:
        """Compiles every program that rollouts need, so that no rollout compiles anything after.

        Without it a rollout compiles each program when it first needs it.
        """
        programs, limits = self.programs, self.limits
        state = programs.init(limits.slots, limits.cache_lengths[0])
        lot = self._make_lot()
        for positions in limits.cache_lengths:
            if positions != limits.cache_lengths[0]:
                state = programs.grow(state, positions)
                lot.grow(positions)
            if limits.parked:
                state = lot.exchange(state, [(limits.slots, 0)])
            for count, width in itertools.product(limits.prompt_counts, limits.prompt_widths):
                state = programs.prefill(params, state, self._no_prompts(count, width))
            for size in self.extend_sizes:
                state = programs.extend(params, state, self._nothing_appended(size))
            state, _ = programs.decode_segment(params, state, given(np.int32(0)))

    def _no_prompts(self, count: int, width: int) -> decoding.Prompts:
        """Arguments of a prefill call that leaves every row alone."""
        none = np.zeros(self.limits.slots, np.int32)
        nobody = np.zeros(self.limits.slots, np.uint32)
        return decoding.Prompts(
            tokens=given(np.zeros((count, width), np.int32)),
            source=given(none - 1),
            lengths=given(none),
            pending=given(none),
            keys=self.trajectory_keys(np.uint32(0), np.uint32(0), nobody, nobody),
            limits=given(none),
            begins=given(none > 0),
            matching=None if self.stop_table is None else given(none),
        )

    def _nothing_appended(self, size: int) -> decoding.Appended:
        """Arguments of an extend call that leaves every row alone."""
        nothing = np.zeros(size, np.int32)
        return decoding.Appended(
            rows=given(nothing + self.limits.slots),
            tokens=given(np.zeros((size, self.limits.extend_width), np.int32)),
            counts=given(nothing + 1),
            limits=given(nothing),
            begins=given(nothing > 0),
            matching=None if self.stop_table is None else given(nothing),
        )

    def run(
        self,
        params: Params,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        version: int = 0,
        refresh: Refresh | None = None,
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> tuple[list[Trajectory], RolloutStats]:
        """One trajectory per request, in their order.

        A trajectory depends on the parameters, on (seed, step, problem, sample), and on what its
        request puts before its first turn, not on the other trajectories. `version` is that of
        `params`; every turn records the version that sampled it. When `refresh` has newer
        parameters, all caches are recomputed with them, and turns go on in the middle. An
        exception, also one that `on_progress` raises, ends the rollout: the calls in flight are
        canceled. The end waits for the verdicts that a `SubmittingVerifier` owes.
        """
        rounds = self.rounds(params, seed=seed, step=step, version=version, refresh=refresh)
        return rounds(requests, on_progress=on_progress)

    def rounds(
        self,
        params: Params,
        *,
        seed: int,
        step: int,
        version: int = 0,
        refresh: Refresh | None = None,
    ) -> Rounds:
        """Rollouts of one collection: calls of the result are calls of `run` with these arguments.

        Later calls may go on from trajectories of earlier ones, and use their caches.
        """
        keys = functools.partial(self.trajectory_keys, np.uint32(seed % 2**32), np.uint32(step))

        def make_rows() -> Rows:
            return Rows(
                self.programs,
                self.limits,
                self._make_lot(),
                extend_sizes=self.extend_sizes,
                keys=keys,
                params=params,
                version=version,
                stop_table=self.stop_table,
            )

        def make_calls() -> Calls:
            return Calls(self.tool, self.verifier, lockstep=self.limits.lockstep)

        return Rounds(make_rows, make_calls, self.dialogue, self.limits, refresh)
