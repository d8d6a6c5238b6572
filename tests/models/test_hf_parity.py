"""Every family against its implementation in `transformers`, with small random weights.

The weights go through files, as published ones do: `save_pretrained`, then our import.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import decoder
from models.hf import config as hf_config
from models.hf import names as hf_names
from models.presets import MODELS
from tests.models.published import CASES, SIZES, random_model

torch = pytest.importorskip("torch", reason="needs the extra `parity`")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the extra `parity`")

pytestmark = [pytest.mark.hf, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-4  # of the largest value, in float32
LENGTH = 18


class Oracle:
    """A model of `transformers` with random weights, and the same one here, through files."""

    def __init__(self, name, folder):
        self.folder = folder
        self.model = random_model(name)
        self.saved = self.save(folder / "weights")
        self.json = json.loads((folder / "weights" / "config.json").read_text())
        self.config = hf_config.from_hf(self.json)
        hf_names.check_names(self.config, self.saved)
        self.params = hf_names.import_params(self.config, self.saved.__getitem__)
        self.forward = decoder.forward_fn(self.config)

    def save(self, folder):
        """Tensors of the model by their names in a checkpoint."""
        self.model.save_pretrained(folder)
        return safetensors_numpy.load_file(folder / "model.safetensors")

    def logits(self, rows):
        """Logits of each row, computed alone."""
        with torch.no_grad():
            return [self.model(torch.tensor(row[None])).logits[0].numpy() for row in rows]

    def gradient(self, rows):
        """Gradient of the summed log-probs of all tokens but the first of each row."""
        self.model.zero_grad()
        for row in rows:
            ids = torch.tensor(row[None])
            logprobs = self.model(ids).logits[:, :-1].log_softmax(dim=-1)
            logprobs.gather(-1, ids[:, 1:, None]).sum().backward()
        kept = [p.data for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.data = parameter.grad
        gradient = self.save(self.folder / "gradient")
        for parameter, value in zip(self.model.parameters(), kept, strict=True):
            parameter.data = value
        return gradient


@pytest.fixture(scope="module", params=CASES)
def oracle(request, tmp_path_factory):
    return Oracle(request.param, tmp_path_factory.mktemp(request.param))


def random_rows(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, SIZES["vocab_size"], length, np.int32) for length in lengths]


def assert_near(actual, expected, what):
    error = np.max(np.abs(actual - expected)) / np.max(np.abs(expected))
    print(f"{what}: {error:.1e}")
    assert error <= TOLERANCE, what


def summed_logprobs(oracle, params, tokens, positions, segment_ids, trained):
    hidden, _ = oracle.forward.hidden(params, tokens, positions, segment_ids=segment_ids)
    logprobs = jax.nn.log_softmax(oracle.forward.logits(params, hidden)[:, :-1])
    taken = jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(trained[:, 1:], taken, 0.0))


def packed(rows, width):
    """One row with all of them behind each other, and padding before, between and after."""
    tokens, positions, segments, trained = (np.zeros((1, width), np.int32) for _ in range(4))
    at, starts = 1, []
    for index, row in enumerate(rows):
        here = np.s_[0, at : at + len(row)]
        tokens[here], positions[here], segments[here] = row, np.arange(len(row)), index + 1
        trained[here] = np.arange(len(row)) > 0
        starts.append(at)
        at += len(row) + 1
    return tokens, positions, segments, trained.astype(bool), starts


def test_logits_of_whole_rows_are_those_of_transformers(oracle):
    tokens = np.stack(random_rows(LENGTH, LENGTH))
    positions = np.broadcast_to(np.arange(LENGTH), tokens.shape)

    def run(params):
        hidden, _ = oracle.forward.hidden(params, tokens, positions)
        return oracle.forward.logits(params, hidden)

    assert_near(jax.jit(run)(oracle.params), np.stack(oracle.logits(tokens)), "logits")


def test_logits_and_gradients_of_packed_rows_are_those_of_the_rows_alone(oracle):
    rows = random_rows(LENGTH, 7, 11, seed=1)
    tokens, positions, segments, trained, starts = packed(rows, 42)

    def run(params):
        hidden, _ = oracle.forward.hidden(params, tokens, positions, segment_ids=segments)
        return oracle.forward.logits(params, hidden)

    logits = np.asarray(jax.jit(run)(oracle.params))[0]
    for start, row, expected in zip(starts, rows, oracle.logits(rows), strict=True):
        assert_near(logits[start : start + len(row)], expected, f"packed at {start}")

    loss = functools.partial(
        summed_logprobs,
        oracle,
        tokens=tokens,
        positions=positions,
        segment_ids=segments,
        trained=trained,
    )
    gradient = dict(hf_names.export_params(oracle.config, jax.jit(jax.grad(loss))(oracle.params)))
    expected = oracle.gradient(rows)
    assert gradient.keys() == expected.keys()
    for name in gradient:
        assert_near(gradient[name], expected[name], f"gradient of {name}")


def test_logits_of_cached_ragged_rows_are_those_of_whole_rows(oracle):
    # Prompts of two lengths are prefilled side by side, then every row decodes token by token.
    rows, prompts = random_rows(LENGTH, LENGTH - 4, seed=2), np.array([9, 3])
    width = prompts.max()
    hidden = jax.jit(oracle.forward.hidden)

    def logits(states):
        return np.asarray(oracle.forward.logits(oracle.params, states))

    fed = np.zeros((2, width), np.int32)
    for index, row in enumerate(rows):
        fed[index, : prompts[index]] = row[: prompts[index]]
    positions = np.broadcast_to(np.arange(width), fed.shape)
    cache = oracle.forward.init_cache(2, LENGTH)
    states, cache = hidden(oracle.params, fed, positions, cache=cache)
    seen = [list(logits(states)[i, : prompts[i]]) for i in range(2)]
    for step in range(LENGTH - prompts.min()):
        at = np.minimum(prompts + step, [len(row) - 1 for row in rows])
        fed = np.array([[row[i]] for row, i in zip(rows, at, strict=True)])
        states, cache = hidden(oracle.params, fed, at[:, None], cache=cache)
        for index, row in enumerate(rows):
            if prompts[index] + step < len(row):
                seen[index].append(logits(states)[index, 0])
    for found, expected in zip(seen, oracle.logits(rows), strict=True):
        assert_near(np.array(found), expected, "cached")


def test_exported_checkpoint_loads_in_transformers_with_the_same_logits(oracle):
    folder = oracle.folder / "exported"
    folder.mkdir()
    exported = dict(hf_names.export_params(oracle.config, oracle.params))
    assert exported.keys() == oracle.saved.keys()
    for name, array in exported.items():
        np.testing.assert_array_equal(array, oracle.saved[name])
    safetensors_numpy.save_file(exported, folder / "model.safetensors", {"format": "pt"})
    others = {key: SIZES[key] for key in ("max_position_embeddings", "pad_token_id")}
    written = hf_config.to_hf(oracle.config, others=others)
    (folder / "config.json").write_text(json.dumps(written))
    assert hf_config.from_hf(written) == oracle.config
    loaded = type(oracle.model).from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.tensor(random_rows(LENGTH)[0][None])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, oracle.model(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name, config in MODELS.items() if config.causal])
def test_preset_has_as_many_parameters_as_in_transformers(name):
    written = hf_config.to_hf(MODELS[name])
    model = getattr(transformers, written.pop("architectures")[0])
    with torch.device("meta"):
        empty = model(model.config_class(**written))
    empty.tie_weights()
    assert sum(p.numel() for p in empty.parameters()) == MODELS[name].parameters


def test_bfloat16_logits_stay_near_those_of_transformers(tmp_path):
    # Each rounds at other places, so this is a bound on the sum of roundings, not parity.
    oracle = Oracle("gemma3", tmp_path)
    config = dataclasses.replace(oracle.config, param_dtype="bfloat16", compute_dtype="bfloat16")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), oracle.params)
    tokens = np.stack(random_rows(LENGTH))
    positions = np.arange(LENGTH)[None]
    forward = decoder.forward_fn(config)
    ours = forward.logits(params, forward.hidden(params, tokens, positions)[0])[0]
    exact = oracle.logits(tokens)[0]
    with torch.no_grad():
        theirs = oracle.model.to(torch.bfloat16)(torch.tensor(tokens)).logits[0].float().numpy()
    noise = np.abs(theirs - exact).mean()
    assert np.abs(np.asarray(ours) - exact).mean() < 1.5 * noise
