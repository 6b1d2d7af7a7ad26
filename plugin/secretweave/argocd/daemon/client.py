"""`generate`'s side of the daemon: hands it the rendered stream, and takes the woven one."""

# Not `socket`, which makes enumerations of all its constants: that alone takes a tenth of a small run.
import _socket
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

from secretweave import __version__
from secretweave.argocd.daemon import wire
from secretweave.argocd.settings import ArgoCD, Daemon, Helm, Kustomize
from secretweave.errors import SecretweaveError
from secretweave.reading import Readable

if TYPE_CHECKING:
    from secretweave.argocd.app import App

HANDSHAKE_SECONDS = 20.0
"""How long the daemon, which may be busy, may take for its first word."""
GRACE_SECONDS = 2.0
"""The daemon's own word about the deadline comes first."""
OUTPUT_SECONDS = 30.0
"""The longest pause within the output."""
PING_SECONDS = 5.0


class Terms(NamedTuple):
    """What the daemon's configuration says of what happens on this side of the socket."""

    settings: ArgoCD
    seconds: float
    """limits.deadline: the longest that a run may take until its output begins."""


def connect(path: str, started: float) -> "Client | None":
    """The daemon that listens at *path*; None: none does. *started*: when the run began, on time.monotonic's clock.

    Raises SecretweaveError: the socket is there, and cannot be used.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    channel = wire.Channel(connection, time.monotonic() + HANDSHAKE_SECONDS)
    try:
        while True:
            try:
                connection.connect(path)
                break
            except BlockingIOError:
                # So many wait that the kernel takes no more.
                if time.monotonic() >= channel.ends:
                    raise
                time.sleep(0.02)
        stranger = channel.peer() not in {os.geteuid(), 0}
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        channel.close()
        return None
    except OSError as error:
        channel.close()
        raise SecretweaveError(
            "the daemon's socket cannot be used",
            why=error.strerror or "",
            fix="let both containers run as one user, or correct SECRETWEAVE_SOCKET",
        ) from None
    if stranger:
        channel.close()
        raise SecretweaveError(
            "what listens at the daemon's socket belongs to another user", fix="let both containers run as one user"
        )
    return Client(channel, started)


def ping(path: str, seconds: float = PING_SECONDS) -> None:
    """Asks the daemon whether all is well. Raises SecretweaveError: what its configuration lacks, or that none answers.

    For a probe, and for `doctor`.
    """
    client = connect(path, time.monotonic())
    if client is None:
        raise SecretweaveError("no daemon listens at the socket", fix="start `secretweave argocd serve`")
    client.ping(seconds)


class Client:
    def __init__(self, channel: wire.Channel, started: float) -> None:
        self._channel = channel
        self._started = started
        self._seconds = 0.0

    def begin(self, app: "App") -> Terms:
        """Says for which Application it is. Raises what is wrong with the configuration."""
        fields = dict(zip(app._fields, app, strict=True))
        terms = self._hello({"do": "weave", "app": fields, "spent": time.monotonic() - self._started})
        self._seconds = terms.seconds
        return terms

    def ping(self, seconds: float) -> None:
        self._channel.ends = time.monotonic() + seconds
        self._hello({"do": "ping"})
        self.close()

    def close(self) -> None:
        self._channel.close()

    def weave(self, sources: Iterable[tuple[str, Readable]], out: BinaryIO, warn: Callable[[str], None]) -> int:
        """Has the stream woven into *out*; gives the number of references.

        Raises the daemon's fault, before the first byte is written; SecretweaveError when the daemon ends in the midst
        of it; or what reading a source raised: then the daemon is left.
        """
        channel = self._channel
        channel.ends = self._started + self._seconds + GRACE_SECONDS
        try:
            self._send(sources, warn)
            # Now, while the daemon is at work: no value has come yet.
            from secretweave import memory

            memory.protect()
            return self._take(out, warn)
        except wire.Gone:
            _ended()
        except wire.Late:
            raise SecretweaveError(
                "the daemon did not answer in time",
                why="it is out of order, or the machine is overloaded",
                fix="look at the daemon's log; Argo CD tries again by itself",
            ) from None
        finally:
            channel.close()

    def _hello(self, request: dict[str, object]) -> Terms:
        try:
            return self._greeted(request)
        except BaseException:
            self.close()
            raise

    def _greeted(self, request: dict[str, object]) -> Terms:
        try:
            self._channel.send(wire.HELLO, wire.packed({"version": __version__} | request))
            said = wire.unpacked(self._next(wire.TERMS))
            wire.check_version(said)
            return _terms(said)
        except (KeyError, TypeError):
            raise wire.malformed() from None
        except wire.Gone:
            _ended()
        except wire.Late:
            raise SecretweaveError(
                "the daemon does not answer", why="it hangs, or is overloaded", fix="look at the daemon's log"
            ) from None

    def _send(self, sources: Iterable[tuple[str, Readable]], warn: Callable[[str], None]) -> None:
        channel = self._channel

        def heed() -> None:
            # Before it has the whole stream it has nothing to say but what is wrong.
            said = channel.receive(wire.MESSAGE_MAX)
            if said.kind != wire.WARNING:
                raise wire.fault_of(said.payload) if said.kind == wire.FAULT else wire.malformed()
            warn(wire.text_of(said.payload, "text"))

        try:
            for name, stream in sources:
                # Before it is announced: from then on it holds a place of the daemon's, and a chart may be slow.
                data = stream.read(wire.PIECE)
                channel.send(wire.SOURCE, wire.packed({"name": name}), heed=heed)
                while data:
                    channel.send(wire.DATA, data, heed=heed)
                    data = stream.read(wire.PIECE)
            channel.send(wire.END, heed=heed)
        except wire.Gone:
            # What it said before it left can still be read.
            while True:
                heed()

    def _take(self, out: BinaryIO, warn: Callable[[str], None]) -> int:
        channel, size = self._channel, 0
        while True:
            said = channel.receive(wire.MESSAGE_MAX)
            if said.kind == wire.OUTPUT:
                size += len(said.payload)
                out.write(said.payload)
                channel.ends = time.monotonic() + OUTPUT_SECONDS
            elif said.kind == wire.WARNING:
                warn(wire.text_of(said.payload, "text"))
            elif said.kind == wire.DONE:
                done = wire.unpacked(said.payload)
                references = done.get("references")
                if done.get("bytes") != size or not isinstance(references, int):
                    raise wire.malformed()
                out.flush()
                return references
            else:
                raise wire.fault_of(said.payload) if said.kind == wire.FAULT else wire.malformed()

    def _next(self, kind: int) -> bytes:
        said = self._channel.receive(wire.MESSAGE_MAX)
        if said.kind != kind:
            raise wire.fault_of(said.payload) if said.kind == wire.FAULT else wire.malformed()
        return said.payload


def _terms(said: dict[str, object]) -> Terms:
    settings, seconds = said["settings"], said["seconds"]
    if not isinstance(settings, dict) or not isinstance(seconds, float):
        raise TypeError
    helm = Helm(**settings["helm"])
    helm = helm._replace(repository_hosts=tuple(helm.repository_hosts))
    return Terms(ArgoCD(helm, Kustomize(**settings["kustomize"]), Daemon(**settings["daemon"])), seconds)


def _ended() -> NoReturn:
    raise SecretweaveError(
        "the daemon ended in the midst of it",
        why="it was stopped, or it was killed: perhaps for more memory than its container may have",
        fix="refresh: Argo CD tries again by itself; else look at the daemon's log",
    ) from None
