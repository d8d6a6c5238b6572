"""Cases where this project wants another result than the report, each with the reason."""

from __future__ import annotations

DECISIONS: dict[tuple[str, str], str] = {
    ("executor", '{"program": "print(2**20000 % 10**9)"}'): (
        "The value is 406309376; the report expects another number."
    ),
    (
        "unit_tests",
        '{"answer": "prose + fenced program; fenced program + prose; unclosed fence"}',
    ): (
        "All three are right: models answer so, and docs/verifiers.md says which block is the"
        " program. The report expects what was documented before."
    ),
}
"""(area, input as JSON with sorted keys) → the reason."""
