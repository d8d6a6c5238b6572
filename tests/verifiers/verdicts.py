"""Verdicts of the verifier that knows all kinds."""

from gtpo_jax.types import Problem
from gtpo_jax.verifiers import numeric_or_exact


def verdict(expected, given):
    return numeric_or_exact(Problem(id="p", question="q", answer=expected), given)
