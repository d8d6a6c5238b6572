"""LLaDA checkpoints: read, compared with a float64 reference of the public model, and written.

`transformers` has no model of this kind. (Its DiffusionGemma is an encoder and a decoder with
uniform noise instead of masks.) The reference below works on the tensors by their names there.
"""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from models import decoder
from models.hf import config as hf_config
from models.hf.export import save_checkpoint
from models.hf.weights import load_params, open_checkpoint
from models.presets import MODELS

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `parity`")

PUBLISHED = {  # config.json of GSAI-ML/LLaDA-8B-Base
    "activation_type": "silu",
    "alibi": False,
    "architectures": ["LLaDAModelLM"],
    "attention_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 4096,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "pad_token_id": 126081,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 126464,
    "weight_tying": False,
}
SMALL = PUBLISHED | {
    "d_model": 32,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "mlp_hidden_size": 40,
    "vocab_size": 61,
    "embedding_size": 61,
    "mask_token_id": 60,
    "rope_theta": 100.0,
    "torch_dtype": "float32",
}


def random_tensors(seed=0):
    """The tensors of a small checkpoint, `[out, in]` as in the files."""
    rng, c = np.random.default_rng(seed), SMALL
    d, f, size = c["d_model"], c["mlp_hidden_size"], c["d_model"] // c["n_heads"]
    shapes = {"wte.weight": (61, d), "ff_out.weight": (61, d), "ln_f.weight": (d,)}
    for layer in range(c["n_layers"]):
        shapes |= {
            f"blocks.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (d,),
                "q_proj": (d, d),
                "k_proj": (c["n_kv_heads"] * size, d),
                "v_proj": (c["n_kv_heads"] * size, d),
                "attn_out": (d, d),
                "ff_norm": (d,),
                "ff_proj": (f, d),
                "up_proj": (f, d),
                "ff_out": (d, f),
            }.items()
        }

    def draw(shape):
        noise = rng.standard_normal(shape)
        scaled = 1 + 0.1 * noise if len(shape) == 1 else noise * shape[-1] ** -0.5
        return scaled.astype(np.float32)

    return {f"model.transformer.{name}": draw(shape) for name, shape in shapes.items()}


def reference(tensors, tokens):
    """Logits of a row in float64: every token sees every other."""
    weights = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    heads, size = SMALL["n_heads"], SMALL["d_model"] // SMALL["n_heads"]
    shared = heads // SMALL["n_kv_heads"]

    def at(name):
        return weights[f"model.transformer.{name}.weight"]

    def normed(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + SMALL["rms_norm_eps"]) * at(name)

    def rotated(x):
        half, out = size // 2, x.copy()
        for position in range(len(x)):
            for i in range(half):
                angle = position * SMALL["rope_theta"] ** (-2 * i / size)
                a, b = x[position, i], x[position, half + i]
                out[position, i] = a * math.cos(angle) - b * math.sin(angle)
                out[position, half + i] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = at("wte")[tokens]
    for layer in range(SMALL["n_layers"]):
        block = f"blocks.{layer}"
        h = normed(x, f"{block}.attn_norm")
        q, k, v = (h @ at(f"{block}.{name}_proj").T for name in "qkv")
        mixed = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            group = slice(head // shared * size, (head // shared + 1) * size)
            scores = np.exp(rotated(q[:, own]) @ rotated(k[:, group]).T / math.sqrt(size))
            mixed.append(scores / scores.sum(1, keepdims=True) @ v[:, group])
        x = x + np.concatenate(mixed, axis=1) @ at(f"{block}.attn_out").T
        h = normed(x, f"{block}.ff_norm")
        gate = h @ at(f"{block}.ff_proj").T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (h @ at(f"{block}.up_proj").T))
            @ at(f"{block}.ff_out").T
        )
    return normed(x, "ln_f") @ at("ff_out").T


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llada")
    (folder / "config.json").write_text(json.dumps(SMALL))
    safetensors.save_file(random_tensors(), folder / "model.safetensors")
    return folder


def test_published_config_is_the_preset_and_is_written_again():
    config = hf_config.from_hf(PUBLISHED)
    assert config == MODELS["llada-8b"]
    assert config.parameters == 8_015_581_184
    written = hf_config.to_hf(config, others=PUBLISHED)
    assert PUBLISHED.items() <= (written | {"multi_query_attention": None}).items()
    assert hf_config.from_hf(written) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_type", "sequential"),
        ("layer_norm_type", None),
        ("rope", False),
        ("embedding_size", 126_592),
        ("multi_query_attention", True),
        ("activation_type", "swiglu"),
        ("scale_logits", True),
    ],
)
def test_what_the_decoder_cannot_express_is_refused(key, value):
    with pytest.raises(ValueError, match=r"config\.json of LLaDAModelLM has \w+="):
        hf_config.from_hf(PUBLISHED | {key: value})


def test_a_causal_model_is_no_llada_and_a_diffusion_model_nothing_else():
    small = hf_config.from_hf(SMALL)
    causal = dataclasses.replace(small, mask_id=None)
    assert hf_config.family_of(causal).architecture == "LlamaForCausalLM"
    with pytest.raises(ValueError, match=r"qk_norm=True|mask_id=60"):
        hf_config.to_hf(dataclasses.replace(small, qk_norm=True))
    with pytest.raises(ValueError, match=r"head_dim=16|mask_id=60"):
        hf_config.to_hf(dataclasses.replace(small, head_dim=16))


def test_logits_are_those_of_the_reference(folder):
    checkpoint = open_checkpoint(folder)
    params = load_params(checkpoint)
    forward = decoder.forward_fn(checkpoint.config)
    tokens = np.random.default_rng(1).integers(0, 61, (2, 11)).astype(np.int32)
    hidden, _ = forward.hidden(params, tokens, np.broadcast_to(np.arange(11), (2, 11)))
    logits = np.asarray(forward.logits(params, hidden))
    for row in range(2):
        expected = reference(random_tensors(), tokens[row])
        np.testing.assert_allclose(logits[row], expected, atol=2e-5 * np.abs(expected).max())


def test_export_gives_back_the_files(folder, tmp_path):
    checkpoint = open_checkpoint(folder)
    save_checkpoint(tmp_path / "again", checkpoint.config, load_params(checkpoint), source=folder)
    saved = safetensors.load_file(tmp_path / "again" / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, saved, random_tensors())
    assert SMALL.items() <= json.loads((tmp_path / "again" / "config.json").read_text()).items()
