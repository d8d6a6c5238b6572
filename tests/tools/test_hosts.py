"""Hosts that refuse a layer: what is promised there holds all the same, or is refused by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gtpo_jax.tools.sandbox import properties, seccomp
from tests.tools import hostile, hosts, ordinary
from tests.tools.calls import gone_within

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the layers are those of Linux"),
    pytest.mark.skipif(not seccomp.available(), reason="no filter to play another host with"),
]

# host → a word for the layer that keeps files from being read there
LAYERS = {
    "docker": "Landlock",
    "no_landlock": "mount namespace",
    "docker_no_landlock": "seccomp",
    "apparmor": "Landlock",
}


class Visit:
    """An executor's report on a host, and what became of calls there."""

    def __init__(self, name, folder):
        self.folder = folder
        keep, secret = folder / "keep", folder / "secret"
        keep.write_text("keep")
        secret.write_text(hostile.SECRET)
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        facts = {
            "secret_file": str(secret),
            "host_folder": str(folder),
            "folders": [str(folder)],
            "trainer": 1,
            "bystander": bystander.pid,
            "port": 9,
            "unix_path": "/var/tmp/gtpo_jax_test_nobody",
            "abstract_name": "gtpo_jax_test_nobody",
        }
        calls = {
            (group, attempt): hostile.attempt(code, **facts)
            for group, attempts in {**hostile.ATTEMPTS, "scratch": hostile.SCRATCH}.items()
            for attempt, code in attempts.items()
        }
        benign = {**ordinary.BENIGN, **ordinary.WITH_FILES, **ordinary.READS_LIBRARIES}
        calls |= {("benign", name): code for name, (code, _) in benign.items()}
        found = hosts.run(name, [(code, 20.0) for code in calls.values()], directory=str(folder))
        self.survived = bystander.poll() is None
        bystander.kill()
        bystander.wait()
        self.report = found["report"]
        self.results = dict(zip(calls, found["results"], strict=True))

    def benign(self, table):
        """The programs that did not print what they should."""
        wrong = {}
        for name, (_, output) in table.items():
            result = self.results["benign", name]
            if (result["status"], result["stdout"]) != ("ok", output):
                wrong[name] = result
        return wrong


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The report of this host as it is."""
    folder = str(tmp_path_factory.mktemp("here"))
    found = hosts.run("as_it_is", directory=folder, allow=list(properties.PROPERTIES), preload=[])
    return found["report"]


@pytest.fixture(scope="module", params=LAYERS)
def visit(request, here, tmp_path_factory):
    if LAYERS[request.param] not in str(here):
        pytest.skip(f"this host lacks what {request.param} leaves: {LAYERS[request.param]}")
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, Visit(request.param, folder)


def test_host_holds_every_property_by_what_it_leaves(visit):
    name, found = visit
    assert None not in found.report.values()
    assert LAYERS[name] in found.report["fs_read"]
    text = str(found.report)
    assert ("Landlock" in text) == (LAYERS[name] == "Landlock")
    assert ("namespace" in text) == (LAYERS[name] == "mount namespace")
    assert ("tmpfs" in found.report["scratch"]) == (name == "no_landlock")


@pytest.mark.parametrize("property_", hostile.ATTEMPTS)
def test_attempts_are_refused_on_the_host(visit, property_):
    _, found = visit
    for attempt in hostile.ATTEMPTS[property_]:
        result = found.results[property_, attempt]
        assert result["status"] == "ok", (attempt, result["stderr"])
        assert result["stdout"].endswith("\nend\n")
        assert " DONE" not in result["stdout"], attempt
        assert hostile.SECRET not in result["stdout"] + result["stderr"]
    assert found.survived
    assert (found.folder / "keep").read_text() == "keep"
    assert {path.name for path in found.folder.iterdir()} == {"keep", "secret"}


def test_ordinary_code_works_on_the_host(visit):
    _, found = visit
    assert found.benign(ordinary.BENIGN) == {}


def test_files_work_on_the_host_or_are_refused(visit):
    """Without a file system of its own a call writes nothing, and is told that it may not."""
    name, found = visit
    if name == "no_landlock":
        assert found.benign(ordinary.WITH_FILES) == {}
    else:
        for case in ordinary.WITH_FILES:
            result = found.results["benign", case]
            assert result["status"] == "error"
            assert "Error: " in result["stderr"], case
        assert "[Errno 13] Permission denied" in found.results["benign", "files"]["stderr"]
    if LAYERS[name] != "seccomp":
        assert found.benign(ordinary.READS_LIBRARIES) == {}


# A host that offers nothing at all.

ALL = list(properties.PROPERTIES)


def test_host_without_layers_refuses_to_start_and_names_what_it_lacks(tmp_path):
    found = hosts.run("nothing", directory=str(tmp_path))
    assert {"fs_read", "fs_write", "net", "processes", "kernel_surface"} <= set(found["missing"])
    assert "limits" not in found["missing"]
    for name in found["missing"]:
        assert f"{name}: {properties.PROPERTIES[name]}" in found["refused"]
    assert "allow=(" in found["refused"]
    some = [name for name in found["missing"] if name != "net"]
    found = hosts.run("nothing", directory=str(tmp_path), allow=some)
    assert found["missing"] == ["net"]


def test_host_without_layers_runs_code_that_is_trusted(tmp_path):
    tables = ordinary.BENIGN | ordinary.WITH_FILES | ordinary.READS_LIBRARIES
    calls = [(code, 20.0) for code, _ in tables.values()]
    found = hosts.run("nothing", calls, directory=str(tmp_path), allow=ALL)
    assert found["report"]["fs_read"] is None and found["report"]["limits"] is not None
    for (name, (_, output)), result in zip(tables.items(), found["results"], strict=True):
        assert (result["status"], result["stdout"]) == ("ok", output), (name, result["stderr"])
    assert list(tmp_path.iterdir()) == []  # each call worked in a folder that is gone


FAMILY = """
import os, signal, time
for leaves_session in (False, True):
    if os.fork() == 0:
        if leaves_session:
            os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            print(os.getpid(), flush=True)
            time.sleep(1000)
        os._exit(0)
    os.wait()
time.sleep(0.3)
"""
LOOK = """
import os, time
left = [{pids}]
for _ in range(100):
    left = [pid for pid in left if os.path.exists(f"/proc/{{pid}}")]
    if not left:
        break
    time.sleep(0.02)
print(left)
"""


@pytest.mark.parametrize("end", ["pass", "time.sleep(1000)", "os.abort()"])
def test_call_that_is_over_leaves_no_process_on_a_host_without_layers(tmp_path, end):
    """While the executor still runs, however the call ended."""
    path = tmp_path / "pids"
    path.touch()
    tmp_path.chmod(0o777)
    path.chmod(0o666)
    code = (
        FAMILY.replace(
            "print(os.getpid(), flush=True)",
            f"""
            with open({str(path)!r}, "a") as file:
                file.write(str(os.getpid()) + "\\n")""",
        )
        + end
    )
    look = LOOK.format(pids=f"int(line) for line in open({str(path)!r})")
    calls = [(code, 1.0), (look, 10.0)]
    found = hosts.run("nothing", calls, directory=str(tmp_path), allow=ALL, max_running=1)
    first, second = found["results"]
    ended = {"pass": "ok", "time.sleep(1000)": "timeout", "os.abort()": "crash"}
    assert first["status"] == ended[end], first
    assert len(path.read_text().split()) == 2
    assert second["stdout"] == "[]\n", second
    assert gone_within([int(pid) for pid in path.read_text().split()], 0.1)
