"""Shapes and budgets of a rollout."""

from __future__ import annotations

import dataclasses

from gtpo_jax.settings import Changeable, Rounded

MAY_BE_ZERO = ("parked", "lockstep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutLimits:
    """Shapes and budgets of a rollout. Token counts include markers."""

    slots: Rounded[int] = 128  # trajectories decoded at once
    parked: Rounded[int] = 0  # more trajectories that keep their caches while they wait for tools
    context: int = 160  # tokens of a trajectory: prompt, turns and observations
    prompt_tokens: int = 48  # longest prompt
    max_turns: int = 4  # turns of a trajectory
    turn_tokens: int = 40  # tokens of one turn
    observation_tokens: int = 32  # tokens of one observation; longer tool output is cut
    segment_steps: Rounded[int] = 16  # decode steps of one segment; tools are served in between
    prefill_prompts: Rounded[int] = 8  # prompts that one prefill call computes
    extend_width: Rounded[int] = 32  # tokens that one extend call appends to a row
    first_cache: Rounded[int] = 512  # initial positions of the cache; doubled up to the context
    lockstep: Changeable[bool] = False
    """Wait for all calls between two segments. The rows that are decoded together then do not
    depend on how long tools take, and equal seeds give equal log-probs, to the last bit."""

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

    # Shapes come in a few sizes, because a program is compiled for each of them.

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
        """Length at which a turn must have ended that begins at `length` tokens."""
        return min(length + self.turn_tokens, self.context)
