"""Scalars at the log boundary: one JSON line a step, and the same to TensorBoard."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

import tensorboardX


class MetricsWriter:
    """Appends records of scalars to `metrics.jsonl` and to TensorBoard event files of a folder.

    Opened with `resume_step`, it first drops every record beyond that step: they belong to work
    that was lost and will be done again. Without `write` it does nothing: one process of several
    writes.
    """

    def __init__(self, folder: str | pathlib.Path, *, resume_step: int = 0, write: bool = True):
        folder = pathlib.Path(folder)
        self.path = folder / "metrics.jsonl"
        self._file = self._board = None
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read_metrics(self.path) if r["step"] <= resume_step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        temporary.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One record. Names are grouped by a slash, as in `rollout/success`."""
        if self._file is None or self._board is None:
            return
        record = {"step": step} | {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_metrics(path: str | pathlib.Path) -> list[dict]:
    """The records of a metrics file; none when it does not exist. A last line cut short is left
    out.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
