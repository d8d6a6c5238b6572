"""Records of a data set, one after the other, each with the place that an error in it would name.

| a source is | read as |
|---|---|
| `FILE.jsonl` | one JSON object a line |
| `FILE.json` | the same, or one list of objects |
| `FILE.csv`, `FILE.tsv` | a table of text, its first row the names of the fields |
| `FILE.parquet` | Parquet |
| `FOLDER[:CONFIG][:SPLIT]` | what `save_to_disk` of Hugging Face wrote, or a clone of data files |
| `NAME[:CONFIG][:SPLIT]` | a data set in the local cache of Hugging Face |
| `hub:NAME[:CONFIG][:SPLIT]` | the same; where it is not cached, the hub is asked |

Files of text are UTF-8, and may be compressed: `FILE.jsonl.gz`, `.bz2`, `.xz`. Without `hub:`
nothing is asked over the network. Parquet and data sets need the extra `tasks`.
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
"""Files of text by the end of their name, behind which a suffix of compression may stand."""
FILES = {**TEXTS, ".parquet": huggingface.read_parquet}
"""Every kind of file by the end of its name."""
HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Records with their places, and what the data set is called."""

    label: str
    rows: Iterator[tuple[str, Record]]  # "line 3" → the record


def open_rows(source: str) -> Rows:
    """The records of a source; what it may be is in the table of this module."""
    path = pathlib.Path(source)
    plain = files.uncompressed(path)
    read = (FILES if plain == path else TEXTS).get(plain.suffix)
    if read is not None and not source.startswith(HUB):
        return Rows(plain.stem, read(path))
    if path.is_file():
        raise ValueError(
            f"{source} must end with {', '.join(FILES)}, those of text perhaps with"
            f" {', '.join(files.COMPRESSED)} behind it; rename or convert it"
        )
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
