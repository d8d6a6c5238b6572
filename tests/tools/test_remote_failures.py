"""The client of a remote sandbox: failures of the server and of the network, connections."""

from __future__ import annotations

import contextlib
import email.utils
import shutil
import socket
import ssl
import subprocess
import time
from concurrent import futures

import pytest

from gtpo_jax.tools import remote
from gtpo_jax.types import ToolStatus
from tests.tools.remote_server import (
    OK,
    Server,
    answer,
    client,
    drip,
    hang,
    run,
    run_result,
    says,
    serving,
)


def cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(OK)))
    handler.end_headers()
    handler.wfile.write(OK[:-5])
    handler.close_connection = True


def hang_up(handler):
    handler.close_connection = True


def chunked(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for part in (OK[:7], OK[7:]):
        handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def until_the_end(handler):
    """A body without a length, as HTTP/1.0 sends it."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(OK)


def drip_headers(handler):
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(200):
            handler.wfile.write(f"X-{i}: 1\r\n".encode())
            if handler.server.released.wait(0.05):
                break
    handler.close_connection = True


@pytest.mark.parametrize(
    "misbehave",
    [
        says(500, b"oops"),
        says(503),
        says(429),
        says(200, answer("SandboxError", message="no disk")),
        says(200, answer("SandboxError", run_result=run_result(status="Error"))),
        cut,
        hang_up,
    ],
)
def test_passing_failure_is_tried_again(server, sandbox, misbehave):
    server.script = [misbehave, misbehave, says(200, OK)]
    assert (run(sandbox).stdout, len(server.requests)) == ("1\n", 3)


def test_lasting_failure_is_given_up_after_the_retries(server, sandbox):
    server.script = [says(500, b"no disk left" + b"x" * 5000)] * 9
    result = run(sandbox)
    assert (result.status, len(server.requests)) == (ToolStatus.INFRA_ERROR, 3)
    assert result.stderr.startswith(
        f"POST {server.url}/run_code, attempt 3: HTTP status 500: 'no disk left"
    )
    assert len(result.stderr) < 400
    server.script = [says(200, answer("SandboxError", message="no pod"))] * 3
    result = run(sandbox)
    assert result.status is ToolStatus.INFRA_ERROR and "SandboxError: no pod" in result.stderr


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_refused_request_is_not_tried_again(server, sandbox, status):
    server.script = [says(status, b"see here")]
    result = run(sandbox)
    assert (result.status, len(server.requests)) == (ToolStatus.INFRA_ERROR, 1)
    assert f"HTTP status {status}: 'see here'" in result.stderr
    assert run(sandbox).stdout == "1\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>welcome</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"status": "Success"}',
        answer(),
        answer(run_result={"status": "Finished"}),
        answer(run_result=run_result(status="Error")),
        answer(run_result=run_result(status="Paused")),
        answer(run_result=run_result(return_code="0")),
        answer(run_result=run_result(return_code=None)),
        answer(run_result=run_result(return_code=True)),
        answer(run_result=run_result(stdout=5)),
    ],
)
def test_answer_that_is_no_result_is_our_failure_and_shown(server, sandbox, body):
    server.script = [says(200, body)]
    result = run(sandbox)
    assert (result.status, len(server.requests)) == (ToolStatus.INFRA_ERROR, 1)
    assert "expected the response of SandboxFusion's /run_code, got" in result.stderr
    assert repr(body[:20].decode(errors="replace"))[:-1] in result.stderr
    assert len(result.stderr) < 800


def test_body_beyond_its_bound_is_not_read_to_its_end(server):
    endless = answer(run_result=run_result(stdout="x" * (1 << 20)))
    server.script = [says(200, endless), says(200, OK)]
    with client(server, body_bytes=1 << 16, retries=0) as sandbox:
        result = run(sandbox)
        assert result.status is ToolStatus.OUTPUT_LIMIT and "65536 bytes" in result.stderr
        assert run(sandbox).stdout == "1\n"


@pytest.mark.parametrize("misbehave", [hang, drip, drip_headers])
def test_answer_that_does_not_come_in_time_ends_the_call(server, misbehave):
    server.script = [misbehave]
    with client(server, guard_seconds=0.3) as sandbox:
        result = run(sandbox, timeout=0.1)
        assert (result.status, len(server.requests)) == (ToolStatus.INFRA_ERROR, 1)
        assert "no answer within 0.1 s and 0.3 s of guard time" in result.stderr
        assert 0.4 <= result.wall_seconds < 2
        assert run(sandbox, timeout=5).stdout == "1\n"


def test_refused_connection_is_our_failure():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with remote.RemoteSandbox(url, retries=1, backoff_seconds=0.01) as sandbox:
            result = run(sandbox)
    assert result.status is ToolStatus.INFRA_ERROR
    assert "attempt 2: ConnectionRefusedError" in result.stderr


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_within_the_bound(server, form):
    in_two_minutes = email.utils.formatdate(time.time() + 120, usegmt=True)
    after = {"seconds": "120", "date": in_two_minutes}[form]
    server.script = [says(429, Retry_After=after), says(200, OK)]
    with client(server, backoff_limit_seconds=0.4) as sandbox:
        begin = time.monotonic()
        assert run(sandbox).stdout == "1\n"
    assert 0.4 <= time.monotonic() - begin < 2


@pytest.mark.parametrize("after", ["soon", "-5", "Sat, 01 Jan 2000 00:00:00 GMT", "²"])
def test_retry_after_of_nonsense_or_in_the_past_asks_for_nothing(server, after):
    assert remote._seconds(after) == 0


def test_connection_is_kept_and_renewed_when_the_server_has_closed_it(server):
    server.script = [says(200, OK), says(404), says(200, OK), until_the_end, chunked, chunked]
    with client(server, retries=0) as sandbox:
        for _ in range(3):
            run(sandbox)
        assert server.connections == 1
        assert [run(sandbox).stdout for _ in range(3)] == ["1\n"] * 3
        assert server.connections == 2

        def close_after(handler):
            handler.reply(200, OK)
            handler.close_connection = True  # without a word of it

        server.script = [close_after, says(200, OK)]
        assert [run(sandbox).stdout for _ in range(2)] == ["1\n"] * 2
        assert server.connections == 3


def test_many_threads_submit_and_get_their_own_results(server):
    def echo(handler):
        time.sleep(0.005)
        handler.reply(200, answer(run_result=run_result(stdout=handler.request_body["code"])))

    server.script = [echo] * 200
    with client(server, max_running=4) as sandbox, futures.ThreadPoolExecutor(16) as threads:
        texts = list(threads.map(lambda i: run(sandbox, f"{i}").stdout, range(200)))
    assert texts == [f"{i}" for i in range(200)]
    assert (server.most_running, server.connections) == (4, 4)


def test_https_is_spoken_and_certificates_are_checked(server, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", key]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = Server()
    # Not on the listening socket: the handshake belongs into the thread of the connection.
    secure.socket = context.wrap_socket(
        secure.socket, server_side=True, do_handshake_on_connect=False
    )
    url = secure.url.replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=str(certificate))
    with serving(secure):
        with remote.RemoteSandbox(url, max_running=1, ssl_context=trusting) as sandbox:
            assert [run(sandbox).stdout for _ in range(2)] == ["1\n"] * 2
        assert secure.connections == 1
        with remote.RemoteSandbox(url, max_running=1) as sandbox:
            result = run(sandbox)
    assert result.status is ToolStatus.INFRA_ERROR
    assert "attempt 1: SSLCertVerificationError" in result.stderr
