"""A long run of the Python tool, one call in ten hostile: counts wrong results and remains.

python -m benchmarks.executor_stress [calls [further calls before them]]

Threads submit calls and wait for each, some of them in a session. Every result is known beforehand;
of a hostile call, the statuses it may have. The processes of the trainer, the supervisor and the
zygote are inspected before and after the run, where "before" follows a first part of the run, which
fills everything that fills only once. Linux only.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Callable, Collection

from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import ToolResult

SUBMITTERS = 8
PATIENCE = 120.0  # seconds for one result; a later one counts as lost
SETTLE_SECONDS = 10.0  # seconds for processes to end after the last result

# name → (code, statuses it may have). One that may time out has half a second; the others end by
# themselves, later on a busy machine.
HOSTILE: dict[str, tuple[str, Collection[str]]] = {
    "loop": ("while True: pass", {"timeout"}),
    "sleep": ("import time; time.sleep(1000)", {"timeout"}),
    "stopped": ("import os, signal; os.kill(0, signal.SIGSTOP)", {"timeout"}),
    "deaf": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        {"timeout"},
    ),
    "late": ("import atexit, time; atexit.register(time.sleep, 1000)", {"timeout"}),
    "segfault": ("import ctypes; ctypes.string_at(0)", {"crash"}),
    "abort": ("import os; os.abort()", {"crash"}),
    "killed": ("import os; os.kill(os.getpid(), 9)", {"crash"}),
    "recursion": ("def f(): return f()\nf()", {"error"}),
    "deep": ("x = []\nfor _ in range(10**6): x = [x]\nrepr(x)", {"error", "crash", "timeout"}),
    "memory": ("x = [bytes(1 << 24) for _ in range(1000)]", {"memory"}),
    "flood": ("while True: print('y' * 4096)", {"output_limit"}),
    "both_streams": (
        "import os, threading\n"
        "def w(fd):\n  while True: os.write(fd, b'z' * 65536)\n"
        "threading.Thread(target=w, args=(1,)).start(); w(2)",
        {"output_limit"},
    ),
    "bytes": ("import os; os.write(1, bytes(range(256)) * 64)", {"ok"}),
    "threads": (
        "import threading, time\nthreading.stack_size(1 << 16)\n"
        "while True: threading.Thread(target=time.sleep, args=(1000,)).start()",
        {"crash", "error", "timeout"},
    ),
    "forks": ("import os\nwhile True: os.fork()", {"error"}),
    "descriptors": (
        "import os\nfor fd in range(64):\n  try: os.write(fd, b'{}')\n  except OSError: pass\n"
        "os.closerange(0, 64)\nraise ValueError",
        {"error", "crash"},
    ),
    "pipes": ("import os\nwhile True: os.pipe()", {"error"}),
    "parent": ("import os; os.kill(os.getppid() or 1, 9)", {"error"}),
    "socket": ("import socket; socket.create_connection(('127.0.0.1', 1))", {"error"}),
    "files": (
        "import os\nfor i in range(10**6):\n  os.mkdir(f'd{i}'); os.chdir(f'd{i}')\n",
        {"error", "timeout"},
    ),
    "disk": ("for i in range(9): open(f'f{i}', 'wb').write(bytes(1 << 23))", {"error", "ok"}),
    "exit": ("import os; os._exit(3)", {"error"}),
    "source": ("(" * 10_000, {"error"}),
}

STATELESS = {"late"}  # a session has no end, at which these would run


def ordinary(number: int) -> tuple[str, str, str]:
    """Code, status and stdout of an ordinary call."""
    kinds = (
        (f"print({number} ** 2)", "ok", f"{number**2}\n"),
        (f"import numpy; print(numpy.arange({number}).sum())", "ok", f"{sum(range(number))}\n"),
        (f"import sympy; print(sympy.Integer({number}) * 3)", "ok", f"{number * 3}\n"),
        (f"print({number}, flush=True); 1 / 0", "error", f"{number}\n"),
        (
            f"print('{number % 10}' * {number % 9000})",
            "ok",
            str(number % 10) * (number % 9000) + "\n",
        ),
        (
            f"import threading\nt = threading.Thread(target=print, args=({number},))\n"
            "t.start(); t.join()",
            "ok",
            f"{number}\n",
        ),
    )
    return kinds[number % len(kinds)]


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """Wrong results and remains of a run. Growth is of resident memory, 0.05 for 5 %."""

    calls: int = 0
    hostile: int = 0
    seconds: float = 0.0
    wrong: list[str] = dataclasses.field(default_factory=list)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    leftover: int = 0
    leaked: dict[str, int] = dataclasses.field(default_factory=dict)
    growth: dict[str, float] = dataclasses.field(default_factory=dict)
    megabytes: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


# A look at processes.


def children(pid: int) -> list[int]:
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def descendants(pid: int) -> set[int]:
    pids = set(children(pid))
    return pids.union(*(descendants(child) for child in pids))


def resident(pid: int) -> int:
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Number of open descriptors, also of a process that is closed to others (Linux 6.2)."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return os.stat(f"/proc/{pid}/fd").st_size


def is_alive(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        state = stat.rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def standing(before: Collection[int]) -> dict[str, int]:
    """The processes that stay: name → number. `before` are children of other origin."""
    (supervisor,) = set(children(os.getpid())) - set(before)
    processes = {"trainer": os.getpid(), "supervisor": supervisor}
    (zygote,) = children(supervisor)
    inner = children(zygote)
    if len(inner) == 1:  # in a PID namespace the first child only waits; at least two are ready
        processes["outer zygote"], zygote = zygote, inner[0]
    return {**processes, "zygote": zygote}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    calls: int  # processes of calls, of sessions, and waiting ones
    open: dict[str, int]
    resident: dict[str, int]


def look(processes: dict[str, int], wanted: int | None) -> Snapshot:
    """A look at rest, or once `wanted` processes of calls were not reached in time."""
    until = time.monotonic() + SETTLE_SECONDS
    last, same = -1, 0
    while time.monotonic() < until:
        count = len(descendants(processes["zygote"]))
        same = same + 1 if count == last else 0
        last = count
        if same >= 10 and (wanted is None or count <= wanted):
            break
        time.sleep(0.05)
    gc.collect()
    return Snapshot(
        calls=last,
        open={name: descriptors(pid) for name, pid in processes.items()},
        resident={name: resident(pid) for name, pid in processes.items()},
    )


# The run.


class _Submitter:
    """One thread's share of the calls, each with the result it must give."""

    def __init__(self, tool: PythonExecutor, name: str, every: int, seed: int) -> None:
        self.tool, self.name, self.every = tool, name, every
        self.random = random.Random(seed)
        self.counted = 0  # calls that ran in the session's interpreter
        self.outcome = Outcome()

    def run(self, numbers: range) -> None:
        for number in numbers:
            try:
                self.call(number)
            except Exception as error:
                self.outcome.wrong.append(f"call {number}: {error!r}")
        self.outcome.calls += len(numbers)

    def call(self, number: int) -> None:
        in_session = self.random.random() < 0.2
        if self.random.random() * self.every < 1:
            self.outcome.hostile += 1
            kind = self.random.choice(sorted(HOSTILE))
            code, statuses = HOSTILE[kind]
            in_session = in_session and kind not in STATELESS
            result = self.result(code, 0.5 if "timeout" in statuses else 30.0, in_session)
            # Calls that succeed or raise an exception leave a session as it was.
            if in_session and result.state_lost:
                self.counted = 0
            self.expect(result, f"{number} {kind}", lambda r: r.status in statuses)
        elif in_session:
            self.counted += 1
            code = "n = globals().get('n', 0) + 1; print(n)"
            result = self.result(code, 30.0, True)
            if result.state_lost:  # a hostile thread of an earlier call has ended it since
                self.counted = 1
            wanted = f"{self.counted}\n"
            self.expect(result, f"{number} in session", lambda r: r.stdout == wanted)
        else:
            code, status, stdout = ordinary(number)
            result = self.result(code, 30.0, False)
            wanted = status, stdout
            self.expect(result, f"{number}", lambda r: (r.status, r.stdout) == wanted)

    def result(self, code: str, seconds: float, in_session: bool) -> ToolResult:
        session = self.name if in_session else None
        result = self.tool.submit(code, timeout=seconds, session=session).result(PATIENCE)
        name, statuses = str(result.status), self.outcome.statuses
        statuses[name] = statuses.get(name, 0) + 1
        return result

    def expect(self, result: ToolResult, what: str, holds: Callable[[ToolResult], bool]) -> None:
        if not holds(result):
            text = f"{result.status} {result.stdout[-80:]!r} {result.stderr[-160:]!r}"
            self.outcome.wrong.append(f"call {what}: {text}")


def _run(submitters: list[_Submitter], first: int, last: int) -> None:
    threads = [
        threading.Thread(target=submitter.run, args=(range(first + i, last, len(submitters)),))
        for i, submitter in enumerate(submitters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stress(
    calls: int = 20_000,
    *,
    warm: int = 1000,
    hostile_every: int = 10,
    max_running: int = 2,
    seed: int = 0,
) -> Outcome:
    """Runs `calls` calls after `warm` others. This process must not start or end other children
    meanwhile.
    """
    before = children(os.getpid())
    limits = ToolLimits(memory_bytes=256 << 20)
    with PythonExecutor(max_running=max_running, limits=limits) as tool:
        tool.submit("").result(PATIENCE)
        processes = standing(before)
        submitters = [
            _Submitter(tool, f"session {i}", hostile_every, seed * SUBMITTERS + i)
            for i in range(SUBMITTERS)
        ]
        _run(submitters, 0, warm)
        for submitter in submitters:
            submitter.result("", 30.0, True)  # each session has an interpreter by this point
            submitter.outcome = Outcome(wrong=submitter.outcome.wrong)
        first = look(processes, None)
        start = time.perf_counter()
        _run(submitters, warm, warm + calls)
        seconds = time.perf_counter() - start
        outcome = Outcome(seconds=seconds)
        for submitter in submitters:
            outcome.calls += submitter.outcome.calls
            outcome.hostile += submitter.outcome.hostile
            outcome.wrong += submitter.outcome.wrong
            for name, count in submitter.outcome.statuses.items():
                outcome.statuses[name] = outcome.statuses.get(name, 0) + count
            submitter.result("", 30.0, True)
        if standing(before) != processes:
            outcome.wrong.append("the supervisor or the zygote was replaced")
            processes = standing(before)
        last = look(processes, first.calls)
        family = descendants(processes["supervisor"])
    until = time.monotonic() + SETTLE_SECONDS
    while any(map(is_alive, family)) and time.monotonic() < until:
        time.sleep(0.05)
    outcome.leftover = max(0, last.calls - first.calls) + sum(map(is_alive, family))
    for name in processes:
        outcome.leaked[name] = max(0, last.open[name] - first.open[name])
        outcome.growth[name] = last.resident[name] / first.resident[name] - 1
        outcome.megabytes[name] = first.resident[name] / 1e6, last.resident[name] / 1e6
    return outcome


if __name__ == "__main__":
    figures = stress(*map(int, sys.argv[1:2]), warm=int(sys.argv[2]) if sys.argv[2:] else 1000)
    json.dump(dataclasses.asdict(figures), sys.stdout, indent=1)
