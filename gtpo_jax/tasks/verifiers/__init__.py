"""Verifiers: is the answer right? `docs/verifiers.md` says what each kind accepts."""

from gtpo_jax.tasks.verifiers.choice import choice
from gtpo_jax.tasks.verifiers.dispatch import (
    KINDS,
    KindVerifier,
    VerifierStats,
    check_problem,
    submit,
)
from gtpo_jax.tasks.verifiers.numeric import exact, numeric_or_exact
from gtpo_jax.tasks.verifiers.pool import WorkerPool
from gtpo_jax.tasks.verifiers.programs import submit_program, whole_program

__all__ = [
    "KINDS",
    "KindVerifier",
    "VerifierStats",
    "WorkerPool",
    "check_problem",
    "choice",
    "exact",
    "numeric_or_exact",
    "submit",
    "submit_program",
    "whole_program",
]
