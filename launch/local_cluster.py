"""Runs several processes on one machine as one run, each with its own CPU devices.

    python -m launch.local_cluster --processes 2 --devices 4
    python -m launch.local_cluster --processes 4 --devices 2 --program train -- tiny --train.steps 5

Options after `--` go to the program, `launch.demo` by default. Process 0 prints to the terminal;
the others print to `runs/cluster/process-1.log` and so on. The output of C++ libraries in process
0, such as Gloo's connections, goes to `process-0.log`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import tyro

from launch import cli
from launch.run import signals

GRACE_SECONDS = 60.0
"""Seconds that the other processes get to end after one has failed; then they are killed."""
POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterArguments:
    """Runs the processes of one run on this machine."""

    processes: int = 2
    """Number of processes, each with its own tool."""
    devices: int = 4
    """CPU devices per process."""
    program: Literal["demo", "sft", "train", "evaluate", "rollout"] = "demo"
    """Launcher that every process runs."""
    logs: pathlib.Path = pathlib.Path("runs/cluster")
    """Folder for the output of processes 1, 2, … and for the C++ output of process 0."""

    def __post_init__(self):
        for name in ("processes", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def run_cluster(arguments: ClusterArguments, options: Sequence[str]) -> int:
    """Runs the processes until they end: returns 0, or the status of the first that failed."""
    address = f"127.0.0.1:{free_port()}"
    arguments.logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        workers = []
        for process in range(arguments.processes):
            log = None
            if process:
                log = stack.enter_context(
                    (arguments.logs / f"process-{process}.log").open("w", encoding="utf-8")
                )
            workers.append(_start(arguments, process, address, options, log))
        stack.callback(_kill, workers)
        with _forwarded(workers):
            return _wait(workers, arguments.logs)


def _start(arguments, process, address, options, log) -> subprocess.Popen:
    cluster = ["--distributed.coordinator", address]
    cluster += ["--distributed.processes", str(arguments.processes)]
    cluster += ["--distributed.process-id", str(process)]
    if log is None:
        cluster += ["--distributed.native-log", str(arguments.logs / f"process-{process}.log")]
    flags = os.environ.get("XLA_FLAGS", "")
    devices = f"--xla_force_host_platform_device_count={arguments.devices}"
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{arguments.program}", *options, *cluster],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {devices}".strip()},
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches them once, through this process
    )


def _wait(workers: list[subprocess.Popen], logs: pathlib.Path) -> int:
    failed, deadline = None, float("inf")
    while True:
        statuses = [worker.poll() for worker in workers]
        if failed is None and any(statuses):
            # A killed process soon takes the others with it, so it is the one to name.
            ended = [index for index, status in enumerate(statuses) if status]
            failed = min(ended, key=lambda index: (statuses[index] or 0) > 0)
            deadline = time.monotonic() + GRACE_SECONDS
            if failed:
                where = f"; its output is in {logs / f'process-{failed}.log'}"
                sys.stderr.write(
                    f"process {failed} of {len(workers)} {_ended(workers[failed])}{where}\n"
                )
        if None not in statuses:
            break
        if time.monotonic() > deadline:
            late = [index for index, status in enumerate(statuses) if status is None]
            sys.stderr.write(f"processes {late} did not end by themselves and are killed\n")
            break
        time.sleep(POLL_SECONDS)
    if failed is None:
        return 0
    status = workers[failed].returncode
    return status if status > 0 else 128 - status


def _ended(worker: subprocess.Popen) -> str:
    status = worker.returncode
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _kill(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        if worker.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@contextlib.contextmanager
def _forwarded(workers: list[subprocess.Popen]) -> Iterator[None]:
    """Forwards Ctrl-C and SIGTERM to all processes, and waits for them to end.

    A Ctrl-C that is ignored here is ignored by them too.
    """

    def forward(number, frame) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    numbers = [signal.SIGTERM, *([signal.SIGINT] if signals.interruptible() else [])]
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(argv: Sequence[str]) -> None:
    argv = list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    arguments = tyro.cli(
        ClusterArguments,
        args=argv[:split],
        prog="python -m launch.local_cluster",
        description=f"{ClusterArguments.__doc__} Options after -- go to the program.",
    )
    sys.exit(run_cluster(arguments, argv[split + 1 :]))


if __name__ == "__main__":
    cli.main(run)
