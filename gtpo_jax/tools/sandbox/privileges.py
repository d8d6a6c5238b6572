"""Drops the powers of a process: capabilities, access to other users' files, debugging.

Each function is one primitive; `child.py` has the order in which a child calls them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys

LINUX = sys.platform == "linux"

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_ADMIN = 21

NOBODY = 65534  # the user and group that owns nothing, by convention


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def has_cap_sys_admin() -> bool:
    """True if this process may mount and make namespaces, as root outside containers may."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data) != 0:
        return False
    (effective,) = struct.unpack_from("=I", data.raw)
    return bool(effective >> _CAP_SYS_ADMIN & 1)


def drop_capabilities() -> None:
    """Stops the process from mounting, changing the root, overriding permissions, …"""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def become(user: int) -> None:
    """Stops access to the files and processes of root by becoming another user, without groups."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def forbid_new_privileges() -> None:
    """Stops set-uid programs from restoring rights; seccomp and Landlock require this too."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_attaching() -> None:
    """Stops other processes of the same user from reading this one's memory and descriptors."""
    prctl(_PR_SET_DUMPABLE, 0)


def allow_attaching() -> None:
    prctl(_PR_SET_DUMPABLE, 1)


def die_with(parent: int) -> None:
    """Stops this process from outliving its parent. A change of user resets this: call it after."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the signal was requested


def adopt_orphans() -> None:
    """Stops what a call leaves behind from escaping to the machine's init process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def yield_to_trainer() -> None:
    """Stops calls from taking the processor, or the last memory, from the training job."""
    with contextlib.suppress(OSError):
        os.nice(5)
    with (
        contextlib.suppress(OSError),
        open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file,
    ):
        file.write("1000")


def set_limit(name: str, soft: int, hard: int | None = None) -> None:
    """Lowers one limit, hard and soft. A limit that the platform lacks is skipped.

    A limit that the platform refuses is skipped too, except on Linux, where it fails the call.
    """
    kind = getattr(resource, name, None)
    if kind is None:
        return
    present = resource.getrlimit(kind)[1]
    ceiling = soft if hard is None else hard
    if present != resource.RLIM_INFINITY:
        ceiling = min(ceiling, present)
    try:
        resource.setrlimit(kind, (min(soft, ceiling), ceiling))
    except (OSError, ValueError):
        if LINUX:
            raise
