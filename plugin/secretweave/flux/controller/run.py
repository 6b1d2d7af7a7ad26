"""The controller: events -> queue -> workers -> reconcile, until SIGTERM or a lost Lease.

Threads beside kopf's main one and the workers: one renews the Lease, one ticks (what is due by time, what is to be
collected), and the servers have theirs. A lost Lease ends the process at once, without a further call: another replica
may be at work already.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import __version__, memory, reloading, stores
from secretweave.config import Config
from secretweave.errors import ConfigError, Denied, NotFound, SecretweaveError
from secretweave.flux import cluster, mappings
from secretweave.flux.controller import events, keys, lease, resource
from secretweave.flux.controller.polling import Polling
from secretweave.flux.controller.published import Published
from secretweave.flux.controller.queue import Key, Queue
from secretweave.flux.controller.reconcile import Done, Parts, Reconciler, sweep_temporary
from secretweave.flux.controller.sharing import Shared
from secretweave.flux.controller.watch import Metrics, Watch
from secretweave.outputs import Outside
from secretweave.places.mapping import API_VERSION as MAPPING_VERSION
from secretweave.service.kept import Kept
from secretweave.service.serving import Answer, Serving
from secretweave.service.watch import METRICS_TYPE

if TYPE_CHECKING:
    import threading

    from secretweave.flux.cluster import Api

LEASE = "secretweave"
CLIENTS_MAX = 256
CLIENT_SECONDS = 3600.0
TICK_SECONDS = 1.0
SWEEP_SECONDS = 60.0
DRAIN_SECONDS = 25.0
"""How long what is under way may still take after SIGTERM; with what follows it is below the 45 s of flux/'s Pod."""
HUNG_SECONDS = 900.0
"""A worker that has had one object for so long hangs: it has passed its own deadlines many times over."""
AWAY_SECONDS = 30.0
"""The longest pause while the API server is away: it is the same for all, and soon over."""
LOST = 75
"""EX_TEMPFAIL of sysexits.h."""
MAPPINGS = mappings.PLURAL

Load = reloading.Load


class Terms(NamedTuple):
    """What the command line says."""

    namespace: str | None = None
    """Of the objects that are looked after; None: every one."""
    url: str = ""
    """Of the artifacts, as others reach them; empty: as the configuration says."""
    secret_mappings: bool = False


def control(
    load: Load, given: str | None, terms: Terms, environ: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Looks after the SecretWeaves of a cluster until SIGTERM or SIGINT. Raises SecretweaveError.

    *load* reads the configuration; *given*: its path, if the command line names one; *say* takes the log's lines.
    """
    import threading

    memory.protect()
    controller = Controller(load, given, terms, environ, say)
    # The usual one prints a message, and that may quote what must not be shown.
    threading.excepthook = lambda crash: controller.watch.crashed(crash.exc_value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop.set())
    controller.run()


class Controller:
    def __init__(
        self, load: Load, given: str | None, terms: Terms, environ: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        """Raises SecretweaveError: it cannot begin as it is set up."""
        import threading

        self.stop = threading.Event()
        self._terms = terms
        self._environ = environ
        self._metrics = Metrics()
        self.watch = Watch(say, self._metrics)
        self._kept = Kept(self.watch, CLIENTS_MAX, CLIENT_SECONDS)
        self._shared = Shared(self.watch)
        self._polling = Polling(self._kept, self._shared)
        self._queue = Queue()
        self._lock = threading.Lock()
        self._objects: dict[Key, _Seen] = {}
        self._sources: dict[resource.Source, object] = {}
        self._states: dict[Key, str] = {}
        self._revisions: dict[Key, str] = {}
        """Of the source that each was woven from last."""
        self._workers: list[threading.Thread] = []
        self._no_mappings = ""
        """Why none is looked after; empty: they are."""
        self._waited_for: set[Key] = set()
        """Objects of the start that were not tried yet and have nothing that is served."""
        self._leads = False
        self._listed = False
        self._ticked = time.monotonic()
        # That a broken configuration ends nothing is the daemon's way; at the start a person waits, so it is told here.
        load()
        self._configuration = reloading.Configuration(load, lambda: reloading.stamp(given, environ), self._adopt)
        config = self._configuration.last
        settings = config.settings.flux
        url = terms.url or settings.artifacts.url
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                "the controller does not know under which address others reach its artifacts",
                fix="set --artifact-url or flux.artifacts.url, such as http://secretweave.flux-system.svc.cluster.local",
            )
        self._own = events.own_namespace(environ)
        self.published = Published(settings.artifacts.folder, url)
        self._servings = [
            Serving(settings.artifacts.address, "flux.artifacts.address", self.published.answer),
            Serving(settings.health, "flux.health", lambda path, _: self._probed(path)),
        ]
        if settings.metrics:
            self._servings.append(Serving(settings.metrics, "flux.metrics", lambda path, _: self._measured(path)))
        self._api: Api = cluster.connect(None, None, environ=environ, warn=self._warn)
        stores.preload(dict.fromkeys(store.type for store in config.stores))

    def run(self) -> None:
        """Raises SecretweaveError."""
        import threading

        self.watch.note("start", version=__version__, namespace=self._terms.namespace or "")
        # A container that is started again in its Pod goes on with the Lease at once: the one before is over.
        unnamed = f"{os.uname().nodename}_{os.getpid()}_{os.urandom(4).hex()}"
        holder = self._environ.get("POD_NAME") or unnamed
        quick = cluster.connect(None, None, environ=self._environ, warn=self._warn, seconds=lease.CALL_SECONDS)
        held = lease.Lease(quick, self._own, LEASE, holder)
        over = threading.Event()
        renewing = threading.Thread(target=held.hold, args=(over, self._lost), daemon=True)
        workers: list[threading.Thread] = []
        try:
            if not held.acquire(self.stop):
                return
            self._leads = True
            self._metrics.leader.set(1)
            self.watch.note("leader", holder=holder)
            renewing.start()
            workers += self._begin()
            self._workers = workers
            events.watch(self._kinds(), self._terms.namespace, self.watch.note, self._environ, self.stop.is_set)
        finally:
            was_leader, self._leads = self._leads, False
            self._drain(workers)
            over.set()
            if was_leader:
                renewing.join(lease.RETRY_SECONDS + 2 * lease.CALL_SECONDS)
            # What still runs must not meet the next one: the Lease then ends by its time.
            if was_leader and not any(each.is_alive() for each in (renewing, *workers)):
                held.release()
            for each in self._servings:
                each.end()
            self._kept.close()
            self.watch.note("end")

    def _begin(self) -> "list[threading.Thread]":
        """Raises StoreError: the API server does not tell what there is."""
        import threading

        reconciler = Reconciler(
            Parts(
                self._api,
                self._configuration.current,
                self.published,
                keys.digest_key(self._api, self._own),
                self._kept,
                self._shared,
                self._polling,
                self.watch,
                self._environ,
            )
        )
        self._reconciler = reconciler
        self._mappings = mappings.Mappings(self._api, self._configuration.current, self._outside, self._warn)
        self._list()
        count = self._configuration.last.settings.flux.workers
        self._queue.reserve(max(count - 1, 1))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for each in (*threads, threading.Thread(target=self._tick, daemon=True)):
            each.start()
        return threads

    def _list(self) -> None:
        """What there is at the start: for readiness, and so that nothing waits for the first event."""
        try:
            found = self._api.list(resource.API_VERSION, resource.PLURAL, self._terms.namespace)
        except NotFound:
            # The CRD may come later.
            found = []
        for obj in found:
            key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
            digest = ((obj.get("status") or {}).get("artifact") or {}).get("digest")
            is_served = isinstance(digest, str) and self.published.archive(key, digest) is not None
            is_suspended = (obj.get("spec") or {}).get("suspend") is True
            if not is_served and not is_suspended:
                with self._lock:
                    self._waited_for.add(key)
            self._saw("", obj)
        self._listed = True

    def _kinds(self) -> dict[events.Kind, events.Told]:
        group, version = resource.API_VERSION.split("/")
        kinds: dict[events.Kind, events.Told] = {(group, version, resource.PLURAL): self._saw}
        group, version = resource.SOURCE_VERSION.split("/")
        for kind, plural in resource.SOURCES.items():
            kinds[group, version, plural] = partial(self._saw_source, kind)
        if self._terms.secret_mappings:
            group, version = MAPPING_VERSION.split("/")
            kinds[group, version, MAPPINGS] = partial(self._saw, plural=MAPPINGS)
        return kinds

    # Events. They come in kopf's thread, and so do no more than to note and to queue.

    def _saw(self, what: str, obj: Mapping[str, Any], plural: str = resource.PLURAL) -> None:
        key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"], plural)
        if what == "DELETED":
            with self._lock:
                self._objects.pop(key, None)
            self._queue.add(key)
            return
        # What we write into its status comes back as an event, and asks for nothing.
        if self._is_new(key, _seen(obj)):
            self._queue.add(key)

    def _is_new(self, key: Key, seen: "_Seen") -> bool:
        with self._lock:
            last = self._objects.get(key)
            self._objects[key] = seen
        if last is not None and last.requested != seen.requested:
            # A read that is under way may give the value that was.
            self._kept.part(lambda identity: identity.partition(":")[0] == key.namespace)
            self._shared.renew(key.namespace)
        return last != seen

    def _saw_source(self, kind: str, what: str, obj: Mapping[str, Any]) -> None:
        source = resource.Source(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        artifact = (obj.get("status") or {}).get("artifact") or {}
        said = None if what == "DELETED" else (artifact.get("digest"), artifact.get("url"), artifact.get("revision"))
        with self._lock:
            is_new = source not in self._sources
            is_other = self._sources.get(source) != said
            if what == "DELETED":
                self._sources.pop(source, None)
            else:
                self._sources[source] = said
            using = [key for key, seen in self._objects.items() if seen.source == source]
            if is_new and not what:
                # A list, at the start or after a connection broke: who has its turn yet will see it, and who was woven
                # from it has.
                using = [
                    key
                    for key in using
                    if self._states.get(key) == "not ready"
                    or self._revisions.get(key, artifact.get("revision")) != artifact.get("revision")
                ]
            if kind == "ExternalArtifact" and what == "DELETED" and (own := Key(*source[1:])) in self._objects:
                # One that we made ourselves.
                using, is_other = [*using, own], True
        if is_other:
            for key in using:
                self._queue.add(key)

    # Workers.

    def _work(self) -> None:
        while (key := self._queue.take()) is not None:
            begun = time.monotonic()
            try:
                done = self._map(key) if key.plural == MAPPINGS else self._reconciler.reconcile(key)
            except SecretweaveError as error:
                # A SecretWeave's own faults are in its status; this one is between us and the API server.
                done = self._broken(key, error)
            except BaseException as error:  # noqa: BLE001 - one object's end must not be the worker's
                self.watch.crashed(error)
                done = Done(False, "internal error", state="not ready")
                if key.plural != MAPPINGS:
                    with suppress(Exception):
                        self._reconciler.crashed(key, type(error).__name__)
            self._note(key, done, time.monotonic() - begun)

    def _note(self, key: Key, done: Done, seconds: float) -> None:
        with self._lock:
            self._waited_for.discard(key)
            if done.state:
                self._states[key] = done.state
            elif done.ok:
                self._states.pop(key, None)
                self._revisions.pop(key, None)
            if done.revision:
                self._revisions[key] = done.revision
        kind = "SecretMapping" if key.plural == MAPPINGS else resource.KIND
        more: dict[str, Any] = {}
        if done.outcome == "gone":
            self._queue.forget(key)
            with self._lock:
                # Where a connection broke, its end was no event.
                self._objects.pop(key, None)
        if done.ok:
            self._queue.done(key, done.after)
        else:
            more["again"] = round(self._queue.failed(key, after=done.after, most=done.most), 1)
        self.watch.reconciled(kind, key, done.outcome, seconds, **more)

    def _map(self, key: Key) -> Done:
        """Raises SecretweaveError: the API server did not tell of it."""
        obj: dict[str, Any] | None = None
        with suppress(NotFound):
            obj = self._api.get(MAPPING_VERSION, MAPPINGS, key.namespace, key.name)
        if obj is None:
            # Though its keys may stay in a Secret for as long as another mapping of that cannot be woven.
            with self._lock:
                self._states.pop(key, None)
        try:
            after = self._mappings.reconcile(key.namespace, key.name, obj)
        except SecretweaveError as error:
            return self._broken(key, error, "not ready" if obj else "")
        return Done(True, "ok" if obj else "gone", after, state="ready" if obj else "")

    def _broken(self, key: Key, error: SecretweaveError, state: str = "") -> Done:
        self.watch.note("failed", object=str(key), what=error.what, why=error.why)
        return Done(False, "error", most=AWAY_SECONDS, state=state)

    def _outside(self, namespace: str, names: str) -> Outside:
        """For a run on behalf of SecretMappings."""
        config = self._configuration.current()
        keeping = self._reconciler.keeping(Key(namespace, names, MAPPINGS), "", config)
        ends = time.monotonic() + config.settings.limits.deadline
        return Outside(self._environ, ends, self._warn, keeping)

    def _warn(self, text: str) -> None:
        self.watch.note("warning", text=text)

    # By time.

    def _tick(self) -> None:
        swept = 0.0
        while not self.stop.wait(TICK_SECONDS):
            self._ticked = time.monotonic()
            try:
                self._kept.tidy()
                self._shared.tidy()
                self._polling.tidy()
                with suppress(SecretweaveError):
                    self._configuration.current()
                with self._lock:
                    states = dict(self._states)
                self._metrics.depth.set(self._queue.depth())
                for kind, plural in ((resource.KIND, resource.PLURAL), ("SecretMapping", MAPPINGS)):
                    self.watch.states(kind, [state for key, state in states.items() if key.plural == plural])
                if self._ticked > swept + SWEEP_SECONDS:
                    swept = self._ticked
                    sweep_temporary()
                    self._compare()
            except Exception as error:  # noqa: BLE001 - the next tick may go well
                self.watch.crashed(error)

    def _compare(self) -> None:
        """Holds what events have told against what the API server says: files are removed by that alone, and an object
        that was taken for gone, as while its API was not served yet, has its turns again.
        """
        self._look_for_mappings()
        with suppress(SecretweaveError):
            # Without the CRD nothing is known of any.
            found = self._api.list(resource.API_VERSION, resource.PLURAL, self._terms.namespace, metadata=True)
            there = [Key(each["metadata"]["namespace"], each["metadata"]["name"]) for each in found]
            self.published.expire(there)
            # Those of other namespaces may be another controller's.
            if self._terms.namespace is None:
                self.published.sweep(there)
            with self._lock:
                unknown = [key for key in there if key not in self._objects]
            for key in unknown:
                self._saw("", self._api.get(resource.API_VERSION, resource.PLURAL, key.namespace, key.name))

    def _look_for_mappings(self) -> None:
        """Says in the log why SecretMappings are not seen, once for each reason: kopf waits for them in silence."""
        if not self._terms.secret_mappings:
            return
        why = ""
        try:
            self._api.list(MAPPING_VERSION, MAPPINGS, self._terms.namespace, metadata=True)
        except (NotFound, Denied) as error:
            is_missing = isinstance(error, NotFound)
            why = "the cluster has no such kind" if is_missing else "the controller may not list them"
        except SecretweaveError:
            return
        if why != self._no_mappings:
            self._no_mappings = why
            self._warn(f"no SecretMapping is looked after: {why}" if why else "SecretMappings are looked after")

    def _adopt(self, config: Config | SecretweaveError) -> None:
        """The configuration is another one, or broken: every object is judged by it anew."""
        self._kept.clear()
        self._shared.clear()
        self._polling.clear()
        self.watch.note("configuration broken" if isinstance(config, SecretweaveError) else "configuration")
        with self._lock:
            known = list(self._objects)
        for key in known:
            self._queue.add(key)

    # The end.

    def _lost(self) -> None:
        self.watch.note("lease lost")
        # Not through the ordinary end, which would finish what is under way.
        os._exit(LOST)

    def _drain(self, workers: "list[threading.Thread]") -> None:
        self.stop.set()
        self._queue.close()
        ends = time.monotonic() + DRAIN_SECONDS
        for each in workers:
            each.join(max(ends - time.monotonic(), 0))

    # Who asks how it is.

    def _probed(self, path: str) -> Answer:
        if path not in {"/healthz", "/readyz"}:
            return Answer(404, b"nothing is here\n")
        ill = self._trouble() if path == "/healthz" else self._unready()
        return Answer(503, ill.encode()) if ill else Answer(200, b"ok\n")

    def _trouble(self) -> str:
        if not self._leads:
            return ""
        if self._listed and time.monotonic() > self._ticked + HUNG_SECONDS / 10:
            return "the controller hangs\n"
        if not all(each.is_alive() for each in self._workers):
            return "a worker has ended\n"
        return "a worker hangs\n" if self._queue.longest() > HUNG_SECONDS else ""

    def _unready(self) -> str:
        if not self._leads:
            return "another replica is at work, or this one ends\n"
        if not self._listed:
            return "it has just begun\n"
        with self._lock:
            left = len(self._waited_for)
        return f"{left} objects were not tried yet\n" if left else ""

    def _measured(self, path: str) -> Answer:
        if path != "/metrics":
            return Answer(404, b"nothing is here\n")
        return Answer(200, self._metrics.text(), headers=(("Content-Type", METRICS_TYPE),))


class _Seen(NamedTuple):
    """What of an object, when it changes, asks for work."""

    uid: object
    generation: object
    requested: str
    deleted: bool
    source: resource.Source | None


def _seen(obj: Mapping[str, Any]) -> _Seen:
    metadata, spec = obj["metadata"], obj.get("spec")
    ref = spec.get("sourceRef") if isinstance(spec, Mapping) else None
    source = None
    if isinstance(ref, Mapping) and ref.get("name"):
        source = resource.Source(ref.get("kind", ""), ref.get("namespace") or metadata["namespace"], ref["name"])
    return _Seen(
        metadata.get("uid"),
        metadata.get("generation"),
        resource.requested(obj),
        bool(metadata.get("deletionTimestamp")),
        source,
    )
