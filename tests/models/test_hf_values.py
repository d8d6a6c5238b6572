"""`config.json` with nulls, other spellings and other kinds of values: read, or one line."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from models import rope
from models.config import RopeScaling
from models.hf import config as hf_config
from models.hf import families as hf_families
from tests.models.test_hf_config import FILES, LLAMA

STRANGE = (
    *(
        None,
        "auto",
        "",
        "torch.float32",
        "3",
        "two\nlines",
        "long" * 900,
        True,
        False,
        0,
        1,
        -1,
        1.5,
    ),
    *(4096.0, 10**30, float("nan"), float("inf"), [], {}, [1], [None], [{}], {"a": 1}),
    *(["full_attention"], {"full_attention": None}, {"full_attention": 3}, {"type": "yarn"}),
    *(
        {"rope_type": None, "factor": None},
        {"rope_type": ["yarn"]},
        {"rope_type": "yarn", "factor": "4"},
    ),
)
KEYS = {
    *(key for family in hf_families.FAMILIES for key in (*family.keys.values(), family.activation)),
    *hf_families.COMMON.values(),
    *hf_families.COMMON_DEFAULTS,
    *hf_families.GEMMA_DEFAULTS,
    *hf_families.ABSENT,
    *hf_families.RIVALS,
    *("architectures", "model_type", "torch_dtype", "rope_scaling", "rope_local_base_freq"),
    *("use_sliding_window", "max_window_layers", "max_position_embeddings", "eos_token_id"),
}
SCALING = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 4096,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def assert_read_or_refused(config):
    """Values that are read can be written and read again; others are refused in one line."""
    try:
        found = hf_config.from_hf(config)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        written = json.dumps(hf_config.to_hf(found, others=config))
        again = hf_config.from_hf(json.loads(written))
        assert json.dumps(hf_config.to_hf(again, others=config)) == written


@pytest.mark.parametrize("name", FILES)
def test_any_value_of_any_key_is_read_or_refused_in_one_line(name):
    config = json.loads(FILES[name])
    for key, value in itertools.product(sorted(KEYS), STRANGE):
        assert_read_or_refused({**config, key: value})
        if "text_config" in config:
            assert_read_or_refused({**config, "text_config": {**config["text_config"], key: value}})


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn", "dynamic"])
@pytest.mark.parametrize("style", ["rope_scaling", "rope_parameters"])
def test_any_value_of_a_rotary_setting_is_read_or_refused_in_one_line(style, kind):
    keys = {*SCALING, "type", "rope_theta", "beta_fast", "attention_factor", *hf_families.REPEATED}
    for key, value in itertools.product(sorted(keys), STRANGE):
        scaling = {**SCALING, "rope_type": kind, key: value}
        assert_read_or_refused({**LLAMA, style: scaling})
        near = {"full_attention": scaling, "sliding_attention": {"rope_type": "default"}}
        assert_read_or_refused({**json.loads(FILES["gemma-3-1b"]), style: near})


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"torch_dtype": "torch.float16"}, "param_dtype", "float16"),
        ({"torch_dtype": None, "dtype": "torch.bfloat16"}, "compute_dtype", "bfloat16"),
        ({"torch_dtype": "auto"}, "param_dtype", "float32"),
        ({"torch_dtype": "auto", "dtype": "float16"}, "param_dtype", "float16"),
        ({"rope_theta": None}, "rope_theta", 1e4),
        ({"rope_theta": 500_000}, "rope_theta", 5e5),
        ({"rms_norm_eps": None}, "norm_eps", 1e-6),
        ({"tie_word_embeddings": None}, "tied_embeddings", False),
        ({"hidden_act": None}, "activation", "silu"),
        ({"head_dim": None}, "head_dim", 128),
        ({"num_key_value_heads": None}, "kv_heads", 32),
        ({"num_hidden_layers": 32.0}, "layers", 32),
        ({"rope_scaling": None}, "rope_scaling", RopeScaling()),
        ({"rope_scaling": {}}, "rope_scaling", RopeScaling()),
        ({"rope_scaling": {"rope_type": "default"}}, "rope_scaling", RopeScaling()),
        ({"eos_token_id": [1, 2]}, "layers", 32),
    ],
)
def test_null_stands_for_the_default_and_other_spellings_are_read(change, field, value):
    assert getattr(hf_config.from_hf({**LLAMA, **change}), field) == value


def test_null_turns_off_what_a_file_may_be_without():
    mistral, gemma = json.loads(FILES["mistral-7b"]), json.loads(FILES["gemma-2-2b"])
    assert hf_config.from_hf({**mistral, "sliding_window": None}).window is None
    found = hf_config.from_hf({**gemma, "final_logit_softcapping": None})
    assert (found.logit_softcap, found.attention_softcap) == (None, 50.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "4096"}, "hidden_size='4096'; expected a whole number from 1"),
        ({"hidden_size": 4096.5}, "hidden_size=4096.5; expected a whole number"),
        ({"num_attention_heads": True}, "num_attention_heads=True; expected a whole number"),
        ({"vocab_size": [1]}, r"vocab_size=\[1\]; expected a whole number"),
        ({"rope_theta": "1e6"}, "rope_theta='1e6'; expected a positive number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan; expected a positive number"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false'; expected true or false"),
        ({"hidden_act": 3}, "hidden_act=3; expected a name"),
        ({"rope_scaling": "yarn"}, "rope_scaling='yarn'; expected an object"),
        ({"torch_dtype": "float64"}, "dtype 'float64'; expected auto or one of bfloat16, float16"),
        ({"dtype": 16}, "dtype 16; expected auto or one of"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "factor='4'; expected a positive"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": False}}, "truncate of the"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "rope_type='mrope'"),
    ],
)
def test_value_of_another_kind_is_refused_with_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        hf_config.from_hf({**LLAMA, **change})


YARN = RopeScaling(kind="yarn", factor=4.0, original_positions=131_072)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, YARN),
        ({"finetuned": True}, YARN),
        ({"finetuned": False}, YARN),
        ({"truncate": True}, YARN),
        ({"beta_fast": 32, "beta_slow": 1}, YARN),
        ({"beta_fast": None, "attention_factor": None}, YARN),
        ({"mscale": 1.0}, YARN),
        ({"mscale": 1.0, "mscale_all_dim": 0}, YARN),
        ({"partial_rotary_factor": 1.0}, YARN),
        # The factor of transformers: (0.1 · mscale · ln 4 + 1) / (0.1 · mscale_all_dim · ln 4 + 1).
        (
            {"mscale": 1.0, "mscale_all_dim": 1.0},
            dataclasses.replace(YARN, attention_factor=1.0),
        ),
        ({"attention_factor": 1.2}, dataclasses.replace(YARN, attention_factor=1.2)),
        (
            {"original_max_position_embeddings": 32_768, "factor": None},
            dataclasses.replace(YARN, original_positions=32_768),
        ),
    ],
)
def test_rotary_setting_that_repeats_a_default_changes_nothing(said, expected):
    scaling = {"rope_type": "yarn", "factor": 4.0, **said}
    assert hf_config.from_hf({**LLAMA, "rope_scaling": scaling}).rope_scaling == expected
    later = {**LLAMA, "rope_scaling": None, "rope_parameters": {**scaling, "rope_theta": 7.0}}
    found = hf_config.from_hf(later)
    assert (found.rope_scaling, found.rope_theta) == (expected, 7.0)


def test_scaling_of_a_file_that_names_no_length_has_that_of_its_family():
    # The defaults of transformers 5: they count where a file leaves the length out.
    lengths = {
        "qwen2.5-7b": 32_768,
        "qwen3-0.6b": 32_768,
        "qwen3-30b-a3b": 32_768,
        "llama-3.1-8b": 2048,
        "mistral-7b": 131_072,
        "gemma-2-2b": 8192,
        "gemma-3-1b": 131_072,
    }
    for name, length in lengths.items():
        config = json.loads(FILES[name]) | {"rope_scaling": {"type": "yarn", "factor": 4.0}}
        config.pop("max_position_embeddings", None)
        assert hf_config.from_hf(config).rope_scaling.original_positions == length


def test_scaling_that_was_added_to_a_later_file_keeps_its_base():
    later = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    later["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
    later["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}
    found = hf_config.from_hf(later)
    assert (found.rope_scaling, found.rope_theta) == (YARN, 1e6)


def test_text_part_takes_what_it_lacks_from_the_whole():
    config = json.loads(FILES["gemma-3-12b"])
    config["text_config"] |= {"torch_dtype": None, "sliding_window": None}
    found = hf_config.from_hf({**config, "torch_dtype": "float16"})
    assert (found.param_dtype, found.window) == ("float16", None)
    with pytest.raises(ValueError, match="quantization_config="):
        hf_config.from_hf({**config, "quantization_config": {"bits": 4}})
    for inner in (None, "gemma"):
        with pytest.raises(ValueError, match="text_config"):
            hf_config.from_hf({**config, "text_config": inner})


def test_decoder_in_a_larger_model_has_two_names():
    images, text = json.loads(FILES["gemma-3-12b"]), json.loads(FILES["gemma-3-1b"])
    assert hf_config.module_prefix(images) == "model.language_model."
    assert hf_config.module_prefix(text) == "model."
    published = "language_model.model.layers.0.mlp.up_proj.weight"
    saved = "model.language_model.layers.0.mlp.up_proj.weight"
    assert hf_config.published_name(images, saved) == published
    assert hf_config.published_name(images, published) == published
    assert hf_config.published_name(images, "lm_head.weight") == "language_model.lm_head.weight"
    assert hf_config.published_name(text, "lm_head.weight") == "lm_head.weight"


@pytest.mark.hf
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "said",
    [
        {"factor": 4.0},
        {"factor": 4.0, "original_max_position_embeddings": 2048, "truncate": True},
        {"factor": None, "original_max_position_embeddings": 2048},
        {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0},
        {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5},
        {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0},
        {
            "factor": 4.0,
            "attention_factor": 1.25,
            "beta_fast": 16,
            "beta_slow": 2,
            "finetuned": True,
        },
    ],
)
def test_yarn_turns_as_fast_as_in_transformers(said):
    rope_utils = pytest.importorskip(
        "transformers.modeling_rope_utils", reason="needs the extra `parity`"
    )
    import transformers

    scaling = {"rope_type": "yarn", "rope_theta": 5e5, **said}
    theirs = transformers.LlamaConfig(**{**LLAMA, "rope_scaling": scaling})
    rates, amplitude = rope_utils.ROPE_INIT_FUNCTIONS["yarn"](theirs, "cpu")
    ours = hf_config.from_hf({**LLAMA, "rope_scaling": scaling})
    found = rope.frequencies(128, theta=ours.rope_theta, scaling=ours.rope_scaling)
    np.testing.assert_allclose(found, rates.numpy(), rtol=2e-6)
    assert rope.amplitude(ours.rope_scaling) == pytest.approx(amplitude, rel=1e-6)
