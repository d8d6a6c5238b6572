"""Messages between the programs: JSON objects after a 4-byte length, accompanied by descriptors.

The format is JSON, not pickle: a message from a child must never run as code in its reader.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct(">I")
_CHUNK = 1 << 18
_MAX_FDS = 32
_FD_BYTES = array.array("i").itemsize

# Starts a program of this package without site packages, user site, script folder on the path, and
# without writing byte code. Not `-I`, which ignores PYTHONHASHSEED; we set the environment anyway.
COMMAND = (
    sys.executable,
    *("-s", "-S", "-P", "-B"),
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py"),
)


# The whole environment of a program of this package, and so of a call.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # fixes the order of sets of strings
    "PYTHONUTF8": "1",
    "PYTHONIOENCODING": "utf-8:strict",  # of stdout, as in a UTF-8 locale
    "PYTHONINTMAXSTRDIGITS": "0",  # such tools are for large integers; time is limited
    "TZ": "UTC",
    "MALLOC_ARENA_MAX": "2",  # glibc reserves 128 MiB of address space per thread otherwise
    "OPENBLAS_NUM_THREADS": "1",  # a fork does not inherit a pool of threads
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Closed(Exception):
    """The other end is gone."""


class Reset(Closed):
    """The other end is gone and has not received all that was sent."""


class ProtocolError(Exception):
    """The other end sent something that is not one of our messages."""


def encode(message: Message) -> bytes:
    body = json.dumps(message).encode()
    return _HEADER.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into messages of at most `limit` bytes each."""

    def __init__(self, limit: int = 1 << 28) -> None:
        self._data = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[Message]:
        self._data += data
        while len(self._data) >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._data)
            if size > self._limit:
                raise ProtocolError(f"a message of {size} bytes, more than {self._limit}")
            end = _HEADER.size + size
            if len(self._data) < end:
                return
            try:
                message = json.loads(self._data[_HEADER.size : end])
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"a message that is not JSON: {error}") from error
            del self._data[:end]
            if not isinstance(message, dict):
                raise ProtocolError(f"a {type(message).__name__} instead of an object")
            yield message


class Channel:
    """One end of a stream socket that carries messages and, with `descriptors`, descriptors.

    `receive` blocks if the socket does. `send` sends everything or, on a non-blocking socket, keeps
    the rest for `flush`.
    """

    def __init__(
        self, sock: socket.socket, *, limit: int = 1 << 28, descriptors: bool = False
    ) -> None:
        self.socket = sock
        self.fds: deque[int] = deque()  # received and not yet claimed, in the order sent
        self._ancillary = socket.CMSG_SPACE(_MAX_FDS * _FD_BYTES) if descriptors else 0
        self._decoder = Decoder(limit)
        self._unsent = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def pending(self) -> bool:
        """True if bytes wait to be sent."""
        return bool(self._unsent)

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        data = encode(message)
        if fds:
            # A fresh socket buffer takes a message this small as a whole.
            sent = socket.send_fds(self.socket, [data], fds)
            data = data[sent:]
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._unsent.clear()
            raise Reset(str(error)) from error

    def receive(self) -> list[Message]:
        """Messages that have arrived completely, perhaps none; raises `Closed` at the end."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(_CHUNK, self._ancillary)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Reset(str(error)) from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
                self.fds.extend(fds)
        if not data:
            raise Closed("end of stream")
        return list(self._decoder.feed(data))

    def next(self) -> Message:
        """The next message, for strictly alternating exchanges; no other may have arrived."""
        while True:
            messages = self.receive()
            if messages:
                if len(messages) > 1:
                    raise ProtocolError("two messages where one was due")
                return messages[0]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
        self.socket.close()
