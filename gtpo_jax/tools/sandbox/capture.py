"""What one stream of a call wrote, as far as it is kept."""

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
        """Takes what is there; False when nothing more will be read. The stream must be ready."""
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
        """Takes all that has been written until now. The descriptor must not block."""
        before = -1
        while before != self.total:
            before = self.total
            self.read()

    def text(self) -> tuple[str, int]:
        """The part of the stream that is shown, and how many of its bytes are not."""
        return excerpt(bytes(self._head), bytes(self._tail), self.total)


def cut(data: bytes, keep: int) -> tuple[str, int]:
    """The part of `data` that is shown where `keep` bytes may be, and how many bytes are not."""
    if len(data) <= keep:
        return data.decode("utf-8", "replace"), 0
    return excerpt(data[: keep - keep // 2], data[len(data) - keep // 2 :], len(data))


def excerpt(head: bytes, tail: bytes, total: int) -> tuple[str, int]:
    """The beginning and the end of `total` bytes, a mark between them; and how many are left out.

    The parts are shortened as `whole_parts` says.
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
    """The beginning and the end of a text, each shortened to whole lines where something is missing
    between them: where that costs no more than half of it, and to whole characters in any case.
    """
    return head[: _end(head)], tail[_start(tail) :]


def _end(head: bytes) -> int:
    """Where the last whole line of a beginning ends, or its last whole character."""
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
    """Where the first whole line of an end begins, or its first whole character."""
    line = tail.find(b"\n") + 1
    if line and 2 * line <= len(tail):
        return line
    at = 0
    while at < min(3, len(tail)) and 0x80 <= tail[at] < 0xC0:
        at += 1
    return at
