"""Landlock: the rules in bytes, and what a confined process can reach."""

import json
import os
import struct
import subprocess
import sys

import pytest

from gtpo_jax.tools.sandbox import landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a feature of the Linux kernel")

ABI = landlock.abi() if sys.platform == "linux" else 0
needs_landlock = pytest.mark.skipif(ABI == 0, reason="the kernel has no Landlock, or hides it")


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (7, [0xFFFF, 3, 3]),
    ],
)
def test_each_version_is_asked_for_all_that_it_knows(version, fields):
    assert landlock.ruleset_attributes(version) == struct.pack(f"={len(fields)}Q", *fields)


# A child of a bare interpreter restricts itself and tries each piece of code.
CHILD = """
import json, os, socket, sys, types
package = types.ModuleType("sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["sandbox"] = package
from sandbox import landlock

job = json.loads(sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0gtpo" + str(os.getpid()))
abstract.listen()
rules = landlock.create(job["read"], job["write"])
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
parent = os.getppid()
landlock.restrict(rules)
os.close(rules)
outcomes = []
for code in job["codes"]:
    try:
        exec(code)
        outcomes.append("ok")
    except OSError as error:
        outcomes.append(type(error).__name__)
print(json.dumps(outcomes))
"""


@pytest.fixture
def places(tmp_path):
    """Folders to read, to write and to keep out of, and a single file to read."""
    for name in ("read", "write", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
    (tmp_path / "alone").write_text("content")
    (tmp_path / "beside").write_text("content")
    return tmp_path


def attempt(places, codes: list[str]) -> list[str]:
    job = {
        "read": [str(places / "read"), str(places / "alone"), str(places / "missing")],
        "write": [str(places / "write"), "/dev/null"],
        "codes": codes,
    }
    folder = os.path.dirname(landlock.__file__)
    command = [sys.executable, "-I", "-c", CHILD, folder, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=places, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_landlock
def test_files_are_reached_by_the_rules_alone(places):
    allowed = [
        "open('read/file').read()",
        "os.listdir('read')",
        "open('alone').read()",
        "open('write/file').read()",
        "open('write/new', 'w').write('x')",
        "os.mkdir('write/folder')",
        "os.rename('write/new', 'write/newer')",
        "os.symlink('newer', 'write/link')",
        "os.unlink('write/newer')",
        "os.rmdir('write/folder')",
        "os.listdir('write')",
        "open('/dev/null', 'w').write('x')",
    ]
    refused = [
        "open('secret/file').read()",
        "os.listdir('secret')",
        "open('beside').read()",
        "os.listdir('.')",
        "open('read/file', 'r+')",
        "open('read/new', 'w')",
        "os.unlink('read/file')",
        "os.mkdir('read/folder')",
        "os.rmdir('secret')",
        "open('alone', 'a')",
        "open('/etc/passwd')",
        "open('/proc/self/environ')",
        "os.symlink('x', 'secret/link')",
        "os.mkfifo('write/pipe')",
    ]
    # The error of a move to another file system, which leads to a copy; that is refused in turn.
    moves = ["os.rename('write/file', 'read/moved')", "os.link('read/file', 'write/linked')"]
    codes = [*allowed, *refused, *moves]
    outcomes = dict(zip(codes, attempt(places, codes), strict=True))
    assert {code: outcomes[code] for code in allowed} == dict.fromkeys(allowed, "ok")
    assert {code: outcomes[code] for code in refused} == dict.fromkeys(refused, "PermissionError")
    assert {outcomes[code] for code in moves} <= {"OSError", "PermissionError"}


@needs_landlock
@pytest.mark.parametrize(
    ("since", "code"),
    [
        (3, "os.truncate('read/file', 0)"),
        (4, "socket.create_connection(('127.0.0.1', port), 5)"),
        (4, "socket.create_server(('127.0.0.1', 0))"),
        (6, "socket.socket(socket.AF_UNIX).connect('\\0gtpo' + str(parent))"),
        (6, "os.kill(parent, 0)"),
    ],
)
def test_later_versions_refuse_what_the_first_could_not(places, since, code):
    if since > ABI:
        pytest.skip(f"the kernel has version {ABI} of Landlock")
    assert attempt(places, [code]) == ["PermissionError"]


@needs_landlock
def test_folders_of_the_scratch_may_be_moved_between_each_other(places):
    if ABI < 2:
        pytest.skip("the first version refuses every move to another folder")
    codes = ["os.mkdir('write/a')", "os.rename('write/file', 'write/a/file')"]
    assert attempt(places, codes) == ["ok", "ok"]


@needs_landlock
def test_the_descriptor_of_the_rules_is_not_inherited(tmp_path):
    rules = landlock.create([str(tmp_path)], [])
    try:
        assert not os.get_inheritable(rules)
    finally:
        os.close(rules)
