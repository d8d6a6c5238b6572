"""The survey: a program that requests each layer from the machine and reports the answers.

The doctor starts it. A zygote only needs to know that a layer is missing, but a person needs the
reason, so every refusal keeps its text here.

    from the doctor   {"folders": where packages lie}
    to the doctor     {"namespaces", "landlock", "seccomp": the error's words, "" where offered;
                      "landlock_version", "privileged": could mount as it is, "root",
                      "closed_to_others": a path that another user cannot pass, or ""}
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from . import interpreter, landlock, namespaces, privileges, seccomp, syscalls, wire

_BOUNDS = {"scratch_bytes": 1 << 20, "scratch_files": 64}


def take(folders: list[str]) -> wire.Message:
    """Everything that can be learned of the machine's layers without keeping any of them."""
    if not privileges.LINUX:
        words = f"{sys.platform} has none"
        return _answer(words, words, words)
    interpreter.resolve_path()
    sys.path += folders
    return _answer(
        _refusal_of_namespaces(interpreter.libraries(folders)),
        _refusal("landlock_create_ruleset", None, 0, landlock.VERSION),
        "" if seccomp.available() else _refusal("seccomp", seccomp.SET_MODE_FILTER, 0, None),
        landlock_version=landlock.abi(),
        privileged=privileges.has_cap_sys_admin(),
        root=os.geteuid() == 0,
        closed_to_others=closed_to_others([sys.executable, os.__file__, *folders]),
    )


def _answer(namespaces: str, landlock: str, seccomp: str, **rest: int | str) -> wire.Message:
    least = {"landlock_version": 0, "privileged": False, "root": False, "closed_to_others": ""}
    return {"namespaces": namespaces, "landlock": landlock, "seccomp": seccomp, **least, **rest}


def _refusal(name: str, *arguments: int | None) -> str:
    if not syscalls.supported():
        return f"no table of system calls for {os.uname().machine}"
    try:
        syscalls.syscall(name, *arguments)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _refusal_of_namespaces(libraries: list[str]) -> str:
    """Enters them in a fork, as a zygote does; returns the error that stopped it, if any."""
    read, write = os.pipe()
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            privileges.die_with(here)
            namespaces.enter(libraries, **_BOUNDS).prepare(0)
            os._exit(0)
        except BaseException as error:
            os.write(write, (str(error) or type(error).__name__).encode())
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as file:
        words = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return "" if status == 0 else words or "the process that tried it died"


def closed_to_others(paths: list[str]) -> str:
    """The first path, or folder on the way to it, that is not open to every user."""
    for path in map(os.path.realpath, paths):
        parts = path.split("/")
        steps = ["/".join(parts[: n + 1]) or "/" for n in range(len(parts))]
        for step in steps:
            mode = os.stat(step).st_mode
            wanted = 0o1 if step != path else 0o5 if os.path.isdir(path) else 0o4
            if mode & wanted != wanted:
                return step
    return ""


def main(fd: int) -> None:
    channel = wire.Channel(socket.socket(fileno=fd))
    with contextlib.suppress(wire.Closed):
        channel.send(take(channel.next()["folders"]))
