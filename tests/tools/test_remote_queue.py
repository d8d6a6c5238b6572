"""The client of a remote sandbox: its queue, its end, and options that it refuses."""

from __future__ import annotations

import time

import pytest

from gtpo_jax.tools import busy, remote
from gtpo_jax.types import ToolStatus
from tests.tools.remote_server import OK, client, drip, hang, run, says


def wait_for(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()


def test_full_queue_refuses_and_a_canceled_call_makes_room(server):
    server.script = [hang]
    with client(server, max_queued=2) as sandbox:
        hung = sandbox.submit("print(0)")
        wait_for(hung.running)
        queued = [sandbox.submit(f"print({i})") for i in (1, 2)]
        with pytest.raises(busy.ExecutorBusy, match="1 calls run and 2 wait"):
            sandbox.submit("print(3)")
        assert queued[0].cancel() and not hung.cancel()
        last = sandbox.submit("print(4)")
        with pytest.raises(busy.ExecutorBusy):
            sandbox.submit("print(5)")
        server.released.set()
        assert queued[1].result(timeout=20).stdout == "2\n"
        assert last.result(timeout=20).stdout == "4\n"
    assert len(server.requests) == 4  # the hung one twice, and never the canceled one


def test_result_that_is_seen_has_given_back_its_place(server):
    with client(server, max_queued=0) as sandbox:
        server.script = [says(200, OK)] * 100
        assert all(run(sandbox).stdout == "1\n" for _ in range(100))


@pytest.mark.parametrize("misbehave", [hang, drip, says(503, Retry_After="60")])
def test_close_ends_running_calls_and_cancels_queued_ones(server, misbehave):
    server.script = [misbehave] * 2
    sandbox = client(server, max_running=2, guard_seconds=60.0, backoff_limit_seconds=60.0)
    running = [sandbox.submit("print(1)", timeout=60) for _ in range(2)]
    queued = sandbox.submit("print(2)")
    wait_for(lambda: len(server.requests) == 2)
    begin = time.monotonic()
    sandbox.close()
    assert time.monotonic() - begin < 2
    results = [future.result(timeout=0) for future in running]
    assert [r.status for r in results] == [ToolStatus.INFRA_ERROR] * 2
    assert {r.stderr for r in results} == {"the client was closed"}
    assert queued.cancelled() and len(server.requests) == 2
    sandbox.close()
    with pytest.raises(RuntimeError, match="submit after close"):
        sandbox.submit("print(1)")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://host/a b",
        "http://host/\n",
        "http://höst",
        "http://host?a=1",
        "http://host/#a",
    ],
)
def test_base_url_that_is_no_address_raises(url):
    with pytest.raises(ValueError, match=r"base_url.*expected something like http://"):
        remote.RemoteSandbox(url)


def test_secrets_in_wrong_places_raise_and_are_not_shown():
    for arguments in (("http://me:hunter2@host",), ("http://host", {"X-Key": "hunter2\r\n"})):
        with pytest.raises(ValueError, match="headers") as caught:
            remote.RemoteSandbox(arguments[0], headers=dict(*arguments[1:]))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_running", 0, ValueError),
        ("max_running", 1.5, TypeError),
        ("max_running", True, TypeError),
        ("max_queued", -1, ValueError),
        ("output_bytes", 1, ValueError),
        ("body_bytes", 1000, ValueError),
        ("retries", -1, ValueError),
        ("memory_bytes", 1000, ValueError),
        ("wall_seconds", 0, ValueError),
        ("wall_seconds", "5", TypeError),
        ("guard_seconds", float("inf"), ValueError),
        ("backoff_seconds", 0.0, ValueError),
        ("backoff_limit_seconds", float("nan"), ValueError),
        ("headers", {"a b": "1"}, ValueError),
        ("headers", {"a": 1}, ValueError),
    ],
)
def test_options_out_of_range_raise_and_name_the_option(option, value, error):
    with pytest.raises(error, match=option):
        remote.RemoteSandbox("http://127.0.0.1", **{option: value})


def test_submit_arguments_are_checked(sandbox):
    with pytest.raises(TypeError, match="code must be a str"):
        sandbox.submit(b"print(1)")
    with pytest.raises(ValueError, match="timeout must be positive"):
        sandbox.submit("print(1)", timeout=0)
