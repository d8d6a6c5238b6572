"""Keeps the beginning and the end of what a call writes to one stream."""

from __future__ import annotations

import os

_CHUNK = 1 << 16


class Capture:
    """Reads one stream; keeps its first and its last bytes, `keep` in all, and counts every byte.

    Reading stops for good at `stop_at` bytes, so what is kept of a runaway stream does not depend
    on how fast it was killed.
    """

    def __init__(self, fd: int, keep: int, stop_at: int) -> None:
        self.fd, self.total, self.stop_at = fd, 0, stop_at
        self._head, self._head_size = bytearray(), keep - keep // 2
        self._tail, self._tail_size = bytearray(), keep // 2

    @property
    def runaway(self) -> bool:
        return self.total >= self.stop_at

    def read(self) -> bool:
        """Reads once; False when nothing more will be read. The stream must be ready."""
        if self.runaway:
            return False
        try:
            data = os.read(self.fd, min(_CHUNK, self.stop_at - self.total))
        except BlockingIOError:
            return True
        self.total += len(data)
        room = self._head_size - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: max(0, len(self._tail) - self._tail_size)]
        return bool(data) and not self.runaway

    def drain(self) -> None:
        """Reads all that has been written so far. The descriptor must be non-blocking."""
        before = -1
        while before != self.total:
            before = self.total
            self.read()

    def text(self) -> tuple[str, int]:
        """The text that is shown of the stream, and the number of bytes left out."""
        return excerpt(bytes(self._head), bytes(self._tail), self.total)


def cut(data: bytes, keep: int) -> tuple[str, int]:
    """The text that is shown of `data` if `keep` bytes may be, and the number of bytes left out."""
    if len(data) <= keep:
        return data.decode("utf-8", "replace"), 0
    return excerpt(data[: keep - keep // 2], data[len(data) - keep // 2 :], len(data))


def excerpt(head: bytes, tail: bytes, total: int) -> tuple[str, int]:
    """The beginning and the end of `total` bytes with a mark between, and the bytes left out.

    `whole_parts` shortens both parts.
    """
    if total <= len(head) + len(tail):
        return (head + tail).decode("utf-8", "replace"), 0
    head, tail = whole_parts(head, tail)
    dropped = total - len(head) - len(tail)
    mark = f"[{dropped} bytes truncated]\n"
    if head and not head.endswith(b"\n"):
        mark = f"\n{mark}"
    return f"{head.decode('utf-8', 'replace')}{mark}{tail.decode('utf-8', 'replace')}", dropped


def whole_parts(head: bytes, tail: bytes) -> tuple[bytes, bytes]:
    """Shortens the beginning and the end of a text, between which something is missing.

    Each is cut to whole lines if that costs at most half of it, and to whole characters otherwise.
    """
    return head[: _end(head)], tail[_start(tail) :]


def _end(head: bytes) -> int:
    """The position where the last whole line, or else the last whole character, ends."""
    line = head.rfind(b"\n") + 1
    if line and 2 * line >= len(head):
        return line
    for size in range(1, min(4, len(head)) + 1):
        byte = head[-size]
        if byte >= 0xC0:  # begins a character of two to four bytes
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(head) - size if size < length else len(head)
        if byte < 0x80:
            break
    return len(head)


def _start(tail: bytes) -> int:
    """The position where the first whole line, or else the first whole character, begins."""
    line = tail.find(b"\n") + 1
    if line and 2 * line <= len(tail):
        return line
    at = 0
    while at < min(3, len(tail)) and 0x80 <= tail[at] < 0xC0:
        at += 1
    return at
