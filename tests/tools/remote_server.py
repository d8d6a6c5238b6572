"""An HTTP server on this machine that behaves as a remote sandbox, or misbehaves."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import threading
import time

from gtpo_jax.tools import remote


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


def client(server, **options):
    base = {"max_running": 1, "guard_seconds": 5.0, "retries": 2, "backoff_seconds": 0.01}
    return remote.RemoteSandbox(server.url, **{**base, **options})


def run(sandbox, code="print(1)", timeout=None):
    return sandbox.submit(code, timeout=timeout).result(timeout=20)
