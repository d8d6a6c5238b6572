"""The client of a remote sandbox, against a real HTTP server on this machine."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from gtpo_jax.tools import busy, remote
from gtpo_jax.types import ToolStatus
from gtpo_jax.verifiers import unit_tests


def run_result(**fields):
    base = {"status": "Finished", "execution_time": 0.5, "return_code": 0}
    return {**base, "stdout": "", "stderr": "", **fields}


def answer(status="Success", **fields):
    response = {"status": status, "message": "", "compile_result": None, "run_result": None}
    return json.dumps({**response, "executor_pod_name": None, "files": {}, **fields}).encode()


OK = answer(run_result=run_result(stdout="1\n"))


def really_run(request):
    """A stand-in for the sandbox: a process, its output and how it ended."""
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", request["code"].encode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=request["run_timeout"])
            state, code = "Finished", process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            state, code = "TimeLimitExceeded", None
    result = {"status": state, "return_code": code, "stdout": stdout, "stderr": stderr}
    result["execution_time"] = time.monotonic() - begin
    return answer("Success" if code == 0 else "Failed", run_result=result)


class Server(http.server.ThreadingHTTPServer):
    """Runs the code, or does what the next function of `script` does with the handler."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = []
        self.requests = []  # path, headers and body of each
        self.connections = 0
        self.running = self.most_running = 0
        self.released = threading.Event()  # lets hung handlers go
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # clients of these tests do hang up


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format, *args):
        pass

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.request_body = body
        with self.server.lock:
            self.server.requests.append((self.path, self.headers, body))
            self.server.running += 1
            self.server.most_running = max(self.server.most_running, self.server.running)
            act = self.server.script.pop(0) if self.server.script else None
        try:
            if act is None:
                self.reply(200, really_run(body))
            else:
                act(self)
        finally:
            with self.server.lock:
                self.server.running -= 1

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def says(status, body=b"", **headers):
    return lambda handler: handler.reply(status, body, **headers)


def hang(handler):
    handler.server.released.wait(20)
    handler.close_connection = True


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


def drip(handler):
    """A byte now and then: no single wait is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b" ")
            if handler.server.released.wait(0.05):
                break
    handler.close_connection = True


def drip_headers(handler):
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(200):
            handler.wfile.write(f"X-{i}: 1\r\n".encode())
            if handler.server.released.wait(0.05):
                break
    handler.close_connection = True


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with serving(Server()) as server:
        yield server


@pytest.fixture
def sandbox(server):
    with client(server) as sandbox:
        yield sandbox


def client(server, **options):
    base = {"max_running": 1, "guard_seconds": 5.0, "retries": 2, "backoff_seconds": 0.01}
    return remote.RemoteSandbox(server.url, **{**base, **options})


def run(sandbox, code="print(1)", timeout=None):
    return sandbox.submit(code, timeout=timeout).result(timeout=20)


# Results.


@pytest.mark.parametrize(
    ("code", "status", "stdout", "last"),
    [
        ("print(2**10)", ToolStatus.OK, "1024\n", ""),
        ("print('é∑𝄞')", ToolStatus.OK, "é∑𝄞\n", ""),
        ("import sys; sys.stderr.write('note')", ToolStatus.OK, "", "note"),
        ("print(1)\n1 / 0", ToolStatus.ERROR, "1\n", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", ToolStatus.ERROR, "", "exit status 3"),
        ("x = = 1", ToolStatus.ERROR, "", "SyntaxError: invalid syntax"),
        ("input()", ToolStatus.ERROR, "", "EOFError: EOF when reading a line"),
        ("import os; os.kill(os.getpid(), 9)", ToolStatus.CRASH, "", "killed by SIGKILL"),
        ("import os; os._exit(139)", ToolStatus.CRASH, "", "killed by SIGSEGV"),
        ("raise MemoryError", ToolStatus.MEMORY, "", "MemoryError"),
        ("print('MemoryError')\n{}[1]", ToolStatus.ERROR, "MemoryError\n", "KeyError: 1"),
    ],
)
def test_code_that_runs_gets_the_status_of_how_it_ended(sandbox, code, status, stdout, last):
    result = run(sandbox, code)
    assert (result.status, result.stdout) == (status, stdout)
    assert result.stderr.rstrip("\n").rpartition("\n")[2] == last


def test_code_beyond_its_timeout_is_reported_with_what_it_printed(sandbox):
    result = run(sandbox, "import time; print(1, flush=True); time.sleep(9)", timeout=0.3)
    assert (result.status, result.stdout) == (ToolStatus.TIMEOUT, "1\n")
    assert 0.3 <= result.wall_seconds < 5


def test_request_holds_the_fields_that_the_sandbox_asks_for(server):
    with client(server, memory_bytes=256 << 20, headers={"X-Api-Key": "k"}) as sandbox:
        run(sandbox, "print(1)", timeout=2.5)
    path, headers, body = server.requests[0]
    assert path == "/run_code" and headers["X-Api-Key"] == "k"
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "code": "print(1)",
        "language": "python",
        "run_timeout": 2.5,
        "compile_timeout": 2.5,
        "memory_limit_MB": 256,
        "stdin": "",
        "files": {},
        "fetch_files": [],
    }


def test_base_url_with_a_prefix_keeps_it(server):
    with remote.RemoteSandbox(server.url + "/a/b/", max_running=1) as sandbox:
        run(sandbox)
    assert server.requests[0][0] == "/a/b/run_code"
    assert "memory_limit_MB" not in server.requests[0][2]


def test_time_of_the_call_is_the_servers_where_it_gives_one(server, sandbox):
    server.script = [
        says(200, answer(run_result=run_result(execution_time=4.25))),
        says(200, answer(run_result=run_result(execution_time=None))),
    ]
    assert run(sandbox).wall_seconds == 4.25
    assert 0 < run(sandbox).wall_seconds < 4


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_beyond_its_cap_keeps_head_and_tail(server, stream):
    texts = ["0123456789\n", "0123456789ab\n", "é" * 10]
    server.script = [says(200, answer(run_result=run_result(**{stream: t}))) for t in texts]
    with client(server, output_bytes=11) as sandbox:
        results = [run(sandbox) for _ in texts]
    assert [(getattr(r, stream), r.truncated_bytes) for r in results] == [
        ("0123456789\n", 0),
        ("012345\n[2 bytes truncated]\n89ab\n", 2),
        ("ééé\n[10 bytes truncated]\néé", 10),
    ]


def test_memory_error_is_found_where_stderr_was_cut_and_in_numpys_form(server):
    numpys = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB\n"
    server.script = [
        says(200, answer("Failed", run_result=run_result(return_code=1, stderr="x" * 50 + text)))
        for text in ("\nMemoryError: too large to fit\n", "\n" + numpys, "\nMyMemoryError\n")
    ]
    with client(server, output_bytes=4) as sandbox:
        statuses = [run(sandbox).status for _ in range(3)]
    assert statuses == [ToolStatus.MEMORY, ToolStatus.MEMORY, ToolStatus.ERROR]


def test_failed_compilation_is_an_error_of_the_code(server, sandbox):
    failed = run_result(return_code=1, stderr="bad\n")
    server.script = [says(200, answer("Failed", compile_result=failed))]
    result = run(sandbox)
    assert (result.status, result.stderr) == (ToolStatus.ERROR, "bad\n")


def test_code_that_is_no_text_is_an_error_of_the_code(server, sandbox):
    result = run(sandbox, "a = '\ud800'")
    assert result.status is ToolStatus.ERROR and "surrogates not allowed" in result.stderr
    assert not server.requests


def test_unit_tests_run_through_it(server, sandbox):
    tests = ["assert double(2) == 4", "assert double(2) == 5", "import os; os._exit(0)"]
    server.script = [None, None, None, says(404)]
    outcomes = unit_tests.run_unit_tests(
        sandbox, "def double(x): return 2 * x", [*tests, "pass"], timeout=20
    )
    assert [outcome.status.value for outcome in outcomes] == [
        "passed",
        "failed",
        "error",
        "unknown",
    ]


# Failures of the server and of the network.


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


# Connections.


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


# The queue, and closing.


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


# Arguments.


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
