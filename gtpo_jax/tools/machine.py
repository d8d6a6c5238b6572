"""The layers of isolation that this machine offers; for the others, the reason and the remedy.

`ask` tries the layers in a separate program. `explain` reads the machine's settings to find reasons
and remedies; it takes the root of the file system as an argument and starts nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import platform
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from gtpo_jax.tools.sandbox import wire

_SECONDS = 30.0  # for the survey, on a loaded machine with a cold disk
_ROOT = pathlib.Path("/")

# Container runtime → the option that makes it leave system calls to the kernel's own checks.
_FLAGS = {
    "Docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
    "Podman": "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
    "Kubernetes": "securityContext: seccompProfile and appArmorProfile of type Unconfined",
    "": "start outside of what set it (a systemd unit: RestrictNamespaces=, SystemCallFilter=)",
}

# A setting below /proc/sys, the value that refuses namespaces to unprivileged users, the remedy.
_USER_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with"
        " `userns,` for this Python",
    ),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
)
# The same for settings that refuse them to all users.
_SETTINGS = tuple(
    (f"user/max_{kind}_namespaces", "0", f"sysctl -w user.max_{kind}_namespaces=15000")
    for kind in ("mnt", "pid", "net", "ipc", "uts")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A means of isolation, and whether this machine offers it."""

    name: str
    offered: bool
    detail: str  # the version or form, or the reasons for its absence
    remedies: tuple[str, ...] = ()  # what an administrator would set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """The answers of this machine: the text of an error for each layer, empty if it is offered."""

    namespaces: str
    landlock: str
    seccomp: str
    landlock_version: int = 0
    privileged: bool = False  # may mount as it is, without a user namespace
    root: bool = False
    closed_to_others: str = ""  # a path on the way to Python that another user cannot pass


def ask(folders: Sequence[str]) -> Survey:
    """Tries each layer as a zygote does; `folders` hold the packages to preload.

    Raises `RuntimeError` if the program that tries them ends without an answer.
    """
    ours, theirs = socket.socketpair()
    channel = wire.Channel(ours)
    fd = theirs.fileno()
    try:
        with theirs:
            process = subprocess.Popen(
                [*wire.COMMAND, "survey", str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[fd],
                cwd="/",
                env=wire.ENVIRONMENT,
            )
    except OSError as error:
        channel.close()
        raise RuntimeError(f"Python cannot be started anew: {error}") from error
    try:
        ours.settimeout(_SECONDS)
        channel.send({"folders": list(folders)})
        return Survey(**channel.next())
    except (wire.Closed, wire.ProtocolError) as error:
        raise RuntimeError(f"the survey of the host ended without an answer: {error}") from error
    finally:
        channel.close()
        process.kill()
        process.wait()


def describe(root: pathlib.Path = _ROOT, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A description of this machine."""
    system = platform.uname()
    user = f"uid {os.geteuid()}" + (" (root)" if os.geteuid() == 0 else "")
    return {
        "system": f"{system.system} {system.release}",
        "machine": f"{system.machine}, {os.cpu_count()} processors",
        "python": f"{platform.python_version()}, {os.path.realpath(wire.COMMAND[0])}",
        "user": user,
        "container": container(root, environ) or "none found",
    }


def container(root: pathlib.Path = _ROOT, environ: Mapping[str, str] = os.environ) -> str:
    """The container runtime around this process, or an empty text."""
    version = _read(root, "proc/version")
    # gVisor names itself in its release or, before that, reports this one build date.
    if "gvisor" in version.lower() or "Sun Jan 10 15:06:54 PST 2016" in version:
        return "gVisor"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "Kubernetes"
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    return ""


def explain(
    survey: Survey, root: pathlib.Path = _ROOT, environ: Mapping[str, str] = os.environ
) -> tuple[Layer, ...]:
    """Each layer, with reasons and remedies taken from the settings below `root`."""
    around = container(root, environ)
    return (
        _layer("namespaces", survey.namespaces, "", _about_namespaces(survey, root, around)),
        _layer(
            "landlock",
            survey.landlock,
            f"version {survey.landlock_version}",
            _about_landlock(survey.landlock, root, around),
        ),
        _layer("seccomp", survey.seccomp, "", _about_seccomp(survey.seccomp, root, around)),
        _another_user(survey),
    )


Reasons = Iterator[tuple[str, str]]
"""Pairs of texts: an obstacle, and its remedy."""


def _layer(name: str, refusal: str, form: str, reasons: Reasons) -> Layer:
    if not refusal:
        return Layer(name=name, offered=True, detail=form)
    found = list(reasons)
    why = "; ".join(dict.fromkeys(reason for reason, _ in found if reason))
    remedies = tuple(dict.fromkeys(remedy for _, remedy in found if remedy))
    detail = refusal + (f" ({why})" if why else "")
    return Layer(name=name, offered=False, detail=detail, remedies=remedies)


def _about_namespaces(survey: Survey, root: pathlib.Path, around: str) -> Reasons:
    if not (root / "proc/self/ns/user").exists() and not survey.privileged:
        yield "no /proc/self/ns/user", "a kernel with CONFIG_USER_NS"
    settings = _SETTINGS if survey.privileged else (*_USER_SETTINGS, *_SETTINGS)
    for name, refusing, remedy in settings:
        if _read(root, f"proc/sys/{name}") == refusing:
            yield f"{name.replace('/', '.')} = {refusing}", remedy
    if _says(survey.namespaces, errno.ENOSPC):
        yield (
            "as many namespaces as allowed, or 32 inside each other",
            "raise user.max_*_namespaces",
        )
    yield from _about_container(root, around)


def _about_landlock(refusal: str, root: pathlib.Path, around: str) -> Reasons:
    release = _read(root, "proc/sys/kernel/osrelease")
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if _says(refusal, errno.ENOSYS):
        if numbers and (int(numbers[1]), int(numbers[2])) < (5, 13):
            yield f"kernel {release} is older than 5.13", "a kernel of 5.13 or later"
        elif around == "gVisor":
            yield "gVisor does not have it", ""
        else:
            yield "not built into the kernel", "a kernel with CONFIG_SECURITY_LANDLOCK"
    elif _says(refusal, errno.EOPNOTSUPP):
        present = _read(root, "sys/kernel/security/lsm")
        order = ",".join(["landlock", present] if present else ["landlock", "…"])
        yield "not among the modules that the kernel was booted with", f"boot with lsm={order}"
    elif _says(refusal, errno.EPERM, errno.EACCES):
        yield from _about_container(root, around)


def _about_seccomp(refusal: str, root: pathlib.Path, around: str) -> Reasons:
    if _says(refusal, errno.ENOSYS, errno.EINVAL):
        yield "the kernel takes no filters", "a kernel with CONFIG_SECCOMP_FILTER"
    elif _says(refusal, errno.EPERM, errno.EACCES):
        yield from _about_container(root, around)


def _about_container(root: pathlib.Path, around: str) -> Reasons:
    """Filters that a container runtime or a service manager put around this process."""
    if around == "gVisor":
        yield "gVisor offers a part of Linux", ""
        return
    remedy = _FLAGS[around]
    if re.search(r"^Seccomp:\s*2", _read(root, "proc/self/status"), re.MULTILINE):
        yield "a seccomp filter is around this process", remedy
    profile = _read(root, "proc/self/attr/apparmor/current") or _read(
        root, "proc/self/attr/current"
    )
    if profile.endswith("(enforce)"):
        yield f"AppArmor profile {profile.removesuffix('(enforce)').strip()}", remedy
    if _read(root, "sys/fs/selinux/enforce") == "1":
        yield "SELinux is enforcing", "a policy that allows user_namespace create"


def _another_user(survey: Survey) -> Layer:
    if not survey.root:
        return Layer(
            name="user", offered=False, detail="not root, so calls run as the trainer's user"
        )
    # Namespaces rebuild the path. Where no path can be opened, all modules are loaded beforehand.
    sealed = survey.landlock and not survey.seccomp
    if survey.closed_to_others and survey.namespaces and not sealed:
        return Layer(
            name="user",
            offered=False,
            detail=f"{survey.closed_to_others} is closed to users other than its owner, and Python"
            " or a package lies there",
            remedies=(f"chmod o+rx {survey.closed_to_others}, or a Python below /opt",),
        )
    return Layer(name="user", offered=True, detail="calls run as nobody")


def _says(refusal: str, *numbers: int) -> bool:
    """True if a refusal is the text of one of these error numbers."""
    return any(os.strerror(number) in refusal for number in numbers)


def _read(root: pathlib.Path, name: str) -> str:
    """The text of a kernel file; empty if it does not exist."""
    with contextlib.suppress(OSError):
        return (root / name).read_text(encoding="utf-8", errors="replace").strip("\n\0 ")
    return ""
