"""A checkpoint folder, imported into a run: one step of GTPO, and a folder again."""

from __future__ import annotations

import dataclasses
import functools
import json

import chex
import jax
import numpy as np
import pytest

from configs.parts import make_protocol
from configs.schema import DialogueConfig
from gtpo_jax.devices import sharding
from gtpo_jax.types import Verdict
from launch import cli, convert, rollout
from launch.run import imported_model
from launch.run.phase import Phase
from launch.run.session import Session
from launch.train import TrainArguments, Trainer
from models.hf import weights as hf_weights
from tests.chat_families import FAMILIES
from tests.hub_folder import write_folder
from tests.models.variants import VARIANTS
from tests.tiny import make_params

# Family of chats, variant of the decoder that its models are.
MODELS = {
    "qwen2.5": ("qwen2.5", "grouped_with_bias"),
    "qwen3": ("qwen3", "qk_norm"),
    "experts": ("qwen3", "experts"),
    "llama": ("llama3.1", "scaled_rope"),
    "mistral": ("mistral", "window"),
    "gemma2": ("gemma3", "soft_caps"),
    "gemma3": ("gemma3", "two_ropes"),
}
OPTIONS = [
    *("--train.prompts", "2", "--train.group-size", "4", "--train.rows", "8"),
    *("--train.minibatches", "1", "--train.steps", "1", "--rollout.slots", "8"),
    *("--rollout.parked", "0", "--rollout.context", "512", "--rollout.prompt-tokens", "440"),
    *("--rollout.turn-tokens", "8", "--rollout.observation-tokens", "64"),
    *("--rollout.max-turns", "2", "--train.logprob-chunk", "None", "--model.remat", "none"),
    *("--model.compute-dtype", "float32", "--train.optimizer.learning-rate", "1e-3"),
    *("--dialogue.system-prompt", "Use Python."),
]


def write_checkpoint(folder, name):
    """A folder as a hub delivers it: random weights, tokenizer, chat template."""
    chat, variant = MODELS[name]
    config = VARIANTS[variant]
    if config.experts:
        config = dataclasses.replace(config, experts=4, experts_per_token=2)
    return write_folder(folder, config, FAMILIES[chat])


def parse(kind, *options):
    return cli.parse(kind, ["chat", *OPTIONS, *map(str, options)], program="tests")


def sample(trainer):
    """Trajectories of the first step with random outcomes."""
    return [
        dataclasses.replace(t, verdict=Verdict.RIGHT if t.sample % 2 else Verdict.WRONG)
        for t in trainer.sample(0, trainer.state)[1].kept
    ]


def step(run_dir):
    """One step of training from the imported model."""
    arguments = parse(TrainArguments, "--run-dir", run_dir)
    with Session(arguments.config, run_dir) as session:
        trainer = Trainer(session, session.load_start(run_dir))
        before = jax.device_get(trainer.state.params)
        trajectories = sample(trainer)
        state, figures = trainer.learn(0, trainer.state, trajectories)
        return before, jax.device_get(state.params), trajectories, figures


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_step_from_a_checkpoint_is_the_same_on_one_device_and_on_eight(name, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "there", name)
    convert.run(["import", str(tmp_path / "there"), "--run-dir", str(tmp_path / "run")])
    before, after, trajectories, figures = step(tmp_path / "run")
    assert figures["rollout/logprob_gap"] < 1e-4
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert min(jax.tree.leaves(moved)) > 0  # every parameter, in every family
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
    _, alone, same, figures_alone = step(tmp_path / "run")
    for a, b in zip(trajectories, same, strict=True):
        assert [t.tokens.tolist() for t in a.turns] == [t.tokens.tolist() for t in b.turns]
    # Adam's first step is the sign of the gradient, which is arbitrary where the gradient is 0.
    apart = [np.abs(a - b) for a, b in zip(*map(jax.tree.leaves, (after, alone)), strict=True)]
    apart = np.concatenate([each.ravel() for each in apart])
    assert (apart < 1e-5).mean() > 0.99 and apart.max() < 2.1e-3
    for name in ("update/loss", "update/grad_norm"):
        np.testing.assert_allclose(figures[name], figures_alone[name], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_imported_model_brings_its_own_dialogue(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match=r"run `python -m launch\.convert import FOLDER"):
        Session(parse(TrainArguments, "--run-dir", run_dir).config, run_dir)
    config = write_checkpoint(tmp_path / "there", "qwen2.5")
    symbols = FAMILIES["qwen2.5"].tokenizer().control_symbols
    ends = symbols["<|im_end|>"], symbols["<|endoftext|>"]
    (tmp_path / "there" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    convert.run(["import", str(tmp_path / "there"), "--run-dir", str(run_dir)])
    with pytest.raises(ValueError, match="does not know the built-in dialogue; take the preset"):
        Session(cli.parse(TrainArguments, ["tiny"], program="tests").config, run_dir)
    chosen = parse(TrainArguments, "--model.attention", "plain", "--dialogue.protocol", "hermes")
    with Session(chosen.config, run_dir) as session:
        assert session.config.model == dataclasses.replace(config, attention="plain")
        assert session.dialogue.stop_ids == ends
        chex.assert_trees_all_equal(session.load_start(run_dir), make_params(config))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")  # qwix 0.1.8
def test_adapters_are_trained_kept_and_exported(tmp_path):
    pytest.importorskip("qwix", reason="needs the extra `lora`")
    numpy_files = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    from models import lora
    from models.hf import peft

    run_dir, there = tmp_path / "run", tmp_path / "there"
    config = write_checkpoint(there, "qwen2.5")
    convert.run(["import", str(there), "--run-dir", str(run_dir)])
    arguments = parse(TrainArguments, "--lora.rank", "2", "--lora.targets", "q_proj", "up_proj")
    with Session(arguments.config, run_dir) as session:
        trainer = Trainer(session, session.load_start(run_dir))
        phase = functools.partial(
            Phase, "train", run_dir, session.config, checkpoint_every=1, go_on=""
        )
        with phase(trainer.state, resume=False) as first:
            for number in first.steps(1):
                first.state, figures = trainer.learn(number, first.state, sample(trainer))
        assert figures["rollout/logprob_gap"] < 1e-4 and figures["update/grad_norm"] > 0
        trained = jax.device_get(first.state.params)
        chex.assert_trees_all_equal(trained["base"], make_params(config))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(trained["adapter"]))  # B began at 0
        chex.assert_trees_all_equal(session.load_newest(), trained)
        blank = jax.tree.map(lambda leaf: leaf * 0, first.state)
        with phase(blank, resume=True) as second:
            chex.assert_trees_all_equal(jax.device_get(second.state.params), trained)

    for adapters in ("merge", "peft"):
        out = str(tmp_path / adapters)
        convert.run(["export", str(run_dir), "--out", out, "--adapters", adapters])
    chosen = lora.LoraConfig(rank=2, targets=("q_proj", "up_proj"))
    merged = hf_weights.load_params(hf_weights.open_checkpoint(tmp_path / "merge"))
    chex.assert_trees_all_close(merged, lora.merge(trained, chosen), rtol=1e-6)
    said = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (said["r"], said["base_model_name_or_path"]) == (2, str(there))
    written = numpy_files.load_file(tmp_path / "peft" / "adapter_model.safetensors")
    expected = {
        tensor.name: trained["adapter"]["layers"][tensor.path[1]][tensor.path[2]][tensor.layer].T
        for tensor in peft.adapter_tensors(config, trained["adapter"])
    }
    chex.assert_trees_all_equal(written, expected)

    message = "trained adapters and this config has none"
    with (
        Session(parse(TrainArguments).config, run_dir) as session,
        pytest.raises(ValueError, match=message),
    ):
        session.load_newest()
    with pytest.raises(ValueError, match="import has no adapters; leave out --adapters peft"):
        to = ("--out", str(tmp_path / "no"), "--adapters", "peft", "--phase", "import")
        convert.run(["export", str(run_dir), *to])


@pytest.mark.slow
def test_model_is_watched_as_it_solves_a_problem(tmp_path, capsys):
    write_checkpoint(tmp_path / "there", "qwen2.5")
    rollout.run(
        [
            *("chat", *OPTIONS, "--model", str(tmp_path / "there")),
            *("--prompt", "What is 2 + 2?", "--json", str(tmp_path / "out.json")),
        ]
    )
    written = json.loads((tmp_path / "out.json").read_text())
    shown = capsys.readouterr().out
    assert shown.startswith("What is 2 + 2?") and written["stop"] in shown
    assert written["turns"] and all(turn["text"].split()[0] in shown for turn in written["turns"])


def dialogue_of(folder, *variables):
    chosen = parse(
        TrainArguments, *(("--dialogue.template-variables", *variables) if variables else ())
    )
    return imported_model.make_dialogue(chosen.config.dialogue, folder)


def test_variables_of_the_chat_template_are_an_option(tmp_path):
    family = FAMILIES["qwen3"]
    family.library_tokenizer().save(str(tmp_path / "tokenizer.json"))
    source = "{% if effort %}{{ effort }}{% endif %}" + family.template
    (tmp_path / "chat_template.jinja").write_text(source)
    silent = dialogue_of(tmp_path, "enable_thinking=False", 'effort="much"')
    prompt = silent.tokenizer.decode(silent.prompt("Q"))
    assert prompt.startswith("much") and prompt.endswith("<think>\n\n</think>\n\n")
    for value in ("true", "[0]", "yes"):
        thinking = dialogue_of(tmp_path, f"enable_thinking={value}", "effort=a=b")
        prompt = thinking.tokenizer.decode(thinking.prompt("Q"))
        assert prompt.startswith("a=b") and prompt.endswith("assistant\n")
    with pytest.raises(
        ValueError, match="never reads the variable think; it reads effort, enable_th"
    ):
        dialogue_of(tmp_path, "think=false")
    for pairs in (["enable_thinking"], ["=1"], ["a b=1"], ["effort=1", "effort=2"]):
        with pytest.raises(
            ValueError, match=r"template_variables must be as enable_thinking=false"
        ):
            dialogue_of(tmp_path, *pairs)


def test_variables_of_no_chat_template_are_an_error(tmp_path):
    config = cli.parse(
        TrainArguments, ["tiny", "--dialogue.template-variables", "a=1"], program="tests"
    ).config
    with pytest.raises(ValueError, match="built-in dialogue has none; leave them out"):
        imported_model.with_model(config, None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"protocol": "tags"}, "is for dialogue.protocol fenced, not tags"),
        ({}, "is for dialogue.protocol fenced, not markers"),
        ({"protocol": "fenced", "most_calls": 2}, "most_calls is 2.* set it to 1"),
    ],
)
def test_turns_that_cannot_end_behind_a_block_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        DialogueConfig(**options, stop_after_block=True)
    stops = make_protocol(DialogueConfig(protocol="fenced", stop_after_block=True)).stop_strings
    assert stops == ("```output", "\n```\n")


def test_rollout_without_a_prompt_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--prompt is missing"):
        rollout.run(["chat", "--run-dir", str(tmp_path)])
