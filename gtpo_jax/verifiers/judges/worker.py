"""The program of a worker: judges the answers that it is told of, one after the other.

It reads a JSON object a line and writes up to three back: that it has begun, that the expected
answer is known, and the verdict. The time of an answer is limited by whoever started the worker, by
killing it; should that one be gone, by the kernel.
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
expected answer: what fails after that, fails because of the answer that was given."""

_GRACE_SECONDS = 5  # of CPU time, beyond those that whoever started the worker waits for

_PR_SET_PDEATHSIG = 1


def main(kind: str, *, module: str | None, seconds: float, memory_bytes: int, parent: int) -> None:
    """Serves standard input until it ends, by the judge of the kind or of another module."""
    _die_with(parent)
    # What a library prints must not end up among the replies.
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
            return  # what is left of the process is not to be relied on
        except Exception:
            verdict = failed
        reply(verdict=verdict, processor_seconds=time.process_time() - begun)
        rest(answers)


def _die_with(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends, however it does."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a host may refuse, or have a lower one
        resource.setrlimit(kind, (value, value))


def _limit_cpu(seconds: float) -> None:
    """The kernel ends an answer that nobody waits for any more."""
    until = math.ceil(time.process_time() + seconds) + _GRACE_SECONDS
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
