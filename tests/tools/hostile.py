"""Code that tries what it must not, by the property that forbids it, and code that must just work.

Every attempt prints a line, "name ERRNO" when it is refused and "name DONE …" when it is not. None
does lasting harm when it gets through, but for what a test has set up to be harmed.
"""

from __future__ import annotations

import os
from typing import Any

from gtpo_jax.tools.sandbox import syscalls

SECRET = "a-secret-4f1d"  # never in the text of an attempt

# Calls that the package has no use for.
_MORE = {
    "x86_64": """io_setup:206 name_to_handle_at:303 timer_create:222 timerfd_create:283 signalfd4:289
        inotify_init1:294 fanotify_init:300 remap_file_pages:216 migrate_pages:256 move_pages:279
        mbind:237 set_mempolicy:238 arch_prctl:158 mlock:149 mlockall:151 vhangup:153
        lookup_dcookie:212 uselib:134 ustat:136 sysfs:139 _sysctl:156 get_mempolicy:239
        pkey_alloc:330 map_shadow_stack:453 futex_waitv:449 set_thread_area:205""",
    "aarch64": """io_setup:0 name_to_handle_at:264 timer_create:107 timerfd_create:85 signalfd4:74
        inotify_init1:26 fanotify_init:262 remap_file_pages:234 migrate_pages:238 move_pages:239
        mbind:235 set_mempolicy:237 mlock:228 mlockall:230 vhangup:58 lookup_dcookie:18
        get_mempolicy:236 pkey_alloc:289 map_shadow_stack:453 futex_waitv:449""",
}


def numbers() -> dict[str, int]:
    machine = os.uname().machine
    more = (word.split(":") for word in _MORE[machine].split())
    return {**syscalls.TABLES[machine], **{name: int(number) for name, number in more}}


PRELUDE = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def attempt(name, call, *arguments, **named):
    try:
        result = call(*arguments, **named)
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, repr(error)))
    else:
        print(name, "DONE", repr(result)[:80])

def system(name, *arguments):
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if name not in numbers:
        raise OSError(errno.ENOSYS, name)
    result = libc.syscall(ctypes.c_long(numbers[name]), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result

def attempt_call(name, *arguments):
    attempt(name, system, name, *arguments)
"""


def attempt(code: str, **facts: Any) -> str:
    """The text of a call: what the code may know of the host, the helpers, then the code."""
    known = "".join(f"{name} = {value!r}\n" for name, value in facts.items())
    return f"{known}numbers = {numbers()!r}\n{PRELUDE}\n{code}"


# property → name → code. The facts: `secret_file` and `host_folder` (with `keep` in it) belong to
# the trainer's user; `trainer` and `bystander` are processes; `port`, `unix_path` and
# `abstract_name` are listened to; `folders` are places that a trainer might write to.
ATTEMPTS: dict[str, dict[str, str]] = {
    "fs_read": {
        "files_of_the_host": """
for path in (secret_file, "/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/hosts",
             "/dev/mem", "/dev/kmsg", "/dev/vda", "/sys/kernel/notes", "/boot",
             host_folder + "/.././" + os.path.basename(host_folder) + "/keep"):
    attempt(path, lambda: open(path, "rb").read(64))
""",
        "proc": """
for pid in ("self", "thread-self", "1", os.getppid(), trainer, bystander):
    for name in ("environ", "cmdline", "maps", "mem", "mountinfo", "fd", "root/etc/passwd", "cwd/x"):
        attempt(f"{pid}/{name}", lambda: os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
for name in ("kcore", "keys", "sysrq-trigger", "net/unix", "sys/kernel/core_pattern", "mounts"):
    attempt(name, lambda: open(f"/proc/{name}", "rb").read(64))
attempt("proc", os.listdir, "/proc")
""",
        "folders_of_the_host": """
for path in ("/root", "/home", "/etc", "/var", "/var/log", "/run", "/sys", "/dev",
             host_folder, os.path.dirname(host_folder)):
    attempt(path, os.listdir, path)
    attempt(path, lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
""",
        "links": """
def read_through(make):
    try:
        make()
    except OSError:
        pass
    return open("way").read()
attempt("symlink", read_through, lambda: os.symlink(secret_file, "way"))
try: os.unlink("way")
except OSError: pass
attempt("hard link", read_through, lambda: os.link(secret_file, "way"))
try: os.symlink("/", "up")
except OSError: pass
attempt("folder", lambda: open("up" + secret_file).read())
attempt("dots", lambda: open("../" * 20 + secret_file[1:]).read())
attempt("root", lambda: open("/proc/self/root" + secret_file).read())
""",
        "handles_and_descriptors": """
buffer = ctypes.create_string_buffer(256)
buffer[0] = bytes([128])
attempt_call("name_to_handle_at", -100, b"/", buffer, buffer, 0)
attempt_call("open_by_handle_at", -100, buffer, 0)
for flags in (os.O_PATH, os.O_PATH | os.O_DIRECTORY):
    # A handle for a path may be given out; what counts is what can be done with it.
    try:
        fd = os.open("/", flags)
    except OSError as error:
        print("handle", errno.errorcode[error.errno])
        continue
    attempt("read", os.read, fd, 1)
    attempt("beside", lambda: os.open(secret_file[1:], os.O_RDONLY, dir_fd=fd))
    attempt("above", lambda: os.open("../../.." + secret_file, os.O_RDONLY, dir_fd=fd))
    os.close(fd)
for fd in (0, 1, 2):
    attempt(f"beside {fd}", lambda: os.open("etc/passwd", os.O_RDONLY, dir_fd=fd))
    attempt(f"into {fd}", os.fchdir, fd)
for fd in range(3, 64):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print("open", fd)
""",
        "libraries": """
import mmap, sqlite3, zipfile, configparser, logging, numpy
def base():
    try:
        sqlite3.connect(f"file:{secret_file}?mode=ro", uri=True).execute("pragma page_count")
    except sqlite3.Error:
        raise OSError(errno.EACCES, "sqlite") from None
attempt("sqlite", base)
attempt("numpy", numpy.fromfile, secret_file, numpy.uint8)
attempt("libc", lambda: libc.fopen(secret_file.encode(), b"r") or system("open", b"/etc/shadow", 0))
attempt("zip", zipfile.ZipFile, secret_file)
attempt("import", lambda: exec("import importlib.machinery as m\\n"
        "m.SourceFileLoader('x', secret_file).get_data(secret_file)"))
attempt("source", lambda: __import__("tokenize").open(secret_file))
attempt("library", ctypes.CDLL, secret_file)
""",
        "other_roots": """
attempt_call("chroot", b".")
attempt_call("pivot_root", b".", b".")
attempt_call("unshare", 0x10000000)
attempt_call("unshare", 0x00020000)
attempt_call("setns", 0, 0)
attempt_call("mount", b"/", b"/tmp", None, 4096, None)
attempt_call("mount", b"proc", b"/tmp", b"proc", 0, None)
attempt_call("umount2", b"/tmp", 2)
attempt_call("open_tree", -100, b"/", 1)
attempt_call("fsopen", b"tmpfs", 0)
attempt_call("move_mount", -100, b"/", -100, b"/tmp", 0)
attempt_call("mount_setattr", -100, b"/", 0, None, 0)
""",
    },
    "fs_write": {
        "new_files": """
import sys
for folder in (*folders, "/etc", "/usr/lib", "/dev", "/dev/shm", "/run", "/proc/sys/kernel", "/sys",
               sys.prefix, *(path for path in sys.path if path)):
    path = os.path.join(folder, "planted.pth")
    attempt(path, lambda: open(path, "x").write("import os"))
    attempt(path, os.mkdir, path + ".d")
    attempt(path, os.symlink, "/", path + ".l")
    attempt(path, lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
""",
        "files_that_are_there": """
keep = host_folder + "/keep"
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC, 3):
    attempt(f"open {flags}", os.open, keep, flags)
attempt("truncate", os.truncate, keep, 0)
attempt("unlink", os.unlink, keep)
attempt("rename", os.rename, keep, "mine")
attempt("rename over", lambda: (open("mine", "w").close(), os.rename("mine", keep)))
attempt("link", os.link, keep, "mine2")
attempt("rmdir", os.rmdir, host_folder)
attempt("chmod", os.chmod, keep, 0o777)
attempt("chmod folder", os.chmod, host_folder, 0o777)
attempt("chown", os.chown, keep, 0, 0)
attempt("utime", os.utime, keep, (0, 0))
attempt("xattr", os.setxattr, keep, "user.a", b"b")
""",
        "nodes": """
import stat, tempfile
for folder in (".", host_folder, tempfile.gettempdir()):
    attempt(f"fifo in {folder}", os.mkfifo, folder + "/fifo")
    attempt(f"device in {folder}", os.mknod, folder + "/dev", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    attempt(f"socket in {folder}", os.mknod, folder + "/sock", stat.S_IFSOCK | 0o600)
""",
        "libraries_and_interpreter": """
import math, numpy, sys, sysconfig
for path in (numpy.__file__, os.__file__, sys.executable, numpy.linalg.__file__):
    attempt(path, os.open, path, os.O_WRONLY)
    attempt(path, os.unlink, path)
    attempt(path, os.chmod, path, 0o777)
    attempt(path, os.rename, path, path + "x")
""",
        "own_process": """
for name in ("oom_score_adj", "comm", "coredump_filter", "clear_refs", "timerslack_ns", "uid_map"):
    attempt(name, lambda: open(f"/proc/self/{name}", "w").write("0"))
attempt("core pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").write("x"))
attempt("drop caches", lambda: open("/proc/sys/vm/drop_caches", "w").write("1"))
attempt("cgroup", lambda: open("/sys/fs/cgroup/cgroup.procs", "w").write("0"))
""",
    },
    "net": {
        "sockets": """
import socket
for name in dir(socket):
    if name.startswith("AF_"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            attempt(name, lambda: socket.socket(getattr(socket, name), kind).family)
for family in range(46):
    attempt(f"family {family}", system, "socket", family, 2, 0)
    if family != socket.AF_UNIX:
        attempt(f"pair {family}", system, "socketpair", family, 2, 0, ctypes.create_string_buffer(8))
""",
        "listeners": """
import socket, urllib.request
attempt("tcp", socket.create_connection, ("127.0.0.1", port), 2)
attempt("tcp6", socket.create_connection, ("::1", port), 2)
attempt("server", socket.create_server, ("127.0.0.1", 0))
attempt("http", lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2))
attempt("names", socket.getaddrinfo, "localhost", "x-no-such")
for address in (unix_path, "\\0" + abstract_name):
    attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect(address))
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        attempt("connect of a pair", one.connect, address)
        attempt("sendto of a pair", one.sendto, b"x", address)
        attempt("sendmsg of a pair", one.sendmsg, [b"x"], [], 0, address)
        attempt("bind of a pair", other.bind, "\\0mine")
        attempt("listen of a pair", other.listen)
""",
        "descriptors_and_options": """
import array, socket
one, other = socket.socketpair()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
attempt("rights", one.sendmsg, [b"x"], rights)
attempt("out of band", one.send, b"x", socket.MSG_OOB)
attempt("option", one.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
attempt("filter", one.setsockopt, socket.SOL_SOCKET, 26, b"x" * 16)
attempt("accept", one.accept)
attempt("interfaces", socket.if_nameindex)
for request in (0x8915, 0x8927, 0x8933, 0x8B01):
    attempt(f"ioctl {request:x}", __import__("fcntl").ioctl, one.fileno(), request, b"lo" + bytes(38))
for fd in (0, 1, 2):
    attempt(f"{fd} as a socket", system, "connect", fd, b"\\1\\0" + unix_path.encode(), 20)
""",
        "asyncio": """
import asyncio
async def connect():
    return await asyncio.open_connection("127.0.0.1", port)
async def connect_unix():
    return await asyncio.open_unix_connection(unix_path)
attempt("tcp", lambda: asyncio.run(connect()))
attempt("unix", lambda: asyncio.run(connect_unix()))
""",
    },
    "processes": {
        "processes": """
import subprocess, sys
def child():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)
def child_in_terminal():
    pid, fd = os.forkpty()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)
attempt("fork", child)
attempt("forkpty", child_in_terminal)
attempt("spawn", os.posix_spawn, sys.executable, [sys.executable, "-c", ""], {})
attempt("run", lambda: subprocess.run([sys.executable, "-c", ""]))
attempt("shell", lambda: subprocess.run("true", shell=True))
attempt("popen", lambda: os.popen("true").read())
print("system", "DONE" if os.system("true") == 0 else "EPERM")
attempt("exec", os.execv, sys.executable, [sys.executable, "-c", "print('DONE')"])
attempt("execve shell", os.execve, "/bin/sh", ["sh", "-c", "echo DONE"], {})
""",
        "raw_calls": """
def made(name, *arguments):
    pid = system(name, *arguments)
    if pid == 0:
        os._exit(0)
    return pid
attempt("fork", made, "fork")
for flags in (17, 0, 0x8000 | 17, 0x100 | 17, 0x4000 | 0x100, 0x10000 | 17, 0x800000 | 17,
              0x10000000 | 17, 0x20000000 | 17, 0x00020000 | 17, 0x40000000 | 17, 0x1000 | 17):
    attempt(f"clone {flags:x}", made, "clone", flags, 0, 0, 0, 0)
attempt("clone3", made, "clone3", (17 << 32).to_bytes(88, "little"), 88)
attempt("execveat", system, "execveat", 1, b"", None, None, 0x1000)
attempt("memfd", system, "memfd_create", b"x", 0)
attempt("memfd secret", system, "memfd_secret", 0)
""",
        "multiprocessing": """
import concurrent.futures, multiprocessing
attempt("process", multiprocessing.Process(target=print).start)
attempt("pool", lambda: multiprocessing.Pool(1))
attempt("executor", lambda: concurrent.futures.ProcessPoolExecutor(1).submit(print).result(2))
""",
    },
    "signals": {
        "other_processes": """
import signal
for pid in (trainer, bystander, os.getppid() or 1, 1, -1, -bystander, -os.getppid() or -1):
    for number in (0, signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        attempt(f"kill {pid} {number}", os.kill, pid, number)
    attempt_call("tkill", pid, 9)
    attempt_call("tgkill", pid, pid, 9)
    attempt_call("rt_sigqueueinfo", pid, 9, bytes(128))
    attempt_call("rt_tgsigqueueinfo", pid, pid, 9, bytes(128))
    attempt_call("pidfd_open", pid, 0)
attempt("group", os.killpg, os.getpgid(0) if os.getpgid(0) != os.getpid() else bystander, 9)
attempt_call("pidfd_send_signal", 0, 9, None, 0)
""",
        "signals_that_the_kernel_sends": """
import fcntl, socket
one, other = socket.socketpair()
for pid in (trainer, bystander, os.getppid() or 1, -bystander):
    attempt(f"owner {pid}", fcntl.fcntl, one.fileno(), fcntl.F_SETOWN, pid)
    attempt(f"owner_ex {pid}", fcntl.fcntl, one.fileno(), 15, bytes(4) + pid.to_bytes(4, "little", signed=True))
    attempt(f"ioctl {pid}", fcntl.ioctl, one.fileno(), 0x8901, pid.to_bytes(4, "little", signed=True))
attempt("signal", fcntl.fcntl, one.fileno(), fcntl.F_SETSIG, 9)
attempt("lease", fcntl.fcntl, 0, fcntl.F_SETLEASE, fcntl.F_RDLCK)
attempt("notify", fcntl.fcntl, 0, fcntl.F_NOTIFY, 1)
attempt_call("prctl", 1, 9, 0, 0, 0)
attempt_call("timer_create", 0, bytes(64), bytes(8))
attempt_call("mq_open", b"q", 0o102, 0o600, None)
for request in (0x5412, 0x540E, 0x5410, 0x541D):
    for fd in (0, 1, 2):
        attempt(f"terminal {request:x}", fcntl.ioctl, fd, request, b"x" + bytes(7))
attempt("session", os.setsid)
attempt("join a group", os.setpgid, 0, bystander)
""",
        "share_of_the_processor": """
for pid in (trainer, bystander):
    attempt("priority", os.setpriority, os.PRIO_PROCESS, pid, 19)
    attempt("affinity", os.sched_setaffinity, pid, {0})
    attempt("limits", __import__("resource").prlimit, pid, 0, (1, 1))
    attempt_call("ioprio_set", 1, pid, 0)
attempt("users", os.setpriority, os.PRIO_USER, os.getuid(), 19)
attempt("higher", os.setpriority, os.PRIO_PROCESS, 0, -20)
attempt("realtime", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))
attempt("deadline", system, "sched_setattr", 0, bytes(64), 0)
""",
    },
    "ptrace_mem": {
        "other_processes": """
buffer = ctypes.create_string_buffer(64)
vector = ctypes.create_string_buffer(16)
ctypes.memmove(vector, (ctypes.addressof(buffer)).to_bytes(8, "little") + (8).to_bytes(8, "little"), 16)
for pid in (trainer, bystander, os.getppid() or 1, 1):
    for request in (16, 0x4206):
        attempt(f"ptrace {request}", system, "ptrace", request, pid, 0, 0)
    attempt_call("process_vm_readv", pid, vector, 1, vector, 1, 0)
    attempt_call("process_vm_writev", pid, vector, 1, vector, 1, 0)
    attempt_call("kcmp", os.getpid(), pid, 0, 0, 0)
    attempt_call("get_robust_list", pid, buffer, buffer)
    attempt_call("migrate_pages", pid, 1, buffer, buffer)
    attempt_call("move_pages", pid, 1, buffer, None, buffer, 0)
    attempt(f"memory of {pid}", os.open, f"/proc/{pid}/mem", os.O_RDWR)
attempt("traceme", system, "ptrace", 0, 0, 0, 0)
attempt_call("prctl", 0x59616D61, -1, 0, 0, 0)
attempt_call("prctl", 4, 1, 0, 0, 0)
attempt_call("pidfd_getfd", 0, 0, 0)
attempt_call("process_madvise", 0, vector, 1, 4, 0)
attempt("own memory", os.open, "/proc/self/mem", os.O_RDWR)
""",
    },
    "kernel_surface": {
        "calls": """
buffer = ctypes.create_string_buffer(4096)
for name, arguments in {
    "io_uring_setup": (8, buffer), "bpf": (0, buffer, 64), "userfaultfd": (1,),
    "perf_event_open": (buffer, 0, -1, -1, 0), "keyctl": (0, -3, 1), "request_key": (b"user", b"x", None, -2),
    "add_key": (b"user", b"x", b"y", 1, -2), "personality": (0x0040000,), "personality": (-1,),
    "modify_ldt": (0, buffer, 16), "iopl": (3,), "ioperm": (0x80, 1, 1), "seccomp": (1, 0, buffer),
    "kexec_load": (0, 0, None, 0), "init_module": (buffer, 8, b""), "finit_module": (0, b"", 0),
    "swapon": (b"x", 0), "reboot": (0xFEE1DEAD, 672274793, 0, None), "sethostname": (b"x", 1),
    "settimeofday": (None, buffer), "clock_settime": (0, buffer), "syslog": (3, buffer, 64),
    "adjtimex": (buffer,), "quotactl": (0, None, 0, buffer), "acct": (None,), "splice": (0, None, 1, None, 1, 0),
    "vmsplice": (1, buffer, 1, 0), "tee": (0, 1, 1, 0), "shmget": (0, 4096, 0o1600),
    "msgget": (0, 0o1600), "semget": (0, 1, 0o1600), "memfd_create": (b"x", 0), "io_setup": (1, buffer),
    "timerfd_create": (1, 0), "signalfd4": (-1, buffer, 8, 0), "inotify_init1": (0,),
    "fanotify_init": (0, 0), "remap_file_pages": (0, 0, 0, 0, 0), "mbind": (0, 0, 0, 0, 0, 0),
    "set_mempolicy": (0, None, 0), "get_mempolicy": (None, None, 0, 0, 0), "vhangup": (),
    "mlock": (buffer, 4096), "mlockall": (1,), "lookup_dcookie": (0, buffer, 64), "uselib": (b"x",),
    "ustat": (0, buffer), "sysfs": (3,), "_sysctl": (buffer,), "pkey_alloc": (0, 0),
    "landlock_restrict_self": (0, 0), "capset": (buffer, buffer), "setuid": (0,), "setresgid": (0, 0, 0),
    "setgroups": (0, None), "setfsuid": (0,), "map_shadow_stack": (0, 4096, 0),
}.items():
    attempt_call(name, *arguments)
for option in (2, 3, 22, 23, 24, 25, 26, 29, 35, 36, 38, 41, 45, 47, 50, 52, 53, 59, 62, 65, 70):
    attempt(f"prctl {option}", system, "prctl", option, 1, 1, 0, 0)
for advice in (9, 12, 100, 101, 20, 21):
    attempt(f"madvise {advice}", system, "madvise", 0, 4096, advice)
for operation in (6, 7, 8, 11, 13):
    attempt(f"futex {operation}", system, "futex", buffer, operation, 0, None, None, 0)
""",
        "numbers_of_x32": """
import platform
if platform.machine() == "x86_64":
    for number in (0, 39, 57, 59, 101, 512, 520, 521, 540):
        numbers[f"x{number}"] = 0x40000000 | number
        attempt_call(f"x{number}", 0, 0, 0, 0)
numbers["high"], numbers["negative"], numbers["new"] = 1 << 31, -2, 600
for name in ("high", "negative", "new"):
    attempt_call(name, 0, 0, 0)
""",
    },
    "limits": {
        "memory": """
import mmap
def touched(size, **kinds):
    area = mmap.mmap(-1, size, **kinds)
    for place in range(0, size, 4096 * 64):
        area[place] = 1
    return size
attempt("private", touched, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
attempt("shared", touched, 3 << 30, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
attempt("not reserved", touched, 1 << 36, flags=0x4000 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held = []
def many():
    for _ in range(64):
        held.append(mmap.mmap(-1, 64 << 20))
        held[-1][0] = 1
attempt("many", many)
held.clear()
area = mmap.mmap(-1, 1 << 20)
attempt("grown", lambda: (area.resize(3 << 30), area.write_byte(1)))
attempt("locked", system, "mlock", ctypes.addressof(ctypes.create_string_buffer(1 << 20)), 1 << 20)
try:
    bytearray(3 << 30)
    print("bytearray DONE")
except MemoryError:
    print("bytearray ENOMEM")
""",
        "limits_that_were_set": """
import resource
for name in ("AS", "CPU", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE"):
    kind = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY:
        print(name, "DONE", "not limited")
    for wanted in (resource.RLIM_INFINITY, hard + 1):
        def more():
            try:
                resource.setrlimit(kind, (hard, wanted))
            except ValueError:
                raise OSError(errno.EPERM, "more") from None
        attempt(name, more)
        new = ctypes.create_string_buffer(b"".join(v.to_bytes(8, "little") for v in (hard, hard + 1)))
        attempt(name, system, "prlimit64", 0, kind, new, None)
""",
        "descriptors": """
held = []
def many():
    for _ in range(5000):
        held.append(os.pipe())
    return len(held)
attempt("pipes", many)
def big():
    import fcntl
    for read, write in held[:8]:
        fcntl.fcntl(write, 1031, 1 << 20)
attempt("big pipes", big)
held.clear()
attempt("number", os.dup2, 1, 5000)
""",
    },
}

# Attempts on the scratch directory, where there is one.
SCRATCH: dict[str, str] = {
    "fill": """
total = 0
def fill(folder):
    global total
    for number in range(64):
        with open(os.path.join(folder, f"fill{number}"), "wb") as file:
            for _ in range(8):
                total += file.write(bytes(1 << 20))
attempt("fill", fill, ".")
print("bounded", "EDQUOT" if total <= 64 << 20 else "DONE")
""",
    "big_file": """
import tempfile
with open("sparse", "wb") as file:
    attempt("length", file.truncate, 1 << 40)
    attempt("place", os.pwrite, file.fileno(), b"x", 1 << 34)
    attempt("allocate", os.posix_fallocate, file.fileno(), 0, 1 << 30)
""",
    "many_files": """
def many():
    for number in range(20000):
        open(f"f{number}", "w").close()
attempt("files", many)
""",
    "programs": """
import mmap, shutil, sys
open("program", "w").write("#!/bin/sh\\necho DONE\\n")
os.chmod("program", 0o6755)
attempt("run", os.execv, "./program", ["program"])
with open("code", "w+b") as file:
    file.write(b"\\xc3" * 4096)
    file.flush()
    attempt("mapped", mmap.mmap, file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
""",
    "working_directory": """
here = os.getcwd()
attempt("rename", os.rename, here, here + "x")
attempt("remove", os.rmdir, here)
attempt("replace", os.symlink, "/", here)
""",
}

# name → (code, stdout): ordinary code that ends well. Without a scratch directory those of the
# second table do not work; nor can `_SOURCES` where no file can be opened at all.
BENIGN: dict[str, tuple[str, str]] = {
    "asyncio": (
        """
import asyncio
async def square(x):
    await asyncio.sleep(0.001)
    return x * x
async def main():
    queue = asyncio.Queue()
    await queue.put(await asyncio.to_thread(sum, [1, 2]))
    return await asyncio.gather(*map(square, range(4))), await asyncio.wait_for(queue.get(), 2)
print(asyncio.run(main()))
""",
        "([0, 1, 4, 9], 3)\n",
    ),
    "threads": (
        """
import concurrent.futures, queue, threading
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(lambda x: x * x, range(100))))
tasks = queue.Queue()
worker = threading.Thread(target=lambda: [tasks.put(i) for i in range(3)])
worker.start(); worker.join()
print(tasks.get(), tasks.get(), tasks.qsize())
local, event = threading.local(), threading.Event()
threading.Timer(0.01, event.set).start()
print(event.wait(2), threading.active_count() <= 2)
""",
        "328350\n0 1 1\nTrue True\n",
    ),
    "alarm": (
        """
import signal, time
def late(number, frame):
    raise TimeoutError("late")
signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    time.sleep(2)
except TimeoutError as error:
    print(error)
signal.signal(signal.SIGTERM, lambda *a: print("term"))
signal.raise_signal(signal.SIGTERM)
import os
os.kill(os.getpid(), signal.SIGTERM)
""",
        "late\nterm\nterm\n",
    ),
    "numbers": (
        """
import decimal, fractions, math, statistics, sys
decimal.getcontext().prec = 60
print(decimal.Decimal(2).sqrt())
print(fractions.Fraction(22, 7) - fractions.Fraction(1, 3), math.comb(50, 25), math.isqrt(10**40))
print(len(str(2**50000)), statistics.pstdev([1, 2, 3, 4]), hex(1 << 70), 0.1 + 0.2)
""",
        "1.41421356237309504880168872420969807856967187537694807317668\n"
        "59/21 126410606437752 100000000000000000000\n"
        "15052 1.118033988749895 0x400000000000000000 0.30000000000000004\n",
    ),
    "random": (
        """
import random, uuid, secrets, os
random.seed(7)
print(random.random(), random.sample(range(10), 3), random.choice("abc"))
print(len(uuid.uuid4().hex), len(secrets.token_bytes(8)), len(os.urandom(4)))
""",
        "0.32383276483316237 [2, 6, 0] a\n32 8 4\n",
    ),
    "text": (
        """
import contextlib, difflib, html, io, json, re, string, textwrap, unicodedata
print(re.sub(r"(\\w+) (\\w+)", r"\\2 \\1", "hello world"), json.dumps({"a": [1, None]}))
with contextlib.redirect_stdout(io.StringIO()) as caught:
    print("hidden")
print(repr(caught.getvalue()), textwrap.shorten("a b c d", 6), unicodedata.name("é"))
print("héllo ∑ 😀".upper(), html.escape("<"), string.Template("$x").substitute(x=1))
print(json.loads("[" * 500 + "]" * 500) != [], "a\\tb", end="!\\n", flush=True)
""",
        "world hello {\"a\": [1, null]}\n'hidden\\n' [...] LATIN SMALL LETTER E WITH ACUTE\n"
        "HÉLLO ∑ 😀 &lt; 1\nTrue a\tb!\n",
    ),
    "classes": (
        """
import abc, collections, dataclasses, enum, functools, inspect, itertools, operator, typing
@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: int = 0
class Color(enum.Enum):
    RED = 1
@functools.lru_cache(None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(sorted([Point(2), Point(1, 5)]), Color.RED, fib(80))
print(inspect.getsource(fib).splitlines()[1], list(itertools.accumulate([1, 2, 3], operator.mul)))
print(collections.Counter("abca").most_common(1), typing.get_type_hints(Point))
""",
        "[Point(x=1, y=5), Point(x=2, y=0)] Color.RED 23416728348467685\n"
        "def fib(n): [1, 2, 6]\n[('a', 2)] {'x': <class 'int'>, 'y': <class 'int'>}\n",
    ),
    "time": (
        """
import calendar, datetime, time, timeit
print(datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc).isoformat(), time.tzname[0])
print(datetime.datetime.now().year > 2020, calendar.isleap(2024), timeit.timeit("1", number=1) >= 0)
print(time.strftime("%Y", time.localtime(0)), time.monotonic() > 0, time.thread_time() >= 0)
""",
        "2024-02-29T00:00:00+00:00 UTC\nTrue True True\n1970 True True\n",
    ),
    "streams": (
        """
import logging, pprint, sys, warnings
logging.basicConfig(level=logging.INFO)
logging.info("a note"); warnings.warn("careful")
sys.stdout.buffer.write(b"raw "); sys.stdout.buffer.flush()
sys.stdout.write("text\\n"); print("err", file=sys.stderr)
print(sys.stdin.read() == "", sys.stdin.isatty(), sys.stdout.encoding, sys.argv, sys.flags.isolated)
try:
    input("? ")
except EOFError as error:
    print(type(error).__name__)
pprint.pprint({"b": 1, "a": 2})
""",
        "raw text\nTrue False utf-8 ['<tool>'] 0\n? EOFError\n{'a': 2, 'b': 1}\n",
    ),
    "machine": (
        """
import getpass, locale, os, platform, resource, socket, sys, tempfile
print(os.cpu_count() >= 1, platform.system(), sys.platform, locale.getlocale()[1])
print(os.getcwd() != "", os.environ.get("HOME") is not None, os.path.exists("no"), os.getpid() > 0)
print(len(platform.platform()) > 5, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)
print(os.get_terminal_size.__name__, __import__("shutil").get_terminal_size().columns)
""",
        "True Linux linux UTF-8\nTrue True False True\nTrue True\nget_terminal_size 80\n",
    ),
    "unittest": (
        """
import doctest, sys, unittest
def double(x):
    '''
    >>> double(2)
    4
    '''
    return 2 * x
print(doctest.testmod())
class Case(unittest.TestCase):
    def test_double(self):
        self.assertEqual(double(2), 4)
result = unittest.main(exit=False, argv=["x"], verbosity=0).result
print(result.wasSuccessful(), result.testsRun)
""",
        "TestResults(failed=0, attempted=1)\nTrue 1\n",
    ),
    "memory": (
        """
import array, ctypes, gc, mmap, struct, weakref, zlib
view = memoryview(bytearray(b"abcdef"))[1:4]
view[0] = 120
print(bytes(view), struct.unpack("<I", array.array("B", [1, 0, 0, 0]).tobytes()))
area = mmap.mmap(-1, 8192); area[:3] = b"abc"
print(area[:3], zlib.decompress(zlib.compress(b"x" * 10**6))[:2], gc.collect() >= 0)
print(ctypes.string_at(ctypes.create_string_buffer(b"hi")), sum(range(10**6)))
""",
        "b'xcd' (1,)\nb'abc' b'xx' True\nb'hi' 499999500000\n",
    ),
    "exceptions": (
        """
import traceback
try:
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("outer") from error
except ValueError:
    print(traceback.format_exc().count("Traceback"))
try:
    raise ExceptionGroup("many", [ValueError(1), TypeError(2)])
except* ValueError as group:
    print(group.exceptions)
except* TypeError:
    pass
""",
        "2\n(ValueError(1),)\n",
    ),
    "sqlite_in_memory": (
        """
import sqlite3
base = sqlite3.connect(":memory:")
base.execute("create table t (x)")
base.executemany("insert into t values (?)", [(i,) for i in range(10)])
print(base.execute("select sum(x), max(x) from t").fetchone())
""",
        "(45, 9)\n",
    ),
    "numpy": (
        """
import numpy as np
rng = np.random.default_rng(0)
a = rng.normal(size=(200, 200))
print(np.allclose(a @ np.linalg.inv(a), np.eye(200), atol=1e-6), np.linalg.svd(a)[1].shape)
print(np.fft.ifft(np.fft.fft([1, 2, 3])).real.round(6), np.random.randint(100, size=2))
print(np.polyfit([0, 1, 2], [1, 3, 5], 1).round(6), np.linalg.det([[1, 2], [3, 4]]).round(6))
""",
        "True (200,)\n[1. 2. 3.] [44 47]\n[2. 1.] -2.0\n",
    ),
}

WITH_FILES: dict[str, tuple[str, str]] = {
    "files": (
        """
import csv, glob, json, os, pathlib, pickle, shutil, tempfile
with open("a.csv", "w", newline="") as file:
    csv.writer(file).writerows([[1, "x"], [2, "y"]])
print(list(csv.reader(open("a.csv"))))
pathlib.Path("d/e").mkdir(parents=True)
pathlib.Path("d/e/f.txt").write_text("é")
shutil.copytree("d", "g"); shutil.copy2("a.csv", "g"); shutil.move("g/a.csv", "b.csv")
print(sorted(glob.glob("**", recursive=True)), [n for _, _, n in os.walk("g")])
shutil.rmtree("d"); os.remove("a.csv")
pickle.dump({"a": 1}, open("p", "wb")); print(pickle.load(open("p", "rb")))
with tempfile.TemporaryDirectory() as folder:
    print(os.path.isdir(folder))
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x"); file.flush(); print(os.path.getsize(file.name))
with tempfile.SpooledTemporaryFile(10) as file:
    print(file.write(b"a" * 20))
print(sorted(p.name for p in pathlib.Path.cwd().iterdir()), os.path.exists(os.path.expanduser("~")))
os.chmod("p", 0o600); os.utime("p", (1, 1)); print(os.stat("p").st_mtime)
os.rename("p", "q"); os.symlink("q", "r"); os.link("q", "s"); print(os.readlink("r"))
""",
        "[['1', 'x'], ['2', 'y']]\n"
        "['a.csv', 'b.csv', 'd', 'd/e', 'd/e/f.txt', 'g', 'g/e', 'g/e/f.txt'] [[], ['f.txt']]\n"
        "{'a': 1}\nTrue\n1\n20\n['b.csv', 'g', 'p'] True\n1.0\nq\n",
    ),
    "databases": (
        """
import dbm.dumb, mmap, shelve, sqlite3, zipfile, tarfile
with sqlite3.connect("base.db") as base:
    base.execute("create table t (x)")
    base.execute("insert into t values (3)")
print(base.execute("select * from t").fetchall())
with open("m", "w+b") as file:
    file.write(bytes(4096)); file.flush()
    with mmap.mmap(file.fileno(), 4096) as area:
        area[:2] = b"ok"
print(open("m", "rb").read(2))
with zipfile.ZipFile("z.zip", "w") as archive:
    archive.writestr("n", "inside")
with tarfile.open("t.tar.gz", "w:gz") as archive:
    archive.add("z.zip")
print(zipfile.ZipFile("z.zip").read("n"), tarfile.open("t.tar.gz").getnames())
""",
        "[(3,)]\nb'ok'\nb'inside' ['z.zip']\n",
    ),
    "modules": (
        """
import os, sys
open("mine.py", "w").write("value = 41\\ndef f(): return value + 1\\n")
sys.path.insert(0, os.getcwd())
import mine
print(mine.f(), mine.__file__.endswith("mine.py"))
""",
        "42 True\n",
    ),
    "numpy_files": (
        """
import numpy as np
np.save("a.npy", np.arange(3)); np.savetxt("a.txt", np.eye(2)); np.savez("a.npz", x=np.ones(2))
print(np.load("a.npy"), np.loadtxt("a.txt").sum(), np.load("a.npz")["x"], np.memmap("a.npy")[:6])
""",
        "[0 1 2] 2.0 [1. 1.] [147  78  85  77  80  89]\n",
    ),
    "own_output": (
        """
import os, sys
saved = os.dup(1)
with open("log", "w") as file:
    os.dup2(file.fileno(), 1)
    print("to the file", flush=True)
os.dup2(saved, 1)
print(open("log").read(), end="")
""",
        "to the file\n",
    ),
}

# Where no file can be opened these lack their data, their C module or their sources.
READS_LIBRARIES: dict[str, tuple[str, str]] = {
    "zones": (
        """
import datetime, zoneinfo
print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")).utcoffset())
""",
        "2:00:00\n",
    ),
    "late_imports": (
        """
import curses.ascii, wave, turtledemo if False else colorsys
""".replace(", turtledemo if False else colorsys", ", colorsys")
        + """
import numpy.testing, numpy.polynomial.chebyshev as chebyshev, inspect, json
print(chebyshev.chebval(0.5, [1, 2]), inspect.getsource(json.dumps).startswith("def dumps"))
""",
        "2.0 True\n",
    ),
}

SYMPY: dict[str, tuple[str, str]] = {
    "sympy": (
        """
from sympy import *
x, n = symbols("x n")
print(solve(x**3 - 6*x**2 + 11*x - 6, x), integrate(exp(-x**2), (x, -oo, oo)))
print(diff(sin(x) * exp(x), x), limit(sin(x) / x, x, 0), series(cos(x), x, 0, 4))
print(summation(1 / n**2, (n, 1, oo)), factorint(2**31 - 2), isprime(2**61 - 1))
print(Matrix([[2, 1], [1, 3]]).eigenvals(), simplify((x**2 - 1) / (x - 1)), latex(x**2 / 2))
print(dsolve(Function("f")(x).diff(x) - Function("f")(x)), N(pi, 30), nsimplify(0.125))
""",
        "[1, 2, 3] sqrt(pi)\nexp(x)*sin(x) + exp(x)*cos(x) 1 1 - x**2/2 + O(x**4)\n"
        "pi**2/6 {2: 1, 3: 2, 7: 1, 11: 1, 31: 1, 151: 1, 331: 1} True\n"
        "{5/2 - sqrt(5)/2: 1, sqrt(5)/2 + 5/2: 1} x + 1 \\frac{x^{2}}{2}\n"
        "Eq(f(x), C1*exp(x)) 3.14159265358979323846264338328 1/8\n",
    ),
}
