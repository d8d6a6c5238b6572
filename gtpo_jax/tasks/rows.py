"""Iterates over records of a data set, each with its place for error messages.

| a source is | read as |
|---|---|
| `FILE.jsonl` | one JSON object per line |
| `FILE.json` | the same, or one list of objects |
| `FILE.csv`, `FILE.tsv` | a table of text; the first row names the fields |
| `FILE.parquet` | Parquet |
| `FOLDER[:CONFIG][:SPLIT]` | a data set written by `save_to_disk`, or a clone of data files |
| `NAME[:CONFIG][:SPLIT]` | a data set in the local cache of Hugging Face |
| `hub:NAME[:CONFIG][:SPLIT]` | the same, downloaded from the hub if it is not cached |

Text files are UTF-8, and may be compressed: `FILE.jsonl.gz`, `.bz2`, `.xz`. Without `hub:` the
network is not used. Parquet and data sets need the extra `tasks`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

from gtpo_jax.language import files
from gtpo_jax.tasks import huggingface, jsonl, tabular
from gtpo_jax.tasks.mappings.fields import Record

TEXTS = {
    ".jsonl": jsonl.read_lines,
    ".ndjson": jsonl.read_lines,
    ".json": jsonl.read_json,
    ".csv": tabular.read_csv,
    ".tsv": tabular.read_tsv,
}
"""Suffix of a text file → reader. A suffix of compression may follow."""
FILES = {**TEXTS, ".parquet": huggingface.read_parquet}
"""Suffix of any file → reader."""
HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Records with their places, and the name of the data set."""

    label: str
    rows: Iterator[tuple[str, Record]]  # "line 3" → the record


def open_rows(source: str) -> Rows:
    """Opens a source, given in one of the forms of this module's table."""
    path = pathlib.Path(source)
    plain = files.uncompressed(path)
    read = (FILES if plain == path else TEXTS).get(plain.suffix)
    if read is not None and not source.startswith(HUB):
        return Rows(plain.stem, read(path))
    if path.is_file():
        raise ValueError(
            f"{source} must end with {', '.join(FILES)}; text files may add"
            f" {', '.join(files.COMPRESSED)}; rename or convert it"
        )
    name, *parts = source.removeprefix(HUB).split(":")
    if not name or len(parts) > 2 or not all(parts):
        raise ValueError(f"{source!r} is not a source of problems; expected NAME[:CONFIG][:SPLIT]")
    config = parts[0] if len(parts) == 2 else None
    split = parts[-1] if parts else None
    folder = pathlib.Path(name)
    if not source.startswith(HUB) and folder.is_dir():
        chosen, rows = huggingface.read_folder(folder, config, split)
    else:
        chosen, rows = huggingface.read_named(name, config, split, ask=source.startswith(HUB))
    label = folder.resolve().name if folder.is_dir() else folder.name
    return Rows("-".join([label, *([config] if config else []), chosen]), rows)
