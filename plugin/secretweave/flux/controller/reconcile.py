"""One SecretWeave, once: source -> build -> weave -> archive -> ExternalArtifact -> status.

What is published changes only when it is whole: the archive is on the volume before the ExternalArtifact points to it,
and what goes wrong before leaves the last good one where it is. Ciphertext of what is unchanged is that of the last
archive (Sealing), so that an unchanged run gives the same archive, and an equal archive is not published again.

Between two intervals, while neither source nor spec nor configuration is another one, the stores alone are asked, and
for versions alone where they can tell them (polling.py): values are read when one is another. The rendered stream is
kept in memory meanwhile. It holds references, no values.
"""

import io
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import pipeline, report
from secretweave.config.lookup import Unusable
from secretweave.errors import (
    ConfigError,
    Denied,
    InputError,
    NotFound,
    PolicyError,
    SecretweaveError,
)
from secretweave.flux import archive, build, layout, stores, unpack, upstream
from secretweave.flux.cluster import Conflict
from secretweave.flux.controller import keys, resource
from secretweave.flux.controller.polling import Polling
from secretweave.flux.controller.queue import Key
from secretweave.flux.controller.resource import Condition, Spec
from secretweave.flux.controller.sharing import Read, Reads
from secretweave.outputs import Keeping, Outside, Sealing
from secretweave.service.watch import Asker, outcome_of

if TYPE_CHECKING:
    from secretweave.config import Config
    from secretweave.flux.cluster import Api
    from secretweave.flux.controller.published import Archive, Published
    from secretweave.flux.controller.sharing import Shared
    from secretweave.flux.controller.watch import Watch
    from secretweave.service.kept import Kept

MANAGER = "secretweave"
RENDERED_BYTES_MAX = 64 << 20
"""Of one object; further it is no set of manifests."""
RENDERED_BYTES_KEPT = 64 << 20
"""Of all objects together."""
STATUS_SECONDS = 30.0
"""lastRefreshTime alone is not written more often: each write goes to everybody who watches."""
PIECE_BYTES = 1 << 20
TEMPORARY = "secretweave-flux-"
"""What the names of temporary folders begin with."""
TEMPORARY_SECONDS = 2 * resource.TIMEOUT_SECONDS_MAX
"""No attempt has one for longer."""
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 5.0, 300.0
"""Between which the longest pause after failures lies."""


class Done(NamedTuple):
    ok: bool
    outcome: str
    """As metrics call it."""
    after: float | None = None
    """Seconds to the next time; None: at a failure after a pause that grows, else when something changes."""
    most: float = 300.0
    """The longest pause after failures."""
    state: str = ""
    """`ready`, `not ready` or `suspended`; empty: the object is gone, or, where it is not ok, is as it was."""
    revision: str = ""
    """Of the source that it was woven from; empty: it was not."""


class Parts(NamedTuple):
    """What reconciling needs, shared by all workers."""

    api: "Api"
    config: "Callable[[], Config]"
    """The present one. Raises ConfigError: it is broken."""
    published: "Published"
    digest_key: bytes
    kept: "Kept"
    shared: "Shared"
    polling: Polling
    watch: "Watch"
    environ: Mapping[str, str]


class _Upstream(NamedTuple):
    url: str
    digest: str
    size: int | None
    revision: str


class _Stop(Exception):
    """Why an object gets no further. With a reason that stalls, nothing is tried again by itself."""

    def __init__(self, reason: str, error: SecretweaveError, *, stalls: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.stalls = stalls


class _Rendered(NamedTuple):
    of: object
    """What it was made from."""
    made: float
    sources: tuple[tuple[str, bytes], ...]
    size: int


class _Woven(NamedTuple):
    """What an object was woven to; its artifact has to be that as long as what it was woven from is the same."""

    of: object
    until: float
    """The end of the interval, on time.monotonic's clock."""
    reads: tuple[Read, ...] | None
    """None: the stores cannot tell by versions whether they have other values."""
    references: int
    archive: "Archive"


class Reconciler:
    """Many threads may use it, each with an object of its own."""

    def __init__(self, parts: Parts) -> None:
        import threading

        self._parts = parts
        self._lock = threading.Lock()
        self._rendered: OrderedDict[Key, _Rendered] = OrderedDict()
        self._woven: dict[Key, _Woven] = {}

    def forget(self, key: Key) -> None:
        with self._lock:
            self._rendered.pop(key, None)
            self._woven.pop(key, None)

    def reconcile(self, key: Key) -> Done:
        """Raises StoreError: the API server did not take or tell what it must."""
        api = self._parts.api
        try:
            obj = api.get(resource.API_VERSION, resource.PLURAL, key.namespace, key.name)
        except NotFound:
            self.forget(key)
            return Done(True, "gone")
        if obj["metadata"].get("deletionTimestamp"):
            self.forget(key)
            return Done(True, "gone")
        if _is_asked(obj):
            # It stays owed where this turn comes to nothing, though the status says that it was handled.
            with self._lock:
                self._woven.pop(key, None)
        status: dict[str, Any] = {}
        spec: Spec | None = None
        try:
            try:
                spec = resource.read(obj)
            except ConfigError as error:
                raise _Stop(resource.INVALID, error, stalls=True) from None
            if spec.suspend:
                self._suspended(obj)
                return Done(True, "suspended", state="suspended")
            self._progressing(obj)
            status, message, after = self._made(key, obj, spec)
        except _Stop as stop:
            return self._failed(obj, spec, stop)
        ready = Condition("Ready", "True", resource.SUCCEEDED, message)
        self._tell(obj, [ready], status)
        after = max(after, resource.INTERVAL_SECONDS_MIN)
        return Done(True, "ok", after, state="ready", revision=status["lastSourceRevision"])

    def crashed(self, key: Key, what: str) -> None:
        """Says in its status that a defect of the controller's stopped it; *what*: the class of the error, no more.

        Raises StoreError.
        """
        self.forget(key)
        obj = self._parts.api.get(resource.API_VERSION, resource.PLURAL, key.namespace, key.name)
        error = SecretweaveError(
            f"the controller failed at it ({what}), which is a defect of its own",
            why="its log has the event `crash` with the place",
            fix="report it with that; what was published stays",
        )
        self._failed(obj, None, _Stop(resource.INTERNAL, error))

    # What becomes of it.

    def _made(self, key: Key, obj: dict[str, Any], spec: Spec) -> tuple[dict[str, Any], str, float]:
        """Gives the status' own fields, Ready's message, and the seconds to the next time. Raises _Stop."""
        parts = self._parts
        deadline = time.monotonic() + spec.timeout
        with _reason(resource.BUILD):
            # A broken configuration may be one that restricts: nothing is done by the old one.
            config = parts.config()
        settings = config.settings.flux
        if spec.output == "secret" and not settings.allow_plaintext:
            raise _Stop(
                resource.ACCESS,
                PolicyError(
                    "spec.output `secret` is refused: the artifact would hold Secrets that are not encrypted",
                    fix="leave spec.output out, or have flux.allowPlaintext set in the controller's configuration",
                ),
                stalls=True,
            )
        if spec.source.namespace != key.namespace and not settings.allow_cross_namespace:
            raise _Stop(
                resource.ACCESS,
                PolicyError(
                    f"a source of another namespace ({spec.source.namespace}) is refused",
                    fix="use a source of this namespace, or have flux.allowCrossNamespace set in the configuration",
                ),
                stalls=True,
            )
        source = self._source(spec)
        artifact = self._artifact(key, obj)
        sealed_for = None
        if spec.output == "sops":
            with _reason(resource.ENCRYPTION, {Denied: resource.ACCESS}):
                sealed_for = keys.of(parts.api, obj, spec)
        with _reason(resource.STORE):
            bound = stores.configured(parts.api, config, key.namespace, has_account=bool(spec.account))
        narrowed = _narrowed(bound, spec)
        of = source, spec, narrowed, sealed_for.recipients if sealed_for else ()
        current = _published(artifact)
        try:
            woven = self._still(key, spec, of, config, deadline)
            if woven is None:
                woven = self._weave(key, obj, spec, of, source, config, narrowed, sealed_for, current, deadline)
            found = woven.archive
            with _reason(resource.BUILD):
                self._publish(key, obj, found, artifact, source)
            current = found.digest
        finally:
            # Else each attempt that comes to nothing would leave its archive.
            parts.published.tidy(key, current)
        last = (obj.get("status") or {}).get("artifact") or {}
        same = last.get("digest") == found.digest and last.get("url") == found.url
        when = last.get("lastUpdateTime") if same else None
        now = resource.stamp()
        status = {
            "lastSourceRevision": source.revision,
            "artifactRef": {"name": key.name},
            "artifact": _artifact_status(found, when or now),
            "ageRecipient": sealed_for.newest if sealed_for else None,
            "lastRefreshTime": now,
        }
        counted = f"{woven.references} reference{'' if woven.references == 1 else 's'}"
        message = f"woven from revision {source.revision} with {counted}: {found.revision}"
        due = sealed_for.due if sealed_for else None
        wishes = (spec.refresh, woven.until - time.monotonic(), math.inf if due is None else due)
        return status, message, min(wishes)

    def _source(self, spec: Spec) -> _Upstream:
        kind, namespace, name = spec.source
        with _reason(resource.ARTIFACT):
            try:
                found = self._parts.api.get(resource.SOURCE_VERSION, resource.SOURCES[kind], namespace, name)
            except NotFound:
                raise NotFound(
                    f"there is no {kind} {namespace}/{name}",
                    fix="correct spec.sourceRef, or make it; Flux must be installed",
                ) from None
            artifact = (found.get("status") or {}).get("artifact") or {}
            url, digest, size = artifact.get("url"), artifact.get("digest"), artifact.get("size")
            if not isinstance(url, str) or not isinstance(digest, str) or not url or not digest:
                raise NotFound(
                    f"the {kind} {namespace}/{name} has no artifact yet",
                    why="its own controller has not fetched anything, or could not",
                    fix=f"see the conditions of the {kind}",
                )
        return _Upstream(url, digest, size if isinstance(size, int) else None, str(artifact.get("revision") or digest))

    def _artifact(self, key: Key, obj: Mapping[str, Any]) -> dict[str, Any] | None:
        """The ExternalArtifact that there is; None: none. Raises _Stop: it is somebody else's."""
        with _reason(resource.BUILD, {PolicyError: resource.ACCESS}):
            try:
                found = self._parts.api.get(resource.SOURCE_VERSION, "externalartifacts", key.namespace, key.name)
            except NotFound:
                return None
            if not resource.is_owned(found, obj["metadata"]["name"]):
                raise PolicyError(
                    f"the ExternalArtifact {key.name} is not ours, and is left as it is",
                    why="one of the object's name is there, and has another owner or none",
                    fix="give the SecretWeave another name, or remove that ExternalArtifact",
                )
            return found

    def _still(self, key: Key, spec: Spec, of: object, config: "Config", deadline: float) -> _Woven | None:
        """What it was woven to last, where nothing asks for more than that; None: it is to be woven."""
        parts = self._parts
        with self._lock:
            woven = self._woven.get(key)
        if woven is None or woven.reads is None or woven.of != of or time.monotonic() >= woven.until:
            return None
        if parts.published.archive(key, woven.archive.digest) is None:
            return None
        asker = _asker(key, spec.account)
        # What a store does not tell in time is read in what is left.
        now = time.monotonic()
        outside = self._outside(key, spec.account, config, now + (deadline - now) / 2)
        seconds = min(config.settings.flux.share_seconds, spec.refresh)
        changed = parts.polling.changed(asker, woven.reads, config, outside, seconds)
        parts.watch.polled(key, len(woven.reads), changed)
        return woven if changed is False else None

    def _weave(
        self,
        key: Key,
        obj: Mapping[str, Any],
        spec: Spec,
        of: object,
        source: _Upstream,
        config: "Config",
        narrowed: "Config",
        sealed_for: keys.Keys | None,
        current: str,
        deadline: float,
    ) -> _Woven:
        """*narrowed*: what of *config* is the object's; *current*: the digest that is published. Raises _Stop."""
        with self._lock:
            self._woven.pop(key, None)
        reads = Reads()
        with _temporary() as folder:
            rendered = self._built(key, obj, spec, source, config, folder, deadline)
            # An archive that was not sealed has nothing to be known again by, and its values no business in a file.
            was_sealed = sealed_for is not None and bool((obj.get("status") or {}).get("ageRecipient"))
            earlier = (current, _published(obj)) if was_sealed else ()
            sealing = Sealing()
            if sealed_for is not None:
                sealing = Sealing(
                    age=sealed_for.recipients,
                    digest_key=self._parts.digest_key,
                    previous=(self._previous(key, earlier, folder, config),),
                    namespace=spec.target_namespace or key.namespace,
                )
            outside = self._outside(key, spec.account, config, deadline, spec.refresh, reads)
            data, references = _archived(key, spec, rendered.sources, narrowed, outside._replace(sealing=sealing))
        with _reason(resource.BUILD):
            # From here on it is on the volume, whatever comes.
            found = self._parts.published.put(key, data)
        woven = _Woven(of, rendered.made + spec.interval, reads.all(), references, found)
        with self._lock:
            self._woven[key] = woven
        return woven

    def _built(
        self,
        key: Key,
        obj: Mapping[str, Any],
        spec: Spec,
        source: _Upstream,
        config: "Config",
        folder: str,
        deadline: float,
    ) -> _Rendered:
        settings = config.settings.flux
        of = (source.digest, spec.path, spec.target_namespace, settings, resource.requested(obj))
        now = time.monotonic()
        with self._lock:
            held = self._rendered.get(key)
            if held is not None and held.of == of and now < held.made + spec.interval:
                self._rendered.move_to_end(key)
                return held
            self._rendered.pop(key, None)
        root = os.path.join(folder, "source")
        os.mkdir(root, 0o700)
        with _reason(resource.ARTIFACT):
            upstream.fetch(source.url, source.digest, source.size, root, settings.artifacts, deadline)
        found, size = [], 0
        with _reason(resource.BUILD):
            streams = build.built(
                root,
                spec.path,
                settings,
                self._parts.environ,
                deadline,
                spec.timeout,
                self._warning(key),
                target_namespace=spec.target_namespace,
            )
            with closing(streams):
                for name, stream in streams:
                    pieces = []
                    while piece := stream.read(PIECE_BYTES):
                        size += len(piece)
                        if size > RENDERED_BYTES_MAX:
                            raise InputError(
                                f"what the source renders to is larger than {RENDERED_BYTES_MAX >> 20} MiB",
                                fix="cut it into several SecretWeaves, each with a path of its own",
                            )
                        pieces.append(piece)
                    found.append((name, b"".join(pieces)))
        rendered = _Rendered(of, now, tuple(found), size)
        with self._lock:
            self._rendered[key] = rendered
            while sum(each.size for each in self._rendered.values()) > RENDERED_BYTES_KEPT:
                self._rendered.popitem(last=False)
        return rendered

    def _previous(self, key: Key, digests: tuple[str, ...], folder: str, config: "Config") -> str:
        """A folder with the files of the first archive of those that there is; an empty one where none is, or where it
        cannot be read.
        """
        place = os.path.join(folder, "previous")
        os.mkdir(place, 0o700)
        # The ExternalArtifact may be edited or deleted by somebody, and the archive is there all the same.
        digest = next((each for each in digests if self._parts.published.archive(key, each) is not None), "")
        if not digest:
            return place
        try:
            with open(self._parts.published.file(key, digest), "rb") as file:
                unpack.unpack(file, place, config.settings.flux.artifacts)
        except (OSError, SecretweaveError):
            # What is not there is encrypted afresh, once.
            self._parts.watch.note("previous unreadable", namespace=key.namespace, object=key.name)
        return place

    def _outside(
        self,
        key: Key,
        account: str,
        config: "Config",
        deadline: float,
        seconds: float = math.inf,
        reads: Reads | None = None,
    ) -> Outside:
        keeping = self.keeping(key, account, config, seconds, reads)
        return Outside(self._parts.environ, deadline, self._warning(key), keeping)

    def keeping(
        self, key: Key, account: str, config: "Config", seconds: float = math.inf, reads: Reads | None = None
    ) -> Keeping:
        """Store clients that are shared with objects of the same namespace and service account, and with no others.

        *seconds*: how old a value may be that was read for those, where the configuration allows more; *reads* takes
        what is read.
        """
        parts, asker = self._parts, _asker(key, account)
        keeping = parts.kept.keeping(asker, config)
        if account:
            keeping = keeping._replace(token=lambda audiences: parts.api.token(key.namespace, account, audiences))
        return parts.shared.over(keeping, asker, config, min(config.settings.flux.share_seconds, seconds), reads)

    def _publish(
        self,
        key: Key,
        obj: Mapping[str, Any],
        found: "Archive",
        artifact: dict[str, Any] | None,
        source: _Upstream,
    ) -> None:
        """Raises SecretweaveError."""
        parts, api = self._parts, self._parts.api
        spec = {
            "sourceRef": {
                "apiVersion": resource.API_VERSION,
                "kind": resource.KIND,
                "name": key.name,
                "namespace": key.namespace,
            }
        }
        references = [resource.owner(obj)]
        metadata = (artifact or {}).get("metadata") or {}
        if artifact is None or artifact.get("spec") != spec or metadata.get("ownerReferences") != references:
            head = {
                "name": key.name,
                "namespace": key.namespace,
                "labels": dict([resource.MANAGED]),
                "ownerReferences": references,
            }
            whole = {"apiVersion": resource.SOURCE_VERSION, "kind": "ExternalArtifact", "metadata": head, "spec": spec}
            artifact = api.apply(whole, "externalartifacts", manager=MANAGER, force=True)
        last = (artifact.get("status") or {}).get("artifact") or {}
        is_ready = resource.condition(artifact, "Ready").get("status") == "True"
        now = resource.stamp()
        told = _artifact_status(found, last.get("lastUpdateTime") or now)
        if is_ready and all(last.get(name) == value for name, value in told.items()):
            return
        generation = artifact["metadata"].get("generation", 1)
        before = (artifact.get("status") or {}).get("conditions") or ()
        ready = Condition("Ready", "True", resource.SUCCEEDED, f"stored artifact for revision {found.revision}")
        status = {
            "artifact": _artifact_status(found, now),
            "conditions": resource.conditions(before, [ready], generation, now),
        }
        api.patch_status(resource.SOURCE_VERSION, "externalartifacts", key.namespace, key.name, status)
        parts.watch.metrics.published.inc()
        parts.watch.note(
            "published",
            namespace=key.namespace,
            object=key.name,
            revision=found.revision,
            source=source.revision,
            bytes=found.size,
        )
        if last.get("digest") != found.digest:
            text = f"published {found.revision} from revision {source.revision}"
            api.event(obj, kind="Normal", reason="ArtifactPublished", message=text)

    # What is told of it.

    def _progressing(self, obj: dict[str, Any]) -> None:
        """A spec that was not seen before is told to be at work: until then its old Ready says nothing."""
        if (obj.get("status") or {}).get("observedGeneration") == obj["metadata"].get("generation"):
            return
        text = f"reconciling generation {obj['metadata'].get('generation')}"
        now = [
            Condition("Ready", "Unknown", resource.PROGRESSING, text),
            Condition("Reconciling", "True", resource.PROGRESSING, text),
        ]
        self._patch(obj, {"conditions": self._conditions(obj, now)})

    def _suspended(self, obj: dict[str, Any]) -> None:
        before = resource.condition(obj, "Ready").get("status") or "Unknown"
        text = "it is suspended; what was published stays"
        self._tell(obj, [Condition("Ready", before, resource.SUSPENDED, text)], {})

    def _failed(self, obj: dict[str, Any], spec: Spec | None, stop: _Stop) -> Done:
        text = report.status(stop.error)
        now = [Condition("Ready", "False", stop.reason, text)]
        if stop.stalls:
            now.append(Condition("Stalled", "True", stop.reason, text))
        else:
            now.append(Condition("Reconciling", "True", resource.RETRYING, "it is tried again"))
        self._tell(obj, now, {})
        if stop.stalls or spec is None:
            # What stalls it may be the controller's configuration: with that, too, it is looked at anew (run.py).
            return Done(True, stop.reason, state="not ready")
        word = f"{stop.reason} ({outcome_of(stop.error)})" if stop.reason == resource.BUILD else stop.reason
        # As often as the stores are asked: once one is well again, that shows as soon as a rotation would.
        most = min(max(spec.refresh, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
        return Done(False, word, spec.retry, most, state="not ready")

    def _tell(self, obj: dict[str, Any], now: list[Condition], more: dict[str, Any]) -> None:
        """Writes the status if it says something else, and an event where a person would want one."""
        before = obj.get("status") or {}
        ready = now[0]
        last = resource.condition(obj, "Ready")
        status = {
            **more,
            "observedGeneration": obj["metadata"].get("generation"),
            "conditions": self._conditions(obj, now),
        }
        if asked := resource.requested(obj):
            status["lastHandledReconcileAt"] = asked
        changed = {key: value for key, value in status.items() if before.get(key) != value}
        refreshed = resource.since(before.get("lastRefreshTime"))
        # A clock that was put back has a refresh lie ahead.
        if set(changed) == {"lastRefreshTime"} and refreshed is not None and 0 <= refreshed < STATUS_SECONDS:
            return
        if changed:
            self._patch(obj, changed)
        said = (last.get("status"), last.get("reason"), _without_numbers(str(last.get("message"))))
        if ready.status != "True" and said != (ready.status, ready.reason, _without_numbers(ready.message)):
            kind = "Normal" if ready.reason == resource.SUSPENDED else "Warning"
            self._parts.api.event(obj, kind=kind, reason=ready.reason, message=ready.message)
        elif ready.status == "True" and last.get("status") != "True":
            self._parts.api.event(obj, kind="Normal", reason=ready.reason, message=ready.message)

    def _conditions(self, obj: Mapping[str, Any], now: list[Condition]) -> list[dict[str, Any]]:
        before = (obj.get("status") or {}).get("conditions") or ()
        generation = obj["metadata"].get("generation", 1)
        found = resource.conditions(before, now, generation, resource.stamp())
        # A message that differs in a number alone (a time, seconds) would be a write for each attempt.
        old = {each.get("type"): each for each in before}
        for each in found:
            last = old.get(each["type"], {})
            if each["reason"] == resource.SUSPENDED:
                # It says of the spec that it was told of, and nothing of the one that is suspended.
                each["observedGeneration"] = last.get("observedGeneration", each["observedGeneration"])
            is_same = {**each, "message": ""} == {**last, "message": ""} and each["status"] != "True"
            if is_same and _without_numbers(each["message"]) == _without_numbers(last.get("message", "")):
                each["message"] = last["message"]
        return found

    def _patch(self, obj: dict[str, Any], status: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        try:
            after = self._parts.api.patch_status(
                resource.API_VERSION,
                resource.PLURAL,
                metadata["namespace"],
                metadata["name"],
                status,
                uid=metadata["uid"],
            )
        except (NotFound, Conflict):
            # It is gone, or is another one by now; that comes as an event of its own.
            return
        obj["status"] = after.get("status") or {**(obj.get("status") or {}), **status}

    def _warning(self, key: Key) -> Callable[[str], None]:
        def warn(text: str) -> None:
            self._parts.watch.note("warning", namespace=key.namespace, object=key.name, text=report.one_line(text))

        return warn


def _asker(key: Key, account: str) -> Asker:
    return Asker(f"{key.namespace}:{account}", key.name)


def _is_asked(obj: Mapping[str, Any]) -> bool:
    """By hand, since it was last done."""
    return resource.requested(obj) not in {"", (obj.get("status") or {}).get("lastHandledReconcileAt")}


def _archived(
    key: Key, spec: Spec, rendered: tuple[tuple[str, bytes], ...], config: "Config", outside: Outside
) -> tuple[bytes, int]:
    """The archive, and how many references are in it. Raises _Stop."""
    run = pipeline.Run(
        output=spec.output,
        namespace=spec.target_namespace or key.namespace,
        identity=key.namespace,
        destination=key.namespace,
    )
    out = io.BytesIO()
    sources = ((name, io.BytesIO(data)) for name, data in rendered)
    try:
        woven = pipeline.weave(sources, out, config, run, outside)
    except SecretweaveError as error:
        raise _Stop(_reason_of(error), error) from None
    with _reason(resource.BUILD):
        return archive.packed(layout.files([out.getvalue()], config.settings.limits)), len(woven.uses)


def _narrowed(config: "Config", spec: Spec) -> "Config":
    """The configuration with what the object itself takes away from it."""
    settings = config.settings
    if spec.refuses_values:
        settings = settings._replace(policy=settings.policy._replace(values=()))
    found = config.stores
    if spec.stores is not None:
        allowed = spec.stores
        why = Unusable(PolicyError, "the store may not be used here", "spec.stores does not name it", "add it there")
        found = tuple(each if each.name in allowed else each._replace(settings=why) for each in found)
    return config._replace(stores=found, settings=settings)


@contextmanager
def _reason(reason: str, others: Mapping[type[SecretweaveError], str] | None = None) -> Iterator[None]:
    """What goes wrong inside is that reason's; for some classes another one."""
    try:
        yield
    except Conflict as error:
        # Somebody wrote at the same time: not the object's fault, and gone with the next attempt.
        raise _Stop(reason, error) from None
    except SecretweaveError as error:
        chosen = next((word for kind, word in (others or {}).items() if isinstance(error, kind)), reason)
        raise _Stop(chosen, error) from None


def _reason_of(error: SecretweaveError) -> str:
    """By the class of what the pipeline found, of several the one that an exit code would tell."""
    if isinstance(error, ConfigError):
        # Of a store it would be among several: that one alone is of the keys.
        return resource.ENCRYPTION
    reasons = {2: resource.STORE, 3: resource.BUILD, 4: resource.POLICY, 5: resource.REFERENCE, 6: resource.STORE}
    return reasons.get(error.exit_code, resource.ENCRYPTION)


def _published(artifact: Mapping[str, Any] | None) -> str:
    """The digest that an ExternalArtifact, or the status of a SecretWeave, points to; empty: to none."""
    status = (artifact or {}).get("status") or {}
    return str((status.get("artifact") or {}).get("digest") or "")


def _artifact_status(found: "Archive", when: str) -> dict[str, Any]:
    return {
        "url": found.url,
        "path": found.path,
        "revision": found.revision,
        "digest": found.digest,
        "size": found.size,
        "lastUpdateTime": when,
    }


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "#", text)


def sweep_temporary() -> None:
    """Removes temporary folders that a crash has left: /tmp of a Pod outlives its container."""
    import shutil
    import tempfile

    place = tempfile.gettempdir()
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY) or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > TEMPORARY_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def _temporary() -> Iterator[str]:
    """A folder of this process' user alone, gone afterwards."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
            yield folder
    except OSError as error:
        what = "the controller cannot use its folder for temporary files"
        fix = "give the volume at /tmp more room"
        raise _Stop(resource.BUILD, SecretweaveError(what, why=error.strerror or "", fix=fix)) from None
