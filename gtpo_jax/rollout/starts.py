"""What a trajectory begins with: its prompt, and what a plan put after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gtpo_jax.language.grammar import AnyDialogue
from gtpo_jax.rollout.limits import RolloutLimits
from gtpo_jax.rollout.slots import Slot
from gtpo_jax.types import Problem, Request, Turn


def render_prompt(dialogue: AnyDialogue, problem: Problem, limits: RolloutLimits) -> np.ndarray:
    """Ids of the prompt of a problem; raises ValueError when the limits have no room for it."""
    prompt = dialogue.prompt(problem.question)
    if len(prompt) > limits.prompt_tokens:
        raise ValueError(
            f"the prompt of problem {problem.id!r} has {len(prompt)} tokens, prompt_tokens is"
            f" {limits.prompt_tokens}; raise prompt_tokens (and context with it)"
        )
    return prompt


def make_slots(
    requests: Sequence[Request], dialogue: AnyDialogue, limits: RolloutLimits
) -> list[Slot]:
    """The trajectories of a rollout, in the order of the requests.

    A prompt that asks another question than its problem may be longer than `prompt_tokens`: if the
    context has no room for a turn after it, the trajectory ends at once. Raises `ValueError` for a
    request that cannot be met.
    """
    prompts: dict[tuple[str, str | None], np.ndarray] = {}
    slots = []
    for number, request in enumerate(requests):
        key = request.problem.id, request.question
        if key not in prompts:
            prompts[key] = (
                render_prompt(dialogue, request.problem, limits)
                if request.question is None
                else dialogue.prompt(request.question)
            )
        lead = _lead(request, dialogue)
        _check(request, lead, limits)
        slot = Slot(number, request, prompts[key], lead=lead)
        slot.read_turns(dialogue)
        slots.append(slot)
    return slots


def _lead(request: Request, dialogue: AnyDialogue) -> Turn | None:
    """The beginning of the first turn that the request samples."""
    if not request.opening:
        return request.begun
    tokens = np.asarray(dialogue.tokenizer.encode(request.opening), np.int32)
    nothing = np.zeros(len(tokens), np.float32)
    return Turn(tokens=tokens, logprobs=nothing, text=request.opening, given=len(tokens))


def _check(request: Request, lead: Turn | None, limits: RolloutLimits) -> None:
    who = f"a request for problem {request.problem.id!r}"
    if not 0 <= request.temperature < math.inf:
        raise ValueError(
            f"{who} has temperature {request.temperature}, which must be at least 0; 0 is greedy"
        )
    if request.opening and request.begun is not None:
        raise ValueError(f"{who} has both `begun` and `opening`; a turn begins in one way")
    if len(request.turns) >= limits.max_turns:
        raise ValueError(
            f"{who} begins with {len(request.turns)} turns, max_turns is {limits.max_turns}; leave"
            " out turns, at least one is its own"
        )
    if any(not len(turn.observation) for turn in request.turns):
        raise ValueError(
            f"{who} begins with a turn without an observation, which ends a trajectory; leave it"
            " out, or go on from its beginning with `begun`"
        )
    if lead is not None and len(lead.tokens) >= limits.turn_tokens:
        raise ValueError(
            f"{who} has a turn that begins with {len(lead.tokens)} tokens, turn_tokens is"
            f" {limits.turn_tokens}; shorten the beginning, or raise turn_tokens"
        )
