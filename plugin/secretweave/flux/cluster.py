"""The few calls of the Kubernetes API that the controller and Direct mode make, on plain dicts.

They go over the connection of sdk/cluster.py: the package's ApiClient and its models would be 50 MB for what is JSON in
and JSON out here. Several threads may use one Api.

Each call has SECONDS for all its attempts. What breaks off, 429 and 5xx are tried again, as `Retry-After` asks; the
token of a Pod's ServiceAccount is read again when it has aged.

https://kubernetes.io/docs/reference/using-api/api-concepts/
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from secretweave.errors import Denied, NotFound, SecretweaveError, StoreError, Unavailable

if TYPE_CHECKING:
    from secretweave.sdk.cluster import Cluster

CONTROLLER = "secretweave.dev/flux"
"""As events name who reports."""
SECONDS = 20.0
EVENT_SECONDS = 3.0
"""An event is worth no wait."""
ATTEMPT_SECONDS = 10.0
REPEAT_SECONDS = 600.0
"""A Warning that was told is not told again so soon: a fault that lasts comes with each attempt."""
NOTE_BYTES = 1024
"""https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/"""
SHOWN_CHARS = 500
"""Of what the API server says is wrong with an object."""
TOLD_MAX = 1000
METADATA = {
    "": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "List": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
}
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""


class Conflict(StoreError):
    """Another manager owns a field, the object has changed meanwhile, or one of its name is there."""


class Api:
    """One cluster. Objects are plain dicts; `plural` is the resource's name in paths.

    Every call but `event` raises NotFound, Denied, Unavailable, Conflict or another StoreError. No error holds a value
    of an object, nor what the API server says of a Secret.
    """

    def __init__(self, cluster: "Cluster", *, seconds: float = SECONDS) -> None:
        """*seconds*: what a call may take, with all its attempts."""
        self._cluster = cluster
        self._seconds = seconds
        self._told: dict[tuple[str, ...], float] = {}

    def get(
        self, api_version: str, plural: str, namespace: str | None, name: str, *, metadata: bool = False
    ) -> dict[str, Any]:
        """*metadata*: that alone, so that no value of a Secret travels."""
        _segment(name)
        return self._call("GET", api_version, plural, namespace, name, accept=METADATA[""] if metadata else "")

    def list(
        self,
        api_version: str,
        plural: str,
        namespace: str | None = None,
        labels: str = "",
        *,
        metadata: bool = False,
    ) -> list[dict[str, Any]]:
        """Of the *namespace*, or of all; *labels*: a selector. NotFound: the cluster has no such kind."""
        query = f"?labelSelector={quote(labels)}" if labels else ""
        accept = METADATA["List"] if metadata else ""
        found = self._call("GET", api_version, plural, namespace, query=query, accept=accept)
        kind = str(found.get("kind", "")).removesuffix("List")
        # Items of a list do not say what they are.
        return [{"apiVersion": api_version, "kind": kind, **each} for each in found.get("items") or ()]

    def apply(
        self, obj: Mapping[str, Any], plural: str, *, manager: str, force: bool = False, metadata: bool = False
    ) -> dict[str, Any]:
        """Server-side apply: *manager* owns what *obj* says, and gives up what it said before and does not say now.

        Conflict: another manager owns a field with another value, and *force* is not set; or *obj* says a
        metadata.resourceVersion that is not the present one. *metadata*: give that alone.
        """
        query = f"?fieldManager={quote(manager)}&force={'true' if force else 'false'}"
        accept = METADATA[""] if metadata else ""
        return self._send("PATCH", obj, plural, query, "application/apply-patch+yaml", accept=accept)

    def patch_status(
        self,
        api_version: str,
        plural: str,
        namespace: str | None,
        name: str,
        status: Mapping[str, Any],
        *,
        uid: str = "",
    ) -> dict[str, Any]:
        """Merges *status* into the object's: null takes a member out, a list replaces a list. NotFound: also where the
        kind has no status subresource. *uid*: Conflict where the object has another one by now.
        """
        only = {"metadata": {"uid": uid}} if uid else {}
        body = json.dumps({**only, "status": status}).encode()
        content = "application/merge-patch+json"
        return self._call("PATCH", api_version, plural, namespace, name, part="/status", body=body, content=content)

    def create(self, obj: Mapping[str, Any], plural: str) -> dict[str, Any]:
        """Conflict: one of its name is there; after a broken connection it may be this one."""
        return self._send("POST", obj, plural, "", "application/json")

    def replace(self, obj: Mapping[str, Any], plural: str) -> dict[str, Any]:
        """Conflict: its metadata.resourceVersion is not the present one."""
        return self._send("PUT", obj, plural, "", "application/json")

    def delete(
        self, api_version: str, plural: str, namespace: str | None, name: str, *, version: str = "", uid: str = ""
    ) -> None:
        """*version*, *uid*: Conflict where the object has another resourceVersion or uid by now."""
        only = {key: value for key, value in (("resourceVersion", version), ("uid", uid)) if value}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = json.dumps({**options, "preconditions": only}).encode()
        self._call("DELETE", api_version, plural, namespace, name, body=body, content="application/json")

    def event(self, about: Mapping[str, Any], *, kind: str, reason: str, message: str) -> None:
        """An event of *kind* Normal or Warning on an object. It never raises; a Warning is not repeated at once."""
        metadata = {"name": "secretweave", **(about.get("metadata") or {})}
        note = message.encode()[:NOTE_BYTES].decode(errors="ignore")
        now = time.time()
        key = (str(metadata.get("uid") or metadata["name"]), reason, note)
        if kind == "Warning":
            if now - self._told.get(key, 0.0) < REPEAT_SECONDS:
                return
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told[key] = now
        namespace = metadata.get("namespace") or "default"
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
        found = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # Not generateName: an attempt that is repeated is then seen to be the same event.
            "metadata": {"name": f"{metadata['name'][:200]}.{os.urandom(8).hex()}", "namespace": namespace},
            "eventTime": stamp,
            "reportingController": CONTROLLER,
            "reportingInstance": os.uname().nodename[:128] or "secretweave",
            "action": "Reconcile",
            "reason": reason,
            "regarding": {
                "apiVersion": about.get("apiVersion", ""),
                "kind": about.get("kind", ""),
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
            },
            "note": note,
            "type": kind,
        }
        try:
            self._send("POST", found, "events", "", "application/json", seconds=EVENT_SECONDS)
        except SecretweaveError:
            # What it tells of is told otherwise, too. It may be tried again with the next attempt.
            self._told.pop(key, None)

    def token(self, namespace: str, account: str, audiences: Sequence[str], seconds: int = 600) -> str:
        """A token of a ServiceAccount; no audience: the API server's own. The API grants no less than 600 seconds.

        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
        """
        spec = {"expirationSeconds": seconds, **({"audiences": list(audiences)} if audiences else {})}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        found = self._call(
            "POST",
            "v1",
            "serviceaccounts",
            namespace,
            account,
            part="/token",
            body=json.dumps(body).encode(),
            content="application/json",
        )
        token = (found.get("status") or {}).get("token")
        if not isinstance(token, str) or not token:
            raise Unavailable("the API server gave no token", fix="see whether it serves TokenRequest")
        return token

    def close(self) -> None:
        self._cluster.close()

    def _send(
        self,
        method: str,
        obj: Mapping[str, Any],
        plural: str,
        query: str,
        content: str,
        *,
        accept: str = "",
        seconds: float | None = None,
    ) -> dict[str, Any]:
        metadata = obj.get("metadata") or {}
        return self._call(
            method,
            obj["apiVersion"],
            plural,
            metadata.get("namespace"),
            "" if method == "POST" else metadata["name"],
            query=query,
            body=yaml(obj),
            content=content,
            accept=accept,
            seconds=seconds,
        )

    def _call(
        self,
        method: str,
        api_version: str,
        plural: str,
        namespace: str | None,
        name: str = "",
        *,
        part: str = "",
        query: str = "",
        body: bytes | None = None,
        content: str = "",
        accept: str = "",
        seconds: float | None = None,
    ) -> dict[str, Any]:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        inside = f"/namespaces/{_segment(namespace)}" if namespace else ""
        path = f"{root}{inside}/{plural}" + (f"/{_segment(name)}" if name else "") + part
        headers = {name: value for name, value in (("Content-Type", content), ("Accept", accept)) if value}
        status, found = self._cluster.send(method, path + query, body, headers, seconds=seconds or self._seconds)
        # "404 page not found" is what the API server answers, without JSON, for a group that it does not serve.
        if not (200 <= status < 300 and found.get("kind")):
            where = f" in the namespace `{namespace}`" if namespace else ""
            subject = f"{plural} `{name}`{where}" if name else f"{plural}{where}"
            _refused(method, plural + part, subject, status, found, self._cluster.identity)
        return found


def connect(
    kubeconfig: str | None,
    context: str | None,
    *,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda _text: None,
    seconds: float = SECONDS,
) -> Api:
    """The cluster that is meant, as sdk/cluster.py finds it; no request is sent. Raises StoreError.

    A kubeconfig's credential plugin is run once: what lasts needs a ServiceAccount, a token file or a certificate.
    """
    from secretweave.sdk import cluster
    from secretweave.stores.base import CallLimits

    limits = CallLimits(seconds, ATTEMPT_SECONDS)
    found = os.environ if environ is None else environ
    return Api(cluster.connect(found, limits, warn, kubeconfig=kubeconfig, context=context), seconds=seconds)


def yaml(document: Mapping[str, Any]) -> bytes:
    """An object as one document that YAML reads like JSON: what only YAML takes for line breaks, or for nothing, is
    escaped; what is beyond the basic plane is not, since as YAML nobody takes pairs of halves: neither libyaml nor the
    API server in what is applied.
    """
    text = json.dumps(document, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _segment(text: str) -> str:
    """A name, as one segment of a path. Raises StoreError: it would be another path."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#path-segment-names
    if text in {"", ".", ".."} or "/" in text or "%" in text:
        raise StoreError("what should be a name is none", fix="correct the object that names it")
    return quote(text, safe="")


VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}


def _refused(
    method: str, resource: str, subject: str, status: int, answer: Mapping[str, Any], identity: str
) -> NoReturn:
    """Raises what an answer without success means."""
    verb = "list" if method == "GET" and "`" not in subject.partition(" in the namespace")[0] else VERBS[method]
    told = _told(resource, answer)
    if status == 403:
        raise Denied(
            f"the API server denies {identity} to {verb} {subject}",
            why=told or "no rule of RBAC allows it, or an admission check refuses it",
            fix=f"give it a Role with `verbs: [{verb}]` on `{resource}`; see also what admission says",
        )
    if status == 404:
        raise NotFound(
            f"the API server has no {subject}",
            fix="correct the name or the namespace; for a kind of Flux or of our own install its CRD",
        )
    # A patch that names a uid finds it immutable, where others find a precondition that does not hold.
    if status == 409 or (status == 422 and "metadata.uid" in _fields(answer)):
        raise Conflict(
            f"the API server does not let us {verb} {subject}: a conflict",
            why=told or "it has changed meanwhile, or is there already",
            fix="let one owner alone write it; what has changed meanwhile is tried again",
        )
    if 400 <= status < 500:
        raise StoreError(
            f"the API server refuses to {verb} {subject} (status {status})",
            why=told,
            fix="correct what the object is made from; for a kind of our own see that its CRD is of this version",
        )
    raise Unavailable(
        "what answers is not the Kubernetes API",
        why=f"it gave something else than {subject} (status {status})",
        fix="correct the address of the API server",
    )


def _fields(answer: Mapping[str, Any]) -> list[str]:
    causes = (answer.get("details") or {}).get("causes") or ()
    return [str(each.get("field", "")) for each in causes if isinstance(each, dict)]


def _told(resource: str, answer: Mapping[str, Any]) -> str:
    """What a Status says; of Secrets its fields alone, since the text can repeat what was sent."""
    details = answer.get("details") or {}
    causes = [each for each in details.get("causes") or () if isinstance(each, dict)]
    if resource.startswith("secrets"):
        found = (
            f"{each.get('field', '')}: {each.get('message', '')}"
            if each.get("reason") == "FieldManagerConflict"
            else str(each.get("field", ""))
            for each in causes
        )
        return ", ".join(each for each in found if each)[:SHOWN_CHARS]
    return str(answer.get("message") or "")[:SHOWN_CHARS]
