"""Code that tries what it must not, by the property that forbids it.

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
    "x86_64": """io_setup:206 name_to_handle_at:303 timer_create:222 timerfd_create:283
        signalfd4:289 inotify_init1:294 fanotify_init:300 remap_file_pages:216 migrate_pages:256
        move_pages:279
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
    return f"{known}numbers = {numbers()!r}\n{PRELUDE}\n{code}\nprint('end')\n"


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
    for name in ("environ", "cmdline", "maps", "mem", "mountinfo", "fd", "root/etc/passwd"):
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
    print("open", fd, "DONE")
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
for folder in (*folders, "/etc", "/usr/lib", "/dev", "/dev/shm", "/run", "/proc/sys/kernel",
               "/sys", sys.prefix, *(path for path in sys.path if path)):
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
import stat
for folder in (".", host_folder, "/tmp", "/"):
    attempt(f"fifo in {folder}", os.mkfifo, folder + "/fifo")
    zero = os.makedev(1, 5)
    attempt(f"device in {folder}", os.mknod, folder + "/dev", stat.S_IFCHR | 0o600, zero)
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
for name in ("oom_score_adj", "comm", "coredump_filter", "clear_refs", "uid_map"):
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
        pair = ctypes.create_string_buffer(8)
        attempt(f"pair {family}", system, "socketpair", family, 2, 0, pair)
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
    name = b"lo" + bytes(38)
    attempt(f"ioctl {request:x}", __import__("fcntl").ioctl, one.fileno(), request, name)
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
    number = pid.to_bytes(4, "little", signed=True)
    attempt(f"owner {pid}", fcntl.fcntl, one.fileno(), fcntl.F_SETOWN, pid)
    attempt(f"owner_ex {pid}", fcntl.fcntl, one.fileno(), 15, bytes(4) + number)
    attempt(f"ioctl {pid}", fcntl.ioctl, one.fileno(), 0x8901, number)
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
address, length = ctypes.addressof(buffer), 8
ctypes.memmove(vector, address.to_bytes(8, "little") + length.to_bytes(8, "little"), 16)
for pid in (trainer, bystander, os.getppid() or 1, 1):
    for request in (16, 0x4206):
        attempt(f"ptrace {request}", system, "ptrace", request, pid, 0, 0)
    attempt_call("process_vm_readv", pid, vector, 1, vector, 1, 0)
    attempt_call("process_vm_writev", pid, vector, 1, vector, 1, 0)
    attempt_call("kcmp", os.getpid(), pid, 0, 0, 0)
    attempt_call("get_robust_list", pid, buffer, buffer)
    attempt_call("migrate_pages", pid, 1, buffer, buffer)
    attempt_call("move_pages", pid, 1, buffer, None, buffer, 0)
    attempt(f"mem of {pid}", os.open, f"/proc/{pid}/mem", os.O_RDWR)
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
    "perf_event_open": (buffer, 0, -1, -1, 0), "keyctl": (0, -3, 1), "personality": (0x0040000,),
    "request_key": (b"user", b"x", None, -2), "add_key": (b"user", b"x", b"y", 1, -2),
    "modify_ldt": (0, buffer, 16), "iopl": (3,), "ioperm": (0x80, 1, 1), "seccomp": (1, 0, buffer),
    "kexec_load": (0, 0, None, 0), "init_module": (buffer, 8, b""), "finit_module": (0, b"", 0),
    "swapon": (b"x", 0), "reboot": (0xFEE1DEAD, 672274793, 0, None), "sethostname": (b"x", 1),
    "settimeofday": (None, buffer), "clock_settime": (0, buffer), "syslog": (3, buffer, 64),
    "adjtimex": (buffer,), "quotactl": (0, None, 0, buffer), "acct": (None,),
    "splice": (0, None, 1, None, 1, 0), "vmsplice": (1, buffer, 1, 0), "tee": (0, 1, 1, 0),
    "shmget": (0, 4096, 0o1600),
    "msgget": (0, 0o1600), "semget": (0, 1, 0o1600), "memfd_create": (b"x", 0),
    "io_setup": (1, buffer), "timerfd_create": (1, 0), "signalfd4": (-1, buffer, 8, 0),
    "inotify_init1": (0,),
    "fanotify_init": (0, 0), "remap_file_pages": (0, 0, 0, 0, 0), "mbind": (0, 0, 0, 0, 0, 0),
    "set_mempolicy": (0, None, 0), "get_mempolicy": (None, None, 0, 0, 0), "vhangup": (),
    "mlock": (buffer, 4096), "mlockall": (1,), "lookup_dcookie": (0, buffer, 64), "uselib": (b"x",),
    "ustat": (0, buffer), "sysfs": (3,), "_sysctl": (buffer,), "pkey_alloc": (0, 0),
    "landlock_restrict_self": (0, 0), "capset": (buffer, buffer), "setuid": (0,),
    "setresgid": (0, 0, 0), "setgroups": (0, None), "setfsuid": (0,),
    "map_shadow_stack": (0, 4096, 0),
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
        new = b"".join(number.to_bytes(8, "little") for number in (hard, hard + 1))
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
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    attempt("mapped", mmap.mmap, file.fileno(), 4096, mmap.MAP_PRIVATE, protection)
""",
    "working_directory": """
here = os.getcwd()
attempt("rename", os.rename, here, here + "x")
attempt("remove", os.rmdir, here)
attempt("replace", os.symlink, "/", here)
""",
}
