"""Hugging Face checkpoints into a run and out again, by the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs.presets import PRESETS
from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import Dialogue
from gtpo_jax.learner.checkpoint import CheckpointStore
from launch import cli, convert, rollout
from launch.run import imported_model
from launch.run.network import Network
from launch.run.session import Session
from models import decoder
from models.hf import export as hf_export
from models.hf import files as hf_files
from models.hf import weights as hf_weights
from models.presets import TINY
from tests.hub_folder import write_dialogue
from tests.launch import small
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path):
    """A checkpoint with a tokenizer."""
    folder = tmp_path / "source"
    hf_export.save_checkpoint(folder, CONFIG, make_params(), shard_bytes=20_000)
    write_dialogue(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    return folder


def call(*argv):
    convert.run([str(word) for word in argv])


def complaint(capsys, monkeypatch, *argv):
    """The one-line message of the launcher to bad input."""
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        cli.main(convert.run)
    assert stop.value.code == cli.EXIT_BAD_INPUT
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    return message


def load(folder):
    return hf_weights.load_params(hf_weights.open_checkpoint(folder))


def test_imported_and_exported_checkpoint_is_the_same(source, tmp_path, capsys):
    run_dir, out = tmp_path / "run", tmp_path / "out"
    call("import", source, "--run-dir", run_dir)
    call("export", run_dir, "--out", out)
    printed = capsys.readouterr().out
    assert f"{CONFIG.parameters:,} parameters in" in printed and "step 0 of" in printed
    chex.assert_trees_all_equal(load(out), make_params())
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 7
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("two_ropes", marks=pytest.mark.long),
        "experts",
        pytest.param("scaled_rope", marks=pytest.mark.long),
    ],
)
def test_config_of_an_imported_model_is_kept_with_the_run(name, tmp_path):
    hf_export.save_checkpoint(tmp_path / "source", VARIANTS[name], make_params(VARIANTS[name]))
    mesh = ("--mesh.fsdp", 2, "--mesh.data", 4)
    call("import", tmp_path / "source", "--run-dir", tmp_path / "run", *mesh)
    saved = imported_model.read_model_config(tmp_path / "run" / "import" / "config.json")
    assert saved == VARIANTS[name]
    call("export", tmp_path / "run", "--out", tmp_path / "out", *mesh)
    chex.assert_trees_all_equal(load(tmp_path / "out"), make_params(VARIANTS[name]))


def test_run_finds_the_imported_model(source, tmp_path):
    run_dir = tmp_path / "run"
    assert imported_model.of_run(run_dir) is None
    call("import", source, "--run-dir", run_dir)
    found = imported_model.of_run(run_dir)
    assert found is not None and found.model == CONFIG
    assert (found.source / "tokenizer.json").exists()
    with CheckpointStore(run_dir / "import" / "checkpoints") as store:
        mesh = convert.make_mesh(convert.SHARED)
        params = store.restore_params(Network(CONFIG, mesh).abstract)
    chex.assert_trees_all_equal(params, make_params())
    assert params["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")


def test_import_and_export_change_the_dtype_when_asked(source, tmp_path):
    run_dir = tmp_path / "run"
    call("import", source, "--run-dir", run_dir, "--dtype", "bfloat16")
    assert (
        imported_model.read_model_config(run_dir / "import" / "config.json").param_dtype
        == "bfloat16"
    )
    call("export", run_dir, "--out", tmp_path / "half")
    call("export", run_dir, "--out", tmp_path / "single", "--dtype", "float32")
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), make_params())
    chex.assert_trees_all_equal(load(tmp_path / "half"), rounded, strict=True)
    widened = jax.tree.map(lambda leaf: leaf.astype(np.float32), rounded)
    chex.assert_trees_all_equal(load(tmp_path / "single"), widened, strict=True)


def save_phase(run_dir, phase, seed):
    cli.write_json(run_dir / phase / "config.json", {"model": dataclasses.asdict(CONFIG)})
    params = jax.device_put(make_params(seed=seed))
    with CheckpointStore(run_dir / phase / "checkpoints") as store:
        store.save_params(3, params)


def test_latest_phase_is_exported_unless_another_is_named(source, tmp_path):
    run_dir = tmp_path / "run"
    call("import", source, "--run-dir", run_dir)
    save_phase(run_dir, "sft", 1)
    call("export", run_dir, "--out", tmp_path / "sft")
    save_phase(run_dir, "train", 2)
    call("export", run_dir, "--out", tmp_path / "train")
    call("export", run_dir, "--out", tmp_path / "import", "--phase", "import")
    for seed, phase in enumerate(("import", "sft", "train")):
        chex.assert_trees_all_equal(load(tmp_path / phase), make_params(seed=seed))
        assert (tmp_path / phase / "tokenizer.json").exists()


def test_export_divides_files_and_overwrites_when_told(source, tmp_path, capsys, monkeypatch):
    run_dir, out = tmp_path / "run", tmp_path / "out"
    call("import", source, "--run-dir", run_dir)
    call("export", run_dir, "--out", out)
    assert "--overwrite" in complaint(capsys, monkeypatch, "export", run_dir, "--out", out)
    call("export", run_dir, "--out", out, "--overwrite", "--shard-gigabytes", 2e-5)
    assert len(list(out.glob("model-*.safetensors"))) == 5
    chex.assert_trees_all_equal(load(out), make_params())


def test_bad_input_is_one_line(source, tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"
    message = complaint(capsys, monkeypatch, "export", run_dir, "--out", tmp_path / "out")
    assert f"no checkpoint of train or sft or import in {run_dir}" in message
    assert not run_dir.exists()
    (source / "model-00003-of-00005.safetensors").unlink()
    message = complaint(capsys, monkeypatch, "import", source, "--run-dir", run_dir)
    assert "model-00003-of-00005.safetensors" in message
    assert not run_dir.exists()
    save_phase(run_dir, "import", 0)
    message = complaint(capsys, monkeypatch, "import", source, "--run-dir", run_dir)
    assert "import holds a checkpoint; choose another --run-dir" in message
    cli.write_json(run_dir / "import" / "config.json", {"model": {"depth": 3}})
    message = complaint(capsys, monkeypatch, "export", run_dir, "--out", tmp_path / "out")
    assert "does not describe a model" in message


def test_values_of_a_config_end_in_one_line_or_are_read(source, tmp_path, capsys, monkeypatch):
    config = json.loads((source / "config.json").read_text())
    for change, named in (
        ({"torch_dtype": "float64"}, "dtype 'float64'"),
        ({"hidden_size": "32"}, "hidden_size='32'; expected a whole number"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        run_dir = tmp_path / "refused"
        assert named in complaint(capsys, monkeypatch, "import", source, "--run-dir", run_dir)
        assert not run_dir.exists()
    changed = {**config, "torch_dtype": "auto", "rope_scaling": None, "rms_norm_eps": None}
    (source / "config.json").write_text(json.dumps(changed))
    call("import", source, "--run-dir", tmp_path / "run")
    assert imported_model.of_run(tmp_path / "run").model == CONFIG


@pytest.mark.parametrize("name", ["tokenizer.json", "model-00002-of-00005.safetensors"])
def test_pointer_of_git_lfs_is_refused_before_work(name, source, tmp_path, capsys, monkeypatch):
    (source / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = complaint(capsys, monkeypatch, "import", source, "--run-dir", tmp_path / "run")
    assert f"{source / name} is a pointer of Git LFS" in message and "git lfs pull" in message
    assert not (tmp_path / "run").exists()


def test_parts_that_are_left_out_are_told(tmp_path, capsys):
    config, source = VARIANTS["two_ropes"], tmp_path / "source"
    hf_export.save_checkpoint(source, config, make_params(config))
    numpy_files = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    arrays = numpy_files.load_file(source / "model.safetensors")
    inner = {f"language_model.{name}": array for name, array in arrays.items()}
    inner |= {f"vision_tower.layers.{i}.weight": np.zeros((2, 2), np.float32) for i in range(3)}
    numpy_files.save_file(inner, source / "model.safetensors")
    text = json.loads((source / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (source / "config.json").write_text(json.dumps(outer))
    call("import", source, "--run-dir", tmp_path / "run")
    told = "3 tensors of vision_tower are left out: a run has only the decoder, and its merged"
    assert f"{told} export is a Gemma3ForCausalLM" in capsys.readouterr().out


def own_run(run_dir):
    """The cold start of a run that was trained from scratch, as its folder stores it."""
    config = dataclasses.replace(PRESETS["tiny"], model=TINY)
    cli.write_json(run_dir / "sft" / "config.json", dataclasses.asdict(config))
    shutil.copyfile(tokenizers.ASSETS / "tools-256.model", run_dir / "tokenizer.model")
    params = jax.device_put(make_params(TINY))
    with CheckpointStore(run_dir / "sft" / "checkpoints") as store:
        store.save_params(3, params)


def test_export_of_a_model_trained_from_nothing_has_its_tokenizer(tmp_path, capsys, monkeypatch):
    run_dir, out, again = tmp_path / "run", tmp_path / "out", tmp_path / "again"
    own_run(run_dir)
    call("export", run_dir, "--out", out)
    count = len({*hf_files.read_headers(out)})
    told = (
        f"verified: {count} tensors, {4 * TINY.parameters:,} bytes, read back and equal bit for bit"
    )
    assert told in capsys.readouterr().out
    kept = (run_dir / "tokenizer.model").read_bytes()
    assert (out / "tokenizer.model").read_bytes() == kept
    end = tokenizers.load(out).control_id("<|end|>")
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == end

    call("import", out, "--run-dir", again)
    with Session(PRESETS["tiny"], again) as session:
        assert isinstance(session.dialogue, Dialogue) and session.dialogue.stop_ids == (end,)
        chex.assert_trees_all_equal(session.load_start(again), make_params(TINY))
    call("export", again, "--out", tmp_path / "second")
    assert (tmp_path / "second" / "tokenizer.model").read_bytes() == kept
    with pytest.raises(ValueError, match=r"built-in dialogue alone; take the preset tiny, or"):
        Session(PRESETS["chat"], again)

    (run_dir / "tokenizer.model").unlink()  # the shipped one has the name that the config says
    call("export", run_dir, "--out", tmp_path / "third")
    assert (tmp_path / "third" / "tokenizer.model").read_bytes() == kept


def test_export_without_a_tokenizer_says_so(tmp_path, capsys):
    save_phase(tmp_path / "run", "sft", 1)
    call("export", tmp_path / "run", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out'} has no tokenizer, because {tmp_path / 'run'} has none" in printed
    assert "--source" in printed


@pytest.mark.long
def test_exported_model_of_our_own_is_watched_as_it_solves_a_problem(tmp_path, capsys):
    own_run(tmp_path / "run")
    call("export", tmp_path / "run", "--out", tmp_path / "out")
    capsys.readouterr()
    turns = ("--rollout.turn-tokens", "8", "--rollout.max-turns", "2")
    options = ("--run-dir", str(tmp_path / "nothing"), "--prompt", "What is 2 + 2?", *turns)
    rollout.run(["tiny", "--model", str(tmp_path / "out"), *options])
    assert capsys.readouterr().out.startswith("What is 2 + 2?")


def test_inspect_lists_tensors_and_says_whether_they_fit(source, capsys, monkeypatch):
    monkeypatch.setattr(convert.display.CONSOLE, "width", 200)
    call("inspect", source)
    shown = capsys.readouterr().out
    assert "Qwen2ForCausalLM" in shown and "can be imported\n" in shown
    [row] = [line for line in shown.splitlines() if "mlp.up_proj" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "model.layers.{0-1}.mlp.up_proj.weight",
        "48 × 32",
        "F32",
        "2",
        f"{2 * 48 * 32 * 4:,}",
    ]
    [total] = [line for line in shown.splitlines() if "total" in line]
    assert f"{4 * CONFIG.parameters:,}" in total

    config = json.loads((source / "config.json").read_text())
    wider = {**config, "intermediate_size": 64}
    (source / "config.json").write_text(json.dumps(wider))
    call("inspect", source)
    shown = capsys.readouterr().out
    assert "cannot be imported" in shown and "of another shape" in shown and "48 × 32" in shown
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["Unheard"]}))
    call("inspect", source)
    assert "'Unheard'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("tokenizer.json", "{}", "has no model with a vocabulary"),
        ("tokenizer_config.json", "{}", "chat template"),
        ("tokenizer_config.json", '{"chat_template": "{% if %}"}', "not valid Jinja"),
    ],
)
def test_tokenizer_or_template_that_no_run_could_use_is_told_before_the_weights_are_read(
    file, text, named, source, tmp_path, capsys, monkeypatch
):
    (source / file).write_text(text)
    call("inspect", source)
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "cannot be imported" in shown and named in shown
    monkeypatch.setattr(hf_weights, "load_params", None)
    assert named in complaint(capsys, monkeypatch, "import", source, "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoint_without_a_tokenizer_is_imported_and_said_to_have_none(source, tmp_path, capsys):
    (source / "tokenizer.json").unlink()
    call("inspect", source)
    call("import", source, "--run-dir", tmp_path / "run")
    assert capsys.readouterr().out.count("without a tokenizer, so no run can talk to it") == 2


def test_command_runs_as_a_program(source, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "launch.convert", "import", str(source)),
            *("--run-dir", str(tmp_path / "run")),
        ],
        cwd=small.ROOT,
        env=os.environ | {"PYTHONPATH": str(small.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    call("export", tmp_path / "run", "--out", tmp_path / "out")
    chex.assert_trees_all_equal(load(tmp_path / "out"), make_params())


def test_abstract_params_are_those_of_the_model():
    abstract = Network(TINY, convert.make_mesh(convert.SHARED)).abstract
    made = jax.eval_shape(lambda: decoder.init_params(TINY, jax.random.key(0)))
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, made)


def test_stored_tensors_of_one_name_and_two_dtypes_are_two_rows(tmp_path):
    params = make_params()
    hf_export.save_checkpoint(tmp_path / "s", CONFIG, params)
    stored = hf_files.read_headers(tmp_path / "s")
    name = "model.layers.1.mlp.up_proj.weight"
    stored[name] = dataclasses.replace(stored[name], dtype="BF16")
    rows = convert.tensor_table(stored).row_count
    assert rows == convert.tensor_table(hf_files.read_headers(tmp_path / "s")).row_count + 1
