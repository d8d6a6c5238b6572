"""Calls of the Python tool, and a look at the processes of this machine."""

from __future__ import annotations

import pathlib
import sys
import textwrap
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the platform has no such limit")


def run(executor, code, timeout=None, **options):
    return executor.submit(textwrap.dedent(code), timeout=timeout, **options).result(timeout=60)


def children(pid):
    """Processes that a process has started and not waited for."""
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def descendants(pid):
    found = children(pid)
    return found + [pid for child in found for pid in descendants(child)]


def supervisor(executor):
    return executor._process.pid


def zygote(executor):
    """The process that forks calls: the supervisor's child, or that one's in a PID namespace."""
    (started,) = children(supervisor(executor))
    return next((pid for pid in children(started) if _user_of(pid) == _user_of(started)), started)


def _user_of(pid):
    return pathlib.Path(f"/proc/{pid}").stat().st_uid


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
