"""Processes that form one run: how they find each other, which of them prints, how they end."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from typing import Literal, NoReturn

import jax

from gtpo_jax.devices import processes
from launch.run import display

Cluster = Literal["none", "auto"]

HEARTBEAT_SECONDS = 60
"""Seconds without a heartbeat after which a process counts as dead and the others end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distributed:
    """Addresses of the processes of a run, for machines where JAX cannot find them."""

    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int = 1
    """Number of processes."""
    process_id: int = 0
    """Number of this process, from 0."""
    native_log: pathlib.Path | None = None
    """File for the stdout of C++ libraries, such as Gloo's connections. None: it appears among the
    lines of the run."""

    def __post_init__(self):
        if self.coordinator is None:
            if self.processes != 1 or self.process_id != 0:
                raise ValueError("distributed.processes needs distributed.coordinator HOST:PORT")
        elif not 0 <= self.process_id < self.processes:
            raise ValueError(
                f"distributed.process-id must be below distributed.processes, {self.processes},"
                f" got {self.process_id}; they count from 0"
            )


def start(cluster: Cluster, given: Distributed) -> None:
    """Makes this process one of several; call it before any device is used.

    `auto` lets JAX ask the environment: a TPU pod, Slurm or a JobSet. Only process 0 prints.
    """
    if cluster == "none" and given.coordinator is None:
        return
    if cluster == "auto" and given.coordinator is not None:
        raise ValueError("--cluster auto finds the coordinator; leave out one of the two")
    if given.native_log is not None:
        redirect_native_output(given.native_log)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            given.coordinator,
            None if cluster == "auto" else given.processes,
            None if cluster == "auto" else given.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        where = f"coordinator {given.coordinator}" if given.coordinator else "--cluster auto"
        raise ValueError(f"the processes did not find each other ({where}): {error}") from error
    display.CONSOLE.quiet = not is_first()


def redirect_native_output(path: pathlib.Path) -> None:
    """Redirects file descriptor 1 to a file for everything but Python's own output, which stays on
    the original stdout.
    """
    sys.stdout.flush()
    shown, own = sys.stdout, os.dup(1)
    with path.open("wb") as log:
        os.dup2(log.fileno(), 1)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding=shown.encoding, errors=shown.errors)


def is_first() -> bool:
    """True for process 0, which writes the files that a run writes once: configs, metrics,
    pictures.
    """
    return jax.process_index() == 0


def wait_for_all() -> None:
    """Returns when every process has called it."""
    processes.gather_objects(None)


def leave(status: int) -> NoReturn:
    """Ends a process that failed while others may still run, without waiting for them.

    They notice it at the exchange that they wait in, or by the missing heartbeat.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
