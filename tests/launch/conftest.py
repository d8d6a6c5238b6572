"""Fixtures that tests of launchers share."""

import signal

import pytest


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt: the tests may run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
