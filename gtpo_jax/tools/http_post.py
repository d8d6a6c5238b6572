"""HTTP posts on connections that stay open, each under one deadline for the whole exchange.

Client libraries limit each wait for the network, not an exchange: a server that sends a byte now
and then would hold a call for ever.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import re
import socket
import ssl
import threading
import time
import typing
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

_CONNECT_SECONDS = 10.0
_LONGEST_SECONDS = 1e6  # of one wait: the system call refuses arbitrarily long ones
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Response(NamedTuple):
    status: int
    retry_after: str | None  # the header of this name
    body: bytes  # at most one byte longer than `max_bytes`


class Poster:
    """Posts to one address, with one connection for each calling thread.

    It reads no environment variable, so it uses no proxy.
    """

    def __init__(
        self,
        base_url: str,
        path: str,
        *,
        headers: Mapping[str, str],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connects to nothing yet; `ssl_context` replaces the system's certificates."""
        self._https, self._host, self._port, prefix = _split(base_url)
        self._path = prefix + path
        _check_headers(headers)
        self._headers = dict(headers)
        self._ssl_context = ssl_context or (ssl.create_default_context() if self._https else None)
        self._lock = threading.Lock()
        self._closing = False
        self._connections: list[http.client.HTTPConnection] = []
        self._local = _Local()

    def post(self, body: bytes, *, seconds: float, max_bytes: int) -> Response:
        """Sends one request. Reads at most `max_bytes` + 1 bytes of the body of the answer.

        Raises `TimeoutError` when the answer is not complete `seconds` after the request began, and
        `OSError` or `http.client.HTTPException` when the connection fails.
        """
        connection = self._connection()
        try:
            return self._exchange(connection, body, seconds, max_bytes)
        except BaseException:
            connection.close()
            raise

    def shut(self) -> None:
        """Fails the posts in progress and all later ones."""
        with self._lock:
            self._closing = True
            connections = tuple(self._connections)
        for connection in connections:
            sock = connection.sock
            if isinstance(sock, _Socket):
                with contextlib.suppress(OSError):  # it has just ended by itself
                    sock.raw.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads

    def close(self) -> None:
        """Closes the connections; no post may be in progress."""
        for connection in self._connections:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        """The connection of this thread, which may not be open yet."""
        if self._local.connection is None:
            arguments: dict[str, Any] = {"timeout": _CONNECT_SECONDS}
            kind = http.client.HTTPConnection
            if self._https:
                kind = http.client.HTTPSConnection
                arguments["context"] = self._ssl_context
            self._local.connection = kind(self._host, self._port, **arguments)
            with self._lock:
                self._connections.append(self._local.connection)
        return self._local.connection

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes, seconds: float, max_bytes: int
    ) -> Response:
        reused = connection.sock is not None
        try:
            response = self._send(connection, body, seconds)
        except ConnectionError:
            # The server may have closed the connection while it was idle, and still be healthy.
            if not reused:
                raise
            connection.close()
            response = self._send(connection, body, seconds)
        data = response.read(max_bytes + 1)
        if len(data) > max_bytes:
            connection.close()
        elif response.length:
            raise http.client.IncompleteRead(data, response.length)
        return Response(response.status, response.getheader("Retry-After"), data)

    def _send(
        self, connection: http.client.HTTPConnection, body: bytes, seconds: float
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            try:
                connection.connect()
            except TimeoutError as error:
                raise ConnectionError(f"no connection within {_CONNECT_SECONDS} s") from error
            connection.sock = _Socket(typing.cast(socket.socket, connection.sock))
        if self._closing:  # `shut` may have looked before there was a socket
            raise ConnectionAbortedError
        sock = typing.cast(_Socket, connection.sock)
        sock.deadline = time.monotonic() + seconds
        connection.request("POST", self._path, body, self._headers)
        return connection.getresponse()


class _Local(threading.local):
    """The attributes that each thread has for itself."""

    connection: http.client.HTTPConnection | None = None


class _Reader(io.RawIOBase):
    def __init__(self, owner: _Socket) -> None:
        self._owner = owner
        self._raw = owner.raw.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._owner.arm()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """The part of a socket that `http.client` uses, under one deadline.

    The time-out of a plain socket restarts with every byte that a slow server sends.
    """

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.deadline = math.inf

    def arm(self) -> None:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self.raw.settimeout(min(remaining, _LONGEST_SECONDS))

    def sendall(self, data: bytes) -> None:
        self.arm()
        self.raw.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode  # always "rb"
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        self.raw.close()


def _split(base_url: str) -> tuple[bool, str, int | None, str]:
    """Parses a URL into `is_https`, host, port and path."""
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, got {type(base_url).__name__}")
    example = "expected something like http://host:8080 or https://host/prefix"
    try:
        parts = urllib.parse.urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"base_url: {error}; {example}") from error
    if "@" in parts.netloc:  # not shown: it is a secret
        raise ValueError("base_url holds a user or a password; give credentials as headers")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url {base_url!r} is not an http(s) address; {example}")
    if parts.query or parts.fragment or re.search(r"[^!-~]", base_url):
        raise ValueError(
            f"base_url {base_url!r} has a query, a fragment or a character to escape; {example}"
        )
    return parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/")


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raises unless HTTP can carry these headers. Shows no value, since values are secrets."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is not the name of a header")
        if not isinstance(value, str) or re.search(r"[^\t -~]", value):
            raise ValueError(f"headers: the value of {name} must be one line of ASCII text")
