"""User code as the main module of an interpreter: executed as it stands, ended as Python ends."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import contextlib
import io
import linecache
import os
import random
import sys
import threading
import traceback
import types

FILENAME = "<tool>"  # of the user's code, in tracebacks
RANDOM_SEED = 0


def warm_up() -> None:
    """Loads, in the zygote, what a traceback needs: a child may be out of memory or descriptors."""
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")  # `site` defines these,
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")  # and we run without it
    for source in ("undefined", "x = = 1"):
        try:
            exec(compile(source, FILENAME, "exec"), {})
        except Exception as error:
            "".join(traceback.TracebackException.from_exception(error, compact=True).format())


class Main:
    """A main module that code is executed in: once, or cell by cell as in a notebook."""

    def __init__(self) -> None:
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self._module
        sys.argv = [FILENAME]
        sys.excepthook = _write_traceback
        threading.excepthook = _write_thread_traceback
        random.seed(RANDOM_SEED)  # `random` seeds itself anew in every fork

    def run(self, code: str) -> int:
        """Executes the code, unmodified, and returns what an interpreter's exit status would be."""
        lines = io.StringIO(code, newline=None).readlines()  # as the compiler counts them
        linecache.cache[FILENAME] = (len(code), None, lines, FILENAME)
        status = 0
        try:
            # Without `dont_inherit` the code would get this file's `from __future__` features.
            exec(compile(code, FILENAME, "exec", dont_inherit=True), self._module.__dict__)
        except SystemExit as error:
            status = _exit_status(error)
        except BaseException as error:
            status = 1
            _report(error)
        _flush()
        return status

    def finish(self) -> None:
        """What an interpreter does at its end: waits for threads, runs exit handlers, flushes."""
        with contextlib.suppress(BaseException):
            threading._shutdown()  # pyright: ignore
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush()


def _exit_status(error: SystemExit) -> int:
    """What `sys.exit(code)` means: None 0, an int itself modulo 256, the rest a message and 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        status, line = error.code & 0xFF, f"exit status {error.code & 0xFF}"
    else:
        status, line = 1, str(error.code)
    if status:
        with contextlib.suppress(BaseException):
            sys.stderr.write(f"{line}\n")
    return status


def _report(error: BaseException) -> None:
    """Hands an exception that nobody caught to the hook, be it ours or one that the code set."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # no memory for the text, or the user's own hook failed
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}\n".encode())


def _write_traceback(
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


def _write_thread_traceback(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    sys.stderr.write(f"Exception in thread {args.thread.name if args.thread else '?'}:\n")
    _write_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def _flush() -> None:
    for name in ("stdout", "__stdout__", "stderr"):
        # One that is closed, or taken away, is no reason to skip the rest.
        with contextlib.suppress(BaseException):
            getattr(sys, name).flush()
