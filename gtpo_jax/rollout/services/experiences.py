"""The list of experiences of a run, kept in a file (Training-Free GRPO)."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

from gtpo_jax.parts.plans.experienced import Edit, edited
from gtpo_jax.rollout.services.lines import LineFile


class ExperienceFile:
    """Edits of experiences as lines of a file: `step`, `group`, and `edits`.

    The list at a step follows from the edits of the steps before it, so a run that is resumed has
    the list of the run that was not killed. Edits of steps that are repeated are dropped.
    """

    def __init__(self, path: pathlib.Path, *, most: int, write: bool = True):
        """`most` bounds the list. Without `write`, as in all processes but the first, the edits of
        this process are kept in memory only.
        """
        self.file = LineFile(path)
        self.most = most
        self.write = write
        self.records = self.file.read()
        self._begun: tuple[int, list[str]] | None = None

    def texts(self, step: int) -> Sequence[str]:
        """The experiences when a step begins."""
        if self._begun is None or self._begun[0] > step:
            self._drop_from(step)
            self._begun = 0, []
        begun, texts = self._begun
        due = [record for record in self.records if begun <= record["step"] < step]
        due.sort(key=lambda record: (record["step"], record["group"]))
        for _, records in itertools.groupby(due, key=lambda record: record["step"]):
            edits = [Edit(*edit) for record in records for edit in record["edits"]]
            texts = edited(texts, edits, most=self.most)
        self._begun = step, texts
        return texts

    def edit(self, step: int, group: int, edits: Sequence[Edit]) -> None:
        """Records the edits of a group."""
        record = {"step": step, "group": group, "edits": [list(edit) for edit in edits]}
        self.records.append(record)
        if self.write:
            self.file.append(record)

    def _drop_from(self, step: int) -> None:
        """Drops what a killed run wrote of this step and later ones; it will be written again."""
        self.records = [record for record in self.records if record["step"] < step]
        if self.write and self.file.path.exists():
            self.file.rewrite(self.records)
