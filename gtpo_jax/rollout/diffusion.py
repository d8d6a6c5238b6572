"""Rollouts of a masked-diffusion model: questions in, trajectories out, without tools.

A trajectory has one turn for each denoising step. The text up to the first end token is parsed and
judged as a turn that answers; all of the canvas is trained on.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import jax
import numpy as np

from gtpo_jax.decoding import restrict_vocabulary, sampling
from gtpo_jax.decoding.diffusion import Canvas, Denoised, make_denoise
from gtpo_jax.language.grammar import AnyDialogue
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

Written = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Tokens, steps, log-probs and entropies of a response, each `[L]`."""


def without_mask(forward: ForwardFn, dialogue: AnyDialogue, mask_id: int) -> ForwardFn:
    """The model with every id impossible that the tokenizer does not have, and the mask."""
    tokenizer = dialogue.tokenizer
    unused = (mask_id, *getattr(tokenizer, "unused_ids", ()))
    return restrict_vocabulary(forward, tokenizer.vocab_size, unused=unused)


class DiffusionEngine:
    """Writes trajectories with a diffusion model, `rows` at a time.

    `forward` is a model `without_mask`. A response depends on its problem, its sample, the seed and
    the step alone.
    """

    def __init__(
        self,
        forward: ForwardFn,
        dialogue: AnyDialogue,
        verifier: Verifier,
        canvas: Canvas,
        sampler: sampling.Sampler,
        *,
        mask_id: int,
        prompt_tokens: int,
        rows: int = 64,
    ):
        self.dialogue, self.verifier, self.canvas = dialogue, verifier, canvas
        self.prompt_tokens, self.rows = prompt_tokens, rows
        self.stop_id = dialogue.stop_ids[0]
        self._denoise = make_denoise(
            forward, sampler, canvas, mask_id=mask_id, stop_id=self.stop_id
        )
        self._keys = jax.jit(sampling.trajectory_keys)

    def run(
        self, params: Params, requests: Sequence[Request], *, seed: int, step: int
    ) -> list[Trajectory]:
        """One trajectory per request, in order."""
        trajectories = []
        for begin in range(0, len(requests), self.rows):
            some = requests[begin : begin + self.rows]
            prompts = [self.prompt(request) for request in some]
            found = self._write(params, some, prompts, seed=seed, step=step)
            arrays = (found.tokens, found.steps, found.logprobs, found.entropies)
            trajectories += [
                self._trajectory(request, prompt, (row[0], row[1], row[2], row[3]))
                for request, prompt, *row in zip(some, prompts, *arrays, strict=False)
            ]
        return trajectories

    def prompt(self, request: Request) -> np.ndarray:
        """The prompt of a request. Raises `ValueError` if it is too long."""
        return fitting_prompt(
            self.dialogue, request.problem, self.prompt_tokens, question=request.question
        )

    def _write(
        self,
        params: Params,
        requests: Sequence[Request],
        prompts: Sequence[np.ndarray],
        *,
        seed: int,
        step: int,
    ) -> Denoised:
        """Responses of all rows, as NumPy arrays; rows beyond the requests are padding."""
        tokens = np.zeros((self.rows, self.prompt_tokens), np.int32)
        lengths = np.zeros(self.rows, np.int32)
        problems, samples = np.zeros(self.rows, np.uint32), np.zeros(self.rows, np.uint32)
        for row, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            tokens[row, self.prompt_tokens - len(prompt) :] = prompt
            lengths[row] = len(prompt)
            problems[row] = zlib.crc32(request.problem.id.encode())
            samples[row] = request.sample
        keys = self._keys(np.uint32(seed), np.uint32(step), problems, samples)
        return jax.device_get(self._denoise(params, tokens, lengths, keys))

    def _trajectory(self, request: Request, prompt: np.ndarray, row: Written) -> Trajectory:
        tokens, steps, logprobs, entropies = row
        stops = np.flatnonzero(tokens == self.stop_id)
        parsed = self.dialogue.parse(tokens[: stops[0] + 1] if len(stops) else tokens)
        if parsed.answer is not None:
            reason, verdict = StopReason.ANSWERED, self.verifier(request.problem, parsed.answer)
        else:
            reason = StopReason.NO_ACTION if len(stops) else StopReason.TURN_LIMIT
            verdict = Verdict.NO_ANSWER
        turns = []
        for step in range(self.canvas.steps):
            places = np.flatnonzero(steps == step).astype(np.int32)
            turns.append(
                Turn(
                    tokens=tokens[places],
                    logprobs=logprobs[places],
                    entropies=entropies[places],
                    text=self.dialogue.tokenizer.decode(tokens[places].tolist()),
                    places=places,
                )
            )
        turns[-1] = dataclasses.replace(turns[-1], violation=parsed.violation)
        return Trajectory(
            problem=request.problem,
            group=request.group,
            sample=request.sample,
            prompt=prompt,
            turns=tuple(turns),
            stop_reason=reason,
            verdict=verdict,
            answer=parsed.answer,
        )


def fitting_prompt(
    dialogue: AnyDialogue, problem: Problem, most: int, *, question: str | None = None
) -> np.ndarray:
    """The ids of a problem's prompt. Raises `ValueError` if there are more than `most`."""
    prompt = dialogue.prompt(problem.question if question is None else question)
    if len(prompt) > most:
        raise ValueError(
            f"the prompt of problem {problem.id!r} has {len(prompt)} tokens, and"
            f" rollout.prompt_tokens is {most}; raise it"
        )
    return prompt
