"""Landlock: lets user code read or write certain files and no others, whatever the mounts show.

All file-system rights of the kernel are handled, so opening, listing, making, moving and removing
are refused unless a rule grants them. Landlock has no right for reading a file's size and times or
for changing its mode; `seccomp.py` covers those.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence

from . import syscalls

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << i for i in range(6))
MAKE_DIR, MAKE_REG, MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

# Rights on a file; the kernel accepts the others for directories only.
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR | EXECUTE
# No device, socket or named pipe can be made, and nothing in the scratch folder is executable.
WRITE = (READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REFER) | (
    REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM
)

NEWEST = 7  # the last version known here; later kernels offer its rights too
VERSION = 1  # flag of landlock_create_ruleset: only ask for the version
PATH_BENEATH = 1  # type of a rule
QUIET = 1  # flag of landlock_restrict_self: do not log refusals


def abi() -> int:
    """The kernel's version of Landlock; 0 if it has none or a container withholds it."""
    if not syscalls.supported():
        return 0
    try:
        return syscalls.syscall("landlock_create_ruleset", None, 0, VERSION)
    except OSError:
        return 0


def file_rights(version: int) -> int:
    """All file-system rights of this version."""
    rights = (1 << 13) - 1  # the first version's
    for right, since in ((REFER, 2), (TRUNCATE, 3), (IOCTL_DEV, 5)):
        rights |= right if version >= since else 0
    return rights


def ruleset_attributes(version: int) -> bytes:
    """`struct landlock_ruleset_attr` of this version: the rights that need a rule."""
    fields = [file_rights(version)]
    if version >= 4:
        fields.append(0b11)  # binding and connecting TCP sockets
    if version >= 6:
        fields.append(0b11)  # abstract unix sockets of other processes, signals to them
    return struct.pack(f"={len(fields)}Q", *fields)


def create(read: Sequence[str], write: Sequence[str]) -> int:
    """The descriptor of rules that allow reading, or also writing, at and below these paths.

    One ruleset serves many processes. A path that does not exist is skipped.
    """
    version = min(abi(), NEWEST)
    attributes = ruleset_attributes(version)
    rules = syscalls.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    os.set_inheritable(rules, False)
    try:
        for paths, rights in ((read, READ), (write, WRITE)):
            for path in paths:
                allow(rules, path, rights & file_rights(version))
    except BaseException:
        os.close(rules)
        raise
    return rules


def allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ON_FILES
        rule = struct.pack("=Qi", rights, place)
        syscalls.syscall("landlock_add_rule", rules, PATH_BENEATH, rule, 0)
    finally:
        os.close(place)


def restrict(rules: int) -> None:
    """Applies the rules to the calling thread, the only one of its process, for good."""
    syscalls.set_no_new_privileges()
    syscalls.syscall("landlock_restrict_self", rules, QUIET if abi() >= 7 else 0)
