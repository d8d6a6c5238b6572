"""Cuts tool output to its budget of tokens: its beginning, a mark, its end."""

from __future__ import annotations

from collections.abc import Sequence

from gtpo_jax.tools.sandbox import capture
from gtpo_jax.types import Tokenizer

_SHORT = "..."


def excerpt(ids: Sequence[int], room: int, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """At most `room` ids for an output of these `ids`, and the number of tokens dropped.

    Half of the room is for the beginning; the rest, including what whole lines leave of the first
    half, is for the end. The last line, in which a program tells why it failed, may take three
    quarters. Both parts are cut between lines, or else between characters (see
    `capture.whole_parts`). The mark between them is `[120 tokens truncated]` on a line of its own,
    or `...` if that would take more than a quarter of the room. The excerpt is empty if not even
    the mark fits.

    The excerpt is encoded as one text, so tokens may merge across the mark.
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
        head_count = _count(pieces, len(head))
        tail = b"".join(pieces[len(ids) - (spare - head_count) :])
        if not whole.endswith(b"\n" + tail):
            _, tail = capture.whole_parts(b"", tail)
        dropped = len(ids) - head_count - _count(pieces[::-1], len(tail))
        encoded = tokenizer.encode(_joined(head, tail, whole, dropped, named=named))
        if len(encoded) <= room:
            return encoded, dropped
        spare -= len(encoded) - room
    return [], len(ids)


def _named(dropped: int) -> str:
    return f"[{dropped} tokens truncated]\n"


def _count(pieces: Sequence[bytes], size: int) -> int:
    """Number of whole pieces within the first `size` bytes."""
    count = 0
    while count < len(pieces) and len(pieces[count]) <= size:
        size -= len(pieces[count])
        count += 1
    return count


def _joined(head: bytes, tail: bytes, whole: bytes, dropped: int, *, named: bool) -> str:
    """Joins the two parts with the mark between them."""
    at_line = whole[: len(whole) - len(tail)].endswith(b"\n")
    mark = _named(dropped) if named else f"{_SHORT}\n" if at_line else _SHORT
    if named and head and not head.endswith(b"\n"):
        mark = f"\n{mark}"
    return f"{head.decode('utf-8', 'replace')}{mark}{tail.decode('utf-8', 'replace')}"
