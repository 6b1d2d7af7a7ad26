"""Direct mode: the SecretMappings (`humanitec.io/v1alpha1`) of a cluster become Secrets, as those of a stream do.

All mappings onto one Secret are woven together, as one stream, the oldest first: by the same code, with the same rules
and refusals. One of them that is at fault holds the Secret as it is, whole: to go on without its keys would take them
from a running application. So does a store that does not answer.

The Secret is applied by the field manager MANAGER, without force. It is ours as long as its label says so, a
SecretMapping owns it and nobody else owns a key of its data. Any other is left alone, with an event. Values are sent to
the API server and never read from it: of Secrets only the metadata is fetched.

Every mapping owns its Secret (ownerReferences), so the cluster itself collects it with the last of them; where one of
several goes, or names another Secret, its keys go.

Labels and annotations of a mapping become the Secret's, save those by which deployment tools know what they have
deployed: with them a tool would take the Secret for its own and prune it.

Where the original Operator runs, nothing is done: two that write one Secret would not end. The CRD's status is the
original's, its schema not public: what happens is told by events.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import pipeline, report
from secretweave.config import Config
from secretweave.errors import Denied, NotFound, PolicyError, SecretweaveError, listed
from secretweave.flux import stores
from secretweave.flux.cluster import Conflict, yaml
from secretweave.generated import MANAGED_BY
from secretweave.outputs import Outside
from secretweave.places.mapping import API_VERSION

if TYPE_CHECKING:
    from secretweave.flux.cluster import Api

KIND = "SecretMapping"
PLURAL = "secretmappings"
MANAGER = "secretweave"
REFRESH_SECONDS = 300.0
"""The object has no field for it."""
OPERATOR_LABEL = "app.kubernetes.io/name=humanitec-operator"
OPERATOR_NAMESPACES = ("humanitec-operator-system", "humanitec-operator")
"""Where the vendor's pages install it; beside the operator's namespace of the configuration."""
OPERATOR_KNOWN_SECONDS = 60.0
SHOWN = 3
"""So many mappings' names are in a line of the audit log: there is no end of what may feed one Secret."""
TOOLS = ("kubectl.kubernetes.io/", "argocd.argoproj.io/", "helm.sh/", "meta.helm.sh/", "config.kubernetes.io/")
TOOL_SUFFIX = ".toolkit.fluxcd.io"
TOOL_KEYS = frozenset({"app.kubernetes.io/instance", "app.kubernetes.io/managed-by"})
"""The first is what Argo CD tracks by in its older setting."""


class _Operator(NamedTuple):
    why: str | None
    known_until: float


class Mappings:
    """Several threads may reconcile at once."""

    def __init__(
        self,
        api: "Api",
        config: Callable[[], Config],
        outside: Callable[[str, str], Outside],
        warn: Callable[[str], None],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        """*config*: the present one; *outside*: what a run meets, for a namespace, its identity, and the names of
        mappings; *warn*: the log.
        """
        self._api = api
        self._config = config
        self._outside = outside
        self._warn = warn
        self._refresh_seconds = refresh_seconds
        self._operator = _Operator(None, 0.0)

    def reconcile(self, namespace: str, name: str, obj: Mapping[str, Any] | None) -> float | None:
        """Makes the Secrets what the mapping, or its absence (*obj* None), asks for.

        Gives the seconds to the next refresh; None: there is none. Raises SecretweaveError, once an event has told it.
        """
        lives = obj is not None and not _meta(obj).get("deletionTimestamp")
        try:
            if why := self.operator_runs():
                if obj is not None and lives:
                    self._api.event(obj, kind="Warning", reason="StandsBack", message=why)
                return self._refresh_seconds if lives else None
            self._reconcile(namespace, name, obj if lives else None)
        except SecretweaveError as error:
            if obj is not None and lives:
                self._api.event(obj, kind="Warning", reason=_reason(error), message=report.status(error))
            raise
        return self._refresh_seconds if lives else None

    def operator_runs(self) -> str | None:
        """Why nothing is done here; None: no original Operator is seen. Raises StoreError: that could not be found out.

        Its Deployment is looked for; where that may not be listed, a status that somebody wrote into a mapping.
        """
        now = time.monotonic()
        if now < self._operator.known_until:
            return self._operator.why
        why = self._operator_seen()
        if why and why != self._operator.why:
            self._warn(why)
        self._operator = _Operator(why, now + OPERATOR_KNOWN_SECONDS)
        return why

    def _operator_seen(self) -> str | None:
        does_nothing = "secretweave makes no Secrets of SecretMappings here; remove it, or do without --secret-mappings"
        own = self._config().settings.operator_namespace
        try:
            for namespace in dict.fromkeys((own, *OPERATOR_NAMESPACES)):
                for each in self._api.list("apps/v1", "deployments", namespace, OPERATOR_LABEL):
                    if (each.get("spec") or {}).get("replicas", 1):
                        found = f"the Deployment {_meta(each).get('name')} in the namespace {namespace}"
                        return f"the Humanitec Operator runs: {found}. {does_nothing}"
        except Denied:
            for each in self._mappings(None):
                for field in _meta(each).get("managedFields") or ():
                    if field.get("subresource") == "status" and field.get("manager") != MANAGER:
                        found = f"`{field.get('manager')}` has written a status into SecretMappings"
                        return f"the Humanitec Operator seems to run: {found}. {does_nothing}"
        return None

    def _mappings(self, namespace: str | None) -> list[dict[str, Any]]:
        try:
            return self._api.list(API_VERSION, PLURAL, namespace)
        except NotFound:
            return []

    def _reconcile(self, namespace: str, name: str, obj: Mapping[str, Any] | None) -> None:
        by_target: dict[str, list[dict[str, Any]]] = {}
        for each in self._mappings(namespace):
            if not _meta(each).get("deletionTimestamp"):
                by_target.setdefault(_target(each), []).append(each)
        selector = "=".join(MANAGED_BY)
        made = self._api.list("v1", "secrets", namespace, selector, metadata=True)
        left = [each for each in made if any(owner["name"] == name for owner in _owners(each))]
        targets = {_target(obj): None} if obj is not None else {}
        targets |= {_meta(each)["name"]: None for each in left}
        faults: list[SecretweaveError] = []
        for target in targets:
            feeding = sorted(by_target.get(target, ()), key=_age)
            try:
                try:
                    self._settle(namespace, target, feeding)
                except Conflict:
                    # Another mapping of this Secret may have been woven at the same time.
                    self._settle(namespace, target, feeding)
            except SecretweaveError as error:
                # What a mapping asked for before must not keep it from what it asks for now.
                faults.append(error)
        if faults:
            raise faults[0]

    def _settle(self, namespace: str, target: str, feeding: list[dict[str, Any]]) -> None:
        if feeding:
            self._make(namespace, target, feeding)
        else:
            self._remove(namespace, target)

    def _make(self, namespace: str, target: str, feeding: list[dict[str, Any]]) -> None:
        # Without a target it is malformed, which is told by what reads it.
        before = self._present(namespace, target) if target else None
        if before is not None and (why := _foreign(before)):
            raise PolicyError(
                f"the Secret {target} in the namespace {namespace} is somebody else's, and left as it is",
                why=why,
                fix="give the SecretMapping another secretName, or delete that Secret",
            )
        secret = self._woven(namespace, feeding)
        metadata = secret["metadata"]
        metadata["ownerReferences"] = [
            {"apiVersion": API_VERSION, "kind": KIND, "name": _meta(each)["name"], "uid": _meta(each)["uid"]}
            for each in feeding
        ]
        if before is not None:
            metadata["resourceVersion"] = _meta(before)["resourceVersion"]
        after = self._api.apply(secret, "secrets", manager=MANAGER, metadata=True)
        if before is None or _meta(after).get("resourceVersion") != _meta(before)["resourceVersion"]:
            verb = "made" if before is None else "updated"
            keys = ", ".join(secret.get("data") or {}) or "none"
            for each in feeding:
                self._api.event(
                    each, kind="Normal", reason="Applied", message=f"{verb} the Secret {target}: keys {keys}"
                )

    def _woven(self, namespace: str, feeding: list[dict[str, Any]]) -> dict[str, Any]:
        """The Secret that the mappings describe together, its values in it."""
        config = stores.configured(self._api, self._config(), namespace)
        # A fault's place names the object itself.
        sources = [("the cluster", io.BytesIO(yaml(_document(each)))) for each in feeding]
        run = pipeline.Run(output="secret", namespace=namespace, identity=namespace, destination=namespace)
        out = io.BytesIO()
        names = listed([_meta(each)["name"] for each in feeding], SHOWN)
        if len(feeding) > SHOWN:
            names += f" of the Secret {_target(feeding[0])}"
        pipeline.weave(sources, out, config, run, self._outside(namespace, names))
        # JSON goes in, and so JSON comes out.
        secret: dict[str, Any] = json.loads(out.getvalue())
        return secret

    def _present(self, namespace: str, target: str) -> dict[str, Any] | None:
        try:
            return self._api.get("v1", "secrets", namespace, target, metadata=True)
        except NotFound:
            return None

    def _remove(self, namespace: str, target: str) -> None:
        present = self._present(namespace, target)
        if present is None:
            # The cluster's own collector was first.
            return
        if why := _foreign(present):
            self._warn(f"the Secret {target} in the namespace {namespace} outlives its SecretMappings: {why}")
            return
        version, uid = _meta(present)["resourceVersion"], _meta(present)["uid"]
        try:
            self._api.delete("v1", "secrets", namespace, target, version=version, uid=uid)
        except NotFound:
            return


def _meta(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = obj.get("metadata") or {}
    return found


def _target(obj: Mapping[str, Any]) -> str:
    spec = obj.get("spec")
    name = spec.get("secretName") if isinstance(spec, Mapping) else None
    return name if isinstance(name, str) else ""


def _age(obj: Mapping[str, Any]) -> tuple[str, str]:
    return str(_meta(obj).get("creationTimestamp", "")), str(_meta(obj).get("name", ""))


def _document(obj: Mapping[str, Any]) -> dict[str, Any]:
    """What of an object stood in a file once."""
    metadata = _meta(obj)
    kept = {
        part: {key: value for key, value in (metadata.get(part) or {}).items() if not _is_tools(key)}
        for part in ("labels", "annotations")
    }
    head = {"name": metadata["name"], "namespace": metadata["namespace"]}
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": KIND,
        "metadata": {**head, **{part: found for part, found in kept.items() if found}},
        "spec": obj.get("spec"),
    }


def _is_tools(key: str) -> bool:
    prefix = key.partition("/")[0]
    return key in TOOL_KEYS or key.startswith(TOOLS) or prefix.endswith(TOOL_SUFFIX)


def _owners(secret: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The SecretMappings that own it."""
    owners: Iterable[Mapping[str, Any]] = _meta(secret).get("ownerReferences") or ()
    return [each for each in owners if (each.get("apiVersion"), each.get("kind")) == (API_VERSION, KIND)]


def _foreign(secret: Mapping[str, Any]) -> str:
    """Why it is not wholly ours; empty: it is."""
    others = {
        str(each.get("manager"))
        for each in _meta(secret).get("managedFields") or ()
        if (each.get("manager"), each.get("operation")) != (MANAGER, "Apply")
        and {"f:data", "f:stringData"} & set(each.get("fieldsV1") or ())
    }
    if others:
        return f"`{', '.join(sorted(others))}` owns keys of its data"
    if (_meta(secret).get("labels") or {}).get(MANAGED_BY[0]) != MANAGED_BY[1]:
        return f"it has no label {MANAGED_BY[0]}: {MANAGED_BY[1]}"
    return "" if _owners(secret) else "no SecretMapping owns it"


def _reason(error: SecretweaveError) -> str:
    return {3: "Malformed", 4: "Refused", 5: "ReferenceInvalid", 6: "StoreFailed"}.get(error.exit_code, "Failed")
