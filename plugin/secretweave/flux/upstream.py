"""Fetches the artifact of a Flux source, as `status.artifact` tells it, and unpacks what has the right digest.

Like Flux's own fetcher (https://github.com/fluxcd/pkg/blob/http/fetch/v0.25.0/http/fetch/archive_fetcher.go) it sends
no credentials, and takes proxies from the environment. Unlike it, it follows a redirect on the same server alone.
"""

import hashlib
import io
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from secretweave import __version__
from secretweave.errors import InputError, PolicyError, SecretweaveError
from secretweave.flux.settings import Artifacts
from secretweave.flux.unpack import unpack

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DIGESTS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""By their names, as https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests has them, with
their length in hex digits."""
IDLE_SECONDS = 15.0
"""A server that says nothing for so long is asked again."""
PAUSE_SECONDS, PAUSE_MAX = 0.25, 5.0
"""Before the second attempt; then twice as long each time."""
ATTEMPTS = 5
"""Within some seconds: what lasts longer is for whoever asked to try again, and holds no worker meanwhile."""
REDIRECTS_MAX = 3
MOVED = frozenset({301, 302, 303, 307, 308})
PIECE = 64 << 10


class Gone(InputError):
    """The artifact is not there any more: the source has a newer one, which its status tells soon."""


class _Again(Exception):
    """What another attempt may mend; *why*: as the error tells it when the time is over."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""

    @property
    def server(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def fetch(url: str, digest: str, size: int | None, folder: str, limits: Artifacts, deadline: float) -> None:
    """Unpacks the archive at *url* into the *folder*, which is made if it is not there, and is empty.

    *digest*: `sha256:HEX`, or sha384 or sha512; *size*: in bytes, where the status tells it; *deadline*: on
    time.monotonic's clock, for all attempts. Nothing is unpacked, and no file is in the folder, until the digest was
    found right. Raises Gone, InputError (no answer; another content; what `unpack` says), PolicyError,
    SecretweaveError (no room).
    """
    from tempfile import TemporaryFile

    address = _address(url)
    name, hexadecimal = _digest(digest)
    if size is not None and size > limits.archive_bytes:
        raise _too_large(limits)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        spool = TemporaryFile(dir=folder)  # noqa: SIM115 - it is closed below, where its errors are no others'
    except OSError as error:
        raise _no_room(error) from None
    with spool:
        pause, attempt = PAUSE_SECONDS, 0
        while True:
            attempt += 1
            hashed = hashlib.new(name)
            spool.seek(0)
            spool.truncate()
            try:
                length = _attempt(address, spool, hashed.update, limits, deadline)
                break
            except _Again as error:
                if attempt >= ATTEMPTS or time.monotonic() + pause >= deadline:
                    raise InputError(
                        f"the source's artifact cannot be fetched from {address.server}",
                        why=error.why,
                        fix="see whether the source's controller runs, and whether a NetworkPolicy lets us reach it",
                    ) from None
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX)
        if size is not None and length != size:
            raise _another(f"it has {length:,} bytes, and the source's status says {size:,}")
        if hashed.hexdigest() != hexadecimal:
            raise _another("its digest is not the one that the source's status tells")
        spool.seek(0)
        unpack(spool, folder, limits)


def _address(url: str) -> _Address:
    """Raises PolicyError: no address of a web server, or one with a login."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _unusable("it is malformed") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _unusable("it holds a character that no address may hold")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _unusable("it is none of http or https")
    if "@" in parts.netloc:
        raise _unusable("it holds a login")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Address(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), target)


def _unusable(why: str) -> PolicyError:
    return PolicyError(
        "the address of the source's artifact is not one that may be asked",
        why=why,
        fix="let the source's controller write an http or https address to status.artifact.url",
    )


def _digest(text: str) -> tuple[str, str]:
    """The name of the algorithm, and the hex digits."""
    # Flux takes one without a name for sha256's.
    name, _, digits = text.rpartition(":")
    name = name or "sha256"
    if len(digits) != DIGESTS.get(name) or not set(digits) <= set("0123456789abcdef"):
        raise InputError(
            "the digest of the source's artifact is missing, malformed, or of an algorithm that is not known here",
            why=f"known are {', '.join(DIGESTS)}",
            fix="let source-controller run with --artifact-digest-algo=sha256, which is its default",
        )
    return name, digits


def _attempt(
    address: _Address, spool: BinaryIO, update: Callable[[bytes], object], limits: Artifacts, deadline: float
) -> int:
    """The length of what was fetched, in bytes. Raises _Again."""
    for _ in range(REDIRECTS_MAX + 1):
        connection, target, headers = _connection(address, deadline)
        with closing(connection):
            answer = _answer(connection, target, headers)
            if answer.status in MOVED:
                address = _moved(address, answer.getheader("Location", ""))
                continue
            _judge(answer)
            # Of what is not sent in chunks, how much is to come.
            if answer.length is not None and answer.length > limits.archive_bytes:
                raise _too_large(limits)
            length = 0
            for piece in _pieces(answer):
                length += len(piece)
                if length > limits.archive_bytes:
                    raise _too_large(limits)
                update(piece)
                try:
                    spool.write(piece)
                except OSError as error:
                    raise _no_room(error) from None
            return length
    raise _moved_away("it leads from one address to the next without an end")


def _answer(connection: HTTPConnection, target: str, headers: Mapping[str, str]) -> HTTPResponse:
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse()
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            "the server of the source's artifact is not trusted",
            why=error.verify_message,
            fix="add its authority to the certificates of the controller's container (SSL_CERT_FILE)",
        ) from None
    except (OSError, HTTPException) as error:
        raise _Again(_told(error)) from None


def _judge(answer: HTTPResponse) -> None:
    """Raises what a status means that is not 200."""
    if answer.status in {404, 410}:
        raise Gone(
            "the source's artifact is gone",
            why="the source has a newer one, or its controller has just started",
            fix="wait: it is asked again; if that lasts, `flux reconcile source` makes it anew",
        )
    if answer.status == 429 or answer.status >= 500:
        raise _Again(f"the server answers with status {answer.status}")
    if answer.status != 200:
        raise InputError(
            f"the server of the source's artifact refuses it with status {answer.status}",
            fix="see what stands between the controller and the source's controller: a proxy, a service mesh",
        )


def _pieces(answer: HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read(PIECE):
            yield piece
    except (OSError, HTTPException) as error:
        raise _Again(_told(error)) from None
    if answer.length:
        raise _Again("the connection broke off")


def _told(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "the connection broke off, or what answers does not speak HTTP"


def _moved(address: _Address, location: str) -> _Address:
    """Where a redirect leads. Raises PolicyError: to another server."""
    from urllib.parse import urljoin

    there = _address(urljoin(f"{address.scheme}://{address.server}:{address.port}{address.target}", location))
    if there[:3] != address[:3]:
        raise _moved_away("it leads to another server")
    return there


def _moved_away(why: str) -> PolicyError:
    return PolicyError(
        "a redirect of the source's artifact is not followed",
        why=why,
        fix="let status.artifact.url of the source name the server that has it",
    )


class _Timed(io.RawIOBase):
    """A connection's bytes until a deadline, however slowly they trickle: a timeout is of each read alone."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._raw = raw
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        self._connection.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, deadline))


def _left(deadline: float) -> float:
    """Seconds that one step may take. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, IDLE_SECONDS)


def _connection(address: _Address, deadline: float) -> tuple[HTTPConnection, str, Mapping[str, str]]:
    """What is not yet connected; the target and the headers of a request, as the server or a proxy takes them."""
    try:
        seconds = _left(deadline)
    except TimeoutError as error:
        raise _Again(_told(error)) from None
    headers = {"User-Agent": f"secretweave/{__version__}"}
    target, (host, port) = address.target, (address.host, address.port)
    proxy = _proxy(address)
    if proxy is not None:
        host, port = proxy.host, proxy.port
        if address.scheme == "http":
            target = f"http://{address.server}:{address.port}{target}"
            headers |= proxy.headers
    connection = (
        HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
        if address.scheme == "https"
        else HTTPConnection(host, port, timeout=seconds)
    )
    if proxy is not None and address.scheme == "https":
        connection.set_tunnel(address.host, address.port, proxy.headers)
    connection.response_class = partial(_Response, deadline=deadline)  # type: ignore[assignment]  # called, no more
    return connection, target, headers


class _Proxy(NamedTuple):
    host: str
    port: int
    headers: dict[str, str]


def _proxy(address: _Address) -> _Proxy | None:
    """As HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; never for this machine, as in Go. Raises InputError: unusable."""
    from base64 import b64encode
    from urllib.parse import unquote, urlsplit
    from urllib.request import getproxies_environment, proxy_bypass

    url = getproxies_environment().get(address.scheme)
    is_local = address.host in {"localhost", "::1"} or address.host.startswith("127.")
    if not url or is_local or proxy_bypass(address.host):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http":
        raise InputError(
            "the proxy to the source's artifact has no usable address",
            fix=f"correct {address.scheme.upper()}_PROXY in the controller's environment to http://HOST:PORT; "
            "or add .svc and the cluster's domain to NO_PROXY",
        )
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    return _Proxy(host, port, {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"} if login != b":" else {})


def _too_large(limits: Artifacts) -> InputError:
    return InputError(
        f"the source's artifact has more than {limits.archive_bytes:,} bytes",
        fix="leave out of the artifact what the app does not need, with .sourceignore or the source's spec.ignore; "
        "or ask the platform to raise spec.flux.artifacts.archiveBytes",
    )


def _another(why: str) -> InputError:
    return InputError(
        "what was fetched is not the source's artifact",
        why=why,
        fix="try again; if that lasts, see what answers in the place of the source's controller",
    )


def _no_room(error: OSError) -> SecretweaveError:
    return SecretweaveError(
        f"the source's artifact cannot be kept: {error.strerror}",
        fix="give the controller's temporary folder more room",
    )
