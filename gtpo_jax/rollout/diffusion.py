"""Rollouts of a masked-diffusion model: questions in, trajectories out, without tools.

A trajectory has one turn for each denoising step. The text up to the first end token is parsed and
judged as a turn that answers; all of the canvas is trained on.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gtpo_jax import verifiers
from gtpo_jax.decoding import sampling
from gtpo_jax.decoding.diffusion import Canvas, Denoised, make_denoise
from gtpo_jax.devices import sharding
from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.progress import RolloutProgress, RolloutStats
from gtpo_jax.rollout.starts import render_prompt
from gtpo_jax.types import (
    ForwardFn,
    Params,
    Problem,
    Request,
    StopReason,
    Trajectory,
    Turn,
    Verdict,
    Verifier,
)


class DiffusionEngine:
    """Writes trajectories with a diffusion model, `limits.slots` at a time.

    `forward` must give no probability to the mask (`decoding.restrict_vocabulary`). A response
    depends on the parameters and on (seed, step, problem, sample), as in `RolloutEngine`.
    """

    def __init__(
        self,
        forward: ForwardFn,
        dialogue: AnyDialogue,
        verifier: Verifier,
        limits: RolloutLimits,
        canvas: Canvas,
        sampler: sampling.Sampler,
        *,
        mask_id: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        if not dialogue.stop_ids:
            raise ValueError("a response is filled with end tokens, and the dialogue has none")
        self.dialogue, self.verifier = dialogue, verifier
        self.limits, self.canvas = limits, canvas
        self.stop_id = dialogue.stop_ids[0]
        self._put: Callable = jax.device_put
        if mesh is not None:
            sharding.check_rows(limits.slots, mesh, "rollout slots")
            self._put = functools.partial(jax.device_put, device=sharding.row_sharding(mesh))
        self._keys = jax.jit(sampling.trajectory_keys)
        self._denoise = make_denoise(
            forward, sampler, canvas, mask_id=mask_id, stop_id=self.stop_id
        )

    def prompt(self, problem: Problem) -> np.ndarray:
        """Ids of the prompt of a problem; raises ValueError when it is too long."""
        return render_prompt(self.dialogue, problem, self.limits)

    def run(
        self,
        params: Params,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> tuple[list[Trajectory], RolloutStats]:
        """One trajectory per request, in their order."""
        for request in requests:
            _check(request)
        rows, written = self.limits.slots, []
        for begin in range(0, len(requests), rows):
            some = requests[begin : begin + rows]
            written += zip(some, *self._write(params, some, seed=seed, step=step), strict=True)
            if on_progress is not None:
                on_progress(
                    RolloutProgress(
                        finished=len(written),
                        total=len(requests),
                        sampled_tokens=len(written) * self.canvas.tokens,
                        active_rows=len(some),
                        tools_in_flight=0,
                    )
                )
        calls, canvas = -(-len(requests) // rows), self.canvas
        width = self.limits.prompt_tokens + canvas.tokens
        stats = RolloutStats(
            sampled_tokens=len(requests) * canvas.tokens,
            row_steps=calls * rows * canvas.tokens,
            prefilled_tokens=calls * rows * canvas.steps * width,
            extended_tokens=0,
            fed_tokens=canvas.steps * sum(len(p) + canvas.tokens for _, p, _ in written),
            tool_calls=0,
            tool_seconds=0.0,
        )
        return self._judged(written), stats

    def rounds(self, params: Params, *, seed: int, step: int) -> Callable:
        """Rollouts of one collection: calls of the result are calls of `run` with these options."""
        return functools.partial(self.run, params, seed=seed, step=step)

    def _write(
        self, params: Params, requests: Sequence[Request], *, seed: int, step: int
    ) -> tuple[list[np.ndarray], list[Denoised]]:
        """Prompts and responses of at most `slots` requests; other rows are padding."""
        rows, width = self.limits.slots, self.limits.prompt_tokens
        prompts = [self.prompt(request.problem) for request in requests]
        tokens, lengths = np.zeros((rows, width), np.int32), np.zeros(rows, np.int32)
        problems, samples = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
        for row, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            tokens[row, width - len(prompt) :] = prompt
            lengths[row] = len(prompt)
            problems[row] = zlib.crc32(request.problem.id.encode())
            samples[row] = request.sample
        keys = self._keys(np.uint32(seed % 2**32), np.uint32(step), problems, samples)
        placed = (self._put(x) for x in (tokens, lengths, keys))
        found = jax.device_get(self._denoise(params, *placed))
        return prompts, [
            jax.tree.map(lambda x, row=row: x[row], found) for row in range(len(requests))
        ]

    def _judged(self, written: Sequence[tuple[Request, np.ndarray, Denoised]]) -> list[Trajectory]:
        """The trajectories; all answers are submitted before the first verdict is awaited."""
        parsed = []
        for _, _, response in written:
            tokens = np.asarray(response.tokens)
            ends = np.flatnonzero(tokens == self.stop_id)
            text = tokens[: ends[0] + 1] if len(ends) else tokens
            parsed.append((self.dialogue.parse(text), len(ends) > 0))
        verdicts = [
            None if turn.answer is None else verifiers.submit(self.verifier, r.problem, turn.answer)
            for (r, _, _), (turn, _) in zip(written, parsed, strict=True)
        ]
        trajectories = []
        for (request, prompt, response), (turn, ended), verdict in zip(
            written, parsed, verdicts, strict=True
        ):
            reason = StopReason.NO_ACTION if ended else StopReason.TURN_LIMIT
            trajectories.append(
                Trajectory(
                    problem=request.problem,
                    group=request.group,
                    sample=request.sample,
                    prompt=prompt,
                    turns=self._turns(response, turn.violation),
                    stop_reason=reason if verdict is None else StopReason.ANSWERED,
                    verdict=Verdict.NO_ANSWER if verdict is None else verdict.result(),
                    answer=turn.answer,
                )
            )
        return trajectories

    def _turns(self, response: Denoised, violation: str | None) -> tuple[Turn, ...]:
        """One turn for each denoising step; the last has the violation of the whole response."""
        tokens, logprobs = np.asarray(response.tokens), np.asarray(response.logprobs)
        entropies, steps = np.asarray(response.entropies), np.asarray(response.steps)
        turns = []
        for step in range(self.canvas.steps):
            places = np.flatnonzero(steps == step).astype(np.int32)
            turns.append(
                Turn(
                    tokens=tokens[places],
                    logprobs=logprobs[places],
                    entropies=entropies[places],
                    text=self.dialogue.tokenizer.decode(tokens[places].tolist()),
                    violation=violation if step == self.canvas.steps - 1 else None,
                    places=places,
                )
            )
        return tuple(turns)


def _check(request: Request) -> None:
    """Raises `ValueError` for what a plan may ask of other models only."""
    plain = Request(problem=request.problem, group=request.group, sample=request.sample)
    asked = [
        field.name
        for field in dataclasses.fields(Request)
        if getattr(request, field.name) != getattr(plain, field.name)
    ]
    if asked:
        raise ValueError(
            f"a diffusion model writes whole responses, and the plan asks for {', '.join(asked)};"
            " choose a method without this plan"
        )
