"""Linux namespaces: a file system, processes and a network that hold nothing of this machine.

`enter` moves the calling process, the zygote, into namespaces of its own, replaces its root by one
that holds the interpreter's libraries, read-only, and returns `Places`: the roots that children
change to, each with a private, bounded scratch directory.
"""

from __future__ import annotations

import ctypes
import os
import stat

from . import privileges
from .syscalls import syscall

_SCRATCHES = ("/tmp", "/scratch")  # in a child: its working directory, HOME and TMPDIR
PLACES = "/places"  # in the zygote: the roots of children
HOST_NAME = b"localhost"  # the real one identifies the machine, and differs between machines
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_MOUNT_POINTS = ("/mnt", "/tmp", "/var/tmp", "/run", "/proc")  # any will do: it is left again

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_NOATIME, _MS_NODIRATIME, _MS_BIND = 32, 1024, 2048, 4096
_MS_REC, _MS_PRIVATE, _MS_RELATIME = 16384, 1 << 18, 1 << 21
_MNT_DETACH = 2

# Flags of a mount, by their names in `os.statvfs`. A user namespace may not remove any of them.
_KEPT = {
    "ST_NOSUID": _MS_NOSUID,
    "ST_NODEV": _MS_NODEV,
    "ST_NOEXEC": _MS_NOEXEC,
    "ST_NOATIME": _MS_NOATIME,
    "ST_NODIRATIME": _MS_NODIRATIME,
    "ST_RELATIME": _MS_RELATIME,
}

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine refuses namespaces to the process; the text names the step."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Refused(f"{what}: {os.strerror(number)}")


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    def encode(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    result = _libc.mount(
        encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data)
    )
    _check(result, f"mount on {target}")


def _make_read_only(target: str) -> None:
    have = os.statvfs(target).f_flag
    kept = sum(flag for name, flag in _KEPT.items() if have & getattr(os, name))
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | kept
    _mount(None, target, None, flags)


def _make_folders(path: str) -> None:
    """Makes folders that can be passed through but not listed, to hide where libraries lie.

    Listing `/home` or `/root` is refused, whatever lies below.
    """
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        os.mkdir(path, 0o111)


def _make_target(source: str, target: str) -> None:
    """Makes a folder, an empty file or the same link, as the target of a bind mount."""
    _make_folders(os.path.dirname(target))
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(os.stat(source).st_mode):
        _make_folders(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))


def _unshare() -> None:
    """New namespaces for users (if unprivileged), mounts, processes, network, IPC, host name."""
    kinds = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    if privileges.has_cap_sys_admin():
        _check(_libc.unshare(kinds), "unshare")
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(kinds | _CLONE_NEWUSER), "unshare with a user namespace")
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise Refused(f"map of the user namespace: {error}") from error


def _become_init() -> None:
    """Continues as process 1 of the new PID namespace, whose end kills all others in it.

    The calling process stays behind and waits, so that its parent sees it end.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    privileges.die_with(0)  # the parent is outside, where it has no number


def _below(target: str) -> list[str]:
    """Mount points at or below a path, from the kernel's list."""
    prefix = target.rstrip("/") + "/"
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split()[4].decode("unicode_escape") for line in file]
    return [point for point in points if point == target or point.startswith(prefix)]


def _furnish(libraries: list[str]) -> None:
    """Replaces the root by one that holds the libraries, read-only, and harmless devices."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)  # hides the mounts below from the outside
    shown = [path for path in (*libraries, *_DEVICES) if os.path.lexists(path)]
    root = next(
        point
        for point in _MOUNT_POINTS
        if os.path.isdir(point) and not any(f"{p}/".startswith(f"{point}/") for p in shown)
    )
    points = {path: {path, *_below(path)} for path in shown}
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4m,nr_inodes=65536,mode=755")
    for path in shown:
        target = root + path
        _make_target(path, target)
        if os.path.islink(path):
            continue
        _mount(path, target, None, _MS_BIND | _MS_REC)
        for point in points[path]:
            _make_read_only(root + point)
    os.mkdir(root + PLACES)
    os.chdir(root)
    try:
        syscall("pivot_root", b".", b".")
    except OSError as error:
        raise Refused(f"pivot_root: {error}") from error
    _check(_libc.umount2(b".", _MNT_DETACH), "unmounting the host's root")
    os.chdir("/")


def enter(libraries: list[str], *, scratch_bytes: int, scratch_files: int) -> Places:
    """Moves this process into namespaces of its own; raises `Refused` where it may not.

    `libraries` are absolute paths that lead through no link, though a path may be a link itself.
    After a refusal the process is unusable.
    """
    _unshare()
    _libc.sethostname(HOST_NAME, len(HOST_NAME))
    _become_init()
    _furnish(libraries)
    return Places(libraries, f"size={scratch_bytes},nr_inodes={scratch_files},mode=1777")


class Places:
    """Roots for children, each with the libraries and a private scratch, made on first use."""

    def __init__(self, libraries: list[str], bounds: str) -> None:
        self._shown = [path for path in (*libraries, *_DEVICES) if os.path.lexists(path)]
        self._bounds = bounds
        self._fresh: dict[int, tuple[int, ...]] = {}
        # A scratch would hide the libraries that lie below it.
        self.scratch = next(
            path
            for path in _SCRATCHES
            if not any(f"{p}/".startswith(f"{path}/") for p in libraries)
        )

    def prepare(self, number: int) -> str:
        """The path of root `number`. Its scratch is empty, whatever its last user did."""
        root = f"{PLACES}/{number}"
        if number not in self._fresh:
            self._make(root)
            self._mount_scratch(root)
        elif self._state(root) != self._fresh[number]:
            # A new file system rather than a walk through what hostile code has built.
            _check(
                _libc.umount2(os.fsencode(root + self.scratch), _MNT_DETACH), "unmounting a scratch"
            )
            self._mount_scratch(root)
        self._fresh[number] = self._state(root)
        return root

    def _make(self, root: str) -> None:
        os.mkdir(root)
        # A read-only mount of its own, so that nobody can write the folder around the libraries.
        for path in self._shown:
            _make_target(path, root + path)
        _make_folders(root + self.scratch)
        _mount(root, root, None, _MS_BIND)
        for path in self._shown:
            if not os.path.islink(path):
                _mount(path, root + path, None, _MS_BIND | _MS_REC)  # read-only as its source
        _make_read_only(root)

    def _mount_scratch(self, root: str) -> None:
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount("tmpfs", root + self.scratch, "tmpfs", flags, self._bounds)

    def _state(self, root: str) -> tuple[int, ...]:
        """Numbers that change from those of a fresh mount as soon as a call leaves anything."""
        path = root + self.scratch
        usage, info = os.statvfs(path), os.stat(path)
        return usage.f_bfree, usage.f_ffree, info.st_mode, info.st_uid, info.st_gid
