"""What the daemon tells of itself beside what every service does: its requests."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from secretweave.errors import ConfigError
from secretweave.service import watch
from secretweave.service.serving import Answer

if TYPE_CHECKING:
    from secretweave.argocd.app import App


class Watch(watch.Watch):
    """Many threads may tell it something."""

    def __init__(self, say: Callable[[str], None], metrics: "Metrics | None" = None) -> None:
        super().__init__(say, metrics)
        self._metrics = metrics

    def whose(self, identity: str, name: str | None) -> dict[str, str]:
        return {"project": identity} | ({"app": name} if name is not None else {})

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


class Metrics(watch.StoreMetrics):
    """Of one daemon."""

    def __init__(self) -> None:
        """Raises ConfigError: the library is not installed."""
        missing = ConfigError(
            "spec.argocd.daemon.metrics is set, but prometheus-client is not installed",
            fix="install secretweave[argocd], or leave the setting out",
        )
        super().__init__("Reads that waited for an equal one under way.", missing)
        self.requests = self.counter("requests", "Requests by how they ended.", ["outcome"])
        self.seconds = self.histogram("request_seconds", "How long requests took.")
        self.in_flight = self.gauge("requests_in_flight", "Requests under way.")

    def answer(self, path: str, trouble: Callable[[], str]) -> Answer:
        """*trouble*: why the daemon is not well; empty: it is."""
        if path == "/metrics":
            return Answer(200, self.text(), headers=(("Content-Type", watch.METRICS_TYPE),))
        if path != "/healthz":
            return Answer(404, b"nothing is here\n")
        ill = trouble()
        return Answer(503, ill.encode()) if ill else Answer(200, b"ok\n")
