"""Problems and demonstrations in files.

An input names a file and its contents. `EF BB BF + …` begins with a byte order mark, `… twice` is
two equal lines, `999…(5,000 digits)` is a number of that length, and `column: type [values]` is a
column of a Parquet file. If an input only names a file, the file is made here.
"""

from __future__ import annotations

import csv
import gzip
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.cases.row import Adapter, Outcome, attempt
from gtpo_jax.tasks import conversations, reading

COUNT = 164  # problems of a file that is only named, as many as HumanEval has
MARK = "EF BB BF + "

CALL = {"type": "function", "function": {"name": "python", "arguments": {"code": "print(1)"}}}


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapters of the areas `data files` and `sft files`."""
    yield {"data files": _problems, "sft files": _demonstrations}


def _problems(given: Mapping[str, Any]) -> Outcome | None:
    [(name, contents)] = given.items()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        if name == "source":
            path = _named(folder / contents.split(",")[0])
        else:
            path = folder / name
            written = _write(path, contents)
            if not written:
                return None
        if name.startswith("sft."):
            return attempt(lambda: conversations.read_conversations([path], lambda read: read))
        return attempt(lambda: reading.read_problems(str(path)).entries)


def _write(path: pathlib.Path, contents: str) -> bool:
    """Writes a described file; returns False if the description is prose."""
    column = re.fullmatch(r"(\w+): (\w+) \[(.*)\]", contents)
    if path.suffix == ".parquet":
        if column is not None:
            _write_column(path, *column.groups())
        return column is not None
    encoding = "utf-8-sig" if contents.startswith(MARK) else "utf-8"
    text = contents.removeprefix(MARK)
    if text.endswith(" twice"):
        text = "\n".join([text.removesuffix(" twice")] * 2)
    text = re.sub(r"(\d)\d*…\(([\d,]+) digits\)", lambda m: m[1] * int(m[2].replace(",", "")), text)
    text = text.replace('"messages":[…]', f'"messages":{json.dumps(_messages({}))}')
    if text.startswith("version https://git-lfs"):
        text = text.partition(" …")[0] + f"\noid sha256:{'0' * 64}\nsize 10570616\n"
    path.write_text(text, encoding=encoding)
    return "…" not in text


def _write_column(path: pathlib.Path, name: str, dtype: str, values: str) -> None:
    import pyarrow  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    read = [float(value) for value in values.split(",")]
    columns = {
        "question": pyarrow.array([f"q{n}" for n in range(len(read))]),
        name: pyarrow.array(read, type=getattr(pyarrow, dtype)()),
    }
    parquet.write_table(pyarrow.table(columns), path)


def _named(path: pathlib.Path) -> pathlib.Path:
    """A file of plain problems with this name, in the format that the name implies."""
    records = [{"question": f"q{n}", "answer": str(n)} for n in range(COUNT)]
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in path.suffixes:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(records)
        else:
            file.write("".join(json.dumps(record) + "\n" for record in records))
    return path


def _demonstrations(given: Mapping[str, Any]) -> Outcome:
    """One conversation in which the given part replaces the usual one."""
    call = CALL
    if "arguments" in given:
        call = {"type": "function", "function": {**CALL["function"], **given}}
    elif "call" in given:
        call = json.loads(given["call"].replace("{…}", json.dumps(CALL["function"])))
    messages = _messages(call)
    if "message" in given:
        messages[-1] = json.loads(given["message"].replace("…", "\\\\boxed{1}"))
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary) / "sft.jsonl"
        path.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
        return attempt(lambda: conversations.read_conversations([path], lambda read: read))


def _messages(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": [call or CALL]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "It is \\boxed{1}."},
    ]
