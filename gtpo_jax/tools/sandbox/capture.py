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

    @property
    def dropped(self) -> int:
        return self.total - len(self._head) - len(self._tail)

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

    def text(self) -> str:
        if not self.dropped:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = (part.decode("utf-8", "replace") for part in (self._head, self._tail))
        return f"{head}\n[{self.dropped} bytes truncated]\n{tail}"
