"""Isolation stops hostile code on this machine and leaves ordinary code alone."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
import threading

import pytest

from gtpo_jax.tools import IsolationError, PythonExecutor
from gtpo_jax.tools.sandbox import properties, seccomp, wire
from gtpo_jax.types import ToolStatus
from tests.tools import hostile, ordinary
from tests.tools.calls import alive, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are those of Linux")

NAMES = [(name, attempt) for name, attempts in hostile.ATTEMPTS.items() for attempt in attempts]


class Surroundings:
    """The surroundings of a trainer: secrets, files, listeners, another process."""

    def __init__(self, folder):
        self.folder, self.connections = folder / "host", []
        self.folder.mkdir()
        self.keep, self.secret_file = self.folder / "keep", folder / "secret"
        for path, text in ((self.keep, "keep"), (self.secret_file, hostile.SECRET)):
            path.write_text(text)
            path.chmod(0o600)
            os.utime(path, (1, 1))
        self.bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        tcp = socket.create_server(("127.0.0.1", 0))
        unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.listeners = {"tcp": tcp, "unix": unix, "abstract": abstract}
        self.facts = {
            "secret_file": str(self.secret_file),
            "host_folder": str(self.folder),
            "folders": [os.getcwd(), str(self.folder), str(folder), os.path.expanduser("~")],
            "trainer": os.getpid(),
            "bystander": self.bystander.pid,
            "port": tcp.getsockname()[1],
            # The folders of tests have longer names than a socket may have.
            "unix_path": f"/var/tmp/gtpo_jax_test_{os.getpid()}",
            "abstract_name": f"gtpo_jax_test_{os.getpid()}",
        }
        unix.bind(self.facts["unix_path"])
        abstract.bind("\0" + self.facts["abstract_name"])
        for name, listener in self.listeners.items():
            listener.listen()
            threading.Thread(target=self._serve, args=(name, listener), daemon=True).start()

    def _serve(self, name, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(name)
            connection.close()

    def check(self):
        assert self.connections == []
        assert alive(self.bystander.pid)
        assert [path.name for path in self.folder.iterdir()] == ["keep"]
        assert self.keep.read_text() == "keep"
        info = self.keep.stat()
        assert (info.st_mode & 0o7777, info.st_mtime, info.st_nlink) == (0o600, 1.0, 1)
        for folder in filter(os.path.isdir, self.facts["folders"]):
            assert not [name for name in os.listdir(folder) if name.startswith("planted")]

    def close(self):
        self.bystander.kill()
        self.bystander.wait()
        for listener in self.listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        os.unlink(self.facts["unix_path"])


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    found = Surroundings(tmp_path_factory.mktemp("host"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def executor(surroundings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", hostile.SECRET)
        patch.setenv("HF_TOKEN", hostile.SECRET)
        try:
            made = PythonExecutor(max_running=2)
        except IsolationError as error:
            made = PythonExecutor(max_running=2, allow=error.missing)
        with made:
            yield made


@pytest.fixture(autouse=True)
def unharmed(surroundings):
    """After every call its host is as it was."""
    yield
    surroundings.check()


def need(executor, name, layer=""):
    held = executor.isolation_report()[name]
    if held is None or layer not in held:
        pytest.skip(f"this host does not give {name}{layer and f' by a {layer}'}")


@pytest.mark.skipif(not seccomp.available(), reason="the host takes no filters")
def test_host_that_takes_filters_gets_every_property(executor):
    """A layer that is lost to a mistake of ours must not pass for a weak host."""
    assert set(executor.isolation_report()) == set(properties.PROPERTIES)
    assert None not in executor.isolation_report().values()


def refusals(result):
    """The errors that attempts ended in; all did, and the code came to its end."""
    assert result.status is ToolStatus.OK, result.stderr
    *lines, last = result.stdout.splitlines()
    assert last == "end" and lines
    assert [line for line in lines if " DONE" in line] == []
    assert hostile.SECRET not in result.stdout + result.stderr
    return [line.split()[-1] for line in lines]


@pytest.mark.parametrize(("name", "attempt"), NAMES)
def test_attempts_are_refused_and_harm_nothing(executor, surroundings, name, attempt):
    need(executor, name)
    code = hostile.attempt(hostile.ATTEMPTS[name][attempt], **surroundings.facts)
    refusals(run(executor, code))


@pytest.mark.parametrize("attempt", hostile.SCRATCH)
def test_scratch_is_bounded_and_holds_no_programs(executor, surroundings, attempt):
    need(executor, "scratch", "tmpfs")
    refusals(run(executor, hostile.attempt(hostile.SCRATCH[attempt], **surroundings.facts)))


def test_call_sees_nothing_of_the_trainers_environment(executor):
    code = """\
        import ctypes, os, sys
        environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        found = []
        while environ[len(found)]:
            found.append(environ[len(found)].decode())
        print(*sorted({entry.partition("=")[0] for entry in found} | set(os.environ)))
        print(os.path.exists("/proc/self"), sys.argv, os.getcwd() in ("/", "/tmp", "/scratch"))
    """
    names, line = run(executor, code).stdout.splitlines()
    assert set(names.split()) <= {*wire.ENVIRONMENT, "LC_CTYPE", "HOME", "TMPDIR"}
    assert line == "False ['<tool>'] True" or "namespace" not in str(executor.isolation_report())


def test_call_in_namespaces_sees_no_sign_of_the_host(executor, surroundings):
    """Not even whether a file exists, how large it is, or what the machine is called."""
    need(executor, "fs_read", "namespace")
    code = """
for path in (secret_file, host_folder, "/etc/passwd", "/proc", "/sys", "/home", "/var", "/run"):
    attempt(path, os.stat, path)
import socket
print(socket.gethostname())
print(os.getppid())
"""
    result = run(executor, hostile.attempt(code, **surroundings.facts))
    assert set(refusals(result)) <= {"ENOENT", "localhost", "1"}


LEFTOVERS = """
import builtins, json, math, os, random, signal, sys, threading
builtins.len, math.pi, json.dumps = lambda x: 666, 3, lambda *a: "x"
sys.modules["re"] = None
sys.path.append("/tmp")
os.environ["MARK"] = "1"
os.umask(0)
random.seed(1)
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
threading.Thread(target=lambda: None).start()
try:
    for name in ("a", "math.py", "sitecustomize.py"):
        open(name, "w").write("MARK = 1")
    os.mkdir("b"); os.chdir("b"); os.mkdir("c"); os.chmod("c", 0); os.chmod(".", 0)
    os.symlink("/", "../d")
except OSError:
    pass
print("left")
"""
CLEAN = """
import json, math, os, random, re, signal, sys
print(len([1]), math.pi > 3, json.dumps(1), os.environ.get("MARK"), "/tmp" in sys.path)
print(oct(os.umask(0o22)), signal.pthread_sigmask(signal.SIG_BLOCK, []), random.random())
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getcwd() in ("/", "/tmp", "/scratch"))
try:
    print([name for name in os.listdir(".") if os.getcwd() != "/"])
except OSError:
    print([])
"""


def test_nothing_of_a_call_is_there_for_a_later_one(executor):
    before = run(executor, CLEAN)
    assert before.status is ToolStatus.OK
    assert before.stdout.splitlines()[0] == "1 True 1 None False"
    assert before.stdout.endswith("\nTrue True\n[]\n")
    for _ in range(4):
        assert run(executor, LEFTOVERS).stdout == "left\n"
        assert run(executor, CLEAN).stdout == before.stdout


def test_call_finds_no_code_or_value_of_others_in_its_memory(executor):
    mark = "mark-of-a-peer"
    peers = [executor.submit(f"import time; value = {mark!r}; time.sleep(0.3)") for _ in range(2)]
    run(executor, f"value = {mark!r}")
    code = f"""\
        import gc
        wanted = "-".join({mark.split("-")!r})
        found = 0
        for thing in gc.get_objects():
            for part in thing.values() if isinstance(thing, dict) else ():
                found += isinstance(part, str) and part is not wanted and wanted in part
        print(found)
    """
    assert run(executor, code).stdout == "0\n"
    assert [peer.result(30).status for peer in peers] == [ToolStatus.OK] * 2


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86-64")
def test_call_to_the_kernel_of_another_architecture_kills_the_caller(executor):
    """32-bit calls have other numbers: their `fork` would pass for `open`."""
    need(executor, "kernel_surface", "seccomp")
    code = """\
        import ctypes, mmap
        print("before", flush=True)
        area = mmap.mmap(-1, 4096, prot=7)
        area[:8] = bytes.fromhex("b802000000cd80c3")
        place = ctypes.addressof(ctypes.c_char.from_buffer(area))
        print("returned", ctypes.CFUNCTYPE(ctypes.c_int)(place)())
    """
    result = run(executor, code)
    assert (result.status, result.stdout) == (ToolStatus.CRASH, "before\n")


@pytest.mark.parametrize("name", ordinary.BENIGN)
def test_ordinary_code_works(executor, name):
    expect(executor, *ordinary.BENIGN[name])


@pytest.mark.parametrize("name", ordinary.WITH_FILES)
def test_code_that_writes_files_works_in_the_scratch_directory(executor, name):
    need(executor, "scratch", "tmpfs")
    expect(executor, *ordinary.WITH_FILES[name])


@pytest.mark.parametrize("name", [*ordinary.READS_LIBRARIES, *ordinary.SYMPY])
def test_code_that_uses_libraries_works(executor, name):
    if "path" in str(executor.isolation_report()["fs_read"]):
        pytest.skip("on this host no call can open a file")
    expect(executor, *(ordinary.READS_LIBRARIES | ordinary.SYMPY)[name])


def expect(executor, code, output):
    result = run(executor, code, timeout=20)
    assert result.status is ToolStatus.OK, result.stderr
    assert result.stdout == output
