"""Tool output that is longer than its budget of tokens: its beginning, a mark, its end."""

from __future__ import annotations

from collections.abc import Sequence

from gtpo_jax.tools.sandbox import capture
from gtpo_jax.types import Tokenizer

_SHORT = "..."


def excerpt(ids: Sequence[int], room: int, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """At most `room` ids of an output of these `ids`, and how many of its tokens are left out.

    Half of the room is for the beginning and half, with what whole lines leave of the other, for
    the end. The last line, in which a program tells why it failed, may take three quarters. Each
    part is cut between lines, or else between characters, as `capture.whole_parts` says. The mark
    between them is `[120 tokens truncated]` in a line of its own, or `...` where the former would
    take more than a quarter of the room. Nothing is left where not even that has room.

    The ids are those of one text, so a tokenizer may join what stands beside the mark with it.
    """
    if len(ids) <= room:
        return list(ids), 0
    pieces = [tokenizer.token_bytes(token) for token in ids]
    whole = b"".join(pieces)
    named = 4 * len(tokenizer.encode(f"\n{_named(len(ids))}")) <= room
    spare = room - len(tokenizer.encode(_named(len(ids)) if named else _SHORT))
    last_line = len(ids) - _count(pieces, whole.rstrip().rfind(b"\n") + 1)
    while spare >= 0:
        ending = last_line if spare // 2 < last_line <= 3 * spare // 4 else spare // 2
        head, _ = capture.whole_parts(b"".join(pieces[: spare - ending]), b"")
        kept = _count(pieces, len(head))
        tail = b"".join(pieces[len(ids) - (spare - kept) :])
        if not whole.endswith(b"\n" + tail):
            _, tail = capture.whole_parts(b"", tail)
        dropped = len(ids) - kept - _count(pieces[::-1], len(tail))
        found = tokenizer.encode(_joined(head, tail, whole, dropped, named=named))
        if len(found) <= room:
            return found, dropped
        spare -= len(found) - room
    return [], len(ids)


def _named(dropped: int) -> str:
    return f"[{dropped} tokens truncated]\n"


def _count(pieces: Sequence[bytes], size: int) -> int:
    """How many pieces the first `size` bytes hold whole."""
    count = 0
    while count < len(pieces) and len(pieces[count]) <= size:
        size -= len(pieces[count])
        count += 1
    return count


def _joined(head: bytes, tail: bytes, whole: bytes, dropped: int, *, named: bool) -> str:
    """The parts with the mark between them."""
    at_line = whole[: len(whole) - len(tail)].endswith(b"\n")
    mark = _named(dropped) if named else f"{_SHORT}\n" if at_line else _SHORT
    if named and head and not head.endswith(b"\n"):
        mark = f"\n{mark}"
    return f"{head.decode('utf-8', 'replace')}{mark}{tail.decode('utf-8', 'replace')}"
