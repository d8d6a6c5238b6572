"""Writes and reads trajectories as JSON lines, for `report` and other programs.

A record is one trajectory. It holds the text of each token, so no tokenizer is needed to read it:

| key | content |
|---|---|
| `version` | version of this format |
| `step`, `group`, `sample` | origin of the trajectory |
| `problem` | `id`, `question`, `answer`, `family` |
| `prompt` | text, with control symbols as their names |
| `stop_reason`, `verdict`, `answer`, `success`, `included` | end of the episode |
| `facts` | name → number, or one number per turn, of each fact that the method read; files of \
earlier versions do not have it |
| `shared_turns`, `off_policy` | turns that begin it and are those of another trajectory; whether \
its turns were written for the policy |
| `turns` | `pieces`, `given`, `markers`, `logprobs`, `entropies`, `codes`, `violation`, \
`results`, `observation`, `observation_dropped`, `credit` |

`pieces` holds one text per token, and their concatenation is the text of the turn: a character of
several tokens belongs to the last of them. The policy did not write the first `given` of them.
`markers` are the indices of control symbols. A number that is not finite is null. `logprobs` and
`entropies` are empty where they are not known.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import math
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gtpo_jax.types import Tokenizer, ToolResult, Trajectory, Turn

VERSION = 1
"""Version of the format. Readers accept no other."""

DIGITS = 4
"""Decimal places of log-probs, entropies and seconds."""

_STEP = re.compile(r"step-(\d+)\.jsonl\.gz")


def trajectory_record(
    trajectory: Trajectory,
    tokenizer: Tokenizer,
    *,
    step: int,
    credit: Mapping[str, np.ndarray] | None = None,
    facts: Mapping[str, np.ndarray] | None = None,
) -> dict:
    """A trajectory as a JSON object.

    `credit`: name, such as `reward`, `return` or `advantage` → one number per turn. `facts`: name →
    a number, or one number per turn. Raises `ValueError` if the number of values is not the number
    of turns.
    """
    credit = {name: np.asarray(values, np.float64) for name, values in (credit or {}).items()}
    facts = {name: np.asarray(values) for name, values in (facts or {}).items()}
    turns = (len(trajectory.turns),)
    wrong = [("credit", name, x.shape) for name, x in credit.items() if x.shape != turns]
    wrong += [("fact", name, x.shape) for name, x in facts.items() if x.shape not in ((), turns)]
    for kind, name, shape in wrong:
        raise ValueError(
            f"{kind} {name!r} of a trajectory of {len(trajectory.turns)} turns must be one"
            f" number a turn, got shape {shape}; leave out turns that are padding"
        )
    problem = trajectory.problem
    return {
        "version": VERSION,
        "step": int(step),
        "group": int(trajectory.group),
        "sample": int(trajectory.sample),
        "problem": {
            "id": problem.id,
            "question": problem.question,
            "answer": problem.answer,
            "family": problem.family,
        },
        "prompt": tokenizer.decode(trajectory.prompt.tolist()),
        "stop_reason": str(trajectory.stop_reason),
        "verdict": str(trajectory.verdict),
        "answer": trajectory.answer,
        "success": trajectory.success,
        "included": trajectory.included,
        "shared_turns": int(trajectory.shared_turns),
        "off_policy": trajectory.off_policy,
        "facts": {name: _number(values.tolist()) for name, values in facts.items()},
        "turns": [
            _turn_record(turn, tokenizer, {name: values[i] for name, values in credit.items()})
            for i, turn in enumerate(trajectory.turns)
        ],
    }


def _turn_record(turn: Turn, tokenizer: Tokenizer, credit: Mapping[str, float]) -> dict:
    pieces, markers = token_pieces(turn.tokens.tolist(), tokenizer)
    return {
        "pieces": pieces,
        "given": int(turn.given),
        "markers": markers,
        "logprobs": _rounded(turn.logprobs),
        "entropies": _rounded(turn.entropies),
        "codes": list(turn.codes),
        "violation": turn.violation,
        "results": [_result_record(result) for result in turn.results],
        "observation": tokenizer.decode(turn.observation.tolist()),
        "observation_dropped": int(turn.observation_dropped),
        "credit": {name: _number(float(value)) for name, value in credit.items()},
    }


def _result_record(result: ToolResult) -> dict:
    return {
        "status": str(result.status),
        "stdout": result.stdout,
        "stderr": result.stderr,
        "wall_seconds": _finite(round(float(result.wall_seconds), DIGITS)),
        "truncated_bytes": int(result.truncated_bytes),
        "state_lost": result.state_lost,
    }


def token_pieces(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """One text per token, and the indices of control symbols, which are written as their names.

    A character of several tokens belongs to the last of them; the others are empty. Bytes that are
    not UTF-8 become replacement characters.
    """
    pieces: list[str] = []
    markers: list[int] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for i, token in enumerate(ids):
        text = tokenizer.token_bytes(token)
        if text:
            pieces.append(decoder.decode(text))
            continue
        # A control symbol ends the text before it, even within a character.
        unfinished = decoder.decode(b"", final=True)
        decoder.reset()
        if unfinished:
            pieces[-1] += unfinished
        pieces.append(tokenizer.decode([token]) or f"<token {token}>")
        markers.append(i)
    unfinished = decoder.decode(b"", final=True)
    if unfinished:
        pieces[-1] += unfinished
    return pieces, markers


def _number(value: Any) -> Any:
    """A number, or a list of them: floats with 6 significant digits, truth values as 0 and 1."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    return _finite(float(f"{value:.6g}")) if isinstance(value, float) else int(value)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [_finite(round(float(value), DIGITS)) for value in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_records(path: str | pathlib.Path, records: Iterable[dict]) -> None:
    """Writes one JSON line per record, and creates the folder if it is missing.

    The file is compressed if its name ends with `.gz`. It gets its name once it is complete. Equal
    records give equal files. Raises `ValueError` for a number that is not finite.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(temporary.open("wb"))
            if path.suffix == ".gz":
                # Without name and time, which differ between equal runs.
                file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
            for record in records:
                # ASCII, since a tool may print half of a surrogate pair, which is not UTF-8.
                file.write(json.dumps(record, allow_nan=False).encode("ascii") + b"\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_records(path: str | pathlib.Path) -> Iterator[dict]:
    """Iterates over the records of a file.

    Raises `ValueError` if the file cannot be read, or if a line is not a record of this version.
    """
    path = pathlib.Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for line in file:
                number += 1
                record = json.loads(line)
                version = record.get("version") if isinstance(record, dict) else None
                if version != VERSION:
                    raise ValueError(f"expected a record of version {VERSION}, got {version}")
                yield record
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read trajectories from {path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None


def step_path(folder: str | pathlib.Path, step: int) -> pathlib.Path:
    """Path of the trajectories of a step in a folder."""
    return pathlib.Path(folder) / f"step-{step:06d}.jsonl.gz"


def saved_records(folder: str | pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """Steps with trajectories in a folder, and their files, in the order of steps."""
    matches = [(_STEP.fullmatch(path.name), path) for path in pathlib.Path(folder).glob("*")]
    return sorted((int(match[1]), path) for match, path in matches if match)
