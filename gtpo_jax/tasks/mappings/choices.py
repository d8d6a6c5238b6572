"""Multiple-choice data sets: the question lists the choices, the answer is a letter."""

from __future__ import annotations

import collections.abc
import string
from collections.abc import Sequence

from gtpo_jax.tasks.mappings.fields import Record, inside, optional, shown, text, texts
from gtpo_jax.tasks.stream import Entry
from gtpo_jax.types import Problem


def commonsenseqa(record: Record) -> Entry:
    """CommonsenseQA and data sets with its schema (ARC, OpenBookQA): choices with labels."""
    labels, choices = _labeled(record)
    key = text(record, "answerKey")
    if key not in labels:
        raise ValueError(
            f"`answerKey` must be one of the labels {', '.join(labels)}, got {shown(key)}"
        )
    question = text(record, "question", "question_stem")
    return choice_entry(
        question,
        choices,
        labels.index(key),
        identity=optional(record, "id"),
        family="commonsenseqa",
    )


def strategyqa(record: Record) -> Entry:
    """StrategyQA: yes-or-no questions."""
    answer = record.get("answer")
    if isinstance(answer, str) and answer.strip().lower() in ("yes", "no", "true", "false"):
        answer = answer.strip().lower() in ("yes", "true")
    if not isinstance(answer, bool):
        raise ValueError(f"`answer` must be true or false, got {shown(answer)}")
    identity = optional(record, "qid", "id")
    return choice_entry(
        text(record, "question"),
        ("yes", "no"),
        0 if answer else 1,
        identity=identity,
        family="strategyqa",
    )


def choice_entry(
    question: str, choices: Sequence[str], right: int, *, identity: str, family: str
) -> Entry:
    """A question followed by its choices A, B, …; choice number `right` is the answer."""
    letters = string.ascii_uppercase
    if not 2 <= len(choices) <= len(letters):
        raise ValueError(f"there must be 2 to {len(letters)} choices, got {len(choices)}")
    listed = "\n".join(f"{letters[i]}. {choice}" for i, choice in enumerate(choices))
    problem = Problem(
        id=identity,
        question=f"{question}\n{listed}\nAnswer with the letter of one choice.",
        answer=letters[right],
        family=family,
        verifier="choice",
        choices=tuple(choices),
    )
    return Entry(problem)


def _labeled(record: Record) -> tuple[list[str], list[str]]:
    """Labels and texts from an object of two lists or a list of objects."""
    choices = record.get("choices")
    if isinstance(choices, list | tuple) and all(
        isinstance(choice, collections.abc.Mapping) for choice in choices
    ):
        labels = [text(choice, "label") for choice in choices]
        contents = [text(choice, "text") for choice in choices]
    else:
        lists = inside(record, "choices")
        labels, contents = texts(lists, "label"), [item.strip() for item in texts(lists, "text")]
    if len(labels) != len(contents) or len(set(labels)) != len(labels) or "" in contents:
        raise ValueError(f"`choices` must have one text for each label, got {shown(choices)}")
    return labels, contents
