"""The system calls that user code may make: the policy as data, and the BPF program made from it.

The policy is an allow-list. Other calls fail with an error number and do not kill, so that
libraries take their fall-backs and a person reads an ordinary Python exception. The default error
is ENOSYS, "not implemented", as on a kernel that lacks the call. A filter cannot read memory, so it
checks numbers, flags and descriptors but never the text of a path; mounts and Landlock check paths.

The policy assumes that the process is alone in its process group, holds no capability, has its
limits set, and has no descriptor but its own two pipes and socket.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import itertools
import struct
from collections.abc import Sequence

from . import syscalls

# The policy.

# Allowed with any arguments.
ALLOWED: dict[str, str] = {
    # Bytes through descriptors that are open already.
    "bytes": """read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek
        sendfile copy_file_range ftruncate fallocate fsync fdatasync fadvise64""",
    # Descriptors: RLIMIT_NOFILE bounds their number, and so what pipes and socket pairs hold.
    "descriptors": "close close_range dup dup2 dup3 pipe pipe2 eventfd2 fstat fstatfs",
    # Memory: only of a kind that RLIMIT_AS counts.
    "memory": "brk mmap mprotect munmap mremap msync mincore",
    # Waiting, as the event loops of asyncio, select and threading do it.
    "waiting": """poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait
        epoll_pwait nanosleep pause sched_yield restart_syscall""",
    # The process's own signals and timers.
    "signals": """rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
        rt_sigsuspend sigaltstack setitimer getitimer alarm""",
    # The life of a thread, and the end of the process. `clone` is below.
    "threads": """set_robust_list set_tid_address rseq gettid membarrier exit exit_group
        getcpu""",
    # Questions about the process itself and its (never existing) children.
    "itself": """getpid getppid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups
        getrusage getrlimit times umask getcwd wait4 waitid""",
    # A limit can be lowered, and raised no further than its hard value.
    "limits": "setrlimit",
    # Questions about the machine that a program may ask anywhere.
    "machine": "uname sysinfo gettimeofday time getrandom",
    # A pair of sockets that are connected to each other, as asyncio uses to wake itself up. There
    # is no other way to a socket, so these reach nobody.
    "socket pairs": "getsockopt getsockname getpeername shutdown",
}

# Files by name. Allowed, for mounts or Landlock decide which files; EACCES when sealed, as then
# neither of them is there to decide. `newfstatat` is among them though newer C libraries build
# `fstat` on it: its flag AT_EMPTY_PATH does not keep a caller from passing a path all the same, and
# the size and the times of every file would be open to all.
PATHS = """open openat creat stat lstat newfstatat statx access faccessat faccessat2
    readlink readlinkat getdents64 chdir fchdir statfs unlink unlinkat rename renameat renameat2
    mkdir mkdirat rmdir link linkat symlink symlinkat"""

# Changes to files that Landlock has no say in: their modes and times, and their length before its
# third version. Allowed only where every file within reach is on a mount of the call's own or on a
# read-only one; elsewhere user code could change files of the same user, readable or not.
ATTRIBUTES = "chmod fchmod fchmodat fchmodat2 utime utimes futimesat utimensat truncate"

# Refused with EPERM, "Operation not permitted".
FORBIDDEN: dict[str, str] = {
    # A second process or program: it would outlive the call and multiply its limits.
    "processes": "fork vfork execve execveat",
    # The network, loopback and the sockets of other processes, abstract ones included. `sendmsg`
    # hides an address, and descriptors to pass on, behind a pointer.
    "network": "socket connect bind listen accept accept4 setsockopt sendmsg sendmmsg recvmmsg",
    # Signals to others. `kill` and its kin are below.
    "signals": "rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal",
    # The memory, descriptors and state of other processes.
    "other processes": """ptrace process_vm_readv process_vm_writev process_madvise process_mrelease
        kcmp pidfd_open pidfd_getfd get_robust_list""",
    # Leaving the mounts and namespaces, or making new ones, in which a user is root.
    "mounts": """mount umount2 pivot_root chroot setns unshare open_tree move_mount fsopen fsconfig
        fsmount fspick mount_setattr open_by_handle_at""",
    # Another identity, or another process group: the supervisor ends a call by its group.
    "identity": """setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
        capset setpgid setsid""",
    # More of the processor than the call's share.
    "scheduling": """setpriority getpriority sched_setscheduler sched_setparam sched_setattr
        sched_setaffinity ioprio_set""",
    # Memory that RLIMIT_AS does not count, some of which outlives the process.
    "memory": """memfd_create memfd_secret shmget shmat shmctl semget semop semctl msgget msgsnd
        mq_open""",
    # Parts of the kernel that are rich in faults and of no use here.
    "kernel": """io_uring_setup io_uring_enter io_uring_register bpf userfaultfd perf_event_open
        keyctl add_key request_key personality seccomp landlock_restrict_self modify_ldt splice tee
        vmsplice""",
    # The machine itself.
    "machine": """reboot syslog sethostname setdomainname settimeofday clock_settime clock_adjtime
        adjtimex swapon swapoff init_module finit_module delete_module kexec_load kexec_file_load
        quotactl acct iopl ioperm""",
    # Device nodes, named pipes, and owners of files.
    "files": "mknod mknodat chown fchown lchown fchownat",
}

# Refused with an error that libraries handle.
DECLINED: dict[int, str] = {
    # Extended attributes, which hold capabilities and labels. `shutil.copy2` passes over this error
    # and over few others.
    errno.ENOTSUP: """getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
        setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr""",
    # A lock on a library's file, for which reading it is enough, would stop other processes.
    errno.ENOLCK: "flock",
    # The C library uses `clone` instead, whose flags are not behind a pointer and can be checked.
    errno.ENOSYS: "clone3",
}

OWN_PID = -1  # stands for the process's own number until `Filter.for_process` writes that in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Allows a call when `argument & mask` is one of `values`, all of 32 bits.

    The kernel reads an `int` argument from the lower half of its register, so only that is
    compared. Of a `wide` argument, a pointer or a long, the upper half must be zero.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFF_FFFF
    wide: bool = False
    error: int = errno.EPERM


def without(*flags: int) -> int:
    """The mask of all bits but these, for arguments in which these do not matter."""
    return 0xFFFF_FFFF & ~sum(flags)


# VM | FS | FILES | SIGHAND | THREAD: it shares everything with its process, and dies with it.
THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
# SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID, DETACHED (of no effect; musl), CHILD_SETTID.
THREAD_MAY = (0x40000, 0x80000, 0x100000, 0x200000, 0x400000, 0x1000000)
# RDONLY to RDWR, and TRUNC only with the right to write: of itself it shortens a file that is open
# for reading, and before its third version Landlock does not stop that.
O_TRUNC = 0x200
OPEN_MODES = (0, 1, 2, O_TRUNC | 1, O_TRUNC | 2)
OPEN_MASK = O_TRUNC | 3
SEND_MAY = (0x40, 0x4000)
RECEIVE_MAY = (0x2, 0x20, 0x100, 0x4000_0000, *SEND_MAY)
ITSELF = (0, OWN_PID)
# A negative number is the processor clock of some other process.
OWN_CLOCK = Check(argument=0, mask=0x8000_0000, values=(0,), error=errno.EINVAL)

# Allowed if all checks hold.
CHECKED: dict[str, tuple[Check, ...]] = {
    # A thread, not a process, not a namespace, nothing traced or hidden.
    "clone": (Check(argument=0, mask=without(*THREAD_MAY), values=(THREAD,)),),
    # Signals to itself; 0 is its process group, in which it is alone. `tgkill` names a thread along
    # with its process; of those that `tkill` names, only the main one is known to be its own.
    "kill": (Check(argument=0, values=ITSELF),),
    "tkill": (Check(argument=0, values=(OWN_PID,)),),
    "tgkill": (Check(argument=0, values=(OWN_PID,)),),
    # Questions that tell which processes exist, and limits that can be set for another one. The C
    # library takes ENOSYS for "no affinity" when it describes a thread other than the main one.
    "getpgid": (Check(argument=0, values=ITSELF),),
    "getsid": (Check(argument=0, values=ITSELF),),
    "sched_getaffinity": (Check(argument=0, values=ITSELF, error=errno.ENOSYS),),
    "prlimit64": (Check(argument=0, values=ITSELF),),
    "clock_gettime": (OWN_CLOCK,),
    "clock_getres": (OWN_CLOCK,),
    "clock_nanosleep": (OWN_CLOCK,),
    # SET_NAME, GET_NAME of a thread, and SET_VMA, names of memory. Not the parent-death signal, not
    # "dumpable", not tracers, not the speculation controls.
    "prctl": (Check(argument=0, values=(15, 16, 0x53564D41)),),
    # WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET, private or not, with any
    # clock. Not the priority-inheriting ones, which have had grave faults.
    "futex": (
        Check(
            argument=1, mask=without(128, 256), values=(0, 1, 3, 4, 5, 9, 10), error=errno.ENOSYS
        ),
    ),
    # NORMAL to DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE. Not the merging of equal pages, through which
    # one process learns what another's hold, nor the poisoning of pages.
    "madvise": (Check(argument=2, values=(0, 1, 2, 3, 4, 8, 14, 15), error=errno.EINVAL),),
    # TCGETS and TCGETS2 (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Nothing that
    # types into a terminal, asks for signals or speaks to a device or file system.
    "ioctl": (
        Check(
            argument=1,
            values=(0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),
            error=errno.ENOTTY,
        ),
    ),
    # DUPFD, GETFD, SETFD, GETFL, SETFL, GETLK, SETLK, SETLKW (SQLite's locks), their three OFD
    # kinds, DUPFD_CLOEXEC. Not SETOWN and SETSIG, which send signals to others; not SETPIPE_SZ,
    # which is memory beyond RLIMIT_AS; no leases.
    "fcntl": (Check(argument=1, values=(*range(8), 36, 37, 38, 1030)),),
    # AF_UNIX. A pair of another family would open that family's part of the kernel.
    "socketpair": (Check(argument=0, values=(1,)),),
    # Only to the other end: no address. Of the flags NOSIGNAL and DONTWAIT, and for reading PEEK,
    # TRUNC, WAITALL and CMSG_CLOEXEC too; OOB, data out of band, has been a way into the kernel.
    "sendto": (
        Check(argument=4, values=(0,), wide=True),
        Check(argument=3, mask=without(*SEND_MAY), values=(0,)),
    ),
    "recvfrom": (Check(argument=3, mask=without(*RECEIVE_MAY), values=(0,)),),
    "recvmsg": (Check(argument=2, mask=without(*RECEIVE_MAY), values=(0,)),),
    "open": (Check(argument=1, mask=OPEN_MASK, values=OPEN_MODES, error=errno.EACCES),),
    "openat": (Check(argument=2, mask=OPEN_MASK, values=OPEN_MODES, error=errno.EACCES),),
}


# The program. One instruction is (operation, jump if true, jump if false, constant).

Instruction = tuple[int, int, int, int]
INSTRUCTION = struct.Struct("<HBBI")

LOAD, AND = 0x20, 0x54  # a word of the call's data; of the accumulator with the constant
JUMP, JUMP_EQUAL, JUMP_AT_LEAST = 0x05, 0x15, 0x35
RETURN = 0x06

# Offsets in `struct seccomp_data`; both machines are little-endian.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

KILL_PROCESS, ERROR, ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000

PERMIT: tuple[Instruction, ...] = ((RETURN, 0, 0, ALLOW),)


def refuse(error: int) -> tuple[Instruction, ...]:
    return ((RETURN, 0, 0, ERROR | error),)


def checked(checks: Sequence[Check]) -> tuple[Instruction, ...]:
    """Instructions that allow a call if all checks hold, and refuse it otherwise."""
    code: list[Instruction] = []
    for check in checks:
        low = ARGUMENTS + 8 * check.argument
        if check.wide:
            code += ((LOAD, 0, 0, low + 4), (JUMP_EQUAL, 1, 0, 0), *refuse(check.error))
        code.append((LOAD, 0, 0, low))
        if check.mask != 0xFFFF_FFFF:
            code.append((AND, 0, 0, check.mask))
        count = len(check.values)
        # Each comparison that holds jumps over those that follow and over the refusal.
        code += ((JUMP_EQUAL, count - i, 0, value) for i, value in enumerate(check.values))
        code += refuse(check.error)
    return (*code, *PERMIT)


def decisions(*, sealed: bool, private: bool) -> dict[str, tuple[Instruction, ...]]:
    """The instructions that decide each named call."""
    decided = {name: PERMIT for group in ALLOWED.values() for name in group.split()}
    for group in FORBIDDEN.values():
        decided |= dict.fromkeys(group.split(), refuse(errno.EPERM))
    for error, names in DECLINED.items():
        decided |= dict.fromkeys(names.split(), refuse(error))
    decided |= dict.fromkeys(ATTRIBUTES.split(), PERMIT if private else refuse(errno.EPERM))
    decided |= dict.fromkeys(PATHS.split(), PERMIT)
    decided |= {name: checked(checks) for name, checks in CHECKED.items()}
    if sealed:
        decided |= dict.fromkeys(f"{PATHS} {ATTRIBUTES}".split(), refuse(errno.EACCES))
    return decided


def search(ranges: Sequence[tuple[int, tuple[Instruction, ...]]]) -> list[Instruction]:
    """A balanced search for the range of a call's number; each range is (its first number, code).

    Few steps also make installing cheap: the kernel walks the program once for every number to find
    the calls that are always allowed, for which it then skips the program.
    """
    if len(ranges) == 1:
        return list(ranges[0][1])
    middle = len(ranges) // 2
    first = ranges[middle][0]
    below, above = search(ranges[:middle]), search(ranges[middle:])
    if len(below) <= 0xFF:
        return [(JUMP_AT_LEAST, len(below), 0, first), *below, *above]
    # A conditional jump reaches no further than 255 instructions.
    return [(JUMP_AT_LEAST, 0, 1, first), (JUMP, 0, 0, len(below)), *below, *above]


@dataclasses.dataclass(frozen=True)
class Filter:
    """A program in which the pid of its process is still missing."""

    code: bytes
    holes: tuple[int, ...]  # offsets of the pid

    def for_process(self, pid: int) -> bytes:
        """The program for the process whose own pid is `pid`."""
        code = bytearray(self.code)
        number = pid.to_bytes(4, "little")
        for hole in self.holes:
            code[hole : hole + 4] = number
        return bytes(code)


def prepare(machine: str, *, sealed: bool = False, private: bool = False) -> Filter:
    """The policy's program for a machine, as `os.uname` names it; one serves all processes.

    `sealed` is for a host with neither mounts of our own nor Landlock: no file can be opened,
    looked at or changed by its name. `private` says that every file within reach is either the
    call's own or on a read-only mount, so that modes and times may be changed.
    """
    table = syscalls.TABLES.get(machine)
    if table is None:
        known = ", ".join(syscalls.TABLES)
        raise ValueError(f"no table of system calls for {machine!r}; there is one for {known}")
    decided = decisions(sealed=sealed, private=private)
    unnamed = refuse(errno.ENOSYS)
    by_number = {table[name]: code for name, code in decided.items() if name in table}
    # The last range has no end, so the 32-bit calls of x86_64 (x32, from 0x40000000 on) fall in it.
    numbers = range(max(by_number) + 2)
    runs = itertools.groupby(numbers, key=lambda number: by_number.get(number, unnamed))
    ranges = [(next(members), code) for code, members in runs]
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        # Numbers mean other calls in another architecture, such as 32-bit code on x86_64. No
        # library falls back from that, so this alone kills.
        (JUMP_EQUAL, 1, 0, syscalls.AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        *search(ranges),
    ]
    size = INSTRUCTION.size
    holes = tuple(i * size + 4 for i, step in enumerate(program) if step[3] == OWN_PID)
    code = b"".join(INSTRUCTION.pack(*step[:3], max(step[3], 0)) for step in program)
    return Filter(code, holes)


# The kernel's side.

SET_MODE_FILTER = 1


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def available() -> bool:
    """True if this process can install a filter; installs none."""
    if not syscalls.supported():
        return False
    try:
        syscalls.syscall("seccomp", SET_MODE_FILTER, 0, None)
    except OSError as error:
        # The kernel went as far as reading the program, which is not there. EPERM would be a
        # container's own filter, ENOSYS or EINVAL a kernel without filters.
        return error.errno == errno.EFAULT
    return False


def install(code: bytes) -> None:
    """Applies the program to the calling thread, the only one of its process, for good."""
    syscalls.set_no_new_privileges()
    program = Program(len(code) // INSTRUCTION.size, code)
    syscalls.syscall("seccomp", SET_MODE_FILTER, 0, ctypes.byref(program))
