"""Places that runs have in common: a folder, or the address of a hub."""

from __future__ import annotations

import http.client
import json
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from gtpo_jax.tools.http_post import Poster

RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Names of runs, which are names of folders."""

LARGEST = 1 << 20
"""Bytes of a group that are read at most."""

_FILE = re.compile(r"step-(\d{1,9})-group-(\d{1,6})\.json")


class Stored(NamedTuple):
    """A group as it lies in a store; nothing of its content is checked."""

    run: str
    step: int
    group: int
    content: bytes

    @property
    def id(self) -> str:
        return f"swarm/{self.run}/{self.step}/{self.group}"


class Store(Protocol):
    """Where groups are shared."""

    def put(self, stored: Stored) -> None:
        """Adds a group of this run. Raises `OSError` if the place cannot be reached."""
        ...

    def others(self, run: str, newest: int) -> Iterator[Stored]:
        """The `newest` groups of each run but `run`, in an order of their own. Raises `OSError` if
        the place cannot be reached.
        """
        ...


def check_run(name: str) -> None:
    """Raises `ValueError` unless a name can be that of a run in a store."""
    if not RUN.fullmatch(name):
        raise ValueError(
            f"the name of a run that shares groups must be letters, digits, '_', '.' and '-', at"
            f" most 64, got {name!r}; rename the folder of the run"
        )


class FolderStore:
    """A folder with a folder for each run, and a file for each group."""

    def __init__(self, folder: pathlib.Path, *, replace: bool = True):
        """Without `replace`, a group that is there stays as it is."""
        self.folder = folder
        self.replace = replace

    def put(self, stored: Stored) -> None:
        check_run(stored.run)
        place = self.folder / stored.run
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"step-{stored.step:06d}-group-{stored.group:04d}.json"
        if path.exists() and not self.replace:
            return
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(stored.content)
        temporary.replace(path)  # others never see half a file

    def others(self, run: str, newest: int) -> Iterator[Stored]:
        if not self.folder.is_dir():
            return
        for place in sorted(self.folder.iterdir()):
            if place.name != run and RUN.fullmatch(place.name) and place.is_dir():
                yield from self._newest(place, newest)

    def _newest(self, place: pathlib.Path, count: int) -> Iterator[Stored]:
        matches = [(_FILE.fullmatch(path.name), path) for path in place.iterdir()]
        found = sorted((int(m[1]), int(m[2]), path) for m, path in matches if m)
        for step, group, path in found[-count:]:
            # A link could lead to any file of this machine.
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                yield Stored(place.name, step, group, file.read(LARGEST + 1))


class HttpStore:
    """A hub, as `launch.swarm` serves it: posts of JSON to `put` and `others`."""

    def __init__(self, address: str, *, seconds: float = 30.0, most_bytes: int = 1 << 26):
        self.putting = Poster(address, "/put", headers={"Content-Type": "application/json"})
        self.asking = Poster(address, "/others", headers={"Content-Type": "application/json"})
        self.seconds = seconds
        self.most_bytes = most_bytes

    def put(self, stored: Stored) -> None:
        check_run(stored.run)
        self._post(self.putting, encode(stored))

    def others(self, run: str, newest: int) -> Iterator[Stored]:
        answer = self._post(self.asking, {"run": run, "newest": newest})
        found = answer.get("groups") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise OSError("the hub did not answer with a list of groups")
        for one in found:
            yield decode(one)

    def close(self) -> None:
        """Closes the connections."""
        for poster in (self.putting, self.asking):
            poster.close()

    def _post(self, poster: Poster, body: object) -> object:
        try:
            response = poster.post(
                json.dumps(body).encode(), seconds=self.seconds, max_bytes=self.most_bytes
            )
        except http.client.HTTPException as error:
            raise OSError(f"the hub answered with no HTTP: {error!r}") from error
        if response.status != 200 or len(response.body) > self.most_bytes:
            raise OSError(f"the hub answered {response.status}, {len(response.body):,} bytes")
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError):
            raise OSError("the hub did not answer with JSON") from None


def encode(stored: Stored) -> dict[str, object]:
    """A group as a hub gets and gives it."""
    return {**stored._asdict(), "content": stored.content.decode("utf-8", "replace")}


def decode(value: object) -> Stored:
    """The group that `encode` made. Raises `OSError` for anything else."""
    fields = value if isinstance(value, dict) else {}
    run, step, group = fields.get("run"), fields.get("step"), fields.get("group")
    content = fields.get("content")
    if not (isinstance(run, str) and RUN.fullmatch(run) and isinstance(content, str)):
        raise OSError("a group must have the name of a run and a content, both texts")
    for number in (step, group):
        if type(number) is not int or not 0 <= number < 10**9:
            raise OSError("a group must have a step and a number, both integers from 0")
    return Stored(run, step, group, content.encode("utf-8", "replace"))
