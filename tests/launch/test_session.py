"""Parts of a session: the folder of compiled programs, and the tool."""

import contextlib
import dataclasses
import http.server
import json
import pwd
import sys
import threading

import pytest

from configs.parts import make_tool, make_verifier
from configs.presets import PRESETS
from configs.schema import ToolConfig, VerifierConfig
from gtpo_jax.tools import ToolLimits, remote
from gtpo_jax.types import Problem, Verdict
from launch.run import session

NAMES = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"HOME": "TMP/home"}, "TMP/home/.cache/gtpo_jax/jax"),
        ({"HOME": "TMP/home", "XDG_CACHE_HOME": ""}, "TMP/home/.cache/gtpo_jax/jax"),
        ({"HOME": "/proc", "XDG_CACHE_HOME": "TMP/cache"}, "TMP/cache/gtpo_jax/jax"),
        ({"HOME": "/proc"}, None),
        ({"HOME": "TMP/file"}, None),
        ({"HOME": "home"}, None),
        ({"HOME": "/proc", "JAX_COMPILATION_CACHE_DIR": "TMP/own"}, "TMP/own"),
    ],
)
def test_programs_are_kept_where_that_is_possible(given, folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value.replace("TMP", str(tmp_path)))
    expected = folder and folder.replace("TMP", str(tmp_path))
    assert session.compilation_cache_folder() == expected


def test_user_without_a_home_keeps_none(monkeypatch, tmp_path):
    """The user of a container who is in no list of users."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert session.compilation_cache_folder() is None
    assert not list(tmp_path.iterdir())


def with_tool(**options):
    preset = PRESETS["tiny"]
    return dataclasses.replace(preset, tool=dataclasses.replace(preset.tool, **options))


def test_tool_of_a_run_is_the_remote_sandbox_it_names():
    """A local server stands in for the sandbox, which gets the settings of the run."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            result = {"status": "Finished", "return_code": 0, "stdout": "1024\n", "stderr": ""}
            reply = json.dumps({"status": "Success", "run_result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    limits = ToolLimits(wall_seconds=2.5, memory_bytes=256 << 20)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/box"
        config = with_tool(remote=url, running=1, limits=limits).tool
        with contextlib.closing(make_tool(config)) as tool:
            assert isinstance(tool, remote.RemoteSandbox)
            assert tool.submit("print(2**10)").result(timeout=20).stdout == "1024\n"
        server.shutdown()
    [(path, request)] = received
    assert path == "/box/run_code" and request["code"] == "print(2**10)"
    assert (request["run_timeout"], request["memory_limit_MB"]) == (2.5, 256)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"preload": ("numpy",)}, "where tool.preload would"),
        ({"allow": ("net",)}, "where tool.allow would"),
        ({"limits": ToolLimits(threads=8)}, "where tool.limits.threads would"),
        ({"limits": ToolLimits(cpu_seconds=9), "allow": ("net",)}, "cpu_seconds and tool.allow"),
    ],
)
def test_setting_that_a_remote_sandbox_does_not_apply_is_an_error(options, names):
    with pytest.raises(ValueError, match=f"{names}.*leave out one or the other"):
        with_tool(remote="http://127.0.0.1:1", **options)
    with_tool(**options)
    with_tool(remote="http://127.0.0.1:1", preload=ToolConfig.preload)  # nobody gave it


def test_address_that_is_none_is_an_error_before_the_first_call():
    with pytest.raises(ValueError, match="expected something like http://"):
        make_tool(with_tool(remote="localhost:8080").tool)


OWN = """
from concurrent.futures import Future
from gtpo_jax.types import ToolResult, ToolStatus

class Upper:
    closed = False

    def submit(self, code, *, timeout=None):
        future = Future()
        future.set_result(ToolResult(status=ToolStatus.OK, stdout=code.upper()))
        return future

    def close(self):
        Upper.closed = True

def make():
    return Upper()

def nothing():
    return 3

def ends_in_zero(problem, answer):
    return answer.endswith("0") if problem.answer else 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_parts", None)


def test_tool_and_verifier_of_ones_own_are_those_of_a_run(own, tmp_path):
    config = dataclasses.replace(
        with_tool(factory="my_parts:make"),
        verifier=VerifierConfig(kind="my_parts:ends_in_zero"),
    )
    with session.Session(config, tmp_path / "run") as opened:
        assert opened.tool.submit("print").result().stdout == "PRINT"
        problem = Problem(id="p", question="q", answer="x")
        verdicts = [opened.verifier(problem, answer) for answer in ("10", "11", " ", None)]
        assert verdicts == [Verdict.RIGHT, Verdict.WRONG, *[Verdict.NO_ANSWER] * 2]
        named = dataclasses.replace(problem, verifier="exact")
        assert opened.verifier(named, "10") is Verdict.WRONG
        with pytest.raises(TypeError, match="True, False or a Verdict, got 3 for an answer"):
            opened.verifier(dataclasses.replace(problem, answer=""), "10")
    assert sys.modules["my_parts"].Upper.closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "my_parts"}, "tool.factory must be as my.module:make_tool, got 'my_parts'"),
        ({"factory": "my_parts:none"}, "tool.factory my_parts:none: my_parts has no none"),
        ({"factory": "my_parts:nothing"}, r"must return a tool with submit.*, got int"),
        ({"factory": "my_parts:make", "remote": "http://x"}, "on which tool.remote would have no"),
        ({"factory": "my_parts:make", "allow": ("net",)}, "on which tool.allow would have no"),
    ],
)
def test_tool_of_ones_own_that_is_none_is_an_error(own, options, message):
    with pytest.raises(ValueError, match=message):
        make_tool(with_tool(**options).tool)


def test_verifier_that_is_none_is_an_error(own):
    with pytest.raises(ValueError, match=r"verifier.kind must be one of numeric, .*, got 'maths'"):
        VerifierConfig(kind="maths")
    with pytest.raises(ValueError, match=r"verifier.kind my_parts:x: my_parts has no x"):
        make_verifier(VerifierConfig(kind="my_parts:x"), None)
