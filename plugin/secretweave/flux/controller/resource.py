"""A SecretWeave as it is read, and the conditions that it gets, by Flux's conventions.

    Ready        True: the artifact is that of the spec; False: see its reason; the last good artifact stays published
    Reconciling  True: it is at work, or tries again
    Stalled      True: nothing is tried again before the object changes

https://fluxcd.io/flux/components/kustomize/kustomizations/#kustomization-status
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from secretweave.errors import ConfigError
from secretweave.forms import NAMESPACE

API_VERSION = "flux.secretweave.dev/v1alpha1"
KIND, PLURAL = "SecretWeave", "secretweaves"
SOURCE_VERSION = "source.toolkit.fluxcd.io/v1"
SOURCES = {
    "GitRepository": "gitrepositories",
    "OCIRepository": "ocirepositories",
    "Bucket": "buckets",
    "ExternalArtifact": "externalartifacts",
}
REQUESTED = "reconcile.fluxcd.io/requestedAt"
"""https://fluxcd.io/flux/cmd/flux_reconcile/"""
MANAGED = ("app.kubernetes.io/managed-by", "secretweave")
DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+")
PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
INTERVAL_SECONDS_MIN = 1.0
TIMEOUT_SECONDS_MAX = 600.0
"""Of one attempt, whatever the object says: a worker that has one for much longer is held to hang (run.py)."""
MESSAGE_BYTES = 20 << 10
"""Of a condition: the whole object must stay far below etcd's limit."""

# Reasons of conditions.
SUCCEEDED, SUSPENDED, INVALID = "Succeeded", "Suspended", "InvalidSpec"
ARTIFACT, BUILD, POLICY, REFERENCE = "ArtifactFailed", "BuildFailed", "PolicyRefused", "ReferenceInvalid"
STORE, ENCRYPTION, ACCESS, PROGRESSING = "StoreFailed", "EncryptionFailed", "AccessDenied", "Progressing"
RETRYING, INTERNAL = "ProgressingWithRetry", "InternalError"


class Source(NamedTuple):
    kind: str
    namespace: str
    name: str


class Spec(NamedTuple):
    source: Source
    path: str
    interval: float
    refresh: float
    retry: float | None
    """None: after a pause that grows."""
    timeout: float
    suspend: bool
    target_namespace: str | None
    account: str
    """The ServiceAccount's name; empty: none."""
    stores: tuple[str, ...] | None
    refuses_values: bool
    output: str
    key_secret: str
    """The Secret with identities; empty: one of our own."""
    rotate_after: float
    recipients: tuple[str, ...]


def read(obj: Mapping[str, Any]) -> Spec:
    """Raises ConfigError: what the CRD's schema lets pass, or a cluster with an older one, and is still no spec."""
    spec, own = _mapping(obj.get("spec"), "spec"), obj["metadata"]["namespace"]
    ref = _mapping(spec.get("sourceRef"), "spec.sourceRef")
    version, kind = ref.get("apiVersion") or SOURCE_VERSION, ref.get("kind")
    if version != SOURCE_VERSION or not isinstance(kind, str) or kind not in SOURCES:
        raise _invalid("spec.sourceRef", f"name a {', '.join(SOURCES)} of {SOURCE_VERSION}")
    source = Source(kind, _name(ref, "namespace", "spec.sourceRef", own), _name(ref, "name", "spec.sourceRef"))
    if source == ("ExternalArtifact", own, obj["metadata"]["name"]):
        raise _invalid("spec.sourceRef", "name another ExternalArtifact: this one is what comes of the object itself")
    keys, policy = _mapping(spec.get("keys"), "spec.keys"), _mapping(spec.get("policy"), "spec.policy")
    interval = _duration(spec, "interval", None)
    if spec.get("output", "sops") not in ("sops", "secret"):  # no set: it may be a list
        raise _invalid("spec.output", "write `sops` or `secret`")
    if policy.get("values", "asConfigured") not in ("refuse", "asConfigured"):
        raise _invalid("spec.policy.values", "write `refuse` or `asConfigured`")
    target = _name(spec, "targetNamespace", "spec", "")
    if target and not NAMESPACE.fullmatch(target):
        raise _invalid("spec.targetNamespace", "write the name of a namespace")
    return Spec(
        source,
        _text(spec, "path", "spec", "./"),
        max(interval, INTERVAL_SECONDS_MIN),
        max(_duration(spec, "refreshInterval", interval), INTERVAL_SECONDS_MIN),
        max(_duration(spec, "retryInterval", 0.0), INTERVAL_SECONDS_MIN) if spec.get("retryInterval") else None,
        min(_duration(spec, "timeout", 60.0), TIMEOUT_SECONDS_MAX),
        spec.get("suspend") is True,
        target or None,
        _name(spec, "serviceAccountName", "spec", ""),
        None if spec.get("stores") is None else _texts(spec["stores"], "spec.stores"),
        policy.get("values") == "refuse",
        spec.get("output", "sops"),
        _name(_mapping(keys.get("secretRef"), "spec.keys.secretRef"), "name", "spec.keys.secretRef", "")
        if keys.get("secretRef")
        else "",
        _duration(keys, "rotateAfter", 2160 * 3600.0),
        _texts(keys.get("age") or [], "spec.keys.age"),
    )


def requested(obj: Mapping[str, Any]) -> str:
    """The value of Flux's annotation that asks for a reconciliation; empty: none."""
    found = (obj["metadata"].get("annotations") or {}).get(REQUESTED)
    return found if isinstance(found, str) else ""


def seconds(text: str) -> float | None:
    """A duration as Go writes it; None: it is none."""
    if not DURATION.fullmatch(text):
        return None
    return sum(float(number) * SECONDS[unit] for number, unit in PART.findall(text))


def stamp(now: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def since(text: object) -> float | None:
    """The seconds since a time of Kubernetes'; None: it is none."""
    import calendar

    try:
        return time.time() - calendar.timegm(time.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None


class Condition(NamedTuple):
    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    message: str


def conditions(
    before: Sequence[Mapping[str, Any]], now: Sequence[Condition], generation: int, when: str
) -> list[dict[str, Any]]:
    """All that the object has from now on; the time of a transition stays while the status does."""
    old = {each.get("type"): each for each in before}
    found = []
    for each in now:
        last = old.get(each.type, {})
        moved = last.get("lastTransitionTime") if last.get("status") == each.status else None
        found.append(
            {
                **each._asdict(),
                "message": shortened(each.message),
                "observedGeneration": generation,
                "lastTransitionTime": moved or when,
            }
        )
    return found


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One of an object's; an empty mapping where there is none."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == kind), {})


def shortened(text: str) -> str:
    data = text.encode()
    return text if len(data) <= MESSAGE_BYTES else data[: MESSAGE_BYTES - 8].decode(errors="ignore") + "\n[more]"


def owner(obj: Mapping[str, Any]) -> dict[str, Any]:
    """An ownerReference to a SecretWeave: the cluster deletes what it owns after it."""
    name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
    return {"apiVersion": API_VERSION, "kind": KIND, "name": name, "uid": uid, "controller": True}


def is_owned(obj: Mapping[str, Any], name: str) -> bool:
    """Does an object belong to the SecretWeave *name*? One that is no more counts: its namesake is its heir."""
    owners = obj["metadata"].get("ownerReferences") or ()
    group = API_VERSION.partition("/")[0]
    return any(
        str(each.get("apiVersion")).partition("/")[0] == group and (each.get("kind"), each.get("name")) == (KIND, name)
        for each in owners
    )


def _invalid(field: str, fix: str) -> ConfigError:
    return ConfigError(f"{field} is not usable", fix=fix)


def _mapping(value: object, field: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(field, "write a mapping")
    return value


def _text(of: Mapping[str, Any], key: str, under: str, default: str) -> str:
    value = of.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise _invalid(f"{under}.{key}", "write text")
    return value


def _name(of: Mapping[str, Any], key: str, under: str, default: str | None = None) -> str:
    value = of.get(key)
    if (value is None or value == "") and default is not None:
        return default
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise _invalid(f"{under}.{key}", "write a name as Kubernetes has them")
    return value


def _texts(value: object, field: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _invalid(field, "write a list of texts")
    return tuple(value)


def _duration(of: Mapping[str, Any], key: str, default: float | None) -> float:
    value = of.get(key)
    if value is None and default is not None:
        return default
    found = seconds(value) if isinstance(value, str) else None
    if found is None:
        raise _invalid(key if key == "rotateAfter" else f"spec.{key}", "write a duration such as `10m`")
    return found
