"""Cases where this project wants another result than the report, each with the reason."""

from __future__ import annotations

DECISIONS: dict[tuple[str, str], str] = {
    ("executor", '{"program": "print(2**20000 % 10**9)"}'): (
        "The value is 406309376; the report expects another number."
    ),
}
"""(area, input as JSON with sorted keys) → the reason."""
