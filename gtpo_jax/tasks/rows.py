"""Records of a data set, one after the other, each with the place that an error in it would name.

| a source is | read as |
|---|---|
| `FILE.jsonl` | one JSON object a line |
| `FILE.json` | the same, or one list of objects |
| `FILE.parquet` | Parquet |
| `FOLDER[:CONFIG][:SPLIT]` | what `save_to_disk` of Hugging Face wrote, or a clone of data files |
| `NAME[:CONFIG][:SPLIT]` | a data set in the local cache of Hugging Face |
| `hub:NAME[:CONFIG][:SPLIT]` | the same; where it is not cached, the hub is asked |

Without `hub:` nothing is asked over the network. All but JSON needs the extra `tasks`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

from gtpo_jax.tasks import huggingface, jsonl
from gtpo_jax.tasks.mappings.fields import Record

FILES = {
    ".jsonl": jsonl.read_lines,
    ".json": jsonl.read_json,
    ".parquet": huggingface.read_parquet,
}
"""What is read as a file, by the end of its name."""
HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Records with their places, and what the data set is called."""

    label: str
    rows: Iterator[tuple[str, Record]]  # "line 3" → the record


def open_rows(source: str) -> Rows:
    """The records of a source; what it may be is in the table of this module."""
    path = pathlib.Path(source)
    if path.suffix in FILES and not source.startswith(HUB):
        return Rows(path.stem, FILES[path.suffix](path))
    if path.is_file():
        raise ValueError(f"{source} must end with {', '.join(FILES)}; rename or convert it")
    name, *parts = source.removeprefix(HUB).split(":")
    if not name or len(parts) > 2 or not all(parts):
        raise ValueError(f"{source!r} is no source of problems; expected NAME[:CONFIG][:SPLIT]")
    config = parts[0] if len(parts) == 2 else None
    split = parts[-1] if parts else None
    folder = pathlib.Path(name)
    if not source.startswith(HUB) and folder.is_dir():
        found = huggingface.read_folder(folder, config, split)
    else:
        found = huggingface.read_named(name, config, split, ask=source.startswith(HUB))
    used, rows = found
    label = folder.resolve().name if folder.is_dir() else folder.name
    return Rows("-".join([label, *([config] if config else []), used]), rows)
