"""Mathematics data sets: the answer is a number or an expression."""

from __future__ import annotations

import re

from gtpo_jax.language.answers import boxes
from gtpo_jax.tasks.mappings.fields import (
    LeftOut,
    Record,
    inside,
    is_missing,
    number,
    optional,
    raw,
    shown,
    text,
)
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem

_NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)")
_YEARS = {"year": r"(20\d\d)", "url": r"\b(20\d\d)_A", "ID": r"(20\d\d)-I+-"}
"""Field → pattern of the year in common variants of AIME and AMC, such as `2024-II-4`."""
_DEGREES = re.compile(r"\^\{?\\circ\}?$")


_PLAIN = ("id", "question", "answer", "family", "expression")


def plain(record: Record) -> Entry:
    """Problems of your own: `question`, `answer` and, for demonstrations, `expression`.

    Further fields, any JSON, become `Problem.info`, for rewards of your own.
    """
    expression = None if is_missing(record.get("expression")) else raw(record, "expression")
    problem = Problem(
        id=optional(record, "id"),
        question=text(record, "question"),
        answer=text(record, "answer"),
        family=optional(record, "family"),
        info={name: value for name, value in record.items() if name not in _PLAIN},
    )
    return Entry(problem, expression or None)


def gsm8k(record: Record) -> Entry:
    """GSM8K: the answer follows `####`."""
    question, solution = text(record, "question"), text(record, "answer")
    _, mark, last = solution.rpartition("####")
    answer = number(last.strip().removeprefix("$"))
    if not mark or not _NUMBER.fullmatch(answer):
        raise ValueError(f"`answer` must end with #### and a number, got …{shown(solution[-40:])}")
    return Entry(
        Problem(id="", question=question, answer=answer, family="gsm8k", verifier="numeric")
    )


def math(record: Record) -> Entry:
    """MATH: the answer is in the last box of the solution."""
    solution = text(record, "solution")
    answer = last_boxed(solution)
    if answer is None:
        raise ValueError(f"`solution` has no \\boxed answer, it ends …{shown(solution[-40:])}")
    return _mathematics(record, answer, optional(record, "unique_id"), optional(record, "type"))


def math_500(record: Record) -> Entry:
    """MATH-500, a selection from MATH with separate answers."""
    answer, identity = text(record, "answer"), optional(record, "unique_id")
    return _mathematics(record, answer, identity, optional(record, "subject"))


def _mathematics(record: Record, answer: str, identity: str, family: str) -> Entry:
    question = text(record, "problem")
    problem = Problem(
        id=identity, question=question, answer=answer, family=family or "math", verifier="math"
    )
    return Entry(problem)


def aime(record: Record, *, year: int) -> Entry | LeftOut:
    """AIME of one year; answers are integers from 0 to 999. Other years are left out."""
    entry = _competition(record, year, f"aime{year % 100}")
    if isinstance(entry, Entry):
        answer = entry.problem.answer
        if not re.fullmatch(r"\d{1,3}", answer):
            raise ValueError(f"the answer must be a number from 0 to 999, got {shown(answer)}")
    return entry


def amc(record: Record, *, year: int) -> Entry | LeftOut:
    """AMC of one year, with questions rewritten to have a number as the answer."""
    return _competition(record, year, f"amc{year % 100}")


def _competition(record: Record, year: int, family: str) -> Entry | LeftOut:
    actual = _year(record)
    if actual is not None and actual != year:
        return LeftOut(f"of another year than {year}")
    if "answer" in record or "Answer" in record:
        answer = text(record, "answer", "Answer")
    else:
        solution = text(record, "solution", "Solution")
        boxed = last_boxed(solution)
        if boxed is None:
            raise ValueError(
                f"there is no `answer`, and no \\boxed one in `solution` {shown(solution)}"
            )
        answer = boxed
    problem = Problem(
        id=optional(record, "id", "ID", "problem_idx"),
        question=text(record, "problem", "question", "Problem"),
        answer=number(_DEGREES.sub("", answer.strip(" $"))),
        family=family,
        verifier="math",
    )
    return Entry(problem)


def _year(record: Record) -> int | None:
    """The year of a competition, if the record states it."""
    for name, written in _YEARS.items():
        match = re.search(written, str(record.get(name, "")))
        if match:
            return int(match[1])
    return None


def svamp(record: Record) -> Entry:
    """SVAMP: a body, a question, and the equation that solves it."""
    equation = optional(record, "Equation")
    problem = Problem(
        id=optional(record, "ID"),
        question=f"{text(record, 'Body')} {text(record, 'Question')}",
        answer=number(text(record, "Answer")),
        family=optional(record, "Type") or "svamp",
        verifier="numeric",
    )
    return Entry(problem, re.sub(r"(\d)\.0+\b", r"\1", equation) or None)


def dapo_math(record: Record) -> Entry:
    """DAPO-Math-17k: prompts that wrap the question in instructions; each is repeated many times.

    The first and last paragraphs, which tell how to answer, are removed: the dialogue does that.
    """
    prompt = record.get("prompt")
    if isinstance(prompt, list | tuple) and len(prompt) == 1 and isinstance(prompt[0], dict):
        question = text(prompt[0], "content")
    else:
        raise ValueError(f"`prompt` must be a list of one message, got {shown(prompt)}")
    paragraphs = question.split("\n\n")
    if paragraphs[0].startswith("Solve the following math problem"):
        paragraphs = paragraphs[1:]
    if paragraphs and paragraphs[-1].startswith("Remember to put your answer"):
        paragraphs = paragraphs[:-1]
    question = "\n\n".join(paragraphs).strip()
    if not question:
        raise ValueError("`prompt` has no question between its instructions")
    identity = optional(inside(record, "extra_info"), "index") if "extra_info" in record else ""
    answer = text(inside(record, "reward_model"), "ground_truth")
    problem = Problem(
        id=identity, question=question, answer=answer, family="dapo-math", verifier="math"
    )
    return Entry(problem)


def last_boxed(solution: str) -> str | None:
    """The content of the last box that is closed and not empty (see `answers.boxes`)."""
    return next(filter(None, reversed(boxes(solution))), None)
