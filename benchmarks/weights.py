"""Cost of importing a checkpoint of 1.5B parameters: time and host memory.

python -m benchmarks.weights --json figures.json --peer-python /path/to/python-with-transformers

A checkpoint of the shape of Qwen2.5-1.5B with random weights in bfloat16 is written to a temporary
folder, in files of 1 GB. It is then imported in fresh processes, by ours and by `transformers` in
turn, from files that are in the page cache; a figure is a median. Starting Python and importing
libraries does not count.

`transformers` maps files and, where no dtype changes, leaves the weights in them unread. An import
is done when they are in memory of their own, where an optimizer may overwrite them; the time to map
them is listed beside it. On CPU the arrays are host memory too, so they are subtracted from the
peak, as is the memory that the process had before.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.figures import Figure
from benchmarks.measure import run_benchmark
from benchmarks.peers import check_interpreters
from launch import cli
from models.config import ModelConfig
from models.hf import export as hf_export
from models.hf import names as hf_names
from models.hf import weights as hf_weights
from models.presets import QWEN2_5_1_5B

FILE_BYTES = 1_000_000_000
ALLOWANCE = 256e6  # bytes of host memory beside the arrays and the largest tensor
DTYPES = ("bfloat16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsArguments:
    """Import of a checkpoint of 1.5B parameters, compared with transformers."""

    layers: int = QWEN2_5_1_5B.layers
    """Layers of the model; fewer make a smaller checkpoint."""
    vocab_size: int = QWEN2_5_1_5B.vocab_size
    """Rows of the model's embedding."""
    repeats: int = 3
    """Number of imports of each kind."""
    peer_python: pathlib.Path | None = None
    """Python interpreter with torch and transformers."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """One import in a process of its own. Memory in bytes."""

    seconds: float
    extra: float  # peak above the arrays and what the process had before
    mapped: float | None = None  # seconds until all weights are readable, if not in own memory


def write_checkpoint(folder: str, config: ModelConfig) -> float:
    """Random weights below 1; returns the seconds of the export alone."""
    rng = np.random.default_rng(0)
    params: dict = {}
    for leaf in hf_weights.leaves_of(config):
        *parents, last = leaf.path
        node = params
        for key in parents:
            node = node.setdefault(key, {})
        bits = rng.integers(0, 0x3F80, leaf.shape, np.uint16)
        node[last] = bits.view(np.dtype("bfloat16"))
    start = time.perf_counter()
    hf_export.save_checkpoint(folder, config, params, shard_bytes=FILE_BYTES)
    return time.perf_counter() - start


def import_ours(folder: str, dtype: str) -> Import:
    """Imports from config.json to arrays that are ready."""
    jax.devices()
    before, start = memory("VmRSS"), time.perf_counter()
    params = hf_weights.load_params(hf_weights.open_checkpoint(folder), dtype=dtype)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - start
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return Import(seconds=seconds, extra=memory("VmHWM") - before - arrays)


def touch_memory(size: int) -> None:
    """Writes to this many bytes and frees them.

    A hypervisor returns memory that has not been used lately page by page, more slowly than a file
    is read. The first import would pay for that.
    """
    np.ones(size, np.uint8)


def memory(key: str) -> float:
    """Bytes of this process in memory: now (`VmRSS`), at the peak (`VmHWM`)."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return 1024.0 * int(line.split()[1])
    raise ValueError(f"this system does not say {key} in /proc/self/status; run it on Linux")


def fresh(function, *arguments):
    """The result of a function, called in a new process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def import_theirs(python: pathlib.Path, folder: str, dtype: str) -> tuple[Import, str]:
    """The same by transformers, and its version."""
    worker = pathlib.Path(__file__).with_name("weights_peers.py")
    done = subprocess.run(
        [str(python), "-W", "ignore", str(worker), folder, dtype],
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"--peer-python cannot run it; it needs torch and transformers: {reason}")
    answer = json.loads(done.stdout)
    version = answer.pop("version")
    return Import(**answer), version


def median(values: Sequence[float | None]) -> float | None:
    """The median; None if nothing was measured."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def check_room(size: int) -> None:
    """Raises if the temporary folder has no room for a checkpoint of `size` bytes."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * size:
        raise ValueError(
            f"the checkpoint takes {size / 1e9:.1f} GB, and {tempfile.gettempdir()} has"
            f" {free / 1e9:.1f}; set TMPDIR to another folder, or --layers to fewer"
        )


def measure(arguments: WeightsArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    config = dataclasses.replace(
        QWEN2_5_1_5B, layers=arguments.layers, vocab_size=arguments.vocab_size
    )
    python = arguments.peer_python
    check_interpreters([] if python is None else [python])
    size = 2 * config.parameters
    check_room(size)
    ours: dict[str, list[Import]] = {dtype: [] for dtype in DTYPES}
    theirs: dict[str, list[Import]] = {dtype: [] for dtype in DTYPES}
    version = "none"
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(pathlib.Path(temporary) / "checkpoint")
        export = fresh(write_checkpoint, folder, config)
        files = len(list(pathlib.Path(folder).glob("*.safetensors")))
        for _ in range(arguments.repeats):
            for dtype in DTYPES:
                fresh(touch_memory, 3 * size)
                ours[dtype].append(fresh(import_ours, folder, dtype))
                if python is not None:
                    fresh(touch_memory, 3 * size)
                    result, version = import_theirs(python, folder, dtype)
                    theirs[dtype].append(result)

    shapes = [tensor.shape for tensor in hf_names.tensors(config)]
    figures: dict[str, Figure] = {}
    for dtype in DTYPES:
        own = median([each.seconds for each in ours[dtype]])
        their = median([each.seconds for each in theirs[dtype]])
        assert own is not None
        figures[f"import as {dtype}, ours"] = Figure(value=own, unit="seconds")
        figures[f"import as {dtype}, transformers"] = Figure(value=their, unit="seconds")
        figures[f"import as {dtype}, ours / transformers"] = Figure(
            value=None if their is None else own / their, unit="ratio", at_most=1.5
        )
    figures["the files mapped and not read, transformers"] = Figure(
        value=median([each.mapped for each in theirs["bfloat16"]]), unit="seconds"
    )
    for dtype in DTYPES:
        largest = max(math.prod(shape) for shape in shapes) * 2
        extra = max(each.extra for each in ours[dtype])
        figures[f"host memory beside the arrays of {dtype}, ours"] = Figure(
            value=extra / 1e6, unit="MB", at_most=round((largest + ALLOWANCE) / 1e6)
        )
        figures[f"host memory beside the arrays of {dtype}, transformers"] = Figure(
            value=max((each.extra / 1e6 for each in theirs[dtype]), default=None), unit="MB"
        )
    figures["export as bfloat16, ours"] = Figure(value=export, unit="seconds")
    notes = [
        f"{config.parameters:,} parameters in {config.layers} layers, {size / 1e9:.2f} GB in"
        f" {files} files; medians of {arguments.repeats} imports in turn, the worst of memory",
        f"transformers {version}",
    ]
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(WeightsArguments, measure, argv, "benchmarks.weights")


if __name__ == "__main__":
    cli.main(run)
