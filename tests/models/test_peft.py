"""Adapters written for PEFT: names, sides, and what that library computes from them."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

pytest.importorskip("qwix", reason="needs the extra `lora`")

from models import lora
from models.hf import export as hf_export
from models.hf import peft
from models.hf import tensors as hf_tensors
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params

pytestmark = pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")

LORA = lora.LoraConfig(rank=4, alpha=6.0, targets=("q_proj", "down_proj"))


def random_adapters(config, adapters):
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(
        lambda key: lora.init_adapters(config, adapters, key), jax.random.key(0)
    )
    return jax.tree.map(
        lambda leaf: (rng.standard_normal(leaf.shape) * 0.3).astype(np.float32), shapes
    )


def values(config, adapters, **options):
    """Tensors by name, as the formula of the names says where they are."""
    found = {}
    for tensor in peft.adapter_tensors(config, adapters, **options):
        layers, name, leaf = tensor.path
        found[tensor.name] = adapters[layers][name][leaf][tensor.layer].T
        assert found[tensor.name].shape == tensor.shape
    return found


def test_every_layer_has_two_tensors_a_target_by_the_names_and_sides_of_peft():
    tensors = values(CONFIG, random_adapters(CONFIG, LORA))
    attention, mlp = (
        "base_model.model.model.layers.{}.self_attn.q_proj",
        "base_model.model.model.layers.{}.mlp.down_proj",
    )
    assert {name: array.shape for name, array in tensors.items()} == {
        **{f"{attention.format(i)}.lora_A.weight": (4, 32) for i in (0, 1)},
        **{f"{attention.format(i)}.lora_B.weight": (32, 4) for i in (0, 1)},
        **{f"{mlp.format(i)}.lora_A.weight": (4, 48) for i in (0, 1)},
        **{f"{mlp.format(i)}.lora_B.weight": (32, 4) for i in (0, 1)},
    }


def test_decoder_within_a_larger_model_is_named_in_full_and_nothing_else_is():
    # An image encoder has q_proj, k_proj and v_proj of its own.
    config, modules = VARIANTS["two_ropes"], "model.language_model."
    everything = dataclasses.replace(LORA, targets="all linear")
    adapters = random_adapters(config, everything)
    names = values(config, adapters, modules=modules)
    assert all(n.startswith("base_model.model.model.language_model.layers.") for n in names)
    said = peft.adapter_config(config, everything, modules=modules)["target_modules"]
    adapted = {n.removeprefix("base_model.model.").rsplit(".", 2)[0] for n in names}
    assert {*said} == adapted and len(said) == 7 * config.layers
    elsewhere = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
    assert not [name for name in said if f".{elsewhere}".endswith(f".{name}")]


def test_config_says_rank_alpha_and_targets():
    everything = dataclasses.replace(LORA, targets="all linear")
    said = peft.adapter_config(VARIANTS["experts"], everything, base_model="Qwen/Qwen3")
    assert said["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (said["r"], said["lora_alpha"]) == (4, 6.0)
    assert said["base_model_name_or_path"] == "Qwen/Qwen3"
    assert (said["peft_type"], said["use_rslora"], said["bias"]) == ("LORA", False, "none")


def save(folder, **options):
    adapters = random_adapters(CONFIG, LORA)
    return peft.save(folder, CONFIG, LORA, adapters, **options), adapters


def test_folder_holds_what_was_given_and_replaces_adapters_alone(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    out = tmp_path / "adapters"
    matrices, adapters = save(out, base_model="base")
    assert matrices == 2 * CONFIG.layers
    written = numpy_files.load_file(out / "adapter_model.safetensors")
    chex.assert_trees_all_equal(written, values(CONFIG, adapters))
    said = json.loads((out / "adapter_config.json").read_text())
    assert said == peft.adapter_config(CONFIG, LORA, base_model="base")
    with pytest.raises(ValueError, match=r"exists; choose another folder, or pass overwrite"):
        save(out)
    save(out, overwrite=True)
    (out / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no adapter_config\.json"):
        save(out, overwrite=True)


def test_adapters_are_held_against_the_files_of_their_base(tmp_path):
    base = tmp_path / "base"
    hf_export.save_checkpoint(base, CONFIG, make_params())
    matrices, _ = save(tmp_path / "right", checked_against=base)
    assert matrices == 2 * CONFIG.layers
    for name, other, named in (
        ("wider", {"mlp_width": 64}, r"no matrix for .*mlp\.down_proj\.lora_A\.weight;"),
        ("deeper", {"layers": 3}, r"without adapters: model\.layers\.2\.mlp\.down_proj, "),
        ("shallower", {"layers": 1}, r"no matrix for .*layers\.1\.mlp"),
    ):
        changed = dataclasses.replace(CONFIG, **other)
        hf_export.save_checkpoint(tmp_path / name, changed, make_params(changed))
        with pytest.raises(ValueError, match=named) as error:
            save(tmp_path / "out", checked_against=tmp_path / name)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()


def test_adapters_that_the_disk_changed_are_not_kept(monkeypatch, tmp_path):
    write = hf_tensors.write_tensors

    def flipped(path, *arguments):
        write(path, *arguments)
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)

    monkeypatch.setattr(hf_tensors, "write_tensors", flipped)
    with pytest.raises(
        ValueError, match=r"of other values: .*lora_B\.weight\), and nothing was kept"
    ):
        save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.hf
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", ["all linear", ("q_proj", "down_proj")])
def test_peft_computes_the_same_logits_from_the_folder(targets, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")
    library = pytest.importorskip("peft", reason="needs the extra `parity`")
    from models.hf import config as hf_config
    from models.hf import names as hf_names

    config = dataclasses.replace(CONFIG, vocab_size=64)
    adapters = dataclasses.replace(LORA, targets=targets)
    params = lora.add(make_params(config), random_adapters(config, adapters))
    said = hf_config.to_hf(config)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**said), attn_implementation="eager"
    )
    tensors = dict(hf_names.export_params(config, params["base"]))
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    result = model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()

    tokens = np.random.default_rng(0).integers(0, 64, (2, 9), np.int32)
    positions = np.broadcast_to(np.arange(9), tokens.shape)
    forward = lora.forward_fn(config, adapters)

    def run(params):
        return forward.logits(params, forward.hidden(params, tokens, positions)[0])

    logits = np.asarray(jax.jit(run)(params))
    peft.save(tmp_path / "adapter", config, adapters, params["adapter"], base_model="base")
    with torch.no_grad():
        alone = model(torch.tensor(tokens)).logits.numpy()
        loaded = library.PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
        theirs = loaded(torch.tensor(tokens)).logits.numpy()
    scale = np.abs(theirs).max()
    assert np.abs(alone - theirs).max() > 0.05 * scale
    np.testing.assert_allclose(logits, theirs, atol=1e-4 * scale)
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved == peft.adapter_config(config, adapters, base_model="base")
