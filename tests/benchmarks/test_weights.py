"""The benchmark of weights runs and measures what its figures say."""

import dataclasses
import importlib.util
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import weights
from models.hf import weights as hf_weights
from models.presets import QWEN2_5_1_5B

pytestmark = pytest.mark.slow

OPTIONS = ["--layers=1", "--vocab-size=1000", "--repeats=1"]
CONFIG = dataclasses.replace(QWEN2_5_1_5B, layers=1, vocab_size=1000)


@pytest.mark.long
def test_benchmark_without_peers_writes_figures_and_leaves_peers_unmeasured(tmp_path):
    path = tmp_path / "figures.json"
    weights.run([*OPTIONS, f"--json={path}"])
    figures = json.loads(path.read_text())["figures"]
    for dtype in weights.DTYPES:
        assert figures[f"import as {dtype}, ours"]["value"] > 0
        ratio = figures[f"import as {dtype}, ours / transformers"]
        assert (ratio["value"], ratio["bar"], ratio["holds"]) == (None, "<= 1.5", None)
        memory = figures[f"host memory beside the arrays of {dtype}, ours"]
        # The largest tensor is a matrix of the MLP, in bfloat16.
        assert memory["bar"] == f"<= {round((8960 * 1536 * 2 + 256e6) / 1e6)}"
        assert memory["holds"]
    assert figures["the files mapped and not read, transformers"]["value"] is None


def test_checkpoint_it_writes_is_whole_and_random(tmp_path):
    assert weights.write_checkpoint(str(tmp_path / "written"), CONFIG) > 0
    checkpoint = hf_weights.open_checkpoint(tmp_path / "written")
    assert checkpoint.config == CONFIG
    assert {stored.dtype for stored in checkpoint.stored.values()} == {"BF16"}
    params = hf_weights.load_params(checkpoint)
    for leaf in jax.tree.leaves(params):
        values = np.asarray(leaf, np.float32)
        assert np.all((values >= 0) & (values < 1)) and len(np.unique(values)) > 100


def test_memory_is_that_of_the_arrays_and_what_comes_on_top(tmp_path):
    before = weights.memory("VmRSS")
    kept = np.ones(2**25)
    assert weights.memory("VmRSS") - before > 0.9 * kept.nbytes
    del kept
    assert weights.memory("VmHWM") - before > 0.9 * 2**28
    with pytest.raises(ValueError, match="VmNothing"):
        weights.memory("VmNothing")


def test_interpreter_that_is_not_there_or_lacks_the_peer_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"--peer-python .* does not exist"):
        weights.run([*OPTIONS, f"--peer-python={tmp_path / 'python'}"])


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="needs an interpreter without torch"
)
def test_interpreter_without_torch_names_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"needs torch and transformers: .*torch"):
        weights.import_theirs(sys.executable, str(tmp_path), "bfloat16")


@pytest.mark.hf
def test_transformers_is_measured_where_it_is_installed(tmp_path):
    pytest.importorskip("torch", reason="needs the extra `parity`")
    pytest.importorskip("transformers", reason="needs the extra `parity`")
    weights.write_checkpoint(str(tmp_path / "written"), CONFIG)
    result, version = weights.import_theirs(sys.executable, str(tmp_path / "written"), "bfloat16")
    assert result.mapped is not None and 0 < result.mapped < result.seconds
    assert version[0].isdigit()
    result, _ = weights.import_theirs(sys.executable, str(tmp_path / "written"), "float32")
    assert result.mapped is None and result.seconds > 0


def test_disk_that_is_too_small_is_named(monkeypatch):
    usage = weights.shutil.disk_usage("/")
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: usage._replace(free=10**6))
    with pytest.raises(ValueError, match=r"takes 0\.1 GB, and .* has 0\.0; set TMPDIR"):
        weights.run(OPTIONS)
