"""Writes scalar metrics: one JSON line per step, TensorBoard, and optionally Weights & Biases."""

from __future__ import annotations

import json
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

import tensorboardX


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and TensorBoard event files in a folder.

    `project`: also logs to a run of Weights & Biases in this project, which shows `config`.
    `resume_step`: drops all records after this step, whose work was lost and will be repeated.
    `write=False` writes nothing: only one of several processes writes.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        resume_step: int = 0,
        write: bool = True,
        project: str = "",
        config: Mapping[str, Any] | None = None,
    ):
        folder = pathlib.Path(folder)
        self.path = folder / "metrics.jsonl"
        self._file = self._board = self._hosted = None
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        records = read_metrics(self.path)
        if project:
            last = max((record["step"] for record in records), default=0)
            self._hosted = _HostedRun(folder, project, config or {}, resume_step, last)
        lines = [json.dumps(record) + "\n" for record in records if record["step"] <= resume_step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one record. A slash in a name groups metrics, as in `rollout/success`."""
        if self._file is None or self._board is None:
            return
        record = {"step": step} | {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        if self._hosted is not None:
            self._hosted.write(record)

    def close(self) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()
        if self._hosted is not None:
            self._hosted.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _HostedRun:
    """The run of Weights & Biases that belongs to a folder; `wandb.json` holds its id.

    The service accepts every step once and in order, so for steps that a resumed run repeats it
    keeps the first values. `last` is the last step recorded in the folder, which may be after the
    step that is resumed.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        project: str,
        config: Mapping[str, Any],
        resume_step: int,
        last: int,
    ):
        wandb = import_wandb()
        self._path = folder / "wandb.json"
        resumed = resume_step > 0 and self._path.exists()
        saved = json.loads(self._path.read_text(encoding="utf-8")) if resumed else {}
        name = saved.get("id") or secrets.token_hex(8)
        self._sent = max(saved.get("sent", 0), last) if resumed else 0
        self._save(name)
        run = wandb.init(
            project=project,
            id=name,
            name="/".join(folder.absolute().parts[-2:]),
            dir=str(folder),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        if run.resumed:  # the service knows which steps it has received
            self._sent = run.starting_step - 1
        self._run, self._name = run, name

    def write(self, record: Mapping[str, float]) -> None:
        step = int(record["step"])
        if step > self._sent:
            self._run.log({k: v for k, v in record.items() if k != "step"}, step=step)
            self._sent = step

    def close(self) -> None:
        self._run.finish()
        self._save(self._name)

    def _save(self, name: str) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"id": name, "sent": self._sent}) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def import_wandb() -> Any:
    """Imports the package wandb; a ValueError says how to install it if it is missing."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "Weights & Biases was asked for and is not installed: pip install -e '.[wandb]'"
        ) from error
    return wandb


def read_metrics(path: str | pathlib.Path) -> list[dict]:
    """The records of a metrics file; empty if there is none. An incomplete last line is skipped."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
