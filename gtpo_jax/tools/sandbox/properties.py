"""The properties that the executor protects, and the layers that enforce them on this machine.

A property is a promise; a layer is a means. Several layers may enforce one promise, and it depends
on the machine which do. Every promise is tried out at the start (`probe.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

PROPERTIES = {
    "fs_read": "no file of the host is read but the interpreter's libraries",
    "fs_write": "no file of the host is written, made or removed",
    "scratch": "what may be written is private to the call, bounded, and gone afterwards",
    "net": "no socket reaches any other process, on this host or beyond",
    "processes": "a call is one process and starts no other",
    "signals": "no other process is signaled or reprioritized",
    "ptrace_mem": "no other process's memory or descriptors are reached",
    "kernel_surface": "the kernel's rarely used interfaces cannot be called",
    "limits": "time, memory, output, files, descriptors and threads are bounded",
}

# property → (layer, its effect), the strongest first
_MEANS: dict[str, tuple[tuple[str, str], ...]] = {
    "fs_read": (
        ("namespaces", "mount namespace: a read-only root with the libraries alone"),
        ("landlock", "Landlock"),
        ("sealed", "seccomp: no call that takes a path"),
    ),
    "fs_write": (
        ("namespaces", "mount namespace: a read-only root"),
        ("landlock", "Landlock"),
        ("sealed", "seccomp: no call that takes a path"),
    ),
    "scratch": (
        ("namespaces", "a tmpfs of its own for each child"),
        ("landlock", "nothing can be written"),
        ("sealed", "nothing can be written"),
    ),
    "net": (
        ("seccomp", "seccomp: no sockets"),
        ("namespaces", "network namespace"),
    ),
    "processes": (
        ("seccomp", "seccomp: threads only"),
        ("namespaces", "PID namespace"),
    ),
    "signals": (
        ("seccomp", "seccomp: itself only"),
        ("namespaces", "PID namespace"),
        ("user", "another user"),
    ),
    "ptrace_mem": (
        ("seccomp", "seccomp"),
        ("namespaces", "PID namespace"),
        ("landlock", "Landlock"),
        ("user", "another user"),
    ),
    "kernel_surface": (
        ("seccomp", "seccomp: an allow-list"),
        ("namespaces", "no capabilities"),
    ),
    "limits": (("limits", "resource limits and the supervisor's deadlines"),),
}


def report(layers: Collection[str], held: Mapping[str, bool]) -> dict[str, str | None]:
    """Property → the layers that enforce it, or None. `held` is the result of the probe."""
    found = {}
    for name in PROPERTIES:
        means = [text for layer, text in _MEANS[name] if layer in layers]
        if name == "scratch":
            means = means[:1]  # a private place makes it unnecessary to forbid writing everywhere
        found[name] = "; ".join(means) if means and held.get(name, False) else None
    return found
