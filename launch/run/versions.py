"""The versions, commit and devices that a run was made with."""

from __future__ import annotations

import json
import pathlib
import platform
import subprocess
from importlib import metadata

import jax

import gtpo_jax
from launch import cli

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
ROOT = pathlib.Path(__file__).parents[2]


def installed() -> dict[str, str]:
    """Name → version of Python and of the packages that arithmetic and checkpoints depend on."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return versions | {"gtpo_jax": gtpo_jax.__version__, "python": platform.python_version()}


def commit() -> str | None:
    """The commit of this checkout, with -dirty if files differ from it; None without one."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (ROOT / ".git").exists():
        return None
    try:
        described = subprocess.run(describe, cwd=ROOT, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.decode("ascii").strip() or None


def append(path: pathlib.Path, step: int, *, fresh: bool) -> None:
    """Adds what is in use from `step` on to the list in a file; a fresh run begins the list."""
    device = jax.devices()[0]
    entry = {
        "step": step,
        **installed(),
        "commit": commit(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
    entries = [] if fresh or not path.exists() else json.loads(path.read_text(encoding="utf-8"))
    cli.write_json(path, [*entries, entry])
