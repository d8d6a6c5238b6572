"""Adapters written for PEFT: names, sides, and what that library computes from them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

pytest.importorskip("qwix", reason="needs qwix")

from models import lora, peft
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


def test_every_layer_has_two_tensors_a_target_by_the_names_and_sides_of_peft():
    adapters = random_adapters(CONFIG, LORA)
    tensors = dict(peft.adapter_tensors(CONFIG, adapters))
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
    found = tensors[f"{mlp.format(1)}.lora_A.weight"]
    np.testing.assert_array_equal(found, adapters["layers"]["down_proj"]["kernel_lora_a"][1].T)
    found = tensors[f"{attention.format(0)}.lora_B.weight"]
    np.testing.assert_array_equal(found, adapters["layers"]["q_proj"]["kernel_lora_b"][0].T)
    assert all(array.flags.c_contiguous for array in tensors.values())


def test_prefix_stands_before_the_name_of_the_base():
    adapters = random_adapters(CONFIG, LORA)
    names = [n for n, _ in peft.adapter_tensors(CONFIG, adapters, prefix="language_model.")]
    assert all(n.startswith("base_model.model.language_model.model.layers.") for n in names)


def test_config_says_rank_alpha_and_targets():
    everything = dataclasses.replace(LORA, targets="all linear")
    said = peft.adapter_config(VARIANTS["experts"], everything, base_model="Qwen/Qwen3")
    assert said["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (said["r"], said["lora_alpha"]) == (4, 6.0)
    assert said["base_model_name_or_path"] == "Qwen/Qwen3"
    assert (said["peft_type"], said["use_rslora"], said["bias"]) == ("LORA", False, "none")


@pytest.mark.hf
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", ["all linear", ("q_proj", "down_proj")])
def test_peft_computes_the_same_logits_from_the_folder(targets, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")
    library = pytest.importorskip("peft", reason="needs PEFT")
    from models import hf_config, hf_names

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
