"""Cases where this project wants another result than the report, each with the reason."""

from __future__ import annotations

DECISIONS: dict[tuple[str, str], str] = {
    (
        "data files",
        '{"file.jsonl": "{\\"id\\":NaN,\\"question\\":\\"q\\",\\"answer\\":1} twice"}',
    ): (
        "NaN is an error in every field, with its file and line: an id that is NaN says that the"
        " program which wrote the file lost it, and a made-up id would hide that."
    ),
    ("executor", '{"program": "print(2**20000 % 10**9)"}'): (
        "The value is 406309376; the report expects another number."
    ),
}
"""(area, input as JSON with sorted keys) → the reason."""
