"""The child: gives up everything it does not need, waits for code, runs it and exits.

It is a fork of the zygote and serves one call, or the calls of one session. After `confine` it can
do no more than the user's code may do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from . import landlock, privileges, program, seccomp, wire

CONTROL = 3  # descriptor of the socket to the supervisor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confinement:
    """The confinement of every child of a zygote. A layer that this machine refuses is None."""

    limits: dict[str, Any]  # the fields of `ToolLimits`
    address_space: int  # bytes, the preloaded interpreter's own included
    zygote_pid: int
    user: int | None  # that the child becomes
    landlock: int | None  # descriptor of the ruleset
    seccomp: seccomp.Filter | None


def confine(confinement: Confinement, *, root: str | None, directory: str) -> None:
    """Applies all layers in the one order that works: each step needs what a later one removes."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the supervisor ignores it
    os.setsid()  # its own process group, to be killed as one, and no terminal
    if root is not None:
        os.chroot(root)  # hides the files of other children and the zygote's root
    os.chdir(directory)
    if privileges.LINUX:
        _give_up(confinement)
    _set_limits(confinement)
    if confinement.landlock is not None:
        landlock.restrict(confinement.landlock)
        os.close(confinement.landlock)
    if confinement.seccomp is not None:
        seccomp.install(confinement.seccomp.for_process(os.getpid()))


def _give_up(confinement: Confinement) -> None:
    if confinement.user is not None:
        privileges.become(confinement.user)
    privileges.drop_capabilities()
    if confinement.seccomp is None:
        privileges.allow_attaching()  # without this /dev/stdout fails, where there is one
    else:
        privileges.forbid_attaching()
    privileges.die_with(confinement.zygote_pid)


def _set_limits(confinement: Confinement) -> None:
    limits = confinement.limits
    privileges.set_limit("RLIMIT_FSIZE", limits["file_bytes"])  # one file that fills the disk
    privileges.set_limit("RLIMIT_NOFILE", limits["open_files"])  # descriptors of the host
    privileges.set_limit("RLIMIT_CORE", 0)  # a core file per crash
    privileges.set_limit("RLIMIT_MEMLOCK", 0)  # memory that cannot be swapped
    privileges.set_limit("RLIMIT_MSGQUEUE", 0)  # memory in kernel queues
    privileges.set_limit("RLIMIT_AS", confinement.address_space)  # memory; last: forks need some


def _limit_cpu(seconds: int) -> None:
    """A busy loop gets SIGXCPU first, and SIGKILL a second later if it ignores the first."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds += int(usage.ru_utime + usage.ru_stime)
    privileges.set_limit("RLIMIT_CPU", seconds, seconds + 1)


def main(
    confinement: Confinement,
    *,
    root: str | None,
    directory: str,
    outputs: tuple[int, int],
    control: int,
    serve: Callable[[wire.Channel], int],
) -> NoReturn:
    """Runs a child from fork to exit. `outputs` are the pipes that become stdout and stderr."""
    status = 1
    leave = os._exit  # user code may replace it
    try:
        keep = confinement.landlock
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.dup2(control, CONTROL)
        # Above all other children's channels to the supervisor: no call may reach them.
        if keep is None:
            os.closerange(CONTROL + 1, 1 << 16)
        else:
            os.closerange(CONTROL + 1, keep)
            os.closerange(keep + 1, 1 << 16)
        channel = wire.Channel(socket.socket(fileno=CONTROL))
        try:
            confine(confinement, root=root, directory=directory)
        except BaseException as error:
            channel.send({"failed": f"{type(error).__name__}: {error}"})
        else:
            status = serve(channel)
    finally:  # whatever the code broke, the child must not return to the zygote's loop
        leave(status)


def serve_calls(channel: wire.Channel, *, cpu_seconds: int) -> int:
    """Runs one call and returns its exit status, or runs the calls of a session until it ends."""
    channel.send({"ready": os.getpid()})
    status = 0
    try:
        job = channel.next()
        main_module = program.Main()
        if not job["session"]:
            _become_input(channel)
            _limit_cpu(cpu_seconds)
            status, told = main_module.run(job["code"])
            if told["end"]:
                with contextlib.suppress(wire.Closed):
                    channel.send(told)
            main_module.finish()
            return status
        while True:
            status, told = main_module.run(job["code"])
            peak = peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            channel.send({"done": job["id"], "status": status, "peak": peak, **told})
            status = 0
            job = channel.next()
    except wire.Closed:  # by the supervisor, or by the session's own code
        return status


def _become_input(channel: wire.Channel) -> None:
    """Makes the channel the standard input, which reads as ended, so that no descriptor is added.

    The code may close it, fill it or forge the account of its end. That is harmless: the account is
    only text, and nobody waits for it.
    """
    channel.socket.shutdown(socket.SHUT_RD)
    os.dup2(channel.fileno(), 0)
    channel.socket.close()
    channel.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 0)
    channel.socket.setblocking(False)


def peak_bytes(maxrss: int) -> int:
    """Converts `ru_maxrss` to bytes; platforms use different units."""
    return maxrss * (1 if sys.platform == "darwin" else 1024)
