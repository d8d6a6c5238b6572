"""Small checkpoints in the format of Hugging Face."""

import dataclasses
import json

import numpy as np
import pytest

from models.hf import config as hf_config
from models.hf import names as hf_names
from models.hf import weights as hf_weights
from tests.models.variants import VARIANTS
from tests.tiny import CONFIG, make_params

MOE = dataclasses.replace(VARIANTS["experts"], experts=4)
CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
PATHS = {"host": None, "device": False}


def write_file(path, arrays, *, odd=False):
    """Safetensors by the letter of the format, sharing no code with the export."""
    header, data = {}, b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        code = CODES.get(str(array.dtype), str(array.dtype))
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * ((odd - len(text)) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write(folder, config, arrays, *, odd=False):
    """A folder with these tensors in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config.to_hf(config)))
    write_file(folder / "model.safetensors", arrays, odd=odd)
    return folder


def tensors(config, params=None):
    return dict(hf_names.export_params(config, make_params(config) if params is None else params))


def load(folder, **options):
    return hf_weights.load_params(hf_weights.open_checkpoint(folder), **options)


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def complaint(folder):
    with pytest.raises(ValueError) as error:
        hf_weights.open_checkpoint(folder)
    return str(error.value)


def damaged(tmp_path, change):
    source = write(tmp_path / "source", CONFIG, tensors(CONFIG))
    file = source / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    message = complaint(source)
    assert str(file) in message
    return message
