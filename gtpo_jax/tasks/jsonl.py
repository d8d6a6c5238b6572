"""Problems from JSON lines: `question`, `answer`, optional `id`, optional `expression`.

An `expression` is the arithmetic that solves the problem; a demonstration is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import re

from gtpo_jax.tasks.source import Answer, Call, Noise, Script, with_noise
from gtpo_jax.types import Problem

SLIP_SHARE = 0.3
"""Share of demonstrations that use a wrong operator or exchange the operands."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a problem file."""

    problem: Problem
    expression: str | None


def read_problems(path: str | pathlib.Path) -> list[Entry]:
    """All entries of a file. A broken line is an error that names it, before any work is done."""
    path = pathlib.Path(path)
    try:
        # Not `splitlines`: it also breaks at separators that may stand inside a JSON text.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read problems from {path}: {error}") from None
    entries: list[Entry] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            entries.append(_entry(path, number, line))
            first = line_of.setdefault(entries[-1].problem.id, number)
            if first != number:
                raise ValueError(
                    f"{path}, line {number}: the id {entries[-1].problem.id!r} is that of line"
                    f" {first}; ids must differ"
                )
    if not entries:
        raise ValueError(f"{path} holds no problem; expected one JSON object a line")
    return entries


def _entry(path: pathlib.Path, number: int, line: str) -> Entry:
    where = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
    record.setdefault("id", f"{path.stem}-{number}")
    for field in ("question", "answer", "id"):
        value = record.get(field)
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not plain or not str(value).strip():
            raise ValueError(f"{where}: `{field}` must be a text or a number, got {value!r}")
    expression = record.get("expression")
    if expression is not None and not isinstance(expression, str):
        raise ValueError(f"{where}: `expression` must be a text, got {expression!r}")
    problem = Problem(
        id=str(record["id"]),
        question=str(record["question"]).strip(),
        answer=str(record["answer"]).strip(),
        family=path.stem,
    )
    return Entry(problem, expression)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlTask:
    """Training problems of one file, in an order reshuffled each epoch; evaluation from another."""

    train: tuple[Entry, ...]
    evaluation: tuple[Entry, ...]
    seed: int
    noise: Noise = dataclasses.field(default_factory=Noise)

    def train_problem(self, index: int) -> Problem:
        return self._shuffled(self.train, "train", index).problem

    def held_out(self, count: int) -> list[Problem]:
        return [entry.problem for entry in self.evaluation[:count]]

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        solved = tuple(entry for entry in self.train if entry.expression)
        if not solved:
            raise ValueError(
                "no problem of the training file has an `expression` to make a demonstration of;"
                " add some, or start from a checkpoint that can already call the tool"
            )
        entry = self._shuffled(solved, "demonstration", index)
        rng = random.Random(f"{self.seed}/demonstrator/{index}")
        script = expression_script(entry.expression or "", rng)
        return entry.problem, with_noise(script, entry.problem.answer, rng, self.noise)

    def _shuffled(self, entries: tuple[Entry, ...], stream: str, index: int) -> Entry:
        epoch, position = divmod(index, len(entries))
        order = list(range(len(entries)))
        random.Random(f"{self.seed}/{stream}/{epoch}").shuffle(order)
        return entries[order[position]]


def expression_script(expression: str, rng: random.Random) -> Script:
    """Prints the expression, now and then with a slip, and answers with what was printed."""
    code = "".join(expression.split())
    if rng.random() < SLIP_SHARE:
        code = _slip(code, rng)
    output = yield Call(code=f"print({code})")
    yield Answer(text=output)


def _slip(code: str, rng: random.Random) -> str:
    numbers = re.findall(r"\d+\.?\d*", code)
    operators = re.findall(r"[-+*/]", code)
    if operators and rng.random() < 0.5:
        wrong = rng.choice([o for o in "+-*/" if o != operators[0]])
        return code.replace(operators[0], wrong, 1)
    if len(numbers) >= 2:
        return re.sub(r"\d+\.?\d*", lambda _: numbers.pop(), code)
    return code
