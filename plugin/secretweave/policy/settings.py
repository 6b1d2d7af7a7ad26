"""What the policy may be set to. Only the configuration can relax a rule, never a manifest."""

from typing import Literal, NamedTuple

Verdict = Literal["allow", "warn", "refuse"]


class NativeKind(NamedTuple):
    """A Kubernetes kind that stands for a restricted resource type."""

    api_version: str
    """A glob: `cluster.x-k8s.io/*`."""
    kind: str
    type: str


class ResourceKeys(NamedTuple):
    """Where a `humanitec.io` resource object says what it is. Unverified: that schema is not public."""

    type: str = "spec.type"
    class_: str = "spec.class"
    id: str = "spec.id"


class Restricted(NamedTuple):
    """The restricted resource types: (A) nothing may refer to one, (B) none may refer to what uses a secret.

    https://developer.humanitec.com/integration-and-extensions/humanitec-operator/overview
    """

    types: tuple[str, ...] = ("k8s-cluster", "k8s-namespace", "agent", "logging")
    restricted_to_restricted: Verdict = "allow"
    """Rule (A) between two restricted types, such as a k8s-cluster that takes its URL from an agent."""
    own_reference: Verdict = "warn"
    """A restricted resource that holds a secret reference itself."""
    reference_to_namespace: Verdict = "refuse"
    """Rule (A) on k8s-namespace, which published Definitions break."""
    native_kinds: tuple[NativeKind, ...] = (
        NativeKind("v1", "Namespace", "k8s-namespace"),
        NativeKind("cluster.x-k8s.io/*", "Cluster", "k8s-cluster"),
    )
    """They may hold no reference."""
    resource_keys: ResourceKeys = ResourceKeys()


class RefusedKind(NamedTuple):
    kind: str
    """A glob."""
    api_version: str = "*"
    """A glob."""


class StoreRule(NamedTuple):
    """Who may read what of a store. As soon as one rule names a store, only what a rule allows can be read of it.

    A rule allows what fits all that it names; an empty list fits nobody, nothing. Where a rule of the store names
    identities or destinations, for which the host vouches, one that does must allow the read; where a rule names
    namespaces alone, one that names namespaces must, too: a manifest, which chooses its namespace, can only narrow. A
    rule that names none of the three allows everybody.

    Under Argo CD `{project}` and `{namespace}` (of the destination) may stand in namespaces, destinations and prefixes.
    """

    store: str
    """The store's name, exactly."""
    identities: tuple[str, ...] | None = None
    """Exact names, as given by --identity; under Argo CD, of AppProjects. Left out: any."""
    namespaces: tuple[str, ...] | None = None
    """Of manifests, exact names. Left out: any."""
    prefixes: tuple[str, ...] | None = None
    """Of the ref, by whole path segments: `team/a` allows `team/a/db`, not `team/ab`. Left out: any ref."""
    destinations: tuple[str, ...] | None = None
    """The Application's destination namespace under Argo CD, as Argo CD vouches for it, exact names; without Argo CD
    they fit nothing. Who may deploy where, the AppProject says. Left out: any."""


class ValuePlace(NamedTuple):
    """Where a value may stand besides Secrets and containers' env."""

    store: str
    """The store's name, exactly."""
    kind: str
    """A glob."""
    field: str
    """A key path; a step is a glob, an item is `[*]`: `data.*`, `spec.template.spec.containers[*].args[*]`."""


class Policy(NamedTuple):
    restricted: Restricted = Restricted()
    refused_kinds: tuple[RefusedKind, ...] = ()
    """Kinds that may not pass at all."""
    stores: tuple[StoreRule, ...] = ()
    unruled_stores: Literal["allow", "refuse"] | None = None
    """Stores that no rule names. Left out: `allow` as long as there is no rule at all, else `refuse`."""
    values: tuple[ValuePlace, ...] = ()
