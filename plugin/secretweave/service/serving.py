"""A small HTTP server for what only GET and HEAD may ask: archives, probes, metrics.

Each connection is one request with one answer. Who dawdles is cut off, and no more than so many are served at a time:
whatever reaches the port cannot keep the process from its work, and who has not asked yet makes room for a newer one,
so that idle connections keep no probe out.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, BinaryIO, NamedTuple

from secretweave.errors import ConfigError

CONNECTIONS_MAX = 64
HEADER_SECONDS = 5.0
"""For the whole of the request."""
PIECE_SECONDS = 30.0
"""A peer that takes nothing for so long is cut off."""
ANSWER_SECONDS = 600.0
PIECE_BYTES = 256 << 10


class Answer(NamedTuple):
    status: int
    body: "bytes | BinaryIO" = b""
    size: int | None = None
    """Of a body that is a file."""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain; charset=utf-8"),)


Answering = Callable[[str, Mapping[str, str]], Answer]
"""(path without query, headers by lower-case name) -> the answer"""


class Serving:
    """A server that runs. `port` is the one that it has, where it was to choose."""

    def __init__(self, address: str, setting: str, answering: Answering) -> None:
        """Raises ConfigError: *address*, which *setting* says, cannot be served at."""
        import threading

        host, port = parsed(address, setting)
        try:
            self._server = _server(host, port, answering)
        except OSError as error:
            raise ConfigError(
                f"nothing can be served at {setting}", why=error.strerror or "", fix="name an address that is free"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def parsed(address: str, setting: str) -> tuple[str, int]:
    """Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise ConfigError(f"{setting} is no address", fix="write HOST:PORT, or :PORT for every address")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _server(host: str, port: int, answering: Answering) -> Any:
    """Raises OSError."""
    import socket
    import threading

    lock = threading.Lock()
    # Until when each connection may put its question, the oldest first, and take its answer.
    silent: dict[socket.socket, float] = {}
    asked: dict[socket.socket, float] = {}

    class Handler(BaseHTTPRequestHandler):
        timeout = PIECE_SECONDS
        server_version, sys_version = "secretweave", ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            with lock:
                silent.pop(self.connection, None)
                asked[self.connection] = time.monotonic() + ANSWER_SECONDS
            path = self.path.partition("?")[0]
            answer = answering(path, {key.lower(): value for key, value in self.headers.items()})
            body = answer.body
            try:
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                size = answer.size if answer.size is not None else len(body) if isinstance(body, bytes) else 0
                if answer.status != HTTPStatus.NOT_MODIFIED:
                    self.send_header("Content-Length", str(size))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                if not with_body:
                    return
                if isinstance(body, bytes):
                    self.wfile.write(body)
                else:
                    while piece := body.read(PIECE_BYTES):
                        self.wfile.write(piece)
            finally:
                if not isinstance(body, bytes):
                    body.close()

        def log_message(self, *_: Any) -> None:
            """A line for each probe would hide what matters."""

    class Server(ThreadingMixIn, TCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = CONNECTIONS_MAX
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - as the library calls it
            """Without room it is closed."""
            with lock:
                count = len(silent) + len(asked)
                if count >= CONNECTIONS_MAX:
                    # Its thread takes a moment to end, so there may be more; not without end.
                    if not silent or count >= 2 * CONNECTIONS_MAX:
                        return False
                    oldest = next(iter(silent))
                    asked[oldest] = silent.pop(oldest)
                    _cut(oldest)
                silent[request] = time.monotonic() + HEADER_SECONDS
            return True

        def shutdown_request(self, request: Any) -> None:
            with lock:
                silent.pop(request, None)
                asked.pop(request, None)
            super().shutdown_request(request)

        def service_actions(self) -> None:
            now = time.monotonic()
            with lock:
                for each, until in (*silent.items(), *asked.items()):
                    if now > until:
                        _cut(each)

        def handle_error(self, *_: Any) -> None:
            """Who asked went away."""

    return Server((host, port), Handler)


def _cut(connection: Any) -> None:
    """Whoever waits for it is told that it has ended."""
    import socket

    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
