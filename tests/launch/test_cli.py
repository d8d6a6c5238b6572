"""The command line: every option is told, every preset can be taken."""

import dataclasses
import os
import subprocess
import sys
import typing

import pytest
from tyro import _docstrings

from configs.functions import make_algorithm, make_lora, make_optimizer
from configs.presets import PRESETS
from configs.schema import AdapterConfig, AlgorithmConfig, RunConfig
from launch import cli, compare, demo, evaluate, report, rollout, sft, train
from tests.launch import small

ARGUMENTS = [
    compare.CompareArguments,
    demo.DemoArguments,
    evaluate.EvaluateArguments,
    report.ReportArguments,
    rollout.RolloutArguments,
    sft.SftArguments,
    train.TrainArguments,
]


def untold(kind, prefix=""):
    """Options without a word of help."""
    hints = typing.get_type_hints(kind, include_extras=False)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from untold(hints[field.name], f"{prefix}{field.name}.")
        elif not _docstrings.get_field_docstring(kind, field.name, ()):
            yield prefix + field.name


@pytest.mark.parametrize("kind", [RunConfig, *ARGUMENTS], ids=lambda kind: kind.__name__)
def test_help_explains_every_option(kind):
    assert list(untold(kind)) == []


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_taken_with_overrides(name):
    arguments = cli.parse(
        train.TrainArguments, [name, "--rollout.slots", "24", "--seed", "3"], program="tests"
    )
    expected = dataclasses.replace(PRESETS[name].rollout, slots=24)
    assert arguments.config.rollout == expected and arguments.config.seed == 3
    make_algorithm(arguments.config.train.algorithm)
    make_optimizer(arguments.config.train.optimizer, steps=10)
    assert make_lora(arguments.config.lora) is None


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (AlgorithmConfig, {"importance_limit": 2.0}, "importance_limit needs recompute"),
        (AlgorithmConfig, {"recompute": True, "importance_limit": 0.0}, "must be above 0"),
        (AlgorithmConfig, {"kl_weight": -0.1}, "kl_weight must be 0 or more"),
        (AdapterConfig, {"alpha": 8.0}, r"need a lora\.rank above 0"),
        (AdapterConfig, {"targets": ("q_proj",)}, r"need a lora\.rank above 0"),
        (AdapterConfig, {"rank": -1}, r"lora\.rank must be 0 or more"),
    ],
)
def test_option_that_would_be_ignored_is_an_error(kind, options, message):
    # T-92
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_a_question_mark(encoding):
    program = "from launch import cli, display; cli.main(lambda _: display.CONSOLE.print('2 × 3 …'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        cwd=small.ROOT,
        capture_output=True,
        check=True,
    )
    assert done.stdout == "2 × 3 …\n".encode(encoding, errors="replace")
