"""What a run is made of: the folder of compiled programs, and the tool."""

import dataclasses
import http.server
import json
import pwd
import threading

import pytest

from configs.presets import PRESETS
from configs.schema import ToolConfig
from gtpo_jax.tools import ToolLimits, remote
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
    """A container's user whom no list of users has."""
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
    """With the settings of the run, and whatever server is there."""
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
        with session.make_tool(with_tool(remote=url, running=1, limits=limits)) as tool:
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
        session.make_tool(with_tool(remote="localhost:8080"))
