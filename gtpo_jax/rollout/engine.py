"""The rollout engine: the decode programs of one model, with one tool."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gtpo_jax import decoding
from gtpo_jax.decoding import sampling, stops
from gtpo_jax.devices import sharding
from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.rollout.limits import RolloutLimits, given
from gtpo_jax.rollout.loop import Loop
from gtpo_jax.rollout.lot import Lot
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.types import ForwardFn, Params, Problem, Request, Tool, Trajectory, Verifier

Refresh = Callable[[], tuple[Params, int] | None]
"""Asked between two segments: newer parameters and their version, or None."""


def render_prompt(dialogue: AnyDialogue, problem: Problem, limits: RolloutLimits) -> np.ndarray:
    """Ids of the prompt of a problem; an error when the limits have no room for it."""
    prompt = dialogue.prompt(problem.question)
    if len(prompt) > limits.prompt_tokens:
        raise ValueError(
            f"the prompt of problem {problem.id!r} has {len(prompt)} tokens, prompt_tokens is"
            f" {limits.prompt_tokens}; raise prompt_tokens (and context with it)"
        )
    return prompt


class RolloutEngine:
    """Runs rollouts of one model with one tool. Reusable: parameters come with each call."""

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
        # Raises when the markers of as many outputs as a turn may have do not fit.
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
        self.dialogue = dialogue
        self.tool = tool
        self.verifier = verifier
        self.limits = limits
        # A few rows are taken out to be extended, unless they lie on several devices.
        spread = mesh is not None and sharding.row_count(mesh) > 1
        few = limits.slots if spread else -(-limits.slots // 8)
        self.extend_sizes = tuple(sorted({few, limits.slots}))
        self.programs = decoding.make_programs(
            forward,
            sampler,
            rows=limits.slots,
            segment_steps=limits.segment_steps,
            stop_ids=dialogue.stop_ids,
            vocab_size=vocab_size,
            stop_table=table,
            mesh=mesh,
        )
        self.trajectory_keys = jax.jit(sampling.trajectory_keys)

    def make_lot(self) -> Lot:
        """An empty lot beside empty rows."""
        first, places = self.limits.cache_lengths[0], self.limits.parked
        return Lot(self.programs, places, first, exchanged=min(self.extend_sizes[0], places))

    def prompt(self, problem: Problem) -> np.ndarray:
        """Ids of the prompt; an error when it is too long."""
        return render_prompt(self.dialogue, problem, self.limits)

    def warm_up(self, params: Params) -> None:
        """Compiles all that rollouts will need, whatever their size: none compiles anything after.

        A rollout without it compiles each program when it first needs it.
        """
        programs, limits = self.programs, self.limits
        nobody = np.zeros(limits.slots, np.uint32)
        keys = self.trajectory_keys(np.uint32(0), np.uint32(0), nobody, nobody)
        none = np.zeros(limits.slots, np.int32)
        state = programs.init(limits.slots, limits.cache_lengths[0])
        lot = self.make_lot()
        for positions in limits.cache_lengths:
            if positions != limits.cache_lengths[0]:
                state = programs.grow(state, positions)
                lot.grow(positions)
            if limits.parked:
                state = lot.exchange(state, [(limits.slots, 0)])
            for count, width in itertools.product(limits.prompt_counts, limits.prompt_widths):
                prompts = decoding.Prompts(
                    tokens=given(np.zeros((count, width), np.int32)),
                    source=given(none - 1),
                    lengths=given(none),
                    pending=given(none),
                    keys=keys,
                    limits=given(none),
                    begins=given(np.bool_(True)),
                )
                state = programs.prefill(params, state, prompts)
            for size in self.extend_sizes:
                nothing = np.zeros(size, np.int32)
                appended = decoding.Appended(
                    rows=given(nothing + limits.slots),
                    tokens=given(np.zeros((size, limits.extend_width), np.int32)),
                    counts=given(nothing + 1),
                    limits=given(nothing),
                    begins=given(nothing > 0),
                )
                state = programs.extend(params, state, appended)
            state, _ = programs.decode_segment(params, state, given(np.int32(0)))

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

        A trajectory depends on the parameters and (seed, step, problem, sample), not on the others.
        `version` is that of `params`; every turn records the one it was sampled with. When
        `refresh` has newer parameters, all caches are computed anew with those, and turns go on in
        the middle. An exception, also one of `on_progress`, gives the rollout up: the calls in
        flight are canceled. Verdicts that a `SubmittingVerifier` owes are waited for at the end.
        """
        prompts = {r.problem.id: self.prompt(r.problem) for r in requests}
        run = Loop(self, params, requests, prompts, seed=seed, step=step, version=version)
        try:
            while not run.done:
                newer = refresh() if refresh is not None else None
                if newer is not None:
                    run.refresh(*newer)
                run.advance()
                if on_progress is not None:
                    on_progress(run.progress())
            return run.trajectories(), run.stats()
        finally:
            run.cancel()
