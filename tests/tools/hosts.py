"""Hosts that keep something from the executor, as containers and distributions do.

    python -m tests.tools.hosts docker -- python program.py

puts itself under a filter of its own and becomes the program, which then finds, together with all
that it starts, what it would find there.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from gtpo_jax.tools.sandbox import seccomp, syscalls

_NAMESPACES = 0x7E02_0000  # the flags of `clone` that make one
_CAP_SYS_ADMIN = 21
_DOCKER_KEEPS = 0xA804_25FB  # what root has in a container of Docker's, as a mask
_PR_CAPBSET_DROP, _PR_SET_SECCOMP = 24, 22
_LOAD, _JUMP_EQUAL = seccomp.LOAD, seccomp.JUMP_EQUAL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    refused: dict[int, str]  # error → system calls
    same_namespaces: bool = False  # `clone` makes none
    fewer_capabilities: bool = False
    no_filters: bool = False


MOUNTS = """mount umount2 pivot_root open_tree move_mount fsopen fsconfig fsmount fspick
    mount_setattr chroot"""
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
_DOCKER = {
    errno.EPERM: """unshare setns mount umount2 pivot_root open_tree move_mount fsopen fsconfig
        fsmount fspick mount_setattr keyctl add_key request_key userfaultfd bpf perf_event_open
        open_by_handle_at kexec_load quotactl acct reboot swapon swapoff""",
    errno.ENOSYS: "clone3",
}

HOSTS = {
    "as_it_is": Host(refused={}),
    # Docker's default profile, and Kubernetes' RuntimeDefault on top of containerd.
    "docker": Host(refused=_DOCKER, same_namespaces=True, fewer_capabilities=True),
    # A kernel before 5.13, or one that was built without it.
    "no_landlock": Host(refused={errno.ENOSYS: LANDLOCK}),
    "docker_no_landlock": Host(
        refused={errno.EPERM: _DOCKER[errno.EPERM], errno.ENOSYS: f"clone3 {LANDLOCK}"},
        same_namespaces=True,
        fewer_capabilities=True,
    ),
    "nothing": Host(
        refused={errno.EPERM: _DOCKER[errno.EPERM], errno.ENOSYS: f"clone3 seccomp {LANDLOCK}"},
        same_namespaces=True,
        fewer_capabilities=True,
        no_filters=True,
    ),
    # Ubuntu 24.04: AppArmor lets a user make a user namespace, and nothing in it.
    "apparmor": Host(refused={errno.EACCES: MOUNTS}, fewer_capabilities=True),
}


def filter_of(host: Host) -> bytes:
    """A program that refuses what the host does and allows the rest."""
    table = syscalls.TABLES[os.uname().machine]
    rules: dict[int, tuple[seccomp.Instruction, ...]] = {}
    for error, names in host.refused.items():
        rules |= {table[name]: seccomp.refuse(error) for name in names.split() if name in table}
    if host.same_namespaces:
        none_made = seccomp.Check(argument=0, mask=_NAMESPACES, values=(0,))
        rules[table["clone"]] = seccomp.checked([none_made])
    if host.no_filters:
        option = (_LOAD, 0, 0, seccomp.ARGUMENTS)
        refused = (_JUMP_EQUAL, 0, 1, _PR_SET_SECCOMP), *seccomp.refuse(errno.EINVAL)
        rules[table["prctl"]] = (option, *refused, *seccomp.PERMIT)
    program = [(_LOAD, 0, 0, seccomp.NUMBER)]
    for number, code in rules.items():
        program += [(_JUMP_EQUAL, 0, len(code), number), *code]
    program += seccomp.PERMIT
    return b"".join(seccomp.INSTRUCTION.pack(*step) for step in program)


def keep_capabilities(mask: int) -> None:
    """Takes away all others, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", 0x20080522, 0)
    if os.geteuid() == 0:
        for number in range(64):
            if not mask >> number & 1:
                libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    data = ctypes.create_string_buffer(24)
    libc.capget(header, data)
    # Effective, permitted and inheritable, of the first 32 and of those above.
    sets = [
        word & (mask >> 32 * (i // 3) & 0xFFFF_FFFF) if i % 3 < 2 else 0
        for i, word in enumerate(struct.unpack("=6I", data.raw))
    ]
    if libc.capset(header, struct.pack("=6I", *sets)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def enter(name: str) -> None:
    """From here on this process is on that host."""
    host = HOSTS[name]
    seccomp.install(filter_of(host))
    if host.fewer_capabilities:
        keep_capabilities(_DOCKER_KEEPS)


def main(arguments: list[str]) -> None:
    name, separator, program, *rest = arguments
    assert separator == "--"
    enter(name)
    os.execvp(program, [program, *rest])


# What runs on the host: an executor, and calls given to it.

_DRIVER = """
import json, os, sys
from gtpo_jax.tools import IsolationError, PythonExecutor
job = json.load(sys.stdin)
try:
    executor = PythonExecutor(**job["options"])
except IsolationError as error:
    json.dump({"refused": str(error), "missing": error.missing}, sys.stdout)
    sys.exit()
with executor:
    pending = [executor.submit(code, timeout=seconds) for code, seconds in job["calls"]]
    results = [future.result(60) for future in pending]
    fields = "status", "stdout", "stderr", "wall_seconds"
    answers = [{name: getattr(result, name) for name in fields} for result in results]
    report = executor.isolation_report()
json.dump({"report": report, "results": answers}, sys.stdout)
"""


def run(
    name: str, calls: Iterable[tuple[str, float]] = (), *, directory: str, **options: Any
) -> dict[str, Any]:
    """Starts an executor on that host and gives it calls, each a code and a time-out.

    Returns {"report", "results"}, or {"refused", "missing"} when it does not start.
    """
    job = {"options": {"max_running": 2, **options}, "calls": list(calls)}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # A time-out ends the launcher alone, and with it its end of the executor's socket.
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.hosts", name, "--", sys.executable, "-c", _DRIVER],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": root,
            "HOME": directory,
            "TMPDIR": directory,
            "PYTHONSAFEPATH": "1",
        },
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
