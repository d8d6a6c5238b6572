"""Programs and unit tests for tests of the verifier that runs them."""

from __future__ import annotations

from gtpo_jax.verifiers import unit_tests

PASSED, FAILED, ERROR = "passed", "failed", "error"

DOUBLE = "def double(x):\n    return 2 * x\n"


def run(tool, solution, *tests, **options):
    return unit_tests.run_unit_tests(tool, solution, tests, **{"timeout": 20, **options})


def one(tool, solution, test="assert double(2) == 4", **options):
    return run(tool, solution, test, **options)[0]


def seen(outcome):
    return outcome.status.value, outcome.message
