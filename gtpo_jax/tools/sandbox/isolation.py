"""The isolation of a zygote: every layer that this machine offers, tried out before use."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence

from . import (
    child,
    interpreter,
    landlock,
    namespaces,
    parallel,
    privileges,
    probe,
    properties,
    seccomp,
    wire,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Isolation:
    confinement: child.Confinement
    places: namespaces.Places | None
    directory: str | None  # where children work; None: each in a folder of this machine
    report: dict[str, str | None]  # property → the layers that enforce it


def isolate(config: wire.Message) -> Isolation:
    """Turns this process into a zygote: isolated as far as the machine allows, and preloaded."""
    limits, allow = config["limits"], config["allow"]
    linux = privileges.LINUX
    was_root = os.geteuid() == 0
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if linux else None
    privileges.yield_to_trainer()
    interpreter.resolve_path()
    sys.path += config["folders"]
    libraries = interpreter.libraries(config["folders"])

    places = _enter_namespaces(libraries, limits) if linux else None
    if linux:
        privileges.forbid_new_privileges()
        privileges.adopt_orphans()
    ruleset = _create_ruleset(libraries, places) if linux and landlock.abi() > 0 else None
    filtered = linux and seccomp.available()
    # If nothing else prevents opening files, no system call may take a path at all.
    sealed = filtered and places is None and ruleset is None and "fs_read" not in allow
    offered = {
        "limits": True,
        "namespaces": places is not None,
        "landlock": ruleset is not None,
        "seccomp": filtered,
        "sealed": sealed,
    }
    layers = {layer for layer, present in offered.items() if present}

    directory = _choose_directory(layers, places)
    interpreter.preload(config["packages"], everything=sealed)
    if filtered:
        parallel.refuse_processes()
    address_space = interpreter.address_space(proc) + limits["memory_bytes"]
    if proc is not None:
        interpreter.merge_pages(proc)
        os.close(proc)
        privileges.forbid_attaching()
    policy = None
    if filtered:
        machine, private = os.uname().machine, places is not None
        policy = seccomp.prepare(machine, sealed=sealed, private=private)
    confinement = child.Confinement(
        limits=limits,
        address_space=address_space,
        zygote_pid=os.getpid(),
        user=None,
        landlock=ruleset,
        seccomp=policy,
    )
    untried = Isolation(confinement=confinement, places=places, directory=directory, report={})
    users = [privileges.NOBODY, None] if linux and was_root else [None]
    return _with_report(untried, users, layers, config["writable"], imports=not sealed)


def _with_report(
    untried: Isolation,
    users: Sequence[int | None],
    layers: set[str],
    writable: list[str],
    *,
    imports: bool,
) -> Isolation:
    """Tries the users in turn; returns the isolation with the first that a child can become."""
    for user in users:
        confinement = dataclasses.replace(untried.confinement, user=user)
        isolation = dataclasses.replace(untried, confinement=confinement)
        held = _try_out(isolation, writable, imports=imports)
        if held is not None:
            present = layers if user is None else {*layers, "user"}
            return dataclasses.replace(isolation, report=properties.report(present, held))
    raise RuntimeError("no child could be set up on this host")


def _enter_namespaces(libraries: list[str], limits: wire.Message) -> namespaces.Places | None:
    """Enters namespaces, in a fork first: a refusal half way leaves a process unusable."""
    bounds = {name: limits[name] for name in ("scratch_bytes", "scratch_files")}
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.enter(libraries, **bounds).prepare(0)
            os._exit(0)
        except (namespaces.Refused, OSError):
            pass
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return namespaces.enter(libraries, **bounds) if status == 0 else None


def _create_ruleset(libraries: list[str], places: namespaces.Places | None) -> int:
    """The descriptor of the Landlock rules that every child gets."""
    inside = [namespaces.PLACES] if places is not None else []
    ruleset = landlock.create([*libraries, *inside], [*inside, "/dev/null"])
    # Clear of the few descriptors that a child moves to fixed numbers.
    return fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 10)


def _choose_directory(layers: set[str], places: namespaces.Places | None) -> str | None:
    """A private tmpfs; `/`, where nothing is writable; or None, for unprotected folders."""
    if places is not None:
        os.environ["HOME"] = os.environ["TMPDIR"] = places.scratch
        return places.scratch
    os.environ["HOME"] = "/"
    return "/" if layers & {"landlock", "sealed"} else None


def _try_out(isolation: Isolation, writable: list[str], *, imports: bool) -> dict[str, bool] | None:
    """The probe's findings in an ordinary child; None if no child can be set up like this."""
    root = isolation.places.prepare(0) if isolation.places is not None else None
    scratch = isolation.places.scratch if isolation.places is not None else None
    confinement = isolation.confinement

    def serve(channel: wire.Channel) -> int:
        if imports and confinement.user is not None and not probe.can_import():
            channel.send({"failed": "the libraries cannot be read"})
            return 1
        channel.send({"held": probe.attempt(scratch, confinement.address_space, writable)})
        return 0

    with contextlib.ExitStack() as stack:
        directory = isolation.directory
        if directory is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, null)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about threads of a package, which the child does not use
            pid = os.fork()
        if pid == 0:
            child.main(
                confinement,
                root=root,
                directory=directory,
                outputs=(null, null),
                control=theirs.fileno(),
                serve=serve,
            )
        theirs.close()
        channel = wire.Channel(ours)
        try:
            return channel.next().get("held")
        except wire.Closed:
            return None
        finally:
            channel.close()
            os.waitpid(pid, 0)
