"""Groups that runs share: written, read, checked, and remembered (SAPO, swarm)."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from gtpo_jax.parts.plans.swarm import Rollout, Shared
from gtpo_jax.rollout.services.lines import LineFile
from gtpo_jax.rollout.services.stores import LARGEST, Store, Stored, check_run
from gtpo_jax.types import Problem, Trajectory, Turn

VERSION = 1
MOST_ROLLOUTS, MOST_TURNS, MOST_CHARACTERS = 256, 64, 200_000
_TEXTS = ("question", "answer", "family", "verifier")


def encode_group(members: Sequence[Trajectory], text: Callable[[Turn], str]) -> bytes:
    """A group as it is shared. `text` gives a turn without its end marker.

    Trajectories of unknown outcome are left out.
    """
    problem = members[0].problem
    record = {
        "version": VERSION,
        "problem": {
            "id": problem.id,
            **{name: getattr(problem, name) for name in _TEXTS},
            "choices": list(problem.choices),
        },
        "rollouts": [
            {"turns": [text(turn) for turn in member.turns], "success": member.success}
            for member in members
            if member.included and member.turns
        ],
    }
    return json.dumps(record).encode()


def decode_group(stored: Stored) -> Shared:
    """The group of a file of another run, whatever that holds.

    Raises `ValueError`, with one line, for a file that is none.
    """
    try:
        return _decode(stored)
    except (ValueError, RecursionError) as error:
        reason = "JSON nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{stored.id}: {reason}") from None


def _decode(stored: Stored) -> Shared:
    if len(stored.content) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes")
    record = _object("the file", json.loads(stored.content.decode()))
    if record.get("version") != VERSION:
        raise ValueError(f"version must be {VERSION}, got {_short(record.get('version'))}")
    fields = _object("problem", record.get("problem"))
    texts = {name: _text(name, fields.get(name)) for name in ("id", *_TEXTS)}
    if not texts["question"].strip() or not texts["answer"].strip():
        raise ValueError("the problem must have a question and an answer")
    choices = _list("choices", fields.get("choices"), 64)
    problem = Problem(**texts, choices=tuple(_text("a choice", choice) for choice in choices))
    rollouts = []
    for entry in _list("rollouts", record.get("rollouts"), MOST_ROLLOUTS):
        rollout = _object("a rollout", entry)
        turns = _list("turns", rollout.get("turns"), MOST_TURNS)
        success = rollout.get("success")
        if not turns or not isinstance(success, bool):
            raise ValueError("a rollout must have turns, and success true or false")
        rollouts.append(Rollout(tuple(_text("a turn", turn) for turn in turns), success))
    return Shared(stored.id, problem, tuple(rollouts))


def _object(what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object, got {_short(value)}")
    return value


def _list(what: str, value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what} must be a list of at most {most}, got {_short(value)}")
    return value


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        raise ValueError(
            f"{what} must be a text of at most {MOST_CHARACTERS:,} characters, got {_short(value)}"
        )
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class SharedGroups:
    """The swarm as a plan sees it: a store, and a file with all that was read from it.

    A step that is repeated gets what was read when it ran first, so a resumed run is the run that
    was not killed. Files that are no groups, and groups that `accept` refuses, are told once and
    skipped; so is a store that cannot be reached.
    """

    def __init__(
        self,
        store: Store,
        *,
        run: str,
        record: pathlib.Path,
        text: Callable[[Turn], str],
        accept: Callable[[Shared], None],
        tell: Callable[[str], None],
        newest: int = 32,
    ):
        """`run` is the name of this run, `record` the file of what was read. `accept` raises
        `ValueError` for a group that this run cannot play. The `newest` groups of each other run
        are read.
        """
        check_run(run)
        self.store, self.run, self.text = store, run, text
        self.accept, self.tell, self.newest = accept, tell, newest
        self.file = LineFile(record)
        self.known: dict[str, Shared] = {}
        self.refused: set[str] = set()
        self.steps: dict[int, list[str]] = {}
        for line in self.file.read():
            self._remember(line)

    def groups(self, step: int) -> Sequence[Shared]:
        """The groups that a step may draw from."""
        if step not in self.steps:
            self._read(step)
        return [self.known[id] for id in self.steps[step]]

    def share(self, step: int, group: int, members: Sequence[Trajectory]) -> None:
        """Gives a group to the others, unless unit tests judge it: those are not shared."""
        if not members or members[0].problem.unit_tests is not None:
            return
        try:
            self.store.put(Stored(self.run, step, group, encode_group(members, self.text)))
        except OSError as error:
            self.tell(f"a group could not be shared: {error}")

    def _read(self, step: int) -> None:
        found: list[str] = []
        new: list[dict] = []
        try:
            for stored in self.store.others(self.run, self.newest):
                if stored.run != self.run and self._admit(stored, new):
                    found.append(stored.id)
        except OSError as error:
            self.tell(f"groups of other runs could not be read: {error}")
        self.file.append(*new, {"step": step, "ids": found})
        self.steps[step] = found

    def _admit(self, stored: Stored, new: list[dict]) -> bool:
        """True if a group can be played; adds the line of a new one."""
        if stored.id in self.known or stored.id in self.refused:
            return stored.id in self.known
        try:
            shared = decode_group(stored)
            self.accept(shared)
        except ValueError as error:
            self.refused.add(stored.id)
            self.tell(f"a group of another run was refused: {error}")
            return False
        content = stored.content.decode()
        line = {"run": stored.run, "of": stored.step, "group": stored.group, "content": content}
        new.append(line)
        self._remember(line)
        return True

    def _remember(self, line: dict) -> None:
        if "ids" in line:
            self.steps[line["step"]] = line["ids"]
        else:
            content = line["content"].encode()
            shared = decode_group(Stored(line["run"], line["of"], line["group"], content))
            self.known[shared.id] = shared
