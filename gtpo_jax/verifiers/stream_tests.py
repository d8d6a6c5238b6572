"""Tests of a program through its standard input and output, run by any `types.Tool`.

Each test runs the program as a script, in a call of its own, with the input as its standard input.
The output is compared line by line, as contests do: white space around lines and empty lines at the
end do not count, and in a line that holds only numbers `2.50` equals `2.5` and `1e3` equals
`1000.0`. Integers are compared as written, so `007` is not `7`.

A call does not contain the expected output. It reports a digest of the program's output, so outputs
of any length can be compared, and a program can pass only by writing the expected output.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Sequence
from concurrent import futures

from gtpo_jax import types
from gtpo_jax.verifiers import unit_tests
from gtpo_jax.verifiers.unit_tests import TestOutcome, TestStatus


def submit_stream_tests(
    tool: types.Tool,
    solution: str,
    tests: Sequence[types.StreamTest],
    *,
    timeout: float | None = None,
) -> futures.Future[list[TestOutcome]]:
    """Runs `solution` on the input of each test; the outcomes are in the order of the tests.

    `timeout`, in seconds, limits one call. This waits while the queue of the tool is full, so never
    call it from a callback of the tool's futures.
    """
    if not isinstance(solution, str):
        raise TypeError(f"solution must be a str, got {type(solution).__name__}")
    if not tests:
        raise ValueError("tests is empty, and a program that no test has seen would pass")
    return unit_tests.submit_programs(
        tool,
        [_program(solution, test.stdin) for test in tests],
        [functools.partial(_report, digest(test.stdout)) for test in tests],
        timeout=timeout,
    )


def digest(output: str) -> str:
    """The hash of an output in its canonical spelling."""
    return hashlib.sha256(canonical(output).encode("utf-8", "replace")).hexdigest()


def canonical(output: str) -> str:
    """The one spelling of all outputs that count as equal. It also runs in the tool."""
    import re

    number = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,6}))?")

    def spelled(token, found):
        sign, whole, part, exponent = found.groups()
        if part is None and exponent is None:
            return token.removeprefix("+")
        digits = (whole + (part or "")).lstrip("0")
        kept = digits.rstrip("0")
        power = int(exponent or 0) - len(part or "") + len(digits) - len(kept)
        if not kept:
            return "0"
        sign = sign.replace("+", "")
        if 0 <= power <= 40:
            return sign + kept + "0" * power
        if -40 <= power < 0:
            kept = kept.rjust(1 - power, "0")
            return f"{sign}{kept[:power]}.{kept[power:]}"
        return f"{sign}{kept}e{power}"

    lines = []
    for line in output.strip().split("\n"):
        tokens = line.split()
        found = [number.fullmatch(token) for token in tokens]
        lines.append(" ".join(map(spelled, tokens, found)) if all(found) else line.strip())
    return "\n".join(lines)


def _report(expected: str, stdout: str) -> tuple[TestStatus, str]:
    """Reads the outcome from the last line of a call."""
    outcome, _, rest = stdout.removesuffix("\n").rpartition("\n")[2].partition(" ")
    if outcome == "error":
        return TestStatus.ERROR, rest
    if outcome != "wrote":
        return TestStatus.ERROR, "the program ended without a report"
    if rest == expected:
        return TestStatus.PASSED, ""
    return TestStatus.FAILED, "the output is not the expected one"


def _program(solution: str, stdin: str) -> str:
    """The code of one call."""
    return f"{_source()}\n_run({solution!r}, {stdin!r}, canonical)\n"


@functools.cache
def _source() -> str:
    return "\n\n".join(map(inspect.getsource, (canonical, _redirect, _run)))


def _redirect(stdin):
    """Replaces the standard input, and the standard output by a file; runs in the tool.

    Returns the file and the descriptor of the previous standard output.
    """
    import io
    import os
    import sys
    import tempfile

    reply = os.dup(1)
    # Both stay open to the end of the process.
    given, written = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    given.write(stdin.encode("utf-8", "surrogatepass"))
    given.seek(0)
    os.dup2(given.fileno(), 0)
    os.dup2(written.fileno(), 1)
    reader = io.FileIO(0, closefd=False)
    writer = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(reader, encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(writer, encoding="utf-8")
    return written, reply


def _run(solution, stdin, canonical) -> None:
    """Runs the script and reports once, however it ends: `sys.exit`, `os._exit` or its last line.

    It is sent to the tool as text, so it uses nothing of this module.
    """
    import atexit
    import hashlib
    import os
    import sys
    import threading
    import traceback
    import types

    written, reply = _redirect(stdin)
    leave, stdout, handlers = os._exit, sys.stdout, []

    def report(error=None):
        try:
            stdout.flush()
        except Exception as reason:
            error = error or reason
        written.seek(0)
        text = canonical(written.read().decode("utf-8", "replace"))
        line = "wrote " + hashlib.sha256(text.encode("utf-8")).hexdigest()
        if error is not None:
            line = " ".join(f"error {type(error).__name__}: {error}".split())[:200]
        os.write(reply, f"\n{line}\n".encode(errors="backslashreplace"))
        leave(0)

    def stop(status=0):
        report(SystemExit(f"the program ended with {status}") if status else None)

    def register(function, *arguments, **named):
        handlers.append(lambda: function(*arguments, **named))
        return function

    os._exit, atexit.register = stop, register
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    sys.argv = ["solution.py"]
    error = None
    try:
        try:
            exec(compile(solution, "<solution>", "exec", dont_inherit=True), main.__dict__)
        except SystemExit as end:
            error = SystemExit(f"the program ended with {end.code!r}") if end.code else None
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        for handler in reversed(handlers):
            handler()
    except BaseException as reason:
        traceback.print_exc()
        error = reason
    report(error)
