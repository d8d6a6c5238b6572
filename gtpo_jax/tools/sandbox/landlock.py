"""Landlock: files that user code may read or write, and no others, whatever the mounts show.

Of the kernel's file-system rights all that it knows are handled, so what no rule grants is refused:
opening, listing, making, moving and removing. Looking at a file's size and times, and changing its
mode, is not among the rights; `seccomp.py` says what it does about that.
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

# Rights on a file; the kernel takes the others for directories only.
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR | EXECUTE
# No devices, sockets or named pipes are made, and nothing in the scratch folder is a program.
WRITE = (READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REFER) | (
    REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM
)

NEWEST = 7  # the last version whose rights are known here; a later kernel offers all of these too
VERSION = 1  # flag of landlock_create_ruleset: only ask
PATH_BENEATH = 1  # type of a rule
QUIET = 1  # flag of landlock_restrict_self: no line in the host's log for each refusal


def abi() -> int:
    """The kernel's version of Landlock, 0 if it has none or a container keeps it from us."""
    if not syscalls.supported():
        return 0
    try:
        return syscalls.syscall("landlock_create_ruleset", None, 0, VERSION)
    except OSError:
        return 0


def file_rights(version: int) -> int:
    """All file-system rights that this version knows."""
    rights = (1 << 13) - 1  # the first version's
    for right, since in ((REFER, 2), (TRUNCATE, 3), (IOCTL_DEV, 5)):
        rights |= right if version >= since else 0
    return rights


def ruleset_attributes(version: int) -> bytes:
    """`struct landlock_ruleset_attr`, which grew: what is refused without a rule."""
    fields = [file_rights(version)]
    if version >= 4:
        fields.append(0b11)  # binding and connecting TCP sockets
    if version >= 6:
        fields.append(0b11)  # abstract unix sockets of other processes, signals to them
    return struct.pack(f"={len(fields)}Q", *fields)


def create(read: Sequence[str], write: Sequence[str]) -> int:
    """The descriptor of rules that let files at and below these paths be read, or written too.

    Made once and used by many processes. A path that does not exist is passed over.
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
    """Puts the calling thread, the only one of its process, under the rules, for good."""
    syscalls.set_no_new_privileges()
    syscalls.syscall("landlock_restrict_self", rules, QUIET if abi() >= 7 else 0)
