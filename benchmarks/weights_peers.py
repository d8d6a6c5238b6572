"""The part of transformers in `benchmarks.weights`, run by an interpreter that has it.

python weights_peers.py FOLDER DTYPE

Loads the checkpoint, copies the weights out of the mapped files, and prints one line of JSON. It
imports nothing from this repository.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import pathlib
import sys
import time

import torch
import transformers


def memory(key: str) -> float:
    """Bytes of this process in memory: now (`VmRSS`), at the peak (`VmHWM`)."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith(key + ":")]
    return 1024.0 * int(line.split()[1])


@torch.no_grad()
def main(folder: str, dtype: str) -> None:
    # Resolves the library's lazy imports, which do not count.
    load = transformers.AutoModelForCausalLM.from_pretrained
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.AutoModelForCausalLM._model_mapping[type(config)]
    before, start = memory("VmRSS"), time.perf_counter()
    model = load(folder, dtype=getattr(torch, dtype))
    mapped = time.perf_counter() - start
    unchanged = dtype == str(config.dtype).removeprefix("torch.")
    if unchanged:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    seconds = time.perf_counter() - start
    arrays = sum(p.numel() * p.element_size() for p in model.parameters())
    answer = {
        "version": transformers.__version__,
        "seconds": seconds,
        "mapped": mapped if unchanged else None,
        "extra": memory("VmHWM") - before - arrays,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
