"""What the daemon tells of itself: a log of JSON lines, one for each read among them, and metrics for Prometheus.

    {"time": "2026-01-31T12:00:00.123Z", "event": "read", "project": "shop", "app": "web", "store": "vault",
     "ref": "app/db", "version": "3", "outcome": "ok"}

The outcome of a read is `ok`, `not found`, `denied`, `unavailable` or `error`. A read that several requests share has a
line for each. There is no value in a line, no key of a secret, and no text of an error of another program.

A label of a metric is never a project, an app or a ref: they come from tenants, and there is no end of them.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from secretweave.errors import ConfigError, Denied, NotFound, SecretweaveError, StoreError, Unavailable
from secretweave.model import Record
from secretweave.stores.base import Outcome, Wanted

if TYPE_CHECKING:
    from secretweave.argocd.app import App

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""The buckets of a request's duration; generate's own work on the source is in it."""
ASKING_SECONDS_MAX = 10
"""Of who asks for metrics, for the whole of the question."""


class Watch:
    """Many threads may tell it something."""

    def __init__(self, say: Callable[[str], None], metrics: "Metrics | None" = None) -> None:
        """*say* takes a line, with its end."""
        import threading

        self._say = say
        self._lock = threading.Lock()
        self._metrics = metrics

    def note(self, event: str, **fields: object) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = json.dumps({"time": stamp, "event": event} | fields) + "\n"
        # A log that nobody takes is no reason to fail a request.
        with self._lock, suppress(OSError, ValueError):
            self._say(line)

    def reading(self, app: "App", store: str, name: str) -> Callable[[Wanted, Outcome], None]:
        """What takes each read that a request of *app* makes of a store; *name*: as the metrics call that."""

        def told(wanted: Wanted, outcome: Outcome) -> None:
            version = outcome.version if isinstance(outcome, Record) else wanted.version or ""
            word = word_of(outcome)
            self.note(
                "read", project=app.project, app=app.name, store=store, ref=wanted.ref, version=version, outcome=word
            )
            if self._metrics:
                self._metrics.reads.labels(name, word).inc()

        return told

    def shared(self, store: str) -> None:
        """A read that waited for an equal one of another request."""
        if self._metrics:
            self._metrics.shares.labels(store).inc()

    def opened(self, project: str, store: str, name: str, error: BaseException | None) -> None:
        """A client was made, or could not be; *name*: of its store, as the metrics call that."""
        self.note("open", project=project, store=store, outcome=word_of(error))
        if self._metrics:
            self._metrics.opens.labels(name, word_of(error)).inc()

    def state(self, clients: int, down: Sequence[str]) -> None:
        """*down*: the stores that are left alone for a while, once for each client."""
        if self._metrics:
            self._metrics.clients.set(clients)
            self._metrics.is_down(Counter(down))

    def begun(self) -> None:
        if self._metrics:
            self._metrics.in_flight.inc()

    def ended(self, app: "App", outcome: str, seconds: float, references: int) -> None:
        """A request; *outcome*: `ok`, the class of its first fault, `internal error` or `gone`."""
        self.note(
            "request",
            project=app.project,
            app=app.name,
            outcome=outcome,
            references=references,
            seconds=round(seconds, 3),
        )
        if self._metrics:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(outcome).inc()
            self._metrics.seconds.observe(seconds)


class StoreMetrics:
    """What is counted of stores, by whoever keeps their clients."""

    def __init__(self, library: Any, own: Any, shared: str) -> None:
        """*library*: prometheus_client; *own*: the registry; *shared*: what a read that is shared is, there."""
        count, gauge = library.Counter, library.Gauge
        self.reads = count(
            "secretweave_reads", "Secrets read, by store and outcome.", ["store", "outcome"], registry=own
        )
        self.shares = count("secretweave_reads_shared", shared, ["store"], registry=own)
        self.opens = count(
            "secretweave_store_opens", "Store clients made, each with its login.", ["store", "outcome"], registry=own
        )
        self.clients = gauge("secretweave_store_clients", "Store clients kept.", registry=own)
        self._down = gauge(
            "secretweave_stores_down", "Clients whose store is left alone, since it fails.", ["store"], registry=own
        )
        self._known: set[str] = set()

    def is_down(self, clients: "Counter[str]") -> None:
        self._known |= set(clients)
        for store in self._known:
            self._down.labels(store).set(clients[store])


class Metrics(StoreMetrics):
    """Of one daemon, in a registry of its own."""

    def __init__(self) -> None:
        """Raises ConfigError: the library is not installed."""
        try:
            import prometheus_client as library
        except ImportError:
            raise ConfigError(
                "spec.argocd.daemon.metrics is set, but prometheus-client is not installed",
                fix="install secretweave[argocd], or leave the setting out",
            ) from None
        self._library = library
        self._registry = own = library.CollectorRegistry()
        count, gauge = library.Counter, library.Gauge
        self.requests = count("secretweave_requests", "Requests by how they ended.", ["outcome"], registry=own)
        self.seconds = library.Histogram(
            "secretweave_request_seconds", "How long requests took.", registry=own, buckets=SECONDS
        )
        self.in_flight = gauge("secretweave_requests_in_flight", "Requests under way.", registry=own)
        super().__init__(library, own, "Reads that waited for an equal one under way.")

    def start(self, address: str, trouble: Callable[[], str]) -> "Callable[[], None]":
        """Serves /metrics and /healthz at HOST:PORT; gives what ends it. Raises ConfigError.

        *trouble*: why the daemon is not well; empty: it is.
        """
        import socket
        import threading
        from socketserver import ThreadingMixIn
        from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

        told = self._library.make_wsgi_app(self._registry)

        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return told(environ, start_response)
            ill = trouble() if path == "/healthz" else "nothing is here\n"
            status = "404 Not Found" if path != "/healthz" else "503 Service Unavailable" if ill else "200 OK"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [(ill or "ok\n").encode()]

        class Handler(WSGIRequestHandler):
            timeout = ASKING_SECONDS_MAX

            def log_message(self, *_: Any) -> None:
                """A line for each scrape would hide what matters."""

        host, port = _address(address)

        class Server(ThreadingMixIn, WSGIServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def server_bind(self) -> None:
                """Without the look-up of a name for its own address, which may take seconds in a Pod."""
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.socket.bind(self.server_address)
                self.server_address = self.socket.getsockname()
                self.server_name, self.server_port = host, self.server_address[1]
                self.setup_environ()

            def handle_error(self, *_: Any) -> None:
                """Who asked went away."""

        try:
            server = Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                "the metrics cannot be served at spec.argocd.daemon.metrics",
                why=error.strerror or "",
                fix="name an address that is free",
            ) from None
        server.set_app(answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def end() -> None:
            server.shutdown()
            server.server_close()

        return end


def outcome_of(error: SecretweaveError) -> str:
    """A fault as a metric calls it: by its exit code's class."""
    words = {2: "configuration", 3: "input", 4: "policy", 5: "reference", 6: "store", 70: "internal error"}
    return words.get(error.exit_code, "error")


def word_of(outcome: object) -> str:
    if isinstance(outcome, StoreError):
        kinds = ((NotFound, "not found"), (Denied, "denied"), (Unavailable, "unavailable"))
        return next((word for kind, word in kinds if isinstance(outcome, kind)), "error")
    return "error" if isinstance(outcome, BaseException) else "ok"


def _address(address: str) -> tuple[str, int]:
    """Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise ConfigError("spec.argocd.daemon.metrics is no address", fix="write HOST:PORT, or :PORT for every address")
    return host.removeprefix("[").removesuffix("]"), int(port)
