"""Worker processes that judge answers, each within a hard limit of wall time.

A computer algebra system may hang where neither a signal nor a thread can stop it, so a worker that
takes too long is killed from outside and replaced. A worker reports when it has read the expected
answer. An answer that ends two workers after that report is wrong, since nothing else can be the
cause. No other answer suffers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

from gtpo_jax.types import Verdict

MEMORY_BYTES = 4 << 30
"""Address space of a worker."""

_ATTEMPTS = 2  # so that an accident of a worker is not blamed on an answer

_START_SECONDS = 120.0  # for the imports of a worker, on a loaded machine with a cold disk

# The whole environment of a worker; it holds no keys.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # fixes the order of sets, and so the course of a simplification
    "PYTHONUTF8": "1",
    "PYTHONINTMAXSTRDIGITS": "0",  # time is limited
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "JAX_PLATFORMS": "cpu",  # where a judge needs the library
}


class _Gone(Exception):
    """The worker has ended, or was ended because it took too long."""


@dataclasses.dataclass(eq=False)
class _Job:
    """An answer that has no verdict yet. Without a record, the job only starts a worker."""

    record: dict[str, Any] | None
    future: futures.Future[Verdict]


class WorkerPool:
    """Judges answers of one kind (`judges.worker.JUDGES`) in `workers` processes.

    The processes start with the first answer, or with `start`. Threads of the pool spawn them,
    never fork them, and they end with this process, however it ends. An answer that takes longer
    than `seconds`, or whose worker dies or runs out of memory, is judged once more. If that fails
    too, the answer is wrong if the expected answer had been read, and unverifiable otherwise.
    Workers that do not start are an error, not a verdict, since then nothing could be verified.

    `module` holds a judge that replaces that of the kind. A thread of the pool calls `observe` with
    every record that gets a verdict and the processor seconds that it took.
    """

    def __init__(
        self,
        kind: str,
        *,
        workers: int,
        seconds: float,
        memory_bytes: int = MEMORY_BYTES,
        module: str | None = None,
        observe: Callable[[dict[str, Any], float], None] | None = None,
    ):
        self.kind, self.module, self._observe = kind, module, observe
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self.timeouts = 0
        """Answers that took too long, at least the first time."""
        self.crashes = 0
        """Answers whose worker died, at least the first time."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of all that follows and the counts
        self._closed = False
        self._running: set[_Worker] = set()
        self._threads = [
            threading.Thread(target=self._serve, name=f"gtpo_{kind}_{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def start(self) -> None:
        """Starts the workers; raises `RuntimeError` with the reason if they do not start."""
        jobs = [_Job(None, futures.Future()) for _ in self._threads]
        for job in jobs:
            self._put(job)
        jobs[0].future.result()

    def submit(self, record: dict[str, Any]) -> futures.Future[Verdict]:
        """A future of the verdict on a record, the argument of the kind's `judge`."""
        job = _Job(record, futures.Future())
        self._put(job)
        return job.future

    def close(self) -> None:
        """Ends the workers at once and cancels answers that have no verdict yet."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for worker in running:
            worker.process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the verifier {self.kind} is closed; make a new one")
            self._jobs.put(job)

    def _serve(self) -> None:
        """Runs a thread of the pool, which owns one worker after the other."""
        worker: _Worker | None = None
        try:
            while (job := self._jobs.get()) is not None:
                if self._closed:
                    job.future.cancel()
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    worker, verdict = self._judged(worker, job)
                except BaseException as error:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(verdict)
        finally:
            if worker is not None:
                worker.end()

    def _judged(self, worker: _Worker | None, job: _Job) -> tuple[_Worker | None, Verdict]:
        """The verdict, and the worker that remains."""
        for attempt in range(_ATTEMPTS):
            if worker is None or worker.process.poll() is not None:
                worker = self._replace(worker)
            if job.record is None:
                break
            try:
                verdict, seconds = worker.judge(job.record, self.seconds)
                if self._observe is not None:
                    self._observe(job.record, seconds)
                return worker, verdict
            except (TimeoutError, _Gone) as error:
                known, worker = worker.known, self._end(worker)
                if attempt == 0:
                    self._count(error)
                if self._closed:
                    break
                if attempt == _ATTEMPTS - 1 and known:
                    return worker, Verdict.WRONG
        return worker, Verdict.UNVERIFIABLE

    def _count(self, error: TimeoutError | _Gone) -> None:
        with self._lock:
            if isinstance(error, TimeoutError):
                self.timeouts += 1
            else:
                self.crashes += 1

    def _replace(self, worker: _Worker | None) -> _Worker:
        """A worker that is ready and replaces one that has ended."""
        self._end(worker)
        new = _Worker(self.kind, self.module, self.seconds, self.memory_bytes)
        with self._lock:
            self._running.add(new)
            closed = self._closed
        try:
            if closed:
                raise RuntimeError(f"the verifier {self.kind} is closed; make a new one")
            new.wait_until_ready()
        except BaseException:
            self._end(new)
            raise
        return new

    def _end(self, worker: _Worker | None) -> None:
        if worker is not None:
            with self._lock:
                self._running.discard(worker)
            worker.end()


class _Worker:
    """One process, which answers one line with one line."""

    def __init__(self, kind: str, module: str | None, seconds: float, memory_bytes: int):
        self.kind = kind
        self.known = False
        """True once it has read the expected answer of the current record."""
        self._read = b""
        path = [os.path.abspath(entry) for entry in sys.path]
        limits = f"seconds={seconds!r}, memory_bytes={memory_bytes!r}, parent={os.getpid()}"
        program = (
            f"import sys; sys.path[:] = {path!r}\n"
            "from gtpo_jax.verifiers.judges import worker\n"
            f"worker.main({kind!r}, module={module!r}, {limits})"
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in the terminal is for the trainer
            )
        except OSError as error:
            raise RuntimeError(f"a worker of the verifier {kind} cannot start: {error}") from error
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self._replies = self.process.stdin, self.process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._replies, selectors.EVENT_READ)

    def wait_until_ready(self) -> None:
        try:
            message = self._next(time.monotonic() + _START_SECONDS)
        except (TimeoutError, _Gone) as error:
            message = {"failed": f"it ended, or took longer than {_START_SECONDS:.0f} s ({error})"}
        if "failed" in message:
            raise RuntimeError(
                f"a worker of the verifier {self.kind} does not start: {message['failed']}"
            )

    def judge(self, record: dict[str, Any], seconds: float) -> tuple[Verdict, float]:
        """The verdict and its processor seconds.

        Raises `TimeoutError` after `seconds`, and `_Gone` if the worker dies.
        """
        self.known = False
        try:
            self._requests.write(json.dumps(record).encode() + b"\n")
            self._requests.flush()
        except OSError as error:
            raise _Gone(str(error)) from error
        self._next(
            time.monotonic() + _START_SECONDS
        )  # it may still be cleaning up after the last answer
        until = time.monotonic() + seconds
        while "verdict" not in (message := self._next(until)):
            self.known = True
        self.known = False
        return Verdict(message["verdict"]), message["processor_seconds"]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._selector.close()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                pipe.close()

    def _next(self, until: float) -> dict[str, Any]:
        """The next line; raises `TimeoutError` when the clock says `until`."""
        while b"\n" not in self._read:
            if not self._selector.select(max(until - time.monotonic(), 0.0)):
                raise TimeoutError("no answer in time")
            part = os.read(self._replies.fileno(), 1 << 16)
            if not part:
                raise _Gone("end of stream")
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)
