"""Peers in other interpreters: a worker measures them there on request."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


class Worker:
    """A script in another interpreter. First it prints what it has, then it answers requests."""

    def __init__(self, process: subprocess.Popen[str], failure: str):
        assert process.stdin is not None and process.stdout is not None
        self._requests, self._answers, self._failure = process.stdin, process.stdout, failure
        self.found = self._answer()

    @property
    def names(self) -> list[str]:
        """Names of its peers, if it lists them under `peers`."""
        return self.found["peers"]

    def ask(self, peer: str) -> dict[str, Any]:
        """Lets the worker run a peer once; returns the measurement."""
        self._requests.write(peer + "\n")
        self._requests.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ValueError(self._failure)
        return json.loads(line)


def check_interpreters(pythons: Sequence[pathlib.Path]) -> None:
    """Raises ValueError for an interpreter that is not there."""
    for python in pythons:
        if not python.exists():
            raise ValueError(f"--peer-python {python} does not exist")


@contextlib.contextmanager
def workers_of(
    pythons: Sequence[pathlib.Path], script: str, *arguments: str, failure: str
) -> Iterator[list[Worker]]:
    """One worker per interpreter, as long as the context lasts. `script` lies beside this file;
    `failure` is the message if it does not answer.
    """
    check_interpreters(pythons)
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        for python in pythons:
            process = subprocess.Popen(
                [python, "-W", "ignore", pathlib.Path(__file__).with_name(script), *arguments],
                # Threads that wait by spinning would cost the peers CPU seconds.
                env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
            workers.append(Worker(stack.enter_context(process), failure))
        yield workers
