"""Runs to kill: separate processes, forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.launch import small

SERVER = """
import json, os, signal, sys
import launch.cli, launch.demo, launch.sft, launch.train

signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background ignores

for line in sys.stdin:
    launcher, options, log = json.loads(line)
    child = os.fork()
    if not child:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = [launcher, *options]
        launch.cli.main(getattr(launch, launcher).run)
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Starts launchers, one at a time, a second faster than new interpreters would."""

    def __init__(self, log: pathlib.Path):
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=small.ROOT,
            env=os.environ | {"PYTHONPATH": str(small.ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, launcher: str, *options: object) -> Run:
        assert self._process.stdin is not None
        request = [launcher, list(map(str, options)), str(self.log)]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Run(self, self.read())

    def finish(self, launcher: str, *options: object) -> str:
        """Runs a launcher to its end and returns its output."""
        status, printed = self.start(launcher, *options).end()
        assert status == 0, printed
        return printed

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


class Run:
    """A run in progress."""

    def __init__(self, server: Server, pid: int):
        self._server, self.pid = server, pid

    def wait_for(self, condition: Callable[[], object], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            printed = self._server.log.read_text() if self._server.log.exists() else ""
            assert os.path.exists(f"/proc/{self.pid}"), f"it ended before: {printed}"
            assert time.monotonic() < deadline, f"it never came so far: {printed}"
            time.sleep(0.001)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL, and asserts that the run had not ended before."""
        self.send(signal.SIGKILL)
        status, printed = self.end()
        assert status == -signal.SIGKILL, printed

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns status and output."""
        return self._server.read(), self._server.log.read_text()
