"""The client of a remote sandbox, against a real HTTP server: results and arguments."""

from __future__ import annotations

import pytest

from gtpo_jax.tools import remote
from gtpo_jax.types import ToolStatus
from gtpo_jax.verifiers import unit_tests
from tests.tools.remote_server import answer, client, run, run_result, says


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
