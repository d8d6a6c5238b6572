"""The saved config of a run: launchers that continue with it, and settings that may change then."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import pathlib
import shlex
import shutil

import jax
import pytest

from configs import resuming, saved
from configs.parts import make_optimizer
from configs.presets import PRESETS
from configs.schema import OptimizerConfig
from gtpo_jax import settings
from launch import cli, compare, demo, evaluate, rollout, sft, train
from launch.run import own, phase
from tests.launch.test_cli import with_setting
from tests.learner.test_checkpoint import blank, make_state

pytestmark = pytest.mark.slow

TINY = PRESETS["tiny"]


def given(config, *options: str):
    """The config with options, such as `train.steps=3`."""
    for option in options:
        name, value = option.split("=")
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        config = with_setting(config, name, value)
    return config


def keep(run_dir: pathlib.Path, name: str, config=TINY, *, steps: int = 2, resume=False) -> None:
    """A phase of a run with a checkpoint of initial parameters."""
    with phase.Phase(
        name,
        run_dir,
        config,
        blank(make_state()) if resume else make_state(),
        resume=resume,
        checkpoint_every=100,
        go_on="",
    ) as opened:
        for _ in opened.steps(steps):
            pass


def test_every_setting_either_may_change_or_says_what_it_decides():
    for setting in settings.declared(TINY):
        declares = setting.last(settings.Change)
        assert declares or setting.last(settings.Section), setting.name
        if declares and declares.unless:
            assert declares.unless in {other.name for other in settings.declared(TINY)}
            assert declares.because


MAY_CHANGE = {
    "train": [
        *("train.steps=300", "train.steps=7", "train.eval_every=0", "train.keep_every=0"),
        *("train.checkpoint_every=1", "train.gate=0", "verifier.seconds=20", "verifier.workers=4"),
        *("tool.running=8", "tool.allow=('seccomp',)", "tool.limits.guard_seconds=9", "wandb=mine"),
        *("evaluation.problems=9", "evaluation.samples=2", "evaluation.temperature=0.5"),
        *("mesh.tensor=2", "rollout.lockstep=False"),
    ],
    "sft": [
        *("sft.steps=2400", "sft.checkpoint_every=1", "train.steps=300", "train.prompts=4"),
        *("train.method=('grpo',)", "train.optimizer.learning_rate=1"),
    ],
}
MAY_NOT = {
    "train": [
        *("train.steps=6", "train.prompts=4", "train.group_size=4", "train.method=('grpo',)"),
        *("train.optimizer.learning_rate=1", "train.optimizer.decay_steps=300", "train.epochs=2"),
        *("train.minibatches=1", "train.temperature=0.5", "train.shared_prompts=1", "seed=1"),
        *("sft.steps=2400", "sft.rows=16", "sft.checkpoint_every=1", "model.layers=5"),
        *("tokenizer=other", "dialogue.protocol=tags", "lora.rank=4", "task.level=2"),
        *("rollout.context=200", "rollout.turn_tokens=50", "tool.preload=('numpy',)"),
        *("tool.limits.wall_seconds=9", "verifier.tolerance=0.1", "verifier.kind=exact"),
    ],
    "sft": [
        "sft.rows=16",
        "sft.demonstrations=5",
        "sft.optimizer.b1=0.5",
        "sft.files=('a',)",
        "seed=1",
    ],
}
ROUNDED = [
    *("rollout.slots=64", "rollout.parked=8", "rollout.segment_steps=8", "rollout.extend_width=16"),
    *("rollout.first_cache=256", "rollout.prefill_prompts=4", "train.rows=32"),
    *("train.row_tokens=320", "train.row_buckets=2", "train.logprob_chunk=64", "model.remat=full"),
    "model.attention=plain",
]
FREE = dataclasses.replace(TINY, rollout=dataclasses.replace(TINY.rollout, lockstep=False))


def go_on(before, option: str, name: str) -> list[str]:
    """Names of the settings that change when a phase is resumed after 7 steps with an option."""
    after = resuming.keep_schedule(before, given(before, option), name)
    found = resuming.changes(before, after, name)
    resuming.check(found, after, name, 7)
    return [change.name for change in found]


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, options in MAY_CHANGE.items() for option in options],
)
def test_setting_that_leaves_alone_what_was_done_may_change(name, option):
    assert option.split("=")[0] in go_on(TINY, option, name)


@pytest.mark.parametrize("option", ROUNDED)
def test_setting_of_how_numbers_are_computed_may_change_without_lockstep(option):
    assert go_on(FREE, option, "train") == [option.split("=")[0]]


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, options in MAY_NOT.items() for option in options]
    + [("train", option) for option in ROUNDED],
)
def test_setting_that_decides_what_is_learned_may_not_change(name, option):
    reason = "(it decides .+|sft is done|7 are done)"
    with pytest.raises(ValueError, match=rf"{option.split('=')[0]} .+ → .+: {reason}"):
        go_on(TINY, option, name)


def test_problems_that_are_held_out_may_change_unless_they_decide_the_others():
    task = dataclasses.replace(TINY.task, train_file=("a",), eval_file="b")
    config = dataclasses.replace(TINY, task=task)
    assert go_on(config, "task.eval_file=c", "train") == ["task.eval_file"]
    task = dataclasses.replace(task, drop_overlap=True)
    with pytest.raises(ValueError, match=r"with task\.drop_overlap it decides which problems"):
        go_on(dataclasses.replace(TINY, task=task), "task.eval_file=c", "train")


def rates(config: OptimizerConfig, *, steps: int, updates: int) -> list[float]:
    """The size of each update of a phase, which for equal gradients is Adam's learning rate."""
    optimizer = make_optimizer(config, steps=steps, updates=updates)
    params, gradient = {"w": jax.numpy.zeros(())}, {"w": jax.numpy.ones(())}
    state, found = optimizer.init(params), []
    for _ in range(steps * updates):
        change, state = optimizer.update(gradient, state, params)
        found.append(-float(change["w"]))
    return found


def test_steps_that_are_added_leave_the_learning_rate_of_the_others():
    config = given(TINY, "train.steps=10")
    longer = resuming.keep_schedule(config, given(config, "train.steps=12"), "train").train
    before = rates(config.train.optimizer, steps=10, updates=2)
    after = rates(longer.optimizer, steps=longer.steps, updates=2)
    assert after[:20] == before
    last = TINY.train.optimizer.learning_rate * TINY.train.optimizer.final_fraction
    assert after[20:] == pytest.approx([last] * 4, rel=1e-3)


def test_warm_up_of_no_steps_begins_at_the_peak():
    [first, *_] = rates(OptimizerConfig(warmup_steps=0), steps=3, updates=1)
    assert first == pytest.approx(1e-3, rel=1e-3)


def test_config_comes_back_from_its_file(tmp_path):
    for config in PRESETS.values():
        path = tmp_path / own.CONFIG
        cli.write_json(path, dataclasses.asdict(config))
        assert saved.read(path) == config


def test_file_of_another_version_is_told(tmp_path):
    path = tmp_path / own.CONFIG
    written = json.loads(json.dumps(dataclasses.asdict(TINY)))
    written["train"]["forgotten"] = 1
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"does not have \(train\.forgotten\)"):
        saved.read(path)
    del written["train"]["forgotten"], written["evaluation"], written["train"]["gate"]
    # The default of the field: 5. That of the preset, 40, is what this config chose.
    del written["sft"]["optimizer"]["warmup_steps"]
    path.write_text(json.dumps(written))
    found = saved.read(path)
    assert (found.evaluation, found.train.gate) == (TINY.evaluation, 0.9)
    assert found.sft.optimizer.warmup_steps == 5
    for text in ("{", '{"train": {"steps": 0}}', "{}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not the config of a run"):
            saved.read(path)


def lines(run_dir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / phase.HISTORY).read_text().splitlines()]


def test_change_is_told_kept_and_written_to_the_history(tmp_path, capsys):
    config = given(TINY, "train.steps=2", "seed=5")
    keep(tmp_path, "train", config)
    changed = given(config, "train.steps=3", "verifier.seconds=20.0")
    longer = resuming.keep_schedule(config, changed, "train")
    keep(tmp_path, "train", longer, steps=3, resume=True)
    printed = capsys.readouterr().out
    assert "train, from step 2 on: train.steps 2 → 3\n" in printed
    assert "train, from step 2 on: verifier.seconds 10.0 → 20.0\n" in printed
    assert "learning rate keeps the course over 2 steps" in printed
    assert saved.read(tmp_path / "train" / own.CONFIG) == longer
    begun, went_on = lines(tmp_path)
    assert (begun["step"], begun["changes"]) == (0, {})
    assert (went_on["phase"], went_on["step"]) == ("train", 2) and went_on["time"] >= begun["time"]
    assert went_on["changes"] == {
        "train.steps": {"before": 2, "after": 3},
        "verifier.seconds": {"before": 10.0, "after": 20.0},
    }
    keep(tmp_path, "train", longer, steps=3, resume=True)
    assert lines(tmp_path)[2]["changes"] == {}


def test_refused_change_changes_nothing(tmp_path):
    keep(tmp_path, "train")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(
        ValueError, match=r"train\.prompts 16 → 4: it decides how the policy learns"
    ):
        keep(tmp_path, "train", given(TINY, "train.prompts=4"), resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_cold_start_that_reinforcement_began_with_stays(tmp_path):
    keep(tmp_path, "sft")
    longer = resuming.keep_schedule(TINY, given(TINY, "sft.steps=2400"), "sft")
    assert phase.check_settings(tmp_path, "sft", longer)
    keep(tmp_path, "train")
    with pytest.raises(ValueError, match=r"sft\.steps 1200 → 2400: sft is done"):
        phase.check_settings(tmp_path, "sft", longer)


@pytest.fixture
def run_dir(tmp_path) -> pathlib.Path:
    """A run with both phases, of another preset than `tiny`, and another seed."""
    config = dataclasses.replace(given(PRESETS["chat"], "seed=3"), preset="chat")
    keep(tmp_path, "sft", given(config, "sft.steps=2"))
    keep(tmp_path, "train", given(config, "train.prompts=4"))
    return tmp_path


def parse(kind, *options: object):
    return cli.parse(kind, [str(option) for option in options], program="tests").config


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (sft.SftArguments, ["--resume"], "sft"),
        (sft.SftArguments, ["chat", "--resume-if-any"], "sft"),
        (train.TrainArguments, ["--resume"], "train"),
        (train.TrainArguments, ["--resume_if_any"], "train"),
        (train.TrainArguments, [], "sft"),
        (demo.DemoArguments, ["--resume"], "train"),
        (evaluate.EvaluateArguments, [], "train"),
        (evaluate.EvaluateArguments, ["chat"], "train"),
        (evaluate.EvaluateArguments, ["--phase", "sft"], "sft"),
        (evaluate.EvaluateArguments, ["--phase=sft"], "sft"),
        (rollout.RolloutArguments, [], "train"),
    ],
)
def test_launcher_reads_the_config_of_the_run(run_dir, kind, options, name):
    kept = saved.read(run_dir / name / own.CONFIG)
    assert parse(kind, *options, "--run-dir", run_dir) == kept
    changed = parse(kind, *options, f"--run-dir={run_dir}", "--tool.running", 7)
    assert changed == given(kept, "tool.running=7")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("", None),
        ("--run-dir", None),
        ("--run-dir a --seed 1", "a"),
        ("--seed 1 --run_dir=a", "a"),
        ("--run-dir a --run-dir b", "b"),
        ("--run-dirs a", None),
    ],
)
def test_option_is_found_on_a_command_line(words, value):
    assert own.option(words.split(), "run-dir") == value


def test_launcher_that_begins_reads_the_preset(run_dir, tmp_path):
    preset = dataclasses.replace(TINY, preset="tiny")
    for kind in (sft.SftArguments, demo.DemoArguments):
        assert parse(kind, "--run-dir", run_dir) == preset
    for kind in (train.TrainArguments, evaluate.EvaluateArguments, rollout.RolloutArguments):
        assert parse(kind, "--run-dir", tmp_path / "none") == preset
    assert parse(rollout.RolloutArguments, "--run-dir", run_dir, "--model", "a") == preset
    # What ended before its first checkpoint is begun anew.
    shutil.rmtree(run_dir / "sft" / "checkpoints")
    assert parse(sft.SftArguments, "--run-dir", run_dir, "--resume") == preset


def test_config_comes_with_the_cold_start_or_checkpoint_of_another_run(run_dir, tmp_path):
    other = tmp_path / "other"
    found = parse(train.TrainArguments, "--run-dir", other, "--cold-start", run_dir)
    assert found == saved.read(run_dir / "sft" / own.CONFIG)
    path = run_dir / "sft" / "checkpoints" / "2"
    found = parse(evaluate.EvaluateArguments, "--run-dir", other, "--checkpoint", path)
    assert found == saved.read(run_dir / "sft" / own.CONFIG)


def test_comparison_goes_on_with_its_own_config(tmp_path):
    keep(tmp_path / "cold-start", "sft", given(TINY, "train.prompts=4"))
    found = parse(compare.CompareArguments, "--run-dir", tmp_path, "--train.steps", 300)
    assert (found.train.prompts, found.train.steps) == (4, 300)
    assert found.train.optimizer.decay_steps == 100


@pytest.mark.parametrize(
    "kind", [sft.SftArguments, train.TrainArguments, evaluate.EvaluateArguments]
)
def test_other_preset_than_that_of_the_run_is_an_error(run_dir, kind):
    with pytest.raises(ValueError, match="began with the preset chat, not tiny; leave out the"):
        parse(
            kind,
            "tiny",
            "--run-dir",
            run_dir,
            "--resume" if kind is sft.SftArguments else "--seed=3",
        )


def test_evaluation_of_another_policy_is_told(run_dir, capsys):
    found = own.of_phase(run_dir, "train")
    config = saved.read(run_dir / "train" / own.CONFIG)
    own.tell_changes(found, given(config, "evaluation.samples=8", "train.prompts=9"))
    assert capsys.readouterr().out == ""
    own.tell_changes(found, given(config, "seed=4", "task.level=2"))
    said = f"other settings than in {found.path}: seed 3 → 4, task.level 1 → 2\n"
    assert capsys.readouterr().out == said


def test_phase_that_is_not_finished_is_told(run_dir, capsys):
    own.tell_unfinished(run_dir, "sft")
    assert capsys.readouterr().out == "", "2 of 2"
    own.tell_unfinished(run_dir, "train")
    again = f"python -m launch.train --resume --run-dir {shlex.quote(str(run_dir))}"
    assert capsys.readouterr().out == (
        f"{run_dir / 'train'} is not finished: this is step 2 of 100; `{again}` goes on with it\n"
    )


def test_checkpoint_of_another_phase_is_named(tmp_path):
    keep(tmp_path, "sft")
    arguments = cli.parse(evaluate.EvaluateArguments, ["--run-dir", str(tmp_path)], program="tests")
    with pytest.raises(ValueError, match="give --phase sft, which has one"):
        evaluate.find_checkpoint(arguments)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (train.TrainArguments, ["--run-dir", "a b", "--cold-start", "c", "--json", "d"]),
        (train.TrainArguments, ["--run-dir", "a", "--cluster", "auto"]),
        (sft.SftArguments, []),
        (compare.CompareArguments, ["--run-dir", "a", "--seeds", "4", "5"]),
    ],
)
def test_command_that_goes_on_has_all_that_the_run_does_not_keep(kind, options):
    arguments = cli.parse(kind, options, program="tests")
    words = shlex.split(cli.command("launch.any", arguments))
    assert words[:3] == ["python", "-m", "launch.any"]
    assert cli.parse(kind, words[3:], program="tests") == arguments
