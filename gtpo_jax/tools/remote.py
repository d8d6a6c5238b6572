"""Runs the policy's code in a remote sandbox, over HTTP.

It speaks `POST /run_code` as SandboxFusion defines it (https://github.com/bytedance/SandboxFusion).
The server alone is responsible for isolating the code.
"""

from __future__ import annotations

import dataclasses
import email.utils
import http.client
import json
import random
import re
import signal
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from gtpo_jax import types
from gtpo_jax.tools import busy, http_post
from gtpo_jax.tools import limits as tool_limits
from gtpo_jax.tools.sandbox import capture

_PATH = "/run_code"
_SHOWN_BYTES = 200  # of an unexpected body, in the error text
_MEMORY_ERROR = re.compile(r"([\w.]*\.)?(_Array)?MemoryError(:.*)?")  # the second one is numpy's


# The limits of a call that `RemoteSandbox` can ask a server for.
_APPLIED = ("wall_seconds", "guard_seconds", "memory_bytes", "output_bytes")


def ineffective(limits: tool_limits.ToolLimits) -> list[str]:
    """The limits that differ from their defaults and that no remote sandbox applies."""
    default = tool_limits.ToolLimits()
    given, usual = dataclasses.asdict(limits), dataclasses.asdict(default)
    return [name for name in given if name not in _APPLIED and given[name] != usual[name]]


class _Failure(Exception):
    """The sandbox returned no result; the text gives the reason."""

    def __init__(self, text: str, *, retry: bool, wait_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.retry = retry
        self.wait_seconds = wait_seconds  # that the server asks for


class RemoteSandbox:
    """A `types.Tool` that runs Python code in a sandbox behind HTTP, `max_running` calls at a time.

    Further calls wait in the order of their submission. Each of the `max_running` threads keeps one
    connection open. The status of a result:

    | the sandbox says | status |
    |---|---|
    | finished, return code 0 | ok |
    | finished, return code −n or 128 + n, n a signal | crash |
    | finished, another return code, a `MemoryError` in the last line of stderr | memory |
    | finished, another return code | error |
    | time limit exceeded | timeout |
    | a body of more than `body_bytes`, which must be what the code printed | output_limit |
    | `SandboxError`, an HTTP error, anything else or nothing | infra_error, reason in `stderr` |

    After a lost connection, the statuses 429 and 5xx, and `SandboxError`, a call is retried, at
    most `retries` times. Retry i waits 0.5 to 1 times `backoff_seconds · 2^i`, drawn at random, or
    as long as `Retry-After` asks, but at most `backoff_limit_seconds`. A call that has no answer
    within its timeout plus `guard_seconds` is not retried: that would load an overloaded server
    further.
    No environment variable is read, so no proxy is used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_running: int = 16,
        max_queued: int = 4096,
        wall_seconds: float = 5.0,
        guard_seconds: float = 30.0,
        memory_bytes: int | None = None,
        output_bytes: int = 16 * tool_limits.KIB,
        body_bytes: int = 16 * tool_limits.MIB,
        retries: int = 3,
        backoff_seconds: float = 0.5,
        backoff_limit_seconds: float = 10.0,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connects to nothing yet.

        `base_url` is the URL without `/run_code`. `wall_seconds` is the timeout of calls that give
        none; `guard_seconds` is added to it for the network and for the queue of the server. With
        `memory_bytes=None` the server sets the limit. `headers`, such as an API key, go with every
        request; `ssl_context` replaces the system's certificates.
        """
        _check_integer("max_running", max_running, 1)
        _check_integer("max_queued", max_queued, 0)
        _check_integer("output_bytes", output_bytes, 2)
        _check_integer("body_bytes", body_bytes, output_bytes)
        _check_integer("retries", retries, 0)
        if memory_bytes is not None:
            _check_integer("memory_bytes", memory_bytes, tool_limits.MIB)
        tool_limits.check_seconds("wall_seconds", wall_seconds)
        tool_limits.check_seconds("guard_seconds", guard_seconds)
        tool_limits.check_seconds("backoff_seconds", backoff_seconds)
        tool_limits.check_seconds("backoff_limit_seconds", backoff_limit_seconds)
        all_headers = {"Content-Type": "application/json", "Accept": "application/json"}
        all_headers.update(headers or {})
        self._poster = http_post.Poster(
            base_url, _PATH, headers=all_headers, ssl_context=ssl_context
        )
        self._url = base_url.rstrip("/") + _PATH
        self._max_queued, self._max_running = max_queued, max_running
        self._wall_seconds, self._guard_seconds = wall_seconds, guard_seconds
        self._memory_bytes = memory_bytes
        self._output_bytes, self._body_bytes = output_bytes, body_bytes
        self._retries = retries
        self._backoff_seconds, self._backoff_limit_seconds = backoff_seconds, backoff_limit_seconds
        self._jitter = random.Random()  # the caller's sequence must not depend on us
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._places = threading.Semaphore(max_running + max_queued)
        self._threads = futures.ThreadPoolExecutor(max_running, thread_name_prefix="gtpo_remote")

    def submit(
        self, code: str, *, timeout: float | None = None
    ) -> futures.Future[types.ToolResult]:
        """Runs `code`; `timeout`, in seconds, replaces `wall_seconds` for this call.

        The clock starts when the call starts, not while it waits for a thread. Raises
        `ExecutorBusy` when `max_queued` calls are waiting.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, got {type(code).__name__}; decode it first")
        wall_seconds = self._wall_seconds if timeout is None else timeout
        tool_limits.check_seconds("timeout", wall_seconds)
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("submit after close: the client is closed; make a new one")
            if not self._places.acquire(blocking=False):
                raise busy.ExecutorBusy(
                    f"{self._max_running} calls run and {self._max_queued} wait; submit again when"
                    " one has ended, or allow more with max_running or max_queued"
                )
            future = self._threads.submit(self._run, code, wall_seconds)
        # `_run` frees the place of a call that has begun, before its result is seen.
        future.add_done_callback(lambda f: self._places.release() if f.cancelled() else None)
        return future

    def close(self) -> None:
        """Ends at once: cancels queued calls; running calls answer `infra_error`.

        It waits at most 10 s for a thread that is connecting.
        """
        with self._lock:
            self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._poster.shut()
        self._threads.shutdown(wait=True)
        self._poster.close()

    def __enter__(self) -> RemoteSandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, code: str, wall_seconds: float) -> types.ToolResult:
        begin = time.monotonic()
        try:
            return self._try(self._request(code, wall_seconds), wall_seconds)
        except UnicodeEncodeError as error:
            # A lone surrogate. Servers refuse it, which must not look like their failure.
            reason, status = f"UnicodeEncodeError: {error}\n", types.ToolStatus.ERROR
        except _Failure as failure:
            reason, status = str(failure), types.ToolStatus.INFRA_ERROR
        finally:
            self._places.release()
        wall = time.monotonic() - begin
        return types.ToolResult(status=status, stderr=reason, wall_seconds=wall)

    def _try(self, body: bytes, wall_seconds: float) -> types.ToolResult:
        """Posts until there is a result; raises `_Failure` after the last attempt."""
        for attempt in range(self._retries + 1):
            if self._closing.is_set():
                break
            try:
                return self._attempt(body, wall_seconds)
            except _Failure as failure:
                if self._closing.is_set():
                    break
                if not failure.retry or attempt == self._retries:
                    text = f"POST {self._url}, attempt {attempt + 1}: {failure}"
                    raise _Failure(text, retry=False) from failure
                delay = self._backoff_seconds * 2.0**attempt * self._jitter.uniform(0.5, 1.0)
                delay = max(delay, failure.wait_seconds)
            self._closing.wait(min(delay, self._backoff_limit_seconds))
        raise _Failure("the client was closed", retry=False)

    def _request(self, code: str, wall_seconds: float) -> bytes:
        """The body of a request; raises `UnicodeEncodeError` when UTF-8 cannot encode `code`."""
        code.encode()  # JSON would escape a lone surrogate instead of failing
        request: dict[str, Any] = {
            "code": code,
            "language": "python",
            "run_timeout": wall_seconds,
            "compile_timeout": wall_seconds,  # Python has no such step; the server checks the type
            "stdin": "",
            "files": {},
            "fetch_files": [],
        }
        if self._memory_bytes is not None:
            request["memory_limit_MB"] = self._memory_bytes // tool_limits.MIB
        return json.dumps(request).encode()

    def _attempt(self, body: bytes, wall_seconds: float) -> types.ToolResult:
        """One request and its result; raises `_Failure`."""
        begin = time.monotonic()
        seconds = wall_seconds + self._guard_seconds
        try:
            response = self._poster.post(body, seconds=seconds, max_bytes=self._body_bytes)
        except TimeoutError as error:
            waited = f"{wall_seconds} s and {self._guard_seconds} s of guard time"
            raise _Failure(f"no answer within {waited}", retry=False) from error
        except (OSError, http.client.HTTPException) as error:
            # A bad certificate will be no better the next time.
            retry = not isinstance(error, ssl.SSLCertVerificationError)
            raise _Failure(f"{type(error).__name__}: {error}".rstrip(": "), retry=retry) from error
        status = response.status
        if status != 200:
            retry = status == 429 or status >= 500
            wait = _seconds(response.retry_after) if retry else 0.0
            text = f"HTTP status {status}: {_shown(response.body)}"
            raise _Failure(text, retry=retry, wait_seconds=wait)
        wall = time.monotonic() - begin
        if len(response.body) > self._body_bytes:
            return types.ToolResult(
                status=types.ToolStatus.OUTPUT_LIMIT,
                stderr=f"the answer is longer than {self._body_bytes} bytes\n",
                wall_seconds=wall,
            )
        return _result(response.body, self._output_bytes, wall)


def _result(data: bytes, output_bytes: int, wall_seconds: float) -> types.ToolResult:
    """Reads the body of a response of status 200; raises `_Failure`."""
    try:
        response = json.loads(data)
        if response["status"] == "SandboxError":
            text = f"SandboxError: {str(response.get('message'))[:_SHOWN_BYTES]}"
            raise _Failure(text, retry=True)
        run = response.get("run_result") or response["compile_result"]
        state, code = run["status"], run.get("return_code")
        stdout, stderr = run.get("stdout") or "", run.get("stderr") or ""
        finished = state == "Finished" and isinstance(code, int) and not isinstance(code, bool)
        if not (finished or state == "TimeLimitExceeded"):
            raise ValueError(f"run status {state!r}, return code {code!r}")
        stdout, lost = capture.cut(stdout.encode("utf-8", "replace"), output_bytes)
        cut_stderr, lost_too = capture.cut(stderr.encode("utf-8", "replace"), output_bytes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _Failure(
            "expected the response of SandboxFusion's /run_code, got"
            f" {_shown(data)} ({type(error).__name__}: {error}); check the address",
            retry=False,
        ) from error
    seconds = run.get("execution_time")
    status, reason = types.ToolStatus.TIMEOUT, ""
    if finished:
        status, reason = _status(code, stderr)
    if reason and cut_stderr and not cut_stderr.endswith("\n"):
        cut_stderr += "\n"
    return types.ToolResult(
        status=status,
        stdout=stdout,
        stderr=cut_stderr + reason,
        truncated_bytes=lost + lost_too,
        wall_seconds=float(seconds) if isinstance(seconds, int | float) else wall_seconds,
    )


def _status(code: int, stderr: str) -> tuple[types.ToolStatus, str]:
    """Status of a finished call, and the reason where its stderr does not state it."""
    if code == 0:
        return types.ToolStatus.OK, ""
    number = -code if code < 0 else code - 128
    if 1 <= number <= 64:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return types.ToolStatus.CRASH, f"killed by {name}\n"
    last = stderr.rstrip().rpartition("\n")[2]
    if _MEMORY_ERROR.fullmatch(last):
        return types.ToolStatus.MEMORY, ""
    return types.ToolStatus.ERROR, "" if last else f"exit status {code}\n"


def _shown(data: bytes) -> str:
    return repr(data[:_SHOWN_BYTES].decode("utf-8", "replace"))


def _seconds(retry_after: str | None) -> float:
    """The seconds that a `Retry-After` header asks for, as a number or a date; 0 if malformed."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _check_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
