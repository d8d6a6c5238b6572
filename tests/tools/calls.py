"""Calls of the Python tool, and a look at the processes of this machine."""

from __future__ import annotations

import pathlib
import sys
import textwrap
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the platform has no such limit")


def run(executor, code, timeout=None):
    return executor.submit(textwrap.dedent(code), timeout=timeout).result(timeout=60)


def alive(pid):
    """A process that still runs; one that has ended but was not reaped does not count."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone_within(pids, seconds=5.0):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, pids))


def last_line(text):
    return text.rstrip("\n").rpartition("\n")[2]
