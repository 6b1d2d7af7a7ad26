"""Runs helm or kustomize, confined by `sandbox`, and gives what it writes as a stream.

No shell, no terminal, no environment but what is named, no open file but what is handed over. What it says on stderr
is kept in part and shown scrubbed: Argo CD shows it to whoever may see the Application. At the deadline, at a failure
and at the end everything that it started is ended with it: all of that is one process group, which `sandbox` lets
nobody leave.

Between fork and exec Python code runs (`preexec_fn`), which is safe in a process that has one thread: a source is
rendered before the stores, whose threads come after, are asked, and never in the daemon. Where there are threads, as in
the Flux controller, a fresh interpreter is started instead, which confines itself and then becomes the program
(`confined`): 40 ms more.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from secretweave.errors import ConfigError, InputError, SecretweaveError
from secretweave.sources import sandbox
from secretweave.sources.scrubbing import scrub

if TYPE_CHECKING:
    from subprocess import Popen

ALWAYS = ("/usr/share/zoneinfo",)
"""Readable: a template's dates come out as they do elsewhere."""
FOR_NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)
"""Readable with the network: how names are resolved, and whom TLS trusts."""
HEAD_MAX, TAIL_MAX = 16 << 10, 48 << 10
"""So many bytes are kept of the beginning and of the end of what a program says."""

OUT_OF_MEMORY = ("fatal error: runtime: out of memory", "fatal error: out of memory", "cannot allocate memory")
"""What Go says first where it has come to the limit that `confined` sets: runtime/malloc.go, runtime/mem_linux.go."""


class Inline(NamedTuple):
    """An argument that names a file whose content is given here: it is in memory, and only the program can open it."""

    data: bytes
    called: str
    """What an error's text calls it, such as `the values of the parameters`."""
    before: str = ""
    """The argument's text before the file's path, such as `--values=`."""


class Call(NamedTuple):
    """A program, what it works on, and what it may touch."""

    program: str
    """Its path, as `find` gives it."""
    arguments: Sequence[str | Inline]
    """Without the program itself. No value may stand in a text: other processes read it."""
    folder: str
    """In which it starts."""
    environ: Mapping[str, str]
    """All of its environment."""
    readable: Sequence[str]
    """Files, or folders with all below. What the system needs is added."""
    writable: Sequence[str]
    """The same; what can be written can be read."""
    root: str
    """Of the repository's copy: in the text of an error, paths below are told from there on."""
    deadline: float
    """On time.monotonic's clock."""
    seconds: float
    """The whole time, as an error tells it."""
    executable: Sequence[str] = ()
    """The paths of further programs that it may start, each one named."""
    network: bool = False
    fix: str = "correct what it complains of, in the repository or in the Application's parameters"
    """What an error of the program's own tells to do."""
    more_time: str = "make the source smaller, or raise limits.deadline in the configuration"
    """What to do when the time was too short."""
    container: str = "sidecar"
    """That whose memory may be too little."""
    has_threads: bool = False
    """May this process have more than one thread?"""

    @property
    def name(self) -> str:
        return os.path.basename(self.program)


class Output:
    """A program's stdout. A context: leaving it ends the program, however far it was read."""

    def __init__(
        self, call: Call, process: "Popen[bytes]", stdout: int, stderr: int, called: Mapping[str, str]
    ) -> None:
        import selectors

        self.said = ""
        """What a program that went well said on stderr, scrubbed; known when all is read."""
        self.pid = process.pid
        self._call = call
        self._process = process
        self._stdout, self._stderr = stdout, stderr
        self._called = called
        self._message = _Excerpt()
        self._selector = selectors.DefaultSelector()
        self._open = {stdout, stderr}
        for pipe in self._open:
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end, if the program went well. Raises InputError."""
        while self._stdout in self._open:
            if self._stdout in self._ready():
                data = self._taken(self._stdout, size)
                if data:
                    return data
        if not self._ended:
            self._finish()
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._end()
        self._selector.close()
        os.close(self._stdout)
        os.close(self._stderr)

    def _ready(self) -> set[int]:
        """The pipes that something can be read from, without stderr, which is emptied. Raises InputError."""
        ready = {key.fd for key, _ in self._selector.select(self._left())}
        if self._stderr in ready:
            self._message.add(self._taken(self._stderr, 1 << 16))
        return ready - {self._stderr}

    def _left(self) -> float:
        left = self._call.deadline - time.monotonic()
        if left <= 0:
            self._end()
            raise InputError(
                f"{self._call.name} had not ended when the run's deadline of {self._call.seconds:g} s was over",
                why="the source is large, or the machine is busy",
                fix=self._call.more_time,
            )
        return left

    def _taken(self, pipe: int, size: int) -> bytes:
        """What was read; nothing: the pipe is closed."""
        data = os.read(pipe, size)
        if not data:
            self._selector.unregister(pipe)
            self._open.remove(pipe)
        return data

    def _finish(self) -> None:
        """Waits for the exit code, when stdout is closed. Raises InputError."""
        pause = 0.0005
        while not _over(self._process):
            # As subprocess does it. Until then stderr must be emptied, lest the program waits for that.
            if self._selector.get_map():
                ready = self._selector.select(min(pause, self._left()))
                if ready:
                    self._message.add(self._taken(self._stderr, 1 << 16))
            else:
                time.sleep(min(pause, self._left()))
            pause = min(pause * 2, 0.05)
        self._end()
        self._empty_stderr()
        code = self._process.returncode
        if code:
            raise _failure(self._call, code, self._scrubbed())
        self.said = self._scrubbed()

    def _empty_stderr(self) -> None:
        while self._stderr in self._open:
            try:
                self._message.add(self._taken(self._stderr, 1 << 16))
            except BlockingIOError:
                # A program that was killed just now holds it a moment longer.
                return

    def _end(self) -> None:
        """Ends what is left of the program, and of what it started."""
        if self._ended:
            return
        self._ended = True
        # Before it is waited for: until then the number is still its own.
        if _is_child(self._process):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _scrubbed(self) -> str:
        return scrub(self._message.text(), self._call.root, self._called)


def started(call: Call) -> Output:
    """Starts the program. Raises SecretweaveError (it cannot be confined), ConfigError (it cannot be started)."""
    import subprocess

    if not call.has_threads and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # That is inherited, and would make every exit code a 0.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    readable = (*call.readable, *ALWAYS, *(FOR_NETWORK if call.network else ()))
    executable = (call.program, *call.executable)
    arguments = [call.program]
    files: list[int] = []
    called: dict[str, str] = {}
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    try:
        # Files, not numbers: pytest-subprocess writes into them.
        with (
            open(out_end, "wb") as stdout,
            open(err_end, "wb") as stderr,
            sandbox.confine(readable, call.writable, executable=executable, network=call.network) as confinement,
        ):
            for argument in call.arguments:
                if isinstance(argument, Inline):
                    file = _file(argument.data)
                    files.append(file)
                    path = f"/proc/self/fd/{file}"
                    called[path] = argument.called
                    arguments.append(argument.before + path)
                else:
                    arguments.append(argument)
            if call.has_threads:
                with _Becoming(confinement, arguments) as becoming:
                    process = subprocess.Popen(  # noqa: S603 - as below
                        becoming.arguments,
                        stdin=subprocess.DEVNULL,
                        stdout=stdout,
                        stderr=stderr,
                        cwd=call.folder,
                        env=call.environ,
                        pass_fds=(*files, *becoming.files),
                        start_new_session=True,
                    )
                    becoming.wait(process)
            else:
                process = subprocess.Popen(  # noqa: S603 - a list of arguments; the configuration names the program
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=call.folder,
                    env=call.environ,
                    pass_fds=files,
                    start_new_session=True,
                    preexec_fn=confinement,  # noqa: PLW1509 - there is one thread, as said above
                )
    except (OSError, ValueError, subprocess.SubprocessError, SecretweaveError) as error:
        os.close(out)
        os.close(err)
        raise _unstarted(call, error) from None
    finally:
        for file in files:
            os.close(file)
    return Output(call, process, out, err, called)


class _Becoming:
    """An interpreter that is to become the program, when it has confined itself."""

    def __init__(self, confinement: sandbox.Confinement, arguments: Sequence[str]) -> None:
        from secretweave.sources import confined

        self._unconfined = confined.UNCONFINED
        self._program = os.path.basename(arguments[0])
        self._told, self._end = os.pipe()
        self._filter = _file(confinement.filter)
        self.files = [self._end, self._filter, *([] if confinement.landlock is None else [confinement.landlock])]
        """Open files that it is handed; it hands none of them on."""
        ruleset = -1 if confinement.landlock is None else confinement.landlock
        numbers = map(str, (os.getpid(), self._end, self._filter, ruleset))
        # -I, -S, -B: neither its environment nor a folder that others may write tells it what to load.
        self.arguments = [sys.executable, "-I", "-S", "-B", confined.__file__, *numbers, *arguments]

    def wait(self, process: "Popen[bytes]") -> None:
        """Until it is the program. Raises OSError: it cannot be; SecretweaveError: it cannot be confined."""
        self._close_end()
        told = b""
        while piece := os.read(self._told, 64):
            told += piece
        if not told:
            return
        process.wait()
        if told == self._unconfined:
            raise sandbox.refused(self._program)
        raise OSError(int(told), os.strerror(int(told)))

    def _close_end(self) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._close_end()
        os.close(self._told)
        os.close(self._filter)


def find(name: str, configured: str | None, environ: Mapping[str, str], section: str = "spec.argocd") -> str:
    """The path of a program: the configured one, or the first of that name on the PATH. Raises ConfigError.

    *section*: of the configuration, where `NAME.program` stands.
    """
    # Not from relative folders of the PATH: the working directory is the tenant's.
    folders = filter(os.path.isabs, environ.get("PATH", "").split(os.pathsep))
    for path in (configured,) if configured else (os.path.join(folder, name) for folder in folders):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        f"the program {name} that {section}.{name}.program names cannot be run"
        if configured
        else f"the program {name} is not installed",
        why="it is not there, or is no file that this user may execute",
        fix=f"use an image that has {name}, or correct {section}.{name}.program in the configuration",
    )


def keeps_files() -> bool:
    """Is what is started kept from all files but those that are named? The kernel needs Landlock for that."""
    return sandbox.landlock_abi() > 0


def _file(data: bytes) -> int:
    """An open file in memory, which whoever is handed it can only read."""
    import fcntl

    file = os.memfd_create("file", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)
    os.fchmod(file, 0o400)
    fcntl.fcntl(
        file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return file


def _is_child(process: "Popen[bytes]") -> bool:
    """Is it there, and not waited for? Its number is another's otherwise, or nobody's."""
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _over(process: "Popen[bytes]") -> bool:
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _unstarted(call: Call, error: Exception) -> SecretweaveError:
    if isinstance(error, SecretweaveError):
        return error
    if not isinstance(error, OSError | ValueError):
        # What is raised in the child before it becomes the program arrives as subprocess.SubprocessError.
        return sandbox.refused(call.name)
    return ConfigError(
        f"the program {call.name} cannot be started",
        why=getattr(error, "strerror", None) or "an argument or its environment holds a null byte",
        fix=f"name {call.name} itself in the configuration, not a script around it, as a file that can be executed",
    )


def _failure(call: Call, code: int, said: str) -> InputError:
    if code < 0:
        return InputError(
            f"{call.name} was ended by {_signal(-code)}",
            why=said or "the kernel ends what needs more memory than the container may have",
            fix=f"raise the {call.container}'s memory limit, or make the source smaller",
        )
    if code == 2 and any(each in said for each in OUT_OF_MEMORY):
        # Its stacks, which follow, tell nobody anything.
        return InputError(f"{call.name} needs more memory than it may have", fix="make the source smaller")
    return InputError(f"{call.name} failed (exit code {code})", why=said, fix=call.fix)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Excerpt:
    """The beginning and the end of a text of any length."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._whole = True

    def add(self, data: bytes) -> None:
        room = HEAD_MAX - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > TAIL_MAX:
            del self._tail[:-TAIL_MAX]
            self._whole = False

    def text(self) -> str:
        head, tail = bytes(self._head), bytes(self._tail)
        if not self._whole:
            # A word that is cut in two is no longer known for a credential.
            head = head.rpartition(b"\n")[0]
            tail = b"\n...\n" + tail.partition(b"\n")[2]
        return (head + tail).decode(errors="replace")
