"""What `generate` and the daemon say to each other over a Unix socket, and how.

    client                                        daemon
    HELLO {version, do: weave, app, spent}  ->
                                            <-    TERMS {settings, seconds}
    SOURCE {name}, DATA bytes..., SOURCE ...  ->
    END                                     ->
                                            <-    WARNING {text}..., OUTPUT bytes...
                                            <-    DONE {bytes, references}

FAULT may take the place of anything that the daemon says, and ends it. `do: ping` is answered with TERMS, and no more.

A frame is one byte of kind, four of length (big endian) and the payload. A message longer than a frame goes in several,
all but the last of which have the bit MORE in their kind. HELLO and FAULT are the same in every version; all else holds
between a daemon and a client of one version, and others refuse each other.
"""

import _socket
import json
import select
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import __version__, errors
from secretweave.errors import ConfigError, Faults, SecretweaveError, Where

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO, TERMS, SOURCE, DATA, END, WARNING, OUTPUT, DONE, FAULT = range(1, 10)
MORE = 0x80
HEAD = struct.Struct(">BI")
FRAME_MAX = 1 << 20
MESSAGE_MAX = 64 << 20
"""Of a message in several frames: a report of very many faults."""
PIECE = 64 << 10
"""So much is taken from a socket at a time, and put into a frame of a stream."""
POLL_MAX = 1 << 30
"""Milliseconds; a C int has room for twice as many."""
SO_PEERCRED = 17
CREDENTIALS = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid. https://man7.org/linux/man-pages/man7/unix.7.html"""
INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""


class Gone(Exception):
    """The other side is no more there."""


class Late(Exception):
    """The other side did not do its part in time."""


class Message(NamedTuple):
    kind: int
    payload: bytes


class Channel:
    """One connection. *ends*: until when it may wait, on time.monotonic's clock; whoever holds it may set it anew."""

    def __init__(self, connection: _socket.socket, ends: float) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._read = bytearray()
        self.ends = ends

    def close(self) -> None:
        self._connection.close()

    def peer(self) -> int:
        """The uid of the process at the other end, as the kernel knows it."""
        size = CREDENTIALS.size
        uid: int = CREDENTIALS.unpack(self._connection.getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, size))[1]
        return uid

    def send(self, kind: int, payload: bytes = b"", *, heed: "Callable[[], None] | None" = None) -> None:
        """*heed* is called when the other side says something before all is sent.

        Raises Gone, Late, or what *heed* raises.
        """
        for start in range(0, len(payload) or 1, FRAME_MAX):
            piece = payload[start : start + FRAME_MAX]
            more = MORE if start + FRAME_MAX < len(payload) else 0
            self._write(HEAD.pack(kind | more, len(piece)) + piece, heed)

    def receive(self, longest: int = FRAME_MAX) -> Message:
        """The next message. Raises Gone, Late, or SecretweaveError for what is none."""
        payload = b""
        while True:
            self._await(HEAD.size)
            kind, length = HEAD.unpack_from(self._read)
            if not HELLO <= kind & ~MORE <= FAULT or length > FRAME_MAX or len(payload) + length > longest:
                raise malformed()
            self._await(HEAD.size + length)
            payload += self._read[HEAD.size : HEAD.size + length]
            del self._read[: HEAD.size + length]
            if not kind & MORE:
                return Message(kind, payload)

    def has_more(self) -> bool:
        """Has the other side said something, or ended?"""
        return bool(self._read) or bool(self._ready(reading=True, seconds=0))

    def _await(self, size: int) -> None:
        while len(self._read) < size:
            try:
                data = self._connection.recv(max(PIECE, size - len(self._read)))
            except BlockingIOError:
                if not self._ready(reading=True, seconds=self.ends - time.monotonic()):
                    raise Late from None
                continue
            except OSError:
                raise Gone from None
            if not data:
                raise Gone
            self._read += data

    def _write(self, data: bytes, heed: "Callable[[], None] | None") -> None:
        rest = memoryview(data)
        while rest:
            if heed is not None and self.has_more():
                heed()
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                if not self._ready(reading=heed is not None, writing=True, seconds=self.ends - time.monotonic()):
                    raise Late from None
            except OSError:
                raise Gone from None

    def _ready(self, *, reading: bool, seconds: float, writing: bool = False) -> bool:
        # Not select(): a daemon may have more open files than that can name.
        poll = select.poll()
        poll.register(self._connection, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        return bool(poll.poll(min(max(seconds, 0) * 1000, POLL_MAX)))


def packed(value: Any) -> bytes:
    # Names of files need not be UTF-8: what is not becomes an escape, and comes back as it was.
    return json.dumps(value).encode()


def unpacked(payload: bytes) -> dict[str, Any]:
    """Raises SecretweaveError: it is no JSON object."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise malformed() from None
    if not isinstance(value, dict):
        raise malformed()
    return value


def check_version(said: dict[str, Any]) -> None:
    """Raises ConfigError: the other side is of another version."""
    version = said.get("version")
    if version != __version__:
        other = version if isinstance(version, str) and version.isprintable() and len(version) < 100 else "unknown"
        raise ConfigError(
            f"this is secretweave {__version__}, but what is at the other end of the daemon's socket is {other}",
            why="the sidecar's two containers must be of one image",
            fix="give both containers the same image, and restart the Pod",
        )


def text_of(payload: bytes, key: str) -> str:
    """The one text that a message holds. Raises SecretweaveError."""
    text = unpacked(payload).get(key)
    if not isinstance(text, str):
        raise malformed()
    return text


def malformed() -> SecretweaveError:
    return SecretweaveError(
        "what came over the daemon's socket is not what secretweave says there",
        fix="look after what else uses the socket; else report it: this is a defect",
    )


def crashed(name: str) -> SecretweaveError:
    """What stands for an error in the daemon that is no fault of its user; *name*: of its class."""
    error = SecretweaveError(
        f"internal error of the daemon ({name})", fix="report it, with what the daemon's log tells"
    )
    error.exit_code = INTERNAL_ERROR
    return error


def fault_as_bytes(error: SecretweaveError) -> bytes:
    each = error.faults if isinstance(error, Faults) else (error,)
    payload = packed({"several": isinstance(error, Faults), "faults": [_fault(fault) for fault in each]})
    if len(payload) > MESSAGE_MAX:
        first = _fault(each[0]) | {"also": ()}
        payload = packed({"several": False, "faults": [first]})
    return payload


def fault_of(payload: bytes) -> SecretweaveError:
    """The fault that the daemon told; what is none is told as such."""
    try:
        said = unpacked(payload)
        faults = [_error(**fault) for fault in said["faults"]]
        return Faults(faults) if said["several"] else faults[0]
    except SecretweaveError as error:
        return error
    except (KeyError, IndexError, TypeError):
        return malformed()


def _fault(error: SecretweaveError) -> dict[str, Any]:
    # A store may have classes of its own; what they are is told by the tree in `errors`.
    name = next(cls.__name__ for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
    told = {"name": name, "what": error.what, "why": error.why, "fix": error.fix}
    return told | {"where": error.where, "also": error.also, "code": error.exit_code}


def _error(
    name: str, what: str, why: str, fix: str, where: list[Any], also: list[list[Any]], code: int
) -> SecretweaveError:
    cls = getattr(errors, name, None)
    if not isinstance(cls, type) or not issubclass(cls, SecretweaveError) or cls is Faults:
        raise TypeError
    if not all(isinstance(text, str) for text in (what, why, fix)) or not isinstance(code, int):
        raise TypeError
    error = cls(what, where=_where(where), why=why, fix=fix)
    error.also = tuple(map(_where, also))
    error.exit_code = code
    return error


def _where(fields: list[Any]) -> Where:
    where = Where(*fields)
    if [type(field) for field in where] != [type(field) for field in Where()]:
        raise TypeError
    return where
