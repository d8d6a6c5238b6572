"""The system-call filter as a program: what it decides, by an interpreter of our own."""

import errno
import os
import re
import struct
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from gtpo_jax.tools.sandbox import seccomp, syscalls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a filter of the Linux kernel")

MACHINES = ("x86_64", "aarch64")
PID = 4711
KILL, ALLOW, ERROR = 0x8000_0000, 0x7FFF_0000, 0x0005_0000
NAMED = {name for table in syscalls.TABLES.values() for name in table}


def interpret(code: bytes, *, nr: int, arch: int, args: tuple[int, ...]) -> int:
    """Runs classic BPF on `struct seccomp_data`; returns what the program returns."""
    words = [arg % 2**64 for arg in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", nr % 2**32, arch, 0, *words)
    program = list(struct.iter_unpack("<HBBI", code))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, k = program[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            at += k
        elif operation == 0x15:
            at += if_true if accumulator == k else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= k else if_false
        elif operation == 0x06:
            return k
        else:
            raise AssertionError(f"operation {operation:#x} is not of the dialect")


PROGRAMS = {
    (machine, mode): seccomp.prepare(machine, **{mode: True} if mode else {}).for_process(PID)
    for machine in MACHINES
    for mode in ("", "sealed", "private")
}


def verdict(machine: str, name: str | int, *args: int, mode: str = "") -> str:
    """ "allow", "kill", or the name of the error."""
    nr = name if isinstance(name, int) else syscalls.TABLES[machine][name]
    arch = syscalls.AUDIT_ARCH[machine]
    result = interpret(PROGRAMS[machine, mode], nr=nr, arch=arch, args=args)
    if result in (ALLOW, KILL):
        return {ALLOW: "allow", KILL: "kill"}[result]
    assert result & ~0xFFFF == ERROR
    error = result & 0xFFFF
    return "ENOTSUP" if error == errno.ENOTSUP else errno.errorcode[error]  # it has two names


# Numbers.


def header_numbers(path: str) -> dict[str, int]:
    text = Path(path).read_text()
    defines = dict(re.findall(r"#define\s+(__NR(?:3264)?_\w+)\s+(\w+)", text))
    numbers = {}
    for name, value in defines.items():
        while value in defines:
            value = defines[value]
        if value.isdigit():
            numbers[name.removeprefix("__NR_")] = int(value)
    return numbers


@pytest.mark.parametrize(
    ("machine", "path"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_equal_those_of_the_kernels_headers(machine, path):
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    expected = header_numbers(path)
    missing_there = {"fchmodat2"} if "fchmodat2" not in expected else set()
    ours = {k: v for k, v in syscalls.TABLES[machine].items() if k not in missing_there}
    assert ours == {name: expected[name] for name in ours}
    # A call that a table lacks by oversight would be refused where it is meant to be allowed.
    assert {name for name in NAMED if name in expected} <= set(syscalls.TABLES[machine])


def test_numbers_agree_with_what_is_known_by_heart():
    names = ("read", "openat", "clone", "execve", "kill", "socket", "seccomp", "pidfd_open")
    x86_64 = [syscalls.TABLES["x86_64"][name] for name in names]
    aarch64 = [syscalls.TABLES["aarch64"][name] for name in names]
    assert x86_64 == [0, 257, 56, 59, 62, 41, 317, 434]
    assert aarch64 == [63, 56, 220, 221, 129, 198, 277, 434]
    assert not {"open", "fork", "vfork", "stat", "dup2", "pipe"} & set(syscalls.TABLES["aarch64"])


def test_syscall_returns_the_result_and_raises_with_the_calls_name():
    assert syscalls.syscall("getpid") == os.getpid()
    with pytest.raises(OSError, match="close") as caught:
        syscalls.syscall("close", -1)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="no_such_call") as caught:
        syscalls.syscall("no_such_call")
    assert caught.value.errno == errno.ENOSYS


# The policy.


def test_every_call_of_the_policy_is_in_a_table_and_decided_once():
    groups = [*seccomp.ALLOWED.values(), *seccomp.FORBIDDEN.values(), *seccomp.DECLINED.values()]
    groups += [seccomp.PATHS, seccomp.ATTRIBUTES]
    names = [name for group in groups for name in group.split()]
    assert len(names) == len(set(names))
    assert set(names) <= NAMED
    assert set(seccomp.CHECKED) <= NAMED
    # Those with checks are in no other group, but for paths, which sealing refuses.
    assert set(seccomp.CHECKED) & set(names) == {"open", "openat"}


PTHREAD, MUSL, FORK, VFORK = 0x3D0F00, 0x7D0F00, 0x1200011, 0x4111
DECISIONS = [
    # What every program does.
    ("read", (), "allow"),
    ("mmap", (0, 4096, 3, 0x22, -1, 0), "allow"),
    ("exit_group", (0,), "allow"),
    ("rt_sigreturn", (), "allow"),
    ("restart_syscall", (), "allow"),
    # Threads, but not processes and namespaces.
    ("clone", (PTHREAD,), "allow"),
    ("clone", (MUSL,), "allow"),
    ("clone", (FORK,), "EPERM"),
    ("clone", (VFORK,), "EPERM"),
    ("clone", (17,), "EPERM"),
    ("clone", (PTHREAD & ~0x100,), "EPERM"),  # not VM
    ("clone", (PTHREAD & ~0x800,), "EPERM"),  # not SIGHAND
    ("clone", (PTHREAD & ~0x10000,), "EPERM"),  # not THREAD
    *(("clone", (PTHREAD | 1 << bit,), "EPERM") for bit in (7, 13, 14, 15, 17, 25, 26, 28, 31)),
    ("clone3", (), "ENOSYS"),
    ("execve", (), "EPERM"),
    ("unshare", (), "EPERM"),
    # Signals and questions to itself and to others.
    *(
        (name, (pid,), "allow" if pid in (0, PID) else other)
        for name, other in (
            ("kill", "EPERM"),
            ("getpgid", "EPERM"),
            ("getsid", "EPERM"),
            ("prlimit64", "EPERM"),
            ("sched_getaffinity", "ENOSYS"),
        )
        for pid in (0, PID, 1, PID + 1, -1, -PID)
    ),
    ("kill", (PID | 1 << 32, 9), "allow"),  # the kernel sees but the lower half
    *(
        (name, (pid,), "allow" if pid == PID else "EPERM")
        for name in ("tkill", "tgkill")
        for pid in (PID, 0, 1, PID + 1, -1)
    ),
    ("pidfd_send_signal", (), "EPERM"),
    ("clock_gettime", (2,), "allow"),
    ("clock_gettime", (~1234 << 3 | 2,), "EINVAL"),
    ("clock_nanosleep", (0,), "allow"),
    # Odds and ends of calls that do many things.
    ("prctl", (15,), "allow"),
    ("prctl", (0x53564D41,), "allow"),
    *(("prctl", (option,), "EPERM") for option in (1, 4, 22, 23, 24, 36, 38, 52, 0x59616D61)),
    *(("futex", (0, op), "allow") for op in (0, 1, 128, 129, 137, 393, 138, 3, 4, 5)),
    *(("futex", (0, op), "ENOSYS") for op in (6, 7, 8, 11, 12, 13, 134, 140, 2, 0x200)),
    *(("madvise", (0, 0, advice), "allow") for advice in (0, 3, 4, 8, 14)),
    *(("madvise", (0, 0, advice), "EINVAL") for advice in (9, 12, 100, 101)),
    *(("ioctl", (0, request), "allow") for request in (0x5401, 0x5413, 0x541B, 0x5421, 0x5451)),
    *(
        ("ioctl", (0, request), "ENOTTY")
        for request in (0x5412, 0x541C, 0x8901, 0x5452, 0x40049409)
    ),
    ("ioctl", (0, 0x5412 | 1 << 32), "ENOTTY"),
    *(("fcntl", (0, command), "allow") for command in (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)),
    *(("fcntl", (0, c), "EPERM") for c in (8, 10, 15, 1024, 1026, 1031, 1032, 1033, 1034, -1)),
    # Sockets: pairs, and only to the other end.
    ("socket", (1, 1), "EPERM"),
    ("socketpair", (1, 1), "allow"),
    *(("socketpair", (family, 1), "EPERM") for family in (2, 10, 16, 30, 38, 40)),
    ("sendto", (3, 1, 1, 0x4000, 0, 0), "allow"),
    ("sendto", (3, 1, 1, 0, 0x1000, 16), "EPERM"),
    ("sendto", (3, 1, 1, 0, 1 << 32, 16), "EPERM"),
    ("sendto", (3, 1, 1, 1, 0, 0), "EPERM"),  # OOB
    ("recvfrom", (3, 1, 1, 0), "allow"),
    ("recvfrom", (3, 1, 1, 1), "EPERM"),
    ("recvmsg", (3, 1, 0x40000000), "allow"),
    ("recvmsg", (3, 1, 1), "EPERM"),
    ("sendmsg", (), "EPERM"),
    # Files: open for reading and writing, but not shortened through a right to read.
    *(("openat", (-100, 1, flags), "allow") for flags in (0, 0x80000, 0o1102, 0o1101, 1, 2)),
    *(("openat", (-100, 1, flags), "EACCES") for flags in (0o1000, 0o1003, 3, 0o101000)),
    ("flock", (3, 2), "ENOLCK"),
    ("listxattr", (), "ENOTSUP"),
    *((name, (), "EPERM") for name in seccomp.ATTRIBUTES.split()),
]


@pytest.mark.parametrize("machine", MACHINES)
def test_each_call_is_decided_as_the_table_says(machine):
    table = syscalls.TABLES[machine]
    present = [row for row in DECISIONS if row[0] in table]
    wrong = [
        (name, [hex(a) for a in args], got)
        for name, args, expected in present
        if (got := verdict(machine, name, *args)) != expected
    ]
    assert wrong == []


NEVER = """fork vfork execve execveat clone3 socket connect bind listen accept sendmsg ptrace
    process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal kcmp mount umount2
    pivot_root chroot setns unshare setuid setresuid setgid setgroups capset setpgid setsid
    memfd_create shmget semget msgget mq_open io_uring_setup io_uring_enter bpf userfaultfd
    perf_event_open keyctl add_key request_key personality seccomp rt_sigqueueinfo splice vmsplice
    open_by_handle_at mknod mknodat chown fchownat setxattr setpriority sched_setaffinity"""
ARGS = st.tuples(*[st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, PID, PTHREAD])] * 6)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("mode", ["", "sealed", "private"])
@hypothesis.given(name=st.sampled_from(NEVER.split()), args=ARGS)
def test_dangerous_calls_are_refused_whatever_their_arguments(machine, mode, name, args):
    if name in syscalls.TABLES[machine]:
        assert verdict(machine, name, *args, mode=mode) not in ("allow", "kill")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_without_a_name_is_refused_as_not_implemented(machine):
    named = {
        syscalls.TABLES[machine].get(name)
        for name in seccomp.decisions(sealed=False, private=False)
    }
    others = [*range(600), 2**30 - 1, 2**31, 2**32 - 1]
    verdicts = {nr: verdict(machine, nr) for nr in others if nr not in named}
    assert set(verdicts.values()) == {"ENOSYS"}
    assert len(verdicts) > 300


@hypothesis.given(nr=st.integers(2**30, 2**32 - 1), args=ARGS)
def test_x32_calls_are_refused(nr, args):
    assert verdict("x86_64", nr, *args) == "ENOSYS"


@hypothesis.given(nr=st.integers(0, 600), args=ARGS, arch=st.integers(0, 2**32 - 1))
@hypothesis.example(nr=1, args=(0,) * 6, arch=0x4000_0003)  # 32-bit code on x86_64
def test_another_architecture_is_killed(nr, args, arch):
    for machine in MACHINES:
        if arch != syscalls.AUDIT_ARCH[machine]:
            code = PROGRAMS[machine, ""]
            assert interpret(code, nr=nr, arch=arch, args=args) == KILL


SEALED = """open openat creat stat lstat newfstatat statx access faccessat faccessat2 readlink
    readlinkat getdents64 chdir fchdir statfs unlink unlinkat rename renameat renameat2 mkdir
    mkdirat rmdir link linkat symlink symlinkat chmod fchmod fchmodat fchmodat2 utime utimes
    futimesat utimensat truncate"""


@pytest.mark.parametrize("machine", MACHINES)
@hypothesis.settings(max_examples=20)
@hypothesis.given(args=ARGS)
def test_sealing_refuses_every_path_and_changes_nothing_else(machine, args):
    names = {number: name for name, number in syscalls.TABLES[machine].items()}
    for nr in range(500):
        sealed = verdict(machine, nr, *args, mode="sealed")
        in_doubt = names.get(nr) in SEALED.split()
        assert sealed == ("EACCES" if in_doubt else verdict(machine, nr, *args)), names.get(nr)


@pytest.mark.parametrize("machine", MACHINES)
def test_private_files_may_have_their_attributes_changed(machine):
    names = [name for name in seccomp.ATTRIBUTES.split() if name in syscalls.TABLES[machine]]
    assert {verdict(machine, name, mode="private") for name in names} == {"allow"}
    assert verdict(machine, "fchownat", mode="private") == "EPERM"


@hypothesis.given(pid=st.integers(1, 2**22), other=st.integers(1, 2**22))
def test_a_process_is_told_from_others_by_its_own_number(pid, other):
    for machine in MACHINES:
        code = seccomp.prepare(machine).for_process(pid)
        nr, arch = syscalls.TABLES[machine]["kill"], syscalls.AUDIT_ARCH[machine]
        allowed = interpret(code, nr=nr, arch=arch, args=(other, 9)) == ALLOW
        assert allowed == (other == pid)
        assert interpret(code, nr=nr, arch=arch, args=(pid, 9)) == ALLOW


def test_prepare_names_the_machines_it_knows():
    with pytest.raises(ValueError, match=r"riscv64.*x86_64, aarch64"):
        seccomp.prepare("riscv64")
