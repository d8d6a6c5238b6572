"""A claim: a method in the world that was made for it, and the parent to beat."""

from __future__ import annotations

import dataclasses

EARLY, END = "solved@60", "solved"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One method in one world, beside its parent.

    `measure` is a measure of `gtpo_jax.lab.suite.Cell`; the claim holds if the method's interval
    lies above the parent's, or below it where the claim is that the measure falls.
    """

    method: str
    parent: str
    world: str
    measure: str = EARLY
    lower: bool = False  # the claim is that the measure falls
    epochs: int = 1  # updates of a step
    staleness: int = 0  # steps by which the sampler is old
    noise: float = 0.0  # on the logits of the sampler, in nats

    @property
    def place(self) -> str:
        """The world, and what of the settings is not usual."""
        words = [self.world]
        words += [f"{self.epochs} epochs"] if self.epochs > 1 else []
        if self.staleness or self.noise:
            words.append(f"sampler {self.staleness} old, noise {self.noise:g}")
        return ", ".join(words)


def modifier(words: str, world: str, measure: str = EARLY, *, lower: bool = False) -> Claim:
    """A modifier of GRPO, whose parent is GRPO."""
    return Claim(method=f"grpo + {words}", parent="grpo", world=world, measure=measure, lower=lower)
