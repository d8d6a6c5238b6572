"""The child of a worker: limits itself, runs the user's code as an interpreter would, and exits.

Loaded by `worker.py`; standard library only. A child is a fork of the worker and serves one call.
"""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import contextlib
import ctypes
import linecache
import mmap
import os
import random
import resource
import signal
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

FILENAME = "<tool>"  # of the user's code, in tracebacks
RANDOM_SEED = 0
HIGHEST_FD = 256  # the worker has a dozen descriptors

# How far a child came, in the one byte that it shares with the worker. Unlike a pipe, this has no
# descriptor that user code could write to by accident; forging it gains but another failure status.
NOT_STARTED, STARTED, REPORTED, OUT_OF_MEMORY = range(4)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

# `site` defines these, and the worker runs without it.
builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")


def warm_up() -> None:
    """Loads, in the worker, what a traceback needs: a child may be out of memory or descriptors."""
    try:
        exec(compile("undefined", FILENAME, "exec"), {})
    except NameError as error:
        "".join(traceback.TracebackException.from_exception(error, compact=True).format())


def main(
    code: str,
    limits: dict[str, Any],
    directory: str,
    worker_pid: int,
    outputs: tuple[int, int],
    progress: mmap.mmap,
) -> NoReturn:
    """Everything from fork to exit. `outputs` are the pipes that become stdout and stderr."""
    try:
        confine(limits, directory, worker_pid, outputs)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    progress[0] = STARTED
    status = 1
    try:
        status = run(code, progress)
    finally:  # whatever the code broke, the child must not return into the worker's loop
        os._exit(status)


def confine(
    limits: dict[str, Any], directory: str, worker_pid: int, outputs: tuple[int, int]
) -> None:
    """Cuts the child off from the worker and sets its limits."""
    os.dup2(outputs[0], 1)
    os.dup2(outputs[1], 2)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.closerange(3, HIGHEST_FD)  # the protocol above all: user code must not be able to answer
    os.setsid()  # a session and group of its own, to be killed as one, and no terminal
    if prctl is not None:
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # the worker is not; without this /dev/stdout fails
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != worker_pid:
            os._exit(1)  # the worker died before the signal was asked for
    os.chdir(directory)
    random.seed(RANDOM_SEED)  # `random` seeds itself anew in every fork
    cpu = limits["cpu_seconds"]
    set_limit("RLIMIT_CPU", cpu, cpu + 1)  # a busy loop; SIGXCPU first, SIGKILL if that is ignored
    set_limit("RLIMIT_FSIZE", limits["file_bytes"])  # one file that fills the disk
    set_limit("RLIMIT_NOFILE", limits["open_files"])  # descriptors of the host
    set_limit("RLIMIT_CORE", 0)  # a core file per crash
    set_limit("RLIMIT_AS", limits["memory_bytes"])  # memory; last, as the steps above need some


def set_limit(name: str, soft: int, hard: int | None = None) -> None:
    """Lowers one limit, hard and soft. What the platform lacks is skipped.

    So is what it refuses, except on Linux: there, a limit that cannot be set fails the call.
    """
    kind = getattr(resource, name, None)
    if kind is None:
        return
    present = resource.getrlimit(kind)[1]
    ceiling = soft if hard is None else hard
    if present != resource.RLIM_INFINITY:
        ceiling = min(ceiling, present)
    try:
        resource.setrlimit(kind, (min(soft, ceiling), ceiling))
    except (OSError, ValueError):
        if sys.platform == "linux":
            raise


def run(code: str, progress: mmap.mmap) -> int:
    """Executes the code, unmodified, as the main module; returns the exit status of the process."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.argv = [FILENAME]
    sys.excepthook = write_traceback
    threading.excepthook = write_thread_traceback
    linecache.cache[FILENAME] = (len(code), None, code.splitlines(True), FILENAME)
    try:
        # Without `dont_inherit` the code would get this file's `from __future__` features.
        exec(compile(code, FILENAME, "exec", dont_inherit=True), module.__dict__)
        status = 0
    except SystemExit as error:
        status = exit_status(error, progress)
    except BaseException as error:
        status = 1
        progress[0] = OUT_OF_MEMORY if isinstance(error, MemoryError) else REPORTED
        report(error)
    finish()
    return status


def exit_status(error: SystemExit, progress: mmap.mmap) -> int:
    """What `sys.exit(code)` means: None 0, an int itself modulo 256, the rest a message and 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    progress[0] = REPORTED
    with contextlib.suppress(BaseException):
        sys.stderr.write(f"{error.code}\n")
    return 1


def report(error: BaseException) -> None:
    """Hands an exception that nobody caught to the hook, be it ours or one that the code set."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # no memory for the text, or the user's own hook failed
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}\n".encode())


def write_traceback(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """The usual traceback with the frames of the user's code alone: no path of the host appears."""
    summary = traceback.TracebackException(kind, error, trace, compact=True)
    pending = [summary]
    while pending:
        part = pending.pop()
        frames = [f for f in part.stack or () if f.filename in (FILENAME, "<string>")]
        # None leaves the header out; a syntax error, for one, has no frame of the user.
        part.stack = traceback.StackSummary.from_list(frames) if frames else None  # pyright: ignore
        linked = (part.__cause__, part.__context__, *(part.exceptions or ()))
        pending += [other for other in linked if other is not None]
    sys.stderr.write("".join(summary.format()))


def write_thread_traceback(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    sys.stderr.write(f"Exception in thread {args.thread.name if args.thread else '?'}:\n")
    write_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def finish() -> None:
    """What an interpreter does at its end: waits for threads, runs exit handlers, flushes."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # pyright: ignore
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        with contextlib.suppress(BaseException):  # a closed stream is no reason to skip the rest
            if stream is not None:
                stream.flush()
