"""Scalars at the log boundary: one JSON line a step, and the same to TensorBoard; by choice also to
Weights & Biases.
"""

from __future__ import annotations

import json
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

import tensorboardX


class MetricsWriter:
    """Appends records of scalars to `metrics.jsonl` and to TensorBoard event files of a folder, and
    to a run of Weights & Biases in `project` if one is named.

    Opened with `resume_step`, it first drops every record beyond that step: they belong to work
    that was lost and will be done again. Without `write` it does nothing: one process of several
    writes. `config` is shown with the run of Weights & Biases.
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
        told = read_metrics(self.path)
        if project:
            last = max((record["step"] for record in told), default=0)
            self._hosted = _HostedRun(folder, project, config or {}, resume_step, last)
        kept = [record for record in told if record["step"] <= resume_step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(
            "".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8"
        )
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
    """One run of Weights & Biases, the same for all of a folder's life; `wandb.json` has its id.

    It takes every step once, in their order: of steps that a resumed run does again, it keeps what
    they were at first. `last` is the last step that the folder tells of, which may be beyond the
    one it resumes from.
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
        found = resume_step > 0 and self._path.exists()
        saved = json.loads(self._path.read_text(encoding="utf-8")) if found else {}
        name = saved.get("id") or secrets.token_hex(8)
        self._sent = max(saved.get("sent", 0), last) if found else 0
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
        if run.resumed:  # the service knows better what has reached it
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
    """The library of Weights & Biases; a ValueError that says how to install it without."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "Weights & Biases was asked for and is not installed: pip install -e '.[wandb]'"
        ) from error
    return wandb


def read_metrics(path: str | pathlib.Path) -> list[dict]:
    """The records of a metrics file; none when it does not exist. A last line cut short is left
    out.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
