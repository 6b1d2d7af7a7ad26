"""`secretweave argocd serve`: weaves what `generate` hands it, with stores that stay open from one request to the next.

A thread for each connection. What waits for its source to be rendered costs a thread and nothing else; so many as
`concurrency` says read and weave at a time. A request is judged by the configuration as it is when it begins; while
that is broken every request fails with its faults, for what it would say now may be a restriction.

Who holds a connection is taken at its word about the project: the socket is open to this process's own user alone, and
of what runs as that user only `generate` can open it. What `generate` starts for a tenant cannot make a socket at all
(sandbox.py), and `generate` takes the project from variables that only Argo CD sets (app.py).
"""

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO, cast

from secretweave import __version__, memory, reloading, report, stores
from secretweave.argocd import weaving
from secretweave.argocd.app import App
from secretweave.argocd.daemon import wire
from secretweave.argocd.daemon.watch import Metrics, Watch
from secretweave.config import Config
from secretweave.errors import ConfigError, InputError, SecretweaveError
from secretweave.forms import NAMESPACE, PROJECT
from secretweave.outputs import Outside
from secretweave.reading import Readable
from secretweave.service.kept import Kept
from secretweave.service.serving import Serving
from secretweave.service.watch import Asker, outcome_of

CONNECTIONS_MAX = 512
"""Further ones wait in the kernel."""
HELLO_SECONDS = 10.0
OUTPUT_SECONDS = 30.0
"""The longest that a client may keep one piece of the output waiting."""
OUTPUT_PIECE = 256 << 10
SPENT_MAX = 1e6
"""Of a request's seconds before it came here."""
TICK_SECONDS = 1.0
STILL_SECONDS = 15.0
"""Without a tick for so long, the daemon is not well."""

Load = reloading.Load


def serve(load: Load, given: str | None, path: str, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Serves at the socket *path* until SIGTERM or SIGINT, and then what it has begun. Raises SecretweaveError.

    *load*: reads the configuration; *given*: its path, if the command line names one; *say* takes the log's lines.
    """
    import threading

    memory.protect()
    daemon = Daemon(load, given, environ, say)
    daemon.listen(path)
    # The usual one prints a message, and that may quote what must not be shown.
    threading.excepthook = lambda crash: daemon.watch.crashed(crash.exc_value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    daemon.run()


class Daemon:
    def __init__(self, load: Load, given: str | None, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Raises ConfigError: the metrics cannot be served."""
        import threading

        self._environ = environ
        self._configuration = reloading.Configuration(load, lambda: reloading.stamp(given, environ), self._adopt)
        config = self._configuration.last
        settings = config.settings.argocd.daemon
        metrics = Metrics() if settings.metrics else None
        self.watch = Watch(say, metrics)
        self._kept = Kept(self.watch, settings.clients, settings.client_seconds)
        self._room = _Room(settings.concurrency)
        self._changed = threading.Condition()
        self._connections = 0
        self._listener: socket.socket | None = None
        self._own: tuple[str, int] = "", 0
        """The socket's path, and the number of its inode."""
        self._wake, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ticked = time.monotonic()
        self._serving: Serving | None = None
        if metrics:
            setting = "spec.argocd.daemon.metrics"
            self._serving = Serving(settings.metrics, setting, lambda path, _: metrics.answer(path, self._trouble))
        self._note_faults()
        stores.preload(dict.fromkeys(store.type for store in config.stores))

    def _note_faults(self) -> None:
        try:
            self._configuration.current()
        except SecretweaveError as error:
            self._adopt(error)

    def listen(self, path: str) -> None:
        """Raises ConfigError: the socket cannot be made there, or is another daemon's."""
        _prepare(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(path)
            listener.listen(CONNECTIONS_MAX)
            self._own = path, os.stat(path).st_ino
        except OSError as error:
            listener.close()
            raise ConfigError(
                "the daemon's socket cannot be made",
                why=error.strerror or str(error),
                fix="correct SECRETWEAVE_SOCKET, or the mount of its folder",
            ) from None
        finally:
            os.umask(before)
        listener.setblocking(False)
        self._listener = listener

    def stop(self) -> None:
        """Accepts no more; from any thread, and from a signal's handler."""
        with suppress(OSError):
            os.write(self._waking, b"!")

    def run(self) -> None:
        """Until it is stopped and has served what it had begun."""
        import select

        assert self._listener is not None, "it listens first"
        self.watch.note("start", version=__version__)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            self._tick()
            poll.register(self._listener, 0 if self._connections >= CONNECTIONS_MAX else select.POLLIN)
            ready = {handle for handle, _ in poll.poll(TICK_SECONDS * 1000)}
            if self._wake in ready:
                break
            if self._listener.fileno() in ready:
                self._accept()
        self._drain()

    def _adopt(self, config: Config | SecretweaveError) -> None:
        """The configuration is another one: what was opened by the old one is of no more use."""
        if isinstance(config, SecretweaveError):
            self.watch.note("configuration broken", faults=report.faults(config).splitlines())
            return
        settings = config.settings.argocd.daemon
        self._kept.resize(settings.clients, settings.client_seconds)
        self._kept.clear()
        self.watch.note("configuration")
        stores.preload(dict.fromkeys(store.type for store in config.stores))

    def _tick(self) -> None:
        self._ticked = time.monotonic()
        self._kept.tidy()
        with suppress(SecretweaveError):
            self._configuration.current()

    def _trouble(self) -> str:
        if time.monotonic() > self._ticked + STILL_SECONDS:
            return "the daemon hangs\n"
        if self._listener is None:
            return "the daemon ends\n"
        try:
            self._configuration.current()
        except SecretweaveError:
            return "the configuration is broken: see the log, or `secretweave check`\n"
        return ""

    def _accept(self) -> None:
        """Takes all that wait."""
        import threading

        assert self._listener is not None
        while self._connections < CONNECTIONS_MAX:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Too many files are open, most likely: that passes.
                self.watch.note("accept failed", why=error.strerror)
                time.sleep(0.1)
                return
            with self._changed:
                self._connections += 1
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:
                connection.close()
                self._left()
                self.watch.note("accept failed", why="no more threads")

    def _drain(self) -> None:
        listener, self._listener = self._listener, None
        assert listener is not None
        path, inode = self._own
        # Whoever comes from now on works alone; then those who had come before.
        with suppress(OSError):
            if os.stat(path).st_ino == inode:
                os.unlink(path)
        self._listener = listener
        self._accept()
        self._listener = None
        listener.close()
        self.watch.note("stop", requests=self._connections)
        seconds = self._configuration.last.settings.argocd.daemon.drain
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, seconds)
        self._kept.close()
        if self._serving:
            self._serving.end()
        self.watch.note("end", requests=self._connections)

    def _left(self) -> None:
        with self._changed:
            self._connections -= 1
            self._changed.notify_all()

    def _serve(self, connection: socket.socket) -> None:
        channel = wire.Channel(connection, time.monotonic() + HELLO_SECONDS)
        try:
            fault = self._guarded(channel)
            if fault is not None:
                channel.ends = time.monotonic() + OUTPUT_SECONDS
                with suppress(wire.Gone, wire.Late):
                    channel.send(wire.FAULT, wire.fault_as_bytes(fault))
        finally:
            channel.close()
            self._left()

    def _guarded(self, channel: wire.Channel) -> SecretweaveError | None:
        """Serves it; gives what is to be told."""
        try:
            if channel.peer() != os.geteuid():
                self.watch.note("refused", uid=channel.peer())
                return SecretweaveError("the daemon serves its own user alone", fix="run both as one user")
            self._converse(channel)
        except SecretweaveError as error:
            return error
        except (wire.Gone, wire.Late):
            return None
        except BaseException as error:  # noqa: BLE001 - one request's end must not be the daemon's
            self.watch.crashed(error)
            return wire.crashed(type(error).__name__)
        return None

    def _converse(self, channel: wire.Channel) -> None:
        hello = channel.receive()
        if hello.kind != wire.HELLO:
            raise wire.malformed()
        said = wire.unpacked(hello.payload)
        wire.check_version(said)
        config = self._configuration.current()
        settings, seconds = config.settings.argocd, config.settings.limits.deadline
        terms = {"version": __version__, "settings": _plain(settings), "seconds": seconds}
        if said.get("do") == "ping":
            channel.send(wire.TERMS, wire.packed(terms))
            return
        app, spent = _app(said.get("app")), said.get("spent")
        if said.get("do") != "weave" or not isinstance(spent, float) or not 0 <= spent < SPENT_MAX:
            raise wire.malformed()
        begun = time.monotonic()
        channel.ends = begun + seconds - spent
        self.watch.begun()
        outcome, references = "internal error", 0
        try:
            channel.send(wire.TERMS, wire.packed(terms))
            references = self._weave(channel, app, config)
            outcome = "ok"
        except SecretweaveError as error:
            outcome = outcome_of(error)
            raise
        except (wire.Gone, wire.Late):
            outcome = "gone"
            raise
        finally:
            self.watch.ended(app, outcome, time.monotonic() - begun, references)

    def _weave(self, channel: wire.Channel, app: App, config: Config) -> int:
        """Gives the number of references."""
        deadline, seconds = channel.ends, config.settings.limits.deadline

        def warn(text: str) -> None:
            channel.send(wire.WARNING, wire.packed({"text": text}))

        stream = _Stream(channel, seconds)
        # Until the source is rendered, which may take long, the request needs no room.
        stream.begin()
        if not self._room.enter(app.project, max(deadline - time.monotonic(), 0)):
            raise SecretweaveError(
                f"the daemon had no time for it before the run's deadline of {seconds:g} s was over",
                why="it serves as many other Applications at a time as it may",
                fix="raise spec.argocd.daemon.concurrency, or let Argo CD generate less at a time",
            )
        try:
            output = _Output(channel)
            keeping = self._kept.keeping(Asker(app.project, app.name), config)
            outside = Outside(self._environ, deadline, warn, keeping)
            found = weaving.weave(app, config, stream.sources(), cast("BinaryIO", output), outside)
            output.flush()
        finally:
            self._room.leave(app.project)
        channel.send(wire.DONE, wire.packed({"bytes": output.size, "references": len(found.uses)}))
        return len(found.uses)


class _Room:
    """The places of requests that read and weave. One project never has all of them, whatever its charts cost."""

    def __init__(self, places: int) -> None:
        import threading

        self._free = places
        self._most = max(places * 3 // 4, 1)
        self._held: dict[str, int] = {}
        self._changed = threading.Condition()

    def enter(self, project: str, seconds: float) -> bool:
        """False: no place came free in that time."""
        with self._changed:
            fits = self._changed.wait_for(
                lambda: self._free > 0 and self._held.get(project, 0) < self._most, timeout=seconds
            )
            if fits:
                self._free -= 1
                self._held[project] = self._held.get(project, 0) + 1
            return fits

    def leave(self, project: str) -> None:
        with self._changed:
            self._free += 1
            self._held[project] -= 1
            if not self._held[project]:
                del self._held[project]
            self._changed.notify_all()


class _Stream:
    """The sources, as they come over a connection."""

    def __init__(self, channel: wire.Channel, seconds: float) -> None:
        self._channel = channel
        self._seconds = seconds
        self._next: wire.Message | None = None
        self._data = b""

    def begin(self) -> None:
        """Waits for the first message. Raises InputError: the deadline is over."""
        self._next = self._message()

    def sources(self) -> Iterator[tuple[str, Readable]]:
        while True:
            message = self._message()
            if message.kind == wire.END:
                return
            if message.kind != wire.SOURCE:
                raise wire.malformed()
            yield wire.text_of(message.payload, "name"), self

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end of the source."""
        while not self._data:
            message = self._message()
            if message.kind != wire.DATA:
                self._next = message
                return b""
            self._data = message.payload
        data, self._data = self._data[:size], self._data[size:]
        return data

    def _message(self) -> wire.Message:
        message, self._next = self._next, None
        try:
            return message or self._channel.receive()
        except wire.Late:
            raise InputError(
                f"the input had not ended when the run's deadline of {self._seconds:g} s was over",
                why="the program before this one is slow or hangs",
                fix="make the source smaller, or raise limits.deadline in the configuration",
            ) from None


class _Output:
    """What a run writes to: it goes to the client in pieces."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel = channel
        self._waiting = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= OUTPUT_PIECE:
            self.flush()

    def writelines(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def flush(self) -> None:
        for start in range(0, len(self._waiting), OUTPUT_PIECE):
            self._channel.ends = time.monotonic() + OUTPUT_SECONDS
            self._channel.send(wire.OUTPUT, bytes(self._waiting[start : start + OUTPUT_PIECE]))
        self.size += len(self._waiting)
        self._waiting.clear()


def _prepare(path: str) -> None:
    """Readies the socket's folder, and takes away what a daemon before this one has left. Raises ConfigError."""
    folder = os.path.dirname(path) or "."
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        status = os.stat(folder)
    except OSError as error:
        raise ConfigError(
            "the folder of the daemon's socket cannot be made",
            why=error.strerror or "",
            fix="mount a folder there that this user may write to, or correct SECRETWEAVE_SOCKET",
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigError(
            "the folder of the daemon's socket is not this user's alone",
            why="it belongs to another user, or others may write to it",
            fix="let the daemon make a folder of its own: name one in SECRETWEAVE_SOCKET that is not there yet",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with suppress(OSError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
            return
        except OSError:
            # Its backlog is full, or this is no path for a socket, which binding it tells.
            return
    raise ConfigError("another daemon listens at the socket", fix="end that one, or set SECRETWEAVE_SOCKET")


def _app(fields: object) -> App:
    """The Application that a client names, held to what app.py holds Argo CD to. Raises SecretweaveError."""
    try:
        app = App(**fields)  # type: ignore[arg-type]  # whatever it is
        texts = (app.name, app.project, app.source_path, app.kube_version, *app.api_versions)
        fits = all(isinstance(text, str) for text in texts) and isinstance(app.api_versions, list)
        fits = fits and bool(app.name and PROJECT.fullmatch(app.project))
        fits = fits and (app.namespace is None or bool(NAMESPACE.fullmatch(app.namespace)))
    except TypeError:
        raise wire.malformed() from None
    if not fits:
        raise wire.malformed()
    return app._replace(api_versions=tuple(app.api_versions))


def _plain(settings: object) -> object:
    """Settings as JSON has them."""
    if isinstance(settings, tuple) and hasattr(settings, "_asdict"):
        return {name: _plain(value) for name, value in settings._asdict().items()}
    return settings
