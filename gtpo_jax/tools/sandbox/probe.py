"""Tries, from within a confined child, to do what each property forbids.

A machine may accept a layer that then has no effect, as under some container runtimes. So
`isolation_report` states what was observed here. Every attempt is harmless when it succeeds.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

from . import syscalls

_FILES = ("/etc/passwd", "/etc/hostname", "/proc/self/mounts", "/proc/1/status", "/sys/kernel")
_FOLDERS = ("/", "/dev/shm", "/var/tmp", "/tmp", "/run", "/root", "/home")
_NAME = "gtpo_jax_probe"
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


def can_import() -> bool:
    """True if this user can read the libraries; not so where only root can reach them."""
    return all(
        # A folder out of reach does not look like a folder, but it cannot be read either.
        os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK)
        for path in sys.path
    )


def attempt(scratch: str | None, address_space: int, writable: list[str]) -> dict[str, bool]:
    """Property → True if it held. `writable` are folders that the trainer can write to."""
    tries: dict[str, Callable[[], bool]] = {
        "fs_read": _reads_nothing,
        "fs_write": lambda: _writes_nothing(scratch, writable),
        "scratch": lambda: scratch is None or _scratch_is_bounded(scratch),
        "net": _reaches_nobody,
        "processes": _starts_nothing,
        "signals": lambda: _refused(os.kill, os.getppid(), 0) if os.getppid() else True,
        "ptrace_mem": _attaches_to_nothing,
        "kernel_surface": _finds_no_surface,
        "limits": lambda: _is_limited(address_space),
    }
    return {name: held() for name, held in tries.items()}


def _refused(call: Callable[..., Any], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except OSError:
        return True
    return False


def _reads_nothing() -> bool:
    def read(path: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        os.close(fd)

    return all(_refused(read, path) for path in _FILES)


def _writes_nothing(scratch: str | None, writable: list[str]) -> bool:
    def write(folder: str) -> None:
        path = os.path.join(folder, f"{_NAME}_{os.getpid()}")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)

    folders = {*_FOLDERS, *writable} - {scratch}
    return all(_refused(write, folder) for folder in folders)


def _scratch_is_bounded(scratch: str) -> bool:
    path = os.path.join(scratch, _NAME)
    with open(path, "w", encoding="utf-8") as file:
        file.write("x")
    os.unlink(path)
    usage = os.statvfs(scratch)
    return usage.f_blocks * usage.f_frsize < 1 << 34 and usage.f_files < 1 << 24


def _reaches_nobody() -> bool:
    families = ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG")
    known = [getattr(socket, name) for name in families if hasattr(socket, name)]
    return all(_refused(socket.socket, family, socket.SOCK_DGRAM) for family in known)


def _starts_nothing() -> bool:
    try:
        pid = os.fork()
    except OSError:
        return True
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return False


def _attaches_to_nothing() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    if sys.platform != "linux":
        return False
    if libc.ptrace(_PTRACE_ATTACH, parent, 0, 0) == 0:
        with contextlib.suppress(OSError):
            os.waitpid(parent, 0)
        libc.ptrace(_PTRACE_DETACH, parent, 0, 0)
        return False
    return _refused(open, f"/proc/{parent}/mem", "rb")


def _finds_no_surface() -> bool:
    buffer = ctypes.create_string_buffer(256)

    def opened(name: str, *arguments: Any) -> bool:
        try:
            syscalls.syscall(name, *arguments)
        except OSError:
            return False
        return True

    return not (
        opened("io_uring_setup", 1, buffer)
        or opened("userfaultfd", 1)
        or opened("keyctl", 0, -3, 1)
        or opened("memfd_create", b"probe", 0)
        or opened("personality", 0xFFFFFFFF)
        or opened("bpf", 0, buffer, 0)
    )


def _is_limited(address_space: int) -> bool:
    def reserve() -> None:
        mmap.mmap(-1, address_space).close()

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    return soft == hard == address_space and _refused(reserve)
