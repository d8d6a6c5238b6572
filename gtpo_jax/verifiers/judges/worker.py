"""The program of a worker, which judges the answers that it receives one after the other.

It reads one JSON object per line and writes up to three back: that it has begun, that the expected
answer is known, and the verdict. The parent limits the time of an answer by killing the worker; if
the parent is gone, the kernel does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import sys
import time
from typing import Any

JUDGES = {
    "math": "gtpo_jax.verifiers.judges.equivalence",
    "reasoning-gym": "gtpo_jax.verifiers.judges.reasoning",
}
"""Kind → the module with its `judge(record, known)`, which calls `known` once it has read the
expected answer. A failure after that call is the fault of the given answer."""

_GRACE_SECONDS = 5  # of CPU time, beyond the seconds that the parent waits

_PR_SET_PDEATHSIG = 1


def main(kind: str, *, module: str | None, seconds: float, memory_bytes: int, parent: int) -> None:
    """Serves standard input until it ends, with the judge of the kind or of another module."""
    _die_with(parent)
    # Output of a library must not mix with the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        judging = importlib.import_module(module or JUDGES[kind])
        judge = judging.judge
        rest = getattr(judging, "rest", lambda answers: None)
        getattr(judging, "prepare", lambda: None)()
    except Exception as error:
        reply(failed=f"{type(error).__name__}: {error}")
        return
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    reply(ready=True)
    for answers, line in enumerate(sys.stdin, 1):
        _limit_cpu(seconds)
        reply(begun=True)
        failed, begun = "unverifiable", time.process_time()

        def known() -> None:
            nonlocal failed
            failed = "wrong"
            reply(known=True)

        try:
            verdict = judge(json.loads(line), known)
        except MemoryError:
            return  # the state of the process is unreliable
        except Exception:
            verdict = failed
        reply(verdict=verdict, processor_seconds=time.process_time() - begun)
        rest(answers)


def _die_with(parent: int) -> None:
    """Makes the kernel kill this process when the thread that started it ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a machine may refuse, or have a lower limit
        resource.setrlimit(kind, (value, value))


def _limit_cpu(seconds: float) -> None:
    """Makes the kernel end an answer for which nobody waits."""
    until = math.ceil(time.process_time() + seconds) + _GRACE_SECONDS
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
