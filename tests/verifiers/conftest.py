"""Fixtures that tests of programs as answers share."""

import pytest

from gtpo_jax.tools import PythonExecutor


@pytest.fixture(scope="module")
def tool():
    with PythonExecutor(max_running=2) as tool:
        yield tool
