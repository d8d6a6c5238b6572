"""Shapes and budgets of a rollout."""

from __future__ import annotations

import dataclasses

from gtpo_jax.settings import Changeable, Rounded

MAY_BE_ZERO = ("parked", "lockstep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutLimits:
    """Shapes and budgets of a rollout. Token counts include markers."""

    slots: Rounded[int] = 128  # number of trajectories decoded at once
    parked: Rounded[int] = 0  # extra trajectories that keep their caches while they wait for tools
    context: int = 160  # maximum tokens per trajectory: prompt, turns and observations
    prompt_tokens: int = 48  # maximum tokens per prompt
    max_turns: int = 4  # maximum turns per trajectory
    turn_tokens: int = 40  # maximum tokens per turn
    observation_tokens: int = 32  # maximum tokens per observation; longer tool output is cut
    segment_steps: Rounded[int] = 16  # decode steps per segment; tools are served between segments
    prefill_prompts: Rounded[int] = 8  # maximum prompts per prefill call
    extend_width: Rounded[int] = 32  # tokens that one extend call appends to a row
    first_cache: Rounded[int] = 512  # initial positions of the cache; doubled up to the context
    lockstep: Changeable[bool] = False
    """Wait for all tool calls between two segments. Which rows are decoded together then does not
    depend on how long tools take, and equal seeds give bitwise equal log-probs."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in MAY_BE_ZERO else 1
            if value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
        if self.prompt_tokens >= self.context:
            raise ValueError(
                f"a context of {self.context} tokens leaves no room after prompts of"
                f" {self.prompt_tokens}; raise context or lower prompt_tokens"
            )

    # Shapes come in a few sizes, because each size compiles a program.

    @property
    def cache_lengths(self) -> tuple[int, ...]:
        """Numbers of positions that the cache may have, ascending."""
        lengths = [max(self.first_cache, self.prompt_tokens)]
        while lengths[-1] < self.context:
            lengths.append(2 * lengths[-1])
        return (*lengths[:-1], self.context)

    @property
    def prompt_counts(self) -> tuple[int, ...]:
        """Numbers of prompts that a prefill call may compute, ascending.

        None, when rows only copy the prompts of others; one; or as many as allowed.
        """
        return tuple(sorted({0, 1, self.prefill_prompts}))

    @property
    def prompt_widths(self) -> tuple[int, ...]:
        """Numbers of tokens that the prompts of a prefill call may be padded to, ascending."""
        return tuple(sorted({-(-self.prompt_tokens // 4), self.prompt_tokens}))

    def turn_limit(self, length: int) -> int:
        """Length at which a turn that begins at `length` tokens must have ended."""
        return min(length + self.turn_tokens, self.context)
