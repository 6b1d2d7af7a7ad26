"""Confines helm and kustomize, which work on what tenants wrote, before they begin.

Why. The daemon believes who connects to its socket, and everything in the sidecar has one uid: its socket must be out
of reach of what a tenant steers. A child that is confined here, and whatever it starts (both mechanisms are inherited,
and nothing takes them off again), gets no connection: it can make no socket, it is handed none, and it cannot borrow
one from another process. What is refused, and what it would be good for:

    socket                      a connection to the daemon (AF_UNIX), or to anything else (all other families)
    socketpair                  passes open files on; connects to nobody, but nothing here needs it
    io_uring_*                  opens and connects sockets without the calls that a filter sees
    ptrace, process_vm_*        makes a process that is not confined, such as argocd-cmp-server, connect in its place
    pidfd_getfd                 takes a connection out of the process that has it
    pidfd_open, pidfd_send_signal
                                what pidfd_getfd needs; Go does without
    clone3                      takes its flags from memory, where no filter sees them; libraries fall back to clone
    unshare, setns, CLONE_NEW*  in a user namespace it has all capabilities, and with them much more of the kernel
    mount and its family, chroot
                                another file under a path that somebody trusts
    open_by_handle_at           opens a file past the folders above it
    add_key, request_key, keyctl
                                keys of the user, whom all processes of the sidecar share
    bpf, perf_event_open, userfaultfd
                                parts of the kernel that attacks on it begin with, and that no renderer needs
    setsid, setpgid             leaves the process group, by which it is ended
    prlimit of another process, setpriority, sched_setaffinity
                                slows down, or starves, what runs as the same user
    fanotify_init, mq_open, msgget, semget, shmget
                                a look at others' files, and ways of talking past the sockets
    a foreign ABI (x32, i386)   counts its calls differently: the process is killed

A signal to another process of the user cannot be told from one that Go sends to itself: only Landlock refuses it.

With Landlock, where the kernel has it, files can be read only below the folders that are named, written only below
those for writing, and executed only where named one by one, so that nothing in a repository ever runs. Other
processes' /proc/PID/mem and /proc/PID/fd are shut with it, and from its ABI 6 on no process outside of the confinement
can be sent a signal. Without Landlock, the process that starts this one is shielded by PR_SET_DUMPABLE=0, but what is
in the way to /proc/PID/mem of argocd-cmp-server is Yama (kernel.yama.ptrace_scope), where that is on.

Seccomp is not optional: what cannot be confined is not started. The child is killed when the thread that started it
ends (PR_SET_PDEATHSIG), even by SIGKILL; what the child itself started is then left to end, confined.

    https://docs.kernel.org/userspace-api/seccomp_filter.html
    https://docs.kernel.org/userspace-api/landlock.html
    https://docs.kernel.org/userspace-api/no_new_privs.html
    https://docs.kernel.org/admin-guide/LSM/Yama.html
    https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
"""

import ctypes
import errno
import os
import signal
import stat
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from secretweave.errors import SecretweaveError

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
KILL, ALLOW = 0x80000000, 0x7FFF0000
NOT_PERMITTED, NOT_THERE = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
"""SECCOMP_RET_ERRNO. What a program can do without, where an old kernel does not have it, is told to be not there."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Codes of classic BPF, of <linux/bpf_common.h>: BPF_LD|W|ABS; BPF_JMP|K with JEQ, JGE, JSET; BPF_RET|K."""
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""In `struct seccomp_data`; of an argument the low half, on these little-endian machines."""
X32 = 0x40000000
NAMESPACES = 0x7E020000
"""CLONE_NEW* of <linux/sched.h>, all that clone takes."""
FAMILIES = (2, 10, 16)
"""AF_INET, AF_INET6; AF_NETLINK, by which a resolver asks for the machine's addresses. Never AF_UNIX."""
EVERYWHERE = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "open_tree_attr": 467,
}
"""From 424 on, a system call has one number on all machines."""


class Machine(NamedTuple):
    arch: int
    """AUDIT_ARCH_* of <linux/audit.h>."""
    numbers: dict[str, int]


MACHINES = {
    # arch/x86/entry/syscalls/syscall_64.tbl
    "x86_64": Machine(
        0xC000003E,
        {
            "socket": 41,
            "socketpair": 53,
            "clone": 56,
            "shmget": 29,
            "semget": 64,
            "msgget": 68,
            "ptrace": 101,
            "setpgid": 109,
            "setsid": 112,
            "setpriority": 141,
            "pivot_root": 155,
            "chroot": 161,
            "mount": 165,
            "umount2": 166,
            "sched_setaffinity": 203,
            "mq_open": 240,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "fanotify_init": 300,
            "prlimit64": 302,
            "open_by_handle_at": 304,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "bpf": 321,
            "userfaultfd": 323,
        },
    ),
    # include/uapi/asm-generic/unistd.h
    "aarch64": Machine(
        0xC00000B7,
        {
            "umount2": 39,
            "mount": 40,
            "pivot_root": 41,
            "chroot": 51,
            "unshare": 97,
            "ptrace": 117,
            "sched_setaffinity": 122,
            "setpriority": 140,
            "setpgid": 154,
            "setsid": 157,
            "mq_open": 180,
            "msgget": 186,
            "semget": 190,
            "shmget": 194,
            "socket": 198,
            "socketpair": 199,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "clone": 220,
            "perf_event_open": 241,
            "prlimit64": 261,
            "fanotify_init": 262,
            "open_by_handle_at": 265,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "bpf": 280,
            "userfaultfd": 282,
        },
    ),
}
ABSENT = ("clone3", "pidfd_open", "pidfd_send_signal")
JUDGED = ("socket", "clone", "prlimit64")
"""By their first argument."""

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_SCOPES = 1 | 2
"""Abstract Unix sockets and signals."""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PT_INTERP = 3
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
"""What a program that is not linked statically reads before it begins."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


class Confinement:
    """What the child calls between fork and exec, made ready by its parent; leaving it frees what the parent holds."""

    def __init__(self, seccomp: "ctypes.Array[_Instruction]", landlock: int | None, parent: int | None = None) -> None:
        """*parent*: the process that must be there still; this one, if it is not told."""
        self._program = _Program(len(seccomp), ctypes.cast(seccomp, ctypes.POINTER(_Instruction)))
        self._seccomp = seccomp
        """Kept alive: the program only points to it."""
        self._landlock = landlock
        self._parent = os.getpid() if parent is None else parent

    @property
    def filter(self) -> bytes:
        return bytes(self._seccomp)

    @property
    def landlock(self) -> int | None:
        """An open ruleset."""
        return self._landlock

    def __call__(self) -> None:
        """Raises OSError: the kernel refuses."""
        # Whoever is killed cannot end its child any more.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._parent:
            os.kill(os.getpid(), signal.SIGKILL)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        if self._landlock is not None:
            _syscall(LANDLOCK_RESTRICT_SELF, self._landlock, 0)
        _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self._program))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._landlock is not None:
            os.close(self._landlock)
            self._landlock = None


def confine(
    readable: Sequence[str], writable: Sequence[str], *, executable: Sequence[str], network: bool
) -> Confinement:
    """Made ready for `subprocess.Popen(preexec_fn=...)`, in a process that has one thread.

    Each path is a file, or a folder with all that is below it; one that is not there is left out. *executable* names
    the programs, file by file; what loads them, and their libraries, is added. With *network* sockets of AF_INET,
    AF_INET6 and AF_NETLINK can be made. Raises SecretweaveError.
    """
    abi = landlock_abi()
    landlock = _ruleset(abi, readable, writable, executable) if abi else None
    return Confinement(_filter(network=network), landlock)


def received(seccomp: bytes, landlock: int | None, parent: int) -> Confinement:
    """What *parent* made ready, in another process that is to confine itself."""
    size = ctypes.sizeof(_Instruction)
    return Confinement((_Instruction * (len(seccomp) // size)).from_buffer_copy(seccomp), landlock, parent)


def landlock_abi() -> int:
    """The version of Landlock that the kernel speaks; 0: none."""
    return max(int(_libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)), 0)


def refused(program: str) -> SecretweaveError:
    return SecretweaveError(
        f"{program} was not started: it cannot be confined",
        why="the kernel or the container's seccomp profile refuses a seccomp filter, or Landlock in part",
        fix="give the sidecar the seccomp profile RuntimeDefault, on a kernel that has CONFIG_SECCOMP_FILTER",
    )


def _filter(*, network: bool) -> "ctypes.Array[_Instruction]":
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        raise SecretweaveError(
            f"no filter of system calls is known for the machine {os.uname().machine}",
            why="helm and kustomize are confined by one",
            fix=f"run on {' or '.join(MACHINES)}",
        )
    numbers = machine.numbers | EVERYWHERE
    families = FAMILIES if network else ()
    code = [
        _Instruction(LOAD, 0, 0, ARCH_AT),
        _Instruction(EQUAL, 1, 0, machine.arch),
        _Instruction(RETURN, 0, 0, KILL),
        _Instruction(LOAD, 0, 0, NUMBER_AT),
        _Instruction(AT_LEAST, 0, 1, X32),
        _Instruction(RETURN, 0, 0, KILL),
        *_when(
            numbers["socket"],
            _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT),
            *(_Instruction(EQUAL, len(families) - place, 0, family) for place, family in enumerate(families)),
            _Instruction(RETURN, 0, 0, NOT_PERMITTED),
            _Instruction(RETURN, 0, 0, ALLOW),
        ),
        *_when(
            numbers["clone"],
            _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT),
            _Instruction(ANY_BIT, 0, 1, NAMESPACES),
            _Instruction(RETURN, 0, 0, NOT_PERMITTED),
            _Instruction(RETURN, 0, 0, ALLOW),
        ),
    ]
    code += _when(
        numbers["prlimit64"],
        _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT),
        # Of itself: Go sets its own number of files.
        _Instruction(EQUAL, 1, 0, 0),
        _Instruction(RETURN, 0, 0, NOT_PERMITTED),
        _Instruction(RETURN, 0, 0, ALLOW),
    )
    for name, number in numbers.items():
        if name not in JUDGED:
            answer = NOT_THERE if name in ABSENT else NOT_PERMITTED
            code += _when(number, _Instruction(RETURN, 0, 0, answer))
    code.append(_Instruction(RETURN, 0, 0, ALLOW))
    return (_Instruction * len(code))(*code)


def _when(number: int, *code: _Instruction) -> Iterable[_Instruction]:
    """The code, which returns, is run for the call of that number."""
    return (_Instruction(EQUAL, 0, len(code), number), *code)


def _ruleset(abi: int, readable: Sequence[str], writable: Sequence[str], executable: Sequence[str]) -> int:
    """An open ruleset, which lets nothing but that be done to files."""
    known = (1 << 13) - 1
    for bit, since in ((13, 2), (14, 3), (15, 5)):
        if abi >= since:
            known |= 1 << bit
    # A kernel refuses a structure that is longer than its own, unless the rest is zero.
    attributes = struct.pack("=QQQ", known, 0, LANDLOCK_SCOPES if abi >= 6 else 0)
    ruleset = -1
    try:
        ruleset = _syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
        loaders = [loader for loader in map(_loader, executable) if loader]
        write = known & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK)
        _allow(ruleset, READ, (*readable, *DEVICES, *(LIBRARIES if loaders else ())))
        _allow(ruleset, write, (*writable, os.devnull))
        _allow(ruleset, EXECUTE | READ_FILE, (*executable, *loaders))
    except OSError:
        if ruleset >= 0:
            os.close(ruleset)
        raise refused("a program") from None
    return ruleset


def _allow(ruleset: int, access: int, paths: Iterable[str]) -> None:
    for path in paths:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # What cannot be named gets no right.
            continue
        try:
            rights = access if stat.S_ISDIR(os.fstat(handle).st_mode) else access & OF_FILES
            rule = struct.pack("=Qi", rights, handle)
            _syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(handle)


def _loader(program: str) -> str | None:
    """What the kernel starts in a program's place, as its ELF file says; None: it is linked statically.

    https://man7.org/linux/man-pages/man5/elf.5.html
    """
    try:
        with open(program, "rb") as file:
            head = file.read(1 << 12)
    except OSError:
        return None
    if not head.startswith(b"\x7fELF\x02\x01"):
        return None
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for place in range(table, min(table + size * count, len(head) - 55), max(size, 56)):
        (kind,) = struct.unpack_from("<I", head, place)
        if kind == PT_INTERP:
            (start,) = struct.unpack_from("<Q", head, place + 8)
            return head[start:].split(b"\0", 1)[0].decode(errors="replace")
    return None


def _prctl(option: int, value: int, further: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(further), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl")


def _syscall(number: int, *arguments: int | bytes) -> int:
    given = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result
