"""What the controller tells of itself: a log of JSON lines, one for each read among them, and metrics for Prometheus.

    {"time": "2026-01-31T12:00:00.123Z", "event": "read", "namespace": "shop", "object": "web", "account": "reader",
     "store": "vault", "ref": "app/db", "version": "3", "outcome": "ok"}

A read that was shared with another object has a line of its own. No line has a value, a key of a secret or a part of an
object. A label of a metric is never a namespace, an object or a ref: there is no end of them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from secretweave import report
from secretweave.argocd.daemon import watch
from secretweave.errors import ConfigError
from secretweave.model import Record
from secretweave.stores.base import Outcome, Wanted

if TYPE_CHECKING:
    from secretweave.argocd.app import App

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)


class Metrics(watch.StoreMetrics):
    """Of one controller, in a registry of its own."""

    def __init__(self) -> None:
        """Raises ConfigError: the library is not installed."""
        try:
            import prometheus_client as library
        except ImportError:
            raise ConfigError("prometheus-client is not installed", fix="install secretweave[flux]") from None
        self._library = library
        self._registry = own = library.CollectorRegistry()
        count, gauge = library.Counter, library.Gauge
        self.reconciled = count(
            "secretweave_reconciles", "Reconciliations by kind and how they ended.", ["kind", "outcome"], registry=own
        )
        self.seconds = library.Histogram(
            "secretweave_reconcile_seconds", "How long they took.", ["kind"], registry=own, buckets=SECONDS
        )
        self.objects = gauge("secretweave_objects", "Objects by kind and state.", ["kind", "state"], registry=own)
        self.depth = gauge("secretweave_queue_depth", "Objects that wait for a worker.", registry=own)
        self.published = count("secretweave_artifacts_published", "Artifacts with a new revision.", registry=own)
        self.leader = gauge("secretweave_leader", "Is this replica the one at work?", registry=own)
        super().__init__(library, own, "Reads that needed no request.")

    def text(self) -> bytes:
        found: bytes = self._library.generate_latest(self._registry)
        return found


class Watch(watch.Watch):
    """Many threads may tell it something. What kept.Kept tells of an Application is told of an identity here."""

    def __init__(self, say: Callable[[str], None], metrics: Metrics) -> None:
        super().__init__(say, metrics)  # type: ignore[arg-type]  # it has what is used of the daemon's
        self.metrics = metrics

    def reading(self, app: "App", store: str, name: str) -> Callable[[Wanted, Outcome], None]:
        namespace, _, account = app.project.partition(":")

        def told(wanted: Wanted, outcome: Outcome) -> None:
            version = outcome.version if isinstance(outcome, Record) else wanted.version or ""
            word = watch.word_of(outcome)
            fields: dict[str, Any] = {"namespace": namespace, "object": app.name}
            if account:
                fields["account"] = account
            self.note("read", **fields, store=store, ref=wanted.ref, version=version, outcome=word)
            self.metrics.reads.labels(name, word).inc()

        return told

    def opened(self, project: str, store: str, name: str, error: BaseException | None) -> None:
        namespace, _, account = project.partition(":")
        word = watch.word_of(error)
        self.note("open", namespace=namespace, **({"account": account} if account else {}), store=store, outcome=word)
        self.metrics.opens.labels(name, word).inc()

    def reconciled(self, kind: str, key: object, outcome: str, seconds: float, **more: object) -> None:
        self.note("reconcile", kind=kind, object=str(key), outcome=outcome, seconds=round(seconds, 3), **more)
        self.metrics.reconciled.labels(kind, outcome).inc()
        self.metrics.seconds.labels(kind).observe(seconds)

    def states(self, kind: str, states: Sequence[str]) -> None:
        """Of each object there is: `ready`, `not ready` or `suspended`."""
        found = Counter(states)
        for state in ("ready", "not ready", "suspended"):
            self.metrics.objects.labels(kind, state).set(found[state])

    def crashed(self, error: BaseException | None) -> None:
        """Notes where an error arose; not its message, which may quote anything."""
        if error is not None:
            self.note("crash", frames=report.frames(error).splitlines())
