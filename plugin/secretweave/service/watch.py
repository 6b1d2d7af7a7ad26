"""What a process that lasts tells of itself: a log of JSON lines, one for each read among them, and metrics.

    {"time": "2026-01-31T12:00:00.123Z", "event": "read", "project": "shop", "app": "web", "store": "vault",
     "ref": "app/db", "version": "3", "outcome": "ok"}

The outcome of a read is `ok`, `not found`, `denied`, `unavailable` or `error`. A read that is shared has a line for
each who has it. There is no value in a line, no key of a secret, and no text of an error of another program.

A label of a metric is never an identity, a name of an app or object, or a ref: they come from tenants, and there is no
end of them.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import report
from secretweave.errors import ConfigError, Denied, NotFound, SecretweaveError, StoreError, Unavailable
from secretweave.model import Record, StoreConfig
from secretweave.stores.base import Outcome, Wanted

if TYPE_CHECKING:
    from secretweave.config import Config

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""The buckets of durations; the work on a source is in them."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info"""


class Asker(NamedTuple):
    """For whom stores are asked."""

    identity: str
    """Who logs in: what one reads, no other identity is given."""
    name: str
    """Of the app or object, for the log."""


class Watch:
    """Many threads may tell it something. Each service says, in `whose`, what its log calls an asker."""

    others = "(in the stream)"
    """What the metrics call each store that is not the configuration's: there is no end of them."""

    def __init__(self, say: Callable[[str], None], metrics: "StoreMetrics | None" = None) -> None:
        """*say* takes a line, with its end."""
        import threading

        self._say = say
        self._lock = threading.Lock()
        self._store_metrics = metrics

    def whose(self, identity: str, name: str | None) -> dict[str, str]:
        """The fields of a line that is about an asker; *name* None: about all of that identity."""
        raise NotImplementedError

    def called(self, store: StoreConfig, config: "Config") -> str:
        """As the metrics call it."""
        return store.id if any(store.id == each.id for each in config.stores) else self.others

    def note(self, event: str, **fields: object) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = json.dumps({"time": stamp, "event": event} | fields) + "\n"
        # A log that nobody takes is no reason to fail a request.
        with self._lock, suppress(OSError, ValueError):
            self._say(line)

    def crashed(self, error: BaseException | None) -> None:
        """Notes where an error arose; not its message, which may quote anything."""
        if error is not None:
            self.note("crash", frames=report.frames(error).splitlines())

    def reading(self, asker: Asker, store: str, name: str) -> Callable[[Wanted, Outcome], None]:
        """What takes each read that *asker* makes of a store; *name*: as the metrics call that."""

        def told(wanted: Wanted, outcome: Outcome) -> None:
            version = outcome.version if isinstance(outcome, Record) else wanted.version or ""
            word = word_of(outcome)
            self.note("read", **self.whose(*asker), store=store, ref=wanted.ref, version=version, outcome=word)
            if self._store_metrics:
                self._store_metrics.reads.labels(name, word).inc()

        return told

    def shared(self, store: str) -> None:
        """A read that needed no request of its own."""
        if self._store_metrics:
            self._store_metrics.shares.labels(store).inc()

    def opened(self, identity: str, store: str, name: str, error: BaseException | None) -> None:
        """A client was made, or could not be; *name*: of its store, as the metrics call that."""
        self.note("open", **self.whose(identity, None), store=store, outcome=word_of(error))
        if self._store_metrics:
            self._store_metrics.opens.labels(name, word_of(error)).inc()

    def state(self, clients: int, down: Sequence[str]) -> None:
        """*down*: the stores that are left alone for a while, once for each client."""
        if self._store_metrics:
            self._store_metrics.clients.set(clients)
            self._store_metrics.is_down(Counter(down))


class StoreMetrics:
    """What is counted of stores, in a registry of its own; a service adds what it counts beside it."""

    def __init__(self, shares: str, missing: ConfigError) -> None:
        """*shares*: what a read that needed no request is, there. Raises *missing*: the library is not installed."""
        try:
            import prometheus_client as library
        except ImportError:
            raise missing from None
        self._library = library
        self._registry = own = library.CollectorRegistry()
        count, gauge = library.Counter, library.Gauge
        self.reads = count(
            "secretweave_reads", "Secrets read, by store and outcome.", ["store", "outcome"], registry=own
        )
        self.shares = count("secretweave_reads_shared", shares, ["store"], registry=own)
        self.opens = count(
            "secretweave_store_opens", "Store clients made, each with its login.", ["store", "outcome"], registry=own
        )
        self.clients = gauge("secretweave_store_clients", "Store clients kept.", registry=own)
        self._down = gauge(
            "secretweave_stores_down", "Clients whose store is left alone, since it fails.", ["store"], registry=own
        )
        self._known: set[str] = set()

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Any:
        return self._library.Counter(f"secretweave_{name}", about, labels, registry=self._registry)

    def gauge(self, name: str, about: str, labels: Sequence[str] = ()) -> Any:
        return self._library.Gauge(f"secretweave_{name}", about, labels, registry=self._registry)

    def histogram(self, name: str, about: str, labels: Sequence[str] = ()) -> Any:
        """Of seconds."""
        name = f"secretweave_{name}"
        return self._library.Histogram(name, about, labels, registry=self._registry, buckets=SECONDS)

    def is_down(self, clients: "Counter[str]") -> None:
        self._known |= set(clients)
        for store in self._known:
            self._down.labels(store).set(clients[store])

    def text(self) -> bytes:
        """As Prometheus reads it: METRICS_TYPE."""
        found: bytes = self._library.generate_latest(self._registry)
        return found


def outcome_of(error: SecretweaveError) -> str:
    """A fault as a metric calls it: by its exit code's class."""
    words = {2: "configuration", 3: "input", 4: "policy", 5: "reference", 6: "store", 70: "internal error"}
    return words.get(error.exit_code, "error")


def word_of(outcome: object) -> str:
    if isinstance(outcome, StoreError):
        kinds = ((NotFound, "not found"), (Denied, "denied"), (Unavailable, "unavailable"))
        return next((word for kind, word in kinds if isinstance(outcome, kind)), "error")
    return "error" if isinstance(outcome, BaseException) else "ok"
