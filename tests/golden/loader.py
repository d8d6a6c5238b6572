"""Reads the golden numbers: `golden(file, case)`, and helpers to hand them to our functions."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = Path(__file__).parent
# The oracles ran in float64 where they allow it, on inputs that float32 holds, but for decimals
# that are there to be read.
close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-6)


@functools.cache
def load(name: str) -> dict:
    content = json.loads((FOLDER / f"{name}.json").read_text())
    return {case["name"]: case for case in content["cases"]}


def golden(file: str, case: str):
    """Inputs as they were, outputs as float64 with null read as NaN."""
    found = load(file)[case]
    outputs = {name: np.array(value, np.float64) for name, value in found["outputs"].items()}
    return found["inputs"], outputs


def floats(values) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def integers(values) -> jax.Array:
    return jnp.asarray(values, jnp.int32)


def kept(values) -> jax.Array:
    return jnp.asarray(values) != 0
