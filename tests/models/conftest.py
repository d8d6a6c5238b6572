"""Fixtures that tests of checkpoints share."""

import pytest

from models.hf import weights as hf_weights
from tests.models.hf_checkpoints import PATHS


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Arrays filled where NumPy has them, or piece by piece on the device as on an accelerator."""
    if request.param == "device":
        monkeypatch.setattr(hf_weights, "in_host_memory", lambda devices: False)
    return request.param


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of some rows of a matrix, of several norms, of two experts."""
    monkeypatch.setattr(hf_weights, "PIECE_BYTES", 6500)
