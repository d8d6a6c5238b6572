"""The command line: every option has a help text, every preset works."""

import dataclasses
import io
import os
import pathlib
import re
import subprocess
import sys
import typing

import pytest
from tyro import _docstrings

from configs.methods import make_method
from configs.parts import make_lora, make_optimizer
from configs.presets import PRESETS
from configs.schema import AdapterConfig, RunConfig
from launch import __main__ as overview
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
    """Options without a help text."""
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
    make_method(arguments.config.train.method)
    make_optimizer(arguments.config.train.optimizer, steps=10)
    assert make_lora(arguments.config.lora) is None


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (AdapterConfig, {"alpha": 8.0}, r"need a lora\.rank above 0"),
        (AdapterConfig, {"targets": ("q_proj",)}, r"need a lora\.rank above 0"),
    ],
)
def test_option_that_would_be_ignored_is_an_error(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_a_question_mark(encoding):
    program = (  # in ASCII, as the command line of a locale may have to be
        r"from launch import cli; from launch.run import display;"
        r"cli.main(lambda _: display.CONSOLE.print('2 \xd7 3 \u2026'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        cwd=small.ROOT,
        capture_output=True,
        check=True,
    )
    assert done.stdout == "2 × 3 …\n".encode(encoding, errors="replace")


NUMBERS = [
    *("train.optimizer.learning_rate=0", "sft.optimizer.learning_rate=-1"),
    *("train.optimizer.learning_rate=nan", "train.optimizer.learning_rate=inf"),
    *("train.optimizer.b1=1", "train.optimizer.b2=-0.1", "train.optimizer.clip_norm=0"),
    *("train.optimizer.warmup_steps=-1", "train.optimizer.final_fraction=1.5"),
    *("train.optimizer.decay_steps=0", "train.steps=0", "sft.steps=0", "train.prompts=0"),
    *("train.group_size=1", "train.temperature=0", "train.epochs=0"),
    *("train.minibatches=0", "train.rows=-4", "train.row_buckets=0", "train.logprob_chunk=0"),
    *("train.eval_every=-1", "train.keep_every=-1", "train.checkpoint_every=0", "train.gate=2"),
    *("rollout.slots=0", "rollout.parked=-1"),
    *("sft.rows=0", "sft.row_tokens=0", "sft.demonstrations=0", "sft.checkpoint_every=0"),
    *("evaluation.problems=0", "evaluation.samples=0", "evaluation.temperature=0"),
    *("tool.running=0", "verifier.seconds=0", "verifier.seconds=inf", "verifier.workers=0"),
    *("verifier.tolerance=1", "lora.rank=-1", "dialogue.most_calls=0", "task.level=0"),
    *("task.skip_tool=1.1", "task.slip=-0.1", "task.other_words=-0.1"),
    *("model.layers=0", "model.kv_heads=0"),
]
"""Values that are invalid in a run."""


def with_setting(config, name, value):
    """A config with one setting changed."""
    first, _, rest = name.partition(".")
    value = with_setting(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: value})


@pytest.mark.parametrize("given", NUMBERS)
def test_number_that_makes_no_run_is_refused(given):
    name, value = given.split("=")
    said = name if name.partition(".")[0] != "rollout" else name.partition(".")[2]
    with pytest.raises(ValueError, match=rf"^{re.escape(said)} must be .*, got {value}"):
        with_setting(
            PRESETS["tiny"], name, float(value) if value in ("nan", "inf") else eval(value)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--train.step 3", r"--train.step, 3; perhaps --train.steps( or|;)"),
        ("--trian.steps 4", r"perhaps --train.steps( or|;)"),
        ("--steps 4", r"perhaps --(train|sft).steps or --(sft|train).steps( or|;)"),
        ("--train.group_sise=4", r"perhaps --train.group-size;"),
        ("--group_size 3 --lr 3", r"--group_size, 3, --lr, 3; perhaps --train.group-size;"),
        ("--learning-rate 4", r"perhaps --(train|sft).optimizer.learning-rate or --"),
        ("--resum", r"perhaps --resume;"),
        ("--nothing-of-the-kind", r"Unrecognized options: --nothing-of-the-kind; --help lists"),
        ("--train.steps five", r"^--train.steps must be an integer, got 'five'$"),
        ("--train.gate x", r"^--train.gate must be a number, got 'x'$"),
        ("--rollout.slots 0", r"^rollout.slots must be at least 1, got 0$"),
        ("--tool.limits.cpu-seconds 0", r"^tool.limits.cpu_seconds must be at least 1, got 0$"),
        ("--model.kv-heads 0", r"^model.kv_heads must be at least 1, got 0$"),
        ("--train.prompts 0", r"^train.prompts must be at least 1, got 0$"),
        ("--train.group-size 1", r"^train.group_size must be at least 2, got 1: advantages comp"),
        ("--seed", r"^Missing value for argument '--seed'"),
    ],
)
def test_complaint_is_one_line_by_the_name_of_the_option(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        cli.parse(train.TrainArguments, options.split(), program="tests")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("options", ["--train.step 3", "--train.steps five", "--seed"])
def test_complaint_is_the_same_where_stdout_cannot_show_the_lines_of_a_box(options, monkeypatch):
    said = []
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        with pytest.raises(ValueError) as raised:
            cli.parse(train.TrainArguments, options.split(), program="tests")
        said.append(str(raised.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)])
def test_comparison_takes_every_seed_once(seeds):
    with pytest.raises(ValueError, match="--seeds must be one or more, each of them once"):
        cli.parse(compare.CompareArguments, ["--seeds", *map(str, seeds)], program="tests")


def test_overview_names_every_command_with_what_it_is(capsys):
    overview.main()
    printed = capsys.readouterr().out.splitlines()
    folder = pathlib.Path(overview.__file__).parent
    runnable = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    } - {"__main__", "hosts.check"}
    assert {line.split()[0] for line in printed[1:]} == runnable
    assert all(len(line.split(None, 1)[1]) > 20 for line in printed[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compare", "--out", "x.html"), r"^--out x\.html: curves are a picture; its name"),
        (("--out", "x.png"), r"^--out x\.png: a page is HTML; .* \.html or \.htm"),
    ],
)
def test_report_in_a_file_of_another_kind_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        report.parse(["runs/mine", *options])
