"""What a confined program cannot do, tried by real ones: each is Python code that tells how far it came."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from secretweave.sources import sandbox

pytestmark = pytest.mark.filterwarnings(
    # From Python 3.12 on, where the tests run in parallel: their runner has a second thread.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
PYTHON = os.path.realpath(sys.executable)
ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
NUMBERS = sandbox.MACHINES[os.uname().machine].numbers | sandbox.EVERYWHERE
ABSENT = ("clone3", "pidfd_open", "pidfd_send_signal")
TRY = """\
import ctypes, errno, os, signal, sys
def attempt(what):
    try:
        print(what() or "done")
    except OSError as error:
        print(errno.errorcode[error.errno])
def call(*arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    print("done" if libc.syscall(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()])
"""
landlock = pytest.mark.skipif(not sandbox.landlock_abi(), reason="the kernel has no Landlock")
signals = pytest.mark.skipif(sandbox.landlock_abi() < 6, reason="the kernel's Landlock does not know signals")


def confined(
    code: str,
    *arguments: str | Path,
    readable: tuple[Path, ...] = (),
    writable: tuple[Path, ...] = (),
    executable: tuple[str, ...] = (),
    network: bool = False,
) -> "subprocess.CompletedProcess[str]":
    with sandbox.confine(
        [sys.base_prefix, *map(str, readable)],
        [*map(str, writable)],
        executable=[PYTHON, *executable],
        network=network,
    ) as confinement:
        return subprocess.run(
            [PYTHON, "-I", "-S", "-c", TRY + _imports(code) + code, *arguments],
            capture_output=True,
            check=False,
            text=True,
            env=ENVIRON,
            cwd="/",
            timeout=60,
            start_new_session=True,
            preexec_fn=confinement,
        )


def _imports(code: str) -> str:
    """Only what it uses: they are most of the time that it takes."""
    return "".join(f"import {name}\n" for name in ("socket", "subprocess", "threading") if f"{name}." in code)


def said(result: "subprocess.CompletedProcess[str]") -> list[str]:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def test_no_socket_of_any_family():
    code = """
for family in "UNIX", "INET", "INET6", "NETLINK", "PACKET", "VSOCK", "ALG":
    attempt(lambda: socket.socket(getattr(socket, "AF_" + family), socket.SOCK_DGRAM))
attempt(socket.socketpair)
"""
    assert said(confined(code)) == ["EPERM"] * 8


def test_with_the_network_three_families():
    code = """
for family in "INET", "INET6", "NETLINK", "UNIX", "PACKET", "VSOCK", "ALG":
    attempt(lambda: socket.socket(getattr(socket, "AF_" + family), socket.SOCK_DGRAM).close())
attempt(socket.socketpair)
"""
    assert said(confined(code, network=True)) == ["done", "done", "done", *["EPERM"] * 5]


def test_with_the_network_a_server_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"attempt(socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).close)"
        assert said(confined(code, network=True)) == ["done"]


@pytest.mark.parametrize("network", [False, True])
def test_no_connection_to_a_unix_socket(tmp_path: Path, network: bool):
    path = tmp_path / "daemon"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        code = "attempt(lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1]))"
        assert said(confined(code, path, writable=(tmp_path,), network=network)) == ["EPERM"]


def test_what_is_refused():
    numbers = {name: number for name, number in NUMBERS.items() if name not in {"clone", "prlimit64", *ABSENT}}
    code = f"for name, number in {numbers}.items():\n print(name)\n call(number, 0, 0, 0, 0, 0, 0)"
    assert said(confined(code)) == [word for name in numbers for word in (name, "EPERM")]


def test_a_limit_of_another_process_is_refused_and_one_of_its_own_is_set():
    # PRLIMIT of RLIMIT_NOFILE, which is 7, read only.
    code = f"for process in (0, os.getppid()): call({NUMBERS['prlimit64']}, process, 7, 0, 0, 0, 0)"
    assert said(confined(code)) == ["done", "EPERM"]


def test_what_is_said_to_be_absent():
    code = f"for number in {[NUMBERS[name] for name in ABSENT]}: call(number, 0, 0, 0, 0, 0, 0)"
    assert said(confined(code)) == ["ENOSYS"] * 3


def test_no_namespace():
    # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    flags = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
    code = f"for flag in {flags}: call({NUMBERS['clone']}, flag | signal.SIGCHLD, 0, 0, 0, 0)"
    assert said(confined(code)) == ["EPERM"] * 7


def test_the_upper_half_of_an_argument_hides_nothing():
    assert said(confined(f"call({NUMBERS['socket']}, ctypes.c_ulong(1 << 32 | 1), 1, 0)", network=True)) == ["EPERM"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a second ABI of x86_64")
def test_a_foreign_abi_is_deadly():
    getpid_of_x32 = 0x40000000 + 39
    assert confined(f"call({getpid_of_x32})").returncode == -31  # SIGSYS


def test_threads_and_further_processes_are_possible_and_confined_too():
    code = """
thread = threading.Thread(target=attempt, args=(lambda: socket.socket(socket.AF_UNIX),))
thread.start()
thread.join()
child = "import socket\\ntry: socket.socket(socket.AF_UNIX)\\nexcept PermissionError: print('refused')"
print(subprocess.run([sys.executable, "-I", "-S", "-c", child], capture_output=True, text=True).stdout)
"""
    assert said(confined(code)) == ["EPERM", "refused"]


def test_confinement_cannot_be_taken_off():
    code = (
        f"call({157 if os.uname().machine == 'x86_64' else 167}, 22, 0, 0, 0, 0)\n"  # prctl(PR_SET_SECCOMP, disabled)
    )
    assert said(confined(code + "attempt(lambda: socket.socket(socket.AF_UNIX))")) == ["EINVAL", "EPERM"]


@landlock
def test_only_what_is_named_can_be_read(tmp_path: Path):
    for name in ("repository", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "repository" / "link").symlink_to(tmp_path / "elsewhere" / "file")
    code = "for path in sys.argv[1:]: attempt(lambda: open(path).read())"
    paths = [tmp_path / "repository" / "file", tmp_path / "elsewhere" / "file", tmp_path / "repository" / "link"]
    assert said(confined(code, *paths, readable=(tmp_path / "repository",))) == ["repository", "EACCES", "EACCES"]


@landlock
def test_one_file_can_be_named(tmp_path: Path):
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    code = "for path in sys.argv[1:]: attempt(lambda: open(path).read())"
    assert said(confined(code, tmp_path / "one", tmp_path / "two", readable=(tmp_path / "one",))) == ["1", "EACCES"]


@landlock
def test_no_other_folder_is_listed(tmp_path: Path):
    (tmp_path / "file").touch()
    assert said(confined("attempt(lambda: os.listdir(sys.argv[1]))", tmp_path)) == ["EACCES"]
    assert said(confined("attempt(lambda: os.listdir(sys.argv[1]))", tmp_path, readable=(tmp_path,))) == ["['file']"]


@landlock
def test_only_where_it_is_allowed_can_be_written(tmp_path: Path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "file").write_text("before")
    code = """
scratch, repository = sys.argv[1:]
attempt(lambda: open(scratch + "/new", "w").close())
attempt(lambda: os.mkdir(scratch + "/folder"))
attempt(lambda: os.rename(scratch + "/new", scratch + "/folder/old"))
attempt(lambda: open(repository + "/file", "w"))
attempt(lambda: os.truncate(repository + "/file", 0))
attempt(lambda: os.remove(repository + "/file"))
attempt(lambda: open(repository + "/new", "w"))
attempt(lambda: os.symlink("/", repository + "/link"))
attempt(lambda: open("/dev/null", "w").close())
"""
    folders = tmp_path / "scratch", tmp_path / "repository"
    result = said(confined(code, *folders, writable=folders[:1], readable=folders[1:]))
    truncated = "EACCES" if sandbox.landlock_abi() >= 3 else "done"
    assert result == ["done", "done", "done", "EACCES", truncated, "EACCES", "EACCES", "EACCES", "done"]
    assert (tmp_path / "scratch" / "folder" / "old").exists()


@landlock
def test_nothing_of_the_repository_runs(tmp_path: Path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho it ran\n")
    program.chmod(0o755)
    code = "attempt(lambda: subprocess.run([sys.argv[1]], text=True, capture_output=True).stdout)"
    assert said(confined(code, program, readable=(tmp_path,))) == ["EACCES"]
    assert said(confined(code, program, writable=(tmp_path,))) == ["EACCES"]
    assert said(confined(code, program, readable=(tmp_path,), executable=(str(program), "/bin/sh"))) == ["it", "ran"]


@landlock
def test_nothing_of_the_process_that_started_it_is_opened():
    code = """
for name in "environ", "maps", "fd", "root/etc/passwd", "mem":
    attempt(lambda: os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY))
attempt(lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR))
"""
    assert said(confined(code)) == ["EACCES"] * 6


@signals
def test_no_other_process_is_sent_a_signal():
    code = """
attempt(lambda: os.kill(os.getppid(), 0))
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
child.kill()
print(child.wait())
"""
    assert said(confined(code)) == ["EPERM", "-9"]


def test_the_process_group_is_not_left():
    code = """
if (child := os.fork()) == 0:
    attempt(os.setsid)
    attempt(lambda: os.setpgid(0, 0))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
"""
    assert said(confined(code)) == ["EPERM", "EPERM"]


def test_a_path_that_is_not_there_is_left_out(tmp_path: Path):
    assert said(confined("print('well')", readable=(tmp_path / "absent",), writable=(tmp_path / "too",))) == ["well"]


def test_what_is_not_confined_is_not_started(tmp_path: Path):
    """A container's seccomp profile that refuses filters, as a filter of the test's own."""
    (tmp_path / "started.py").write_text("""\
import ctypes, sys, time
from secretweave.sources import programs, sandbox
from secretweave.errors import SecretweaveError

prctl = 157 if sandbox.MACHINES["x86_64"].arch == int(sys.argv[1]) else 167
code = [
    sandbox._Instruction(sandbox.LOAD, 0, 0, sandbox.NUMBER_AT),
    sandbox._Instruction(sandbox.EQUAL, 0, 3, prctl),
    sandbox._Instruction(sandbox.LOAD, 0, 0, sandbox.FIRST_ARGUMENT_AT),
    sandbox._Instruction(sandbox.EQUAL, 0, 1, sandbox.PR_SET_SECCOMP),
    sandbox._Instruction(sandbox.RETURN, 0, 0, sandbox.NOT_PERMITTED),
    sandbox._Instruction(sandbox.RETURN, 0, 0, sandbox.ALLOW),
]
outer = sandbox.Confinement((sandbox._Instruction * len(code))(*code), None)
sandbox._prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)
sandbox._prctl(sandbox.PR_SET_SECCOMP, sandbox.SECCOMP_MODE_FILTER, ctypes.addressof(outer._program))
call = programs.Call("/bin/echo", ["it ran"], "/", {}, [], [], "/", time.monotonic() + 60, 60)
try:
    programs.started(call)
except SecretweaveError as error:
    print(error.what, error.why, error.fix, sep="\\n")
""")
    arch = str(sandbox.MACHINES[os.uname().machine].arch)
    result = subprocess.run(
        [sys.executable, tmp_path / "started.py", arch], capture_output=True, check=True, text=True, timeout=60
    )
    assert result.stdout == (
        "echo was not started: it cannot be confined\n"
        "the kernel or the container's seccomp profile refuses a seccomp filter, or Landlock in part\n"
        "give the sidecar the seccomp profile RuntimeDefault, on a kernel that has CONFIG_SECCOMP_FILTER\n"
    )
