"""What the controller tells of itself beside what every service does: its objects.

{"time": "2026-01-31T12:00:00.123Z", "event": "read", "namespace": "shop", "object": "web", "account": "reader",
 "store": "vault", "ref": "app/db", "version": "3", "outcome": "ok"}
"""

from collections import Counter
from collections.abc import Callable, Sequence

from secretweave.errors import ConfigError
from secretweave.flux.controller.queue import Key
from secretweave.service import watch


class Metrics(watch.StoreMetrics):
    """Of one controller."""

    def __init__(self) -> None:
        """Raises ConfigError: the library is not installed."""
        missing = ConfigError("prometheus-client is not installed", fix="install secretweave[flux]")
        super().__init__("Reads that needed no request.", missing)
        kind = ["kind", "outcome"]
        self.reconciled = self.counter("reconciles", "Reconciliations by kind and how they ended.", kind)
        self.seconds = self.histogram("reconcile_seconds", "How long they took.", ["kind"])
        self.objects = self.gauge("objects", "Objects by kind and state.", ["kind", "state"])
        self.polls = self.counter(
            "polls", "Questions for versions in the place of reads, by what came of them.", ["outcome"]
        )
        self.depth = self.gauge("queue_depth", "Objects that wait for a worker.")
        self.published = self.counter("artifacts_published", "Artifacts with a new revision.")
        self.leader = self.gauge("leader", "Is this replica the one at work?")


class Watch(watch.Watch):
    """Many threads may tell it something. An identity is NAMESPACE:ACCOUNT, the latter empty where there is none."""

    others = "(of a namespace)"

    def __init__(self, say: Callable[[str], None], metrics: Metrics) -> None:
        super().__init__(say, metrics)
        self.metrics = metrics

    def whose(self, identity: str, name: str | None) -> dict[str, str]:
        namespace, _, account = identity.partition(":")
        found = {"namespace": namespace}
        if name:
            found["object"] = name
        return found | ({"account": account} if account else {})

    def reconciled(self, kind: str, key: object, outcome: str, seconds: float, **more: object) -> None:
        self.note("reconcile", kind=kind, object=str(key), outcome=outcome, seconds=round(seconds, 3), **more)
        self.metrics.reconciled.labels(kind, outcome).inc()
        self.metrics.seconds.labels(kind).observe(seconds)

    def polled(self, key: Key, secrets: int, changed: bool | None) -> None:
        """For one object; *changed*: has any another version? None: that could not be told."""
        outcome = "untold" if changed is None else "changed" if changed else "unchanged"
        self.note("polled", namespace=key.namespace, object=key.name, secrets=secrets, outcome=outcome)
        self.metrics.polls.labels(outcome).inc()

    def states(self, kind: str, states: Sequence[str]) -> None:
        """Of each object there is: `ready`, `not ready` or `suspended`."""
        found = Counter(states)
        for state in ("ready", "not ready", "suspended"):
            self.metrics.objects.labels(kind, state).set(found[state])
