"""The choice of platforms that JAX looks for."""

from __future__ import annotations

import glob
import importlib.util
import os
from importlib import metadata

import jax

TPU_FILES = ("/dev/accel*", "/dev/vfio/[0-9]*")
TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE")
"""Environment variables of machines with TPUs."""


def leave_out_tpus() -> None:
    """Keeps JAX from looking for TPUs where there are none. libtpu, which may be installed for
    plans, would print that it finds none. Call it before any device is used.

    It changes nothing if a person chose the platforms, or if JAX has found TPUs.
    """
    chosen = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if chosen or importlib.util.find_spec("libtpu") is None:
        return
    others = metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("jax_plugins")
    here = any(map(glob.glob, TPU_FILES)) or any(name in os.environ for name in TPU_VARIABLES)
    if not others and not here:
        jax.config.update("jax_platforms", "cpu")
