"""Mappings: pure functions from records of published data sets to problems, by name.

A mapping knows the common variants of the schema of its data set, and raises `ValueError` with the
field and the reason if a record has another schema. It returns an `Entry`, or a `LeftOut` with the
reason why a record is not a problem of the data set. An id or family that the record lacks stays
empty; the reader of the records fills it in.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from gtpo_jax.tasks.mappings import choices, contests, maths, programs
from gtpo_jax.tasks.mappings.fields import LeftOut, Record
from gtpo_jax.tasks.stream import Entry

__all__ = ["MAPPINGS", "LeftOut", "Mapping", "Record"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mapping:
    """A mapping, with a description of its schema for error messages."""

    convert: Callable[[Record], Entry | LeftOut]
    expects: str  # the schema, for error messages
    repeats: bool = False  # the data set repeats ids; only the first record of each is used


_COMPETITION = (
    "`problem` or `question`, and `answer` or a `solution` with a \\boxed one; `id`, and `year` or"
    " `url`, if there are any"
)

MAPPINGS: dict[str, Mapping] = {
    "plain": Mapping(
        convert=maths.plain,
        expects="`question` and `answer`; `id`, `family` and `expression`, if there are any",
    ),
    "gsm8k": Mapping(
        convert=maths.gsm8k, expects="`question`, and `answer` that ends with #### and a number"
    ),
    "math": Mapping(
        convert=maths.math,
        expects="`problem` and `solution` with a \\boxed answer; `type`, if there is one",
    ),
    "math-500": Mapping(
        convert=maths.math_500,
        expects="`problem` and `answer`; `subject` and `unique_id`, if there are any",
    ),
    "aime24": Mapping(convert=functools.partial(maths.aime, year=2024), expects=_COMPETITION),
    "aime25": Mapping(convert=functools.partial(maths.aime, year=2025), expects=_COMPETITION),
    "amc23": Mapping(convert=functools.partial(maths.amc, year=2023), expects=_COMPETITION),
    "svamp": Mapping(
        convert=maths.svamp,
        expects="`Body`, `Question` and `Answer`; `Equation`, `ID` and `Type`, if there are any",
    ),
    "dapo-math": Mapping(
        convert=maths.dapo_math,
        expects="`prompt`, a list of one message, and `reward_model` with `ground_truth`;"
        " `extra_info` with `index`, if there is one",
        repeats=True,
    ),
    "commonsenseqa": Mapping(
        convert=choices.commonsenseqa,
        expects="`question`, `choices` with `label` and `text`, and `answerKey`; `id`, if there is"
        " one",
    ),
    "strategyqa": Mapping(
        convert=choices.strategyqa,
        expects="`question`, and `answer` that is true or false; `qid`, if there is one",
    ),
    "humaneval": Mapping(
        convert=programs.humaneval,
        expects="`task_id`, `prompt`, `canonical_solution`, `test` and `entry_point`",
    ),
    "mbpp": Mapping(
        convert=programs.mbpp,
        expects="`task_id`, `text` or `prompt`, `code` and `test_list`; `test_setup_code` or"
        " `test_imports`, if there are any",
    ),
    "livecodebench": Mapping(
        convert=contests.livecodebench,
        expects="`question_id`, `question_content`, `public_test_cases` and `private_test_cases`;"
        " `starter_code` and `metadata` with `func_name`, if a function is asked for",
    ),
    "apps": Mapping(
        convert=contests.apps,
        expects="`question` and `input_output` with `inputs` and `outputs`; `starter_code`, if"
        " there is one",
    ),
}
"""Name → mapping."""
