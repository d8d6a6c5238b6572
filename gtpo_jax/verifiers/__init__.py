"""Verifiers: is the answer right? `docs/verifiers.md` says what each kind accepts.

Names are imported when they are asked for: a process that judges answers loads no more than it
needs, and not JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtpo_jax.verifiers.kinds import KINDS, KindVerifier, VerifierStats, check_problem, submit
    from gtpo_jax.verifiers.numeric import exact, numeric_or_exact
    from gtpo_jax.verifiers.pool import WorkerPool
    from gtpo_jax.verifiers.programs import submit_program, whole_program

__all__ = [
    "KINDS",
    "KindVerifier",
    "VerifierStats",
    "WorkerPool",
    "check_problem",
    "exact",
    "numeric_or_exact",
    "submit",
    "submit_program",
    "whole_program",
]

_MODULES = ("kinds", "numeric", "pool", "programs")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
