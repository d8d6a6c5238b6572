"""Runs a notebook in a kernel of its own."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[2]
KINDS = ("CONFIG", "DATA", "RUNTIME")
"""Kinds of folders in which Jupyter keeps its files."""


def execute(
    path: pathlib.Path, report: str, *, replaced: Mapping[str, str] | None = None
) -> nbformat.NotebookNode:
    """The notebook after a run, `report` its last cell, in a kernel that is talked to without a
    port.

    Neither side of the talk knows of the user's profile, which may not even be written. `replaced`
    maps lines of the notebook to others; each has to be there once.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    for line, other in (replaced or {}).items():
        [cell] = [cell for cell in notebook.cells if line in cell.source.splitlines()]
        cell.source = cell.source.replace(line, other)
    notebook.cells.append(nbformat.v4.new_code_cell(report))
    # The path of a socket is short, which that of pytest's folders, or of TMPDIR, need not be.
    short = "/tmp" if os.access("/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=short) as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", *(f"JUPYTER_{kind}_DIR" for kind in KINDS)):
            patch.setenv(name, folder)
        sockets = f"{folder}/kernel"
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=sockets),
            timeout=300,
            resources={"metadata": {"path": str(ROOT)}},
        )
        # Pictures become outputs, as for a reader.
        environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        # A manager of our own is not cleaned up unasked.
        client.execute(env=environment, cleanup_kc=True)
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> int:
    """Pictures among the outputs of its cells."""
    return sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
