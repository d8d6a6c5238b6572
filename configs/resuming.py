"""Rules for settings that change when a phase is resumed, as the types of the settings declare
them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from configs.schema import RunConfig
from gtpo_jax.settings import Change, Declared, Section, declared

PHASES = ("sft", "train")
"""Phases in the order in which a run goes through them."""


@dataclasses.dataclass(frozen=True)
class Changed:
    """A setting with another value than before."""

    setting: Declared  # with the new value
    before: Any

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def fixed(self) -> bool:
        """True if the setting decides what is learned, in every phase."""
        return self.setting.last(Change) is None and self.phase == ""

    @property
    def phase(self) -> str:
        """The only phase that uses the setting; empty if all do."""
        sections = self.setting.all(Section)
        return next((section.phase for section in sections if section.phase), "")

    def __str__(self) -> str:
        return f"{self.name} {_written(self.before)} → {_written(self.setting.value)}"


def changes(before: RunConfig, after: RunConfig, phase: str = "") -> list[Changed]:
    """The settings that differ.

    With `phase`, a learning rate of the phase that decays over all its steps counts as one that
    names their number.
    """
    if phase:
        before, after = _spelled_out(before, phase), _spelled_out(after, phase)
    return [
        Changed(new, old.value)
        for old, new in zip(declared(before), declared(after), strict=True)
        if old.value != new.value and new.name != "preset"
    ]


def check(found: list[Changed], config: RunConfig, phase: str, done: int) -> None:
    """Raises ValueError, with the reasons, if settings changed that may not when `phase` is resumed
    from step `done` with `config`.
    """
    values = {setting.name: setting.value for setting in declared(config)}
    refused = {str(change): _refusal(change, values, phase, done) for change in found}
    reasons = [f"{change}: {reason}" for change, reason in refused.items() if reason]
    if reasons:
        raise ValueError(
            f"when {phase} goes on, these settings may not change ({'; '.join(reasons)});"
            " resume with the same ones, or start in another --run-dir"
        )


def keep_schedule(before: RunConfig, after: RunConfig, phase: str) -> RunConfig:
    """The config `after`, with the learning rates of `before` if the number of steps of `phase`
    changed.

    Added steps have the final learning rate. Stretching the decay over them would contradict the
    rates of the steps that are done.
    """
    old, new = getattr(before, phase), getattr(after, phase)
    if new.steps == old.steps or new.optimizer.decay_steps is not None:
        return after
    return _spelled_out(after, phase, old.steps)


def _spelled_out(config: RunConfig, phase: str, steps: int | None = None) -> RunConfig:
    part = getattr(config, phase)
    decay = part.optimizer.decay_steps or steps or part.steps
    optimizer = dataclasses.replace(part.optimizer, decay_steps=decay)
    return dataclasses.replace(config, **{phase: dataclasses.replace(part, optimizer=optimizer)})


def _refusal(change: Changed, values: dict[str, Any], phase: str, done: int) -> str:
    """The reason why a setting may not change; empty if it may."""
    declares, owner = change.setting.last(Change), change.phase or phase
    if PHASES.index(owner) > PHASES.index(phase):
        return ""  # of a phase that is still to come
    if owner != phase:
        return f"{owner} is done"
    if declares is None:
        return f"it decides {change.setting.all(Section)[-1].decides}"
    if declares.unless and values[declares.unless]:
        return declares.because
    if declares.extends and change.setting.value < done:
        return f"{done} are done"
    return ""


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "()"
    return repr(value) if value == "" else str(value)
