"""Fixtures that tests of the remote sandbox share."""

import pytest

from tests.tools.remote_server import Server, client, serving


@pytest.fixture
def server():
    with serving(Server()) as server:
        yield server


@pytest.fixture
def sandbox(server):
    with client(server) as sandbox:
        yield sandbox
