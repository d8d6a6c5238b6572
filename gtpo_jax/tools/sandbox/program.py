"""Runs user code as the main module, unmodified, and ends it as Python ends a program."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import contextlib
import io
import itertools
import linecache
import os
import random
import sys
import threading
import traceback
import types

from . import capture

FILENAME = "<tool>"  # of the user's code, in tracebacks
TOLD_BYTES = 4096  # of an uncaught exception, as the policy reads it
TRACEBACK_BYTES = 1 << 16  # of its traceback: an endless message must not count as runaway output

# As in a traceback, between an exception and the one that it caused.
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_GROUP_DEPTH = 10  # of groups within groups, as in a traceback
RANDOM_SEED = 0


def warm_up() -> None:
    """Prepares in the zygote what children need and could not afford themselves."""
    # Printed lines survive the killing of the process, as in a terminal.
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")  # `site` defines these,
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")  # and we run without it
    # Loads what a traceback needs: a child may be out of memory or descriptors.
    for source in ("undefined", "x = = 1"):
        try:
            exec(compile(source, FILENAME, "exec"), {})
        except Exception as error:
            summary = _summary(type(error), error, error.__traceback__)
            _excerpt(_told(summary) + "".join(summary.format()), TOLD_BYTES)


class Main:
    """A main module that runs code once, or cell by cell as in a notebook."""

    def __init__(self) -> None:
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self._module
        sys.argv = [FILENAME]
        sys.excepthook = _write_traceback
        threading.excepthook = _write_thread_traceback
        random.seed(RANDOM_SEED)  # `random` seeds itself anew in every fork

    def run(self, code: str) -> tuple[int, dict[str, str]]:
        """Executes the code, unmodified.

        Returns the exit status that an interpreter would have, and the fields of a `calls.Told`.
        """
        lines = io.StringIO(code, newline=None).readlines()  # as the compiler counts them
        linecache.cache[FILENAME] = (len(code), None, lines, FILENAME)
        status, told = 0, {"end": "", "text": ""}
        try:
            # Without `dont_inherit` the code would get this file's `from __future__` features.
            exec(compile(code, FILENAME, "exec", dont_inherit=True), self._module.__dict__)
        except SystemExit as error:
            status, told["end"] = _exit(error)
        except BaseException as error:
            status, told = 1, _report(error)
        _flush()
        return status, told

    def finish(self) -> None:
        """Ends as an interpreter does: waits for threads, runs exit handlers, flushes."""
        with contextlib.suppress(BaseException):
            threading._shutdown()  # pyright: ignore
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush()


def _exit(error: SystemExit) -> tuple[int, str]:
    """Status of `sys.exit(code)`: None → 0, an int → itself modulo 256, else a message and 1."""
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        return error.code & 0xFF, ""
    try:
        sys.stderr.write(f"{error.code}\n")
    except BaseException:  # stderr is gone, or the message has no text
        return 1, ""
    return 1, "said"


def _report(error: BaseException) -> dict[str, str]:
    """Passes an uncaught exception to the hook, and returns the account of it."""
    end = "memory" if isinstance(error, MemoryError) else "exception"
    text = type(error).__name__
    try:
        summary = _summary(type(error), error, error.__traceback__)
        text = _excerpt(_told(summary), TOLD_BYTES)
        if sys.excepthook is _write_traceback:
            _write_summary(summary)
        else:
            sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # no memory for the text, or the user's hook failed
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}\n".encode())
    return {"end": end, "text": text}


def _told(summary: traceback.TracebackException) -> str:
    """An exception without its traceback, after the exceptions that led to it."""
    texts = [_told_alone(summary)]
    while True:
        cause, context = summary.__cause__, summary.__context__
        if cause is not None:
            summary, link = cause, _CAUSE
        elif context is not None and not summary.__suppress_context__:
            summary, link = context, _CONTEXT
        else:
            return "\n".join(reversed(texts))
        texts += [link, _told_alone(summary)]


def _told_alone(summary: traceback.TracebackException, depth: int = 0) -> str:
    """Type, message and notes, followed by the indented parts of a group."""
    lines = "".join(summary.format_exception_only()).splitlines()
    if hasattr(summary, "lineno"):  # a syntax error, which begins with its location
        lines = list(itertools.dropwhile(lambda line: line.startswith("  "), lines))
    for part in summary.exceptions or () if depth < _GROUP_DEPTH else ():
        lines += [f"  {line}" for line in _told_alone(part, depth + 1).splitlines()]
    return "\n".join(lines)


def _excerpt(text: str, keep: int) -> str:
    return capture.cut(text.encode("utf-8", "backslashreplace"), keep)[0]


def _write_traceback(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    _write_summary(_summary(kind, error, trace))


def _write_summary(summary: traceback.TracebackException) -> None:
    text = "".join(summary.format())
    sys.stderr.write(text if len(text) <= TRACEBACK_BYTES else _excerpt(text, TRACEBACK_BYTES))


def _summary(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> traceback.TracebackException:
    """The usual traceback with only the frames of user code, so that it shows no local path."""
    summary = traceback.TracebackException(kind, error, trace, compact=True)
    pending = [summary]
    while pending:
        part = pending.pop()
        frames = [f for f in part.stack or () if f.filename in (FILENAME, "<string>")]
        # None omits the header; a syntax error, for one, has no frame of user code.
        part.stack = traceback.StackSummary.from_list(frames) if frames else None  # pyright: ignore
        linked = (part.__cause__, part.__context__, *(part.exceptions or ()))
        pending += [other for other in linked if other is not None]
    return summary


def _write_thread_traceback(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    sys.stderr.write(f"Exception in thread {args.thread.name if args.thread else '?'}:\n")
    _write_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def _flush() -> None:
    for name in ("stdout", "__stdout__", "stderr"):
        # A stream that is closed or missing is no reason to skip the rest.
        with contextlib.suppress(BaseException):
            getattr(sys, name).flush()
