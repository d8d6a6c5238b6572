"""The system-call filter in force: ordinary code works, what reaches beyond it is refused."""

import errno
import json
import os
import subprocess
import sys

import pytest

from gtpo_jax.tools.sandbox import seccomp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a filter of the Linux kernel")

# A bare interpreter forks a child for each piece of code, as the zygote does, for this
# process has threads of jax. "before" runs without the filter.

SERVER = """
import ctypes, json, os, resource, signal, sys, types
package = types.ModuleType("sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["sandbox"] = package
from sandbox import seccomp, syscalls

def call(name, *args):
    return syscalls.syscall(name, *args)

def outcome(code, scope):
    try:
        exec(code, scope)
        return scope.get("result")
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    except BaseException as error:
        return repr(error)

for line in sys.stdin:
    job = json.loads(line)
    filters = seccomp.prepare(os.uname().machine, **job["mode"])
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.chdir(job["directory"])
            signal.alarm(20)
            scope = {"call": call, "os": os, "parent": os.getppid(), "signal": signal}
            exec(job["before"], scope)
            seccomp.install(filters.for_process(os.getpid()))
            os.write(sink, json.dumps(outcome(job["code"], scope)).encode())
        finally:
            os._exit(0)
    os.close(sink)
    with open(source, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(data.decode() or json.dumps(f"status {status}"), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    if not seccomp.available():
        pytest.skip("the kernel, or a container around us, takes no filters")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-I", "-c", SERVER, os.path.dirname(seccomp.__file__)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None and process.stdout is not None
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 0


@pytest.fixture
def confined(server, tmp_path):
    """Runs code under the filter; returns its `result`, or what it raised, or how it died."""

    def run(code: str, *, before: str = "", **mode: bool) -> object:
        job = {"code": code, "before": before, "mode": mode, "directory": str(tmp_path)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    return run


WORKS = {
    "threads": """
import threading, concurrent.futures
barrier = threading.Barrier(4)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    ranks = list(pool.map(lambda i: (barrier.wait(5), i)[1], range(4)))
result = sum(ranks) == 6
""",
    "asyncio": """
import asyncio
async def main():
    await asyncio.sleep(0.01)
    task = asyncio.to_thread(sum, [1, 2])
    return await asyncio.wait_for(task, 5)
result = asyncio.run(main()) == 3
""",
    "numpy": """
import numpy
matrix = numpy.random.default_rng(0).normal(size=(300, 300))
result = bool(numpy.allclose(matrix @ numpy.linalg.inv(matrix), numpy.eye(300), atol=1e-6))
""",
    "sqlite": """
import sqlite3
totals = []
for place in (":memory:", "a.db"):
    with sqlite3.connect(place) as base:
        base.execute("create table t (x)")
        base.executemany("insert into t values (?)", [(i,) for i in range(100)])
        totals += base.execute("select sum(x) from t").fetchone()
        base.execute("delete from t")
base.close()
result = totals == [4950, 4950]
""",
    "files": """
import json, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory(dir=".") as folder:
    path = pathlib.Path(folder, "a")
    path.write_text("abc")
    with open(path, "r+") as file:
        file.truncate(2)
    shutil.copyfile(path, f"{folder}/b")
    os.rename(f"{folder}/b", f"{folder}/c")
    os.symlink("c", f"{folder}/d")
    listing = sorted(os.listdir(folder))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
        size = os.fstat(file.fileno()).st_size + os.path.getsize(path)
result = listing == ["a", "c", "d"] and size == 2 and not os.path.exists(folder)
""",
    "clocks": """
import time
began = time.monotonic()
time.sleep(0.01)
result = 0.01 <= time.monotonic() - began < 5 and time.process_time() > 0 and time.time() > 0
time.thread_time(), time.localtime()
""",
    "alarms": """
import time
hits = []
signal.signal(signal.SIGALRM, lambda *a: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.05)
signal.raise_signal(signal.SIGALRM)
os.kill(os.getpid(), signal.SIGALRM)
result = len(hits) == 3
""",
    "limits": """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
result = resource.getrlimit(resource.RLIMIT_NOFILE) == (soft - 1, hard)
""",
    "questions": """
import platform, random, secrets, uuid
result = len(secrets.token_bytes(8)) == 8 and os.getpgid(0) == os.getpid() and os.cpu_count() > 0
uuid.uuid4(), uuid.uuid1(), platform.platform(), random.SystemRandom().random()
os.sched_getaffinity(0), os.isatty(1), os.times(), os.getcwd(), os.umask(0o22)
""",
    "memory": """
import mmap
with mmap.mmap(-1, 1 << 20) as block:
    block.resize(1 << 21)
    block.madvise(mmap.MADV_DONTNEED)
    block[0] = 1
result = True
""",
}


@pytest.mark.parametrize("task", WORKS)
def test_ordinary_code_works_under_the_filter(confined, task):
    assert confined(WORKS[task]) is True


DENIED, MISSING = f"PermissionError {errno.EPERM}", f"OSError {errno.ENOSYS}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("os.fork()", DENIED),
        ("import subprocess; subprocess.run(['true'])", DENIED),
        ("os.posix_spawn('/bin/true', ['true'], {})", DENIED),
        ("os.execv('/bin/true', ['true'])", DENIED),
        (
            "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
            DENIED,
        ),
        ("import socket; socket.socket()", DENIED),
        ("import socket; socket.socket(socket.AF_UNIX)", DENIED),
        ("import socket; a, b = socket.socketpair(); a.connect('\\0x')", DENIED),
        ("import socket; a, b = socket.socketpair(); a.sendto(b'x', '\\0x')", DENIED),
        ("import socket; a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])", DENIED),
        ("os.kill(parent, 0)", DENIED),
        ("os.kill(-1, 0)", DENIED),
        ("os.pidfd_open(os.getpid())", DENIED),
        ("os.memfd_create('x')", DENIED),
        ("os.setsid()", DENIED),
        ("os.nice(1)", DENIED),
        ("os.chmod('.', 0o700)", DENIED),
        ("os.utime('.')", DENIED),
        ("os.mkfifo('x')", DENIED),
        ("import fcntl; fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)", DENIED),
        ("import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, parent)", DENIED),
        ("open('x', 'w').close(); os.open('x', os.O_TRUNC)", f"PermissionError {errno.EACCES}"),
        ("call('io_uring_setup', 1, bytes(120))", DENIED),
        ("call('userfaultfd', 1)", DENIED),
        ("call('keyctl', 0, -3, 0)", DENIED),
        ("call('perf_event_open', bytes(128), 0, -1, -1, 0)", DENIED),
        ("call('personality', 0xFFFFFFFF)", DENIED),
        ("call('bpf', 0, bytes(64), 64)", DENIED),
        ("call('clone3', bytes(88), 88)", MISSING),
        ("seccomp = call('seccomp', 1, 0, None)", DENIED),
    ],
)
def test_what_reaches_beyond_the_process_is_refused(confined, code, expected):
    assert confined(code) == expected


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "open('new', 'w')",
        "os.stat('/etc/passwd')",
        "os.stat('.')",
        "os.stat('/etc/passwd', dir_fd=0)",
        "os.listdir('/')",
        "os.readlink('/proc/self/exe')",
        "os.chdir('/')",
        "os.unlink('x')",
        "os.truncate('x', 0)",
        "os.statvfs('/')",
        # The flag AT_EMPTY_PATH along with a path.
        "call('newfstatat', -100, b'/etc/passwd', bytes(256), 0x1000)",
    ],
)
def test_sealed_refuses_every_path(confined, code):
    assert confined(code, sealed=True) == f"PermissionError {errno.EACCES}"


def test_sealed_code_computes_prints_and_reads_what_it_has(confined):
    before = "import numpy, sqlite3, threading, asyncio, io, sys; from os import pipe"
    code = """
numbers = []
thread = threading.Thread(target=lambda: numbers.append(float(numpy.ones((50, 50)).sum())))
thread.start()
thread.join()
numbers.append(asyncio.run(asyncio.sleep(0.01, 1)))
numbers += sqlite3.connect(":memory:").execute("select 7").fetchone()
source, sink = os.pipe()
with open(sink, "w") as out:
    print("text", file=out)
with open(source) as file:
    text = file.read()
os.access("/etc/passwd", os.R_OK) and numbers.clear()
try:
    import colorsys
except ModuleNotFoundError:
    numbers.append(0)
result = [numbers, text]
"""
    assert confined(code, before=before, sealed=True) == [[2500.0, 1, 7, 0], "text\n"]


def test_private_files_may_be_copied_with_their_modes(confined):
    code = """
import shutil
open("a", "w").close()
os.chmod("a", 0o640)
shutil.copy2("a", "b")
result = os.stat("b").st_mode & 0o777
"""
    assert confined(code, private=True) == 0o640


def test_a_filter_stays_and_binds_the_threads_of_its_process(confined):
    code = """
import threading
seen = []
def attempt():
    try:
        os.fork()
    except PermissionError:
        seen.append(1)
thread = threading.Thread(target=attempt)
thread.start()
thread.join()
result = seen
"""
    assert confined(code) == [1]


def test_asking_whether_filters_are_available_installs_none(confined):
    def state() -> list[str]:
        with open("/proc/self/status") as file:
            return [line for line in file if line.startswith(("Seccomp", "NoNewPrivs"))]

    before = state()
    assert seccomp.available()
    assert state() == before
    # Refused to a process that is under our own filter, as it may be in a container.
    assert confined("from sandbox import seccomp; result = seccomp.available()") is False


def test_a_filter_comes_with_no_new_privileges(confined):
    code = "result = [line.split() for line in open('/proc/self/status') if 'NoNewPrivs' in line]"
    assert confined(code) == [["NoNewPrivs:", "1"]]
