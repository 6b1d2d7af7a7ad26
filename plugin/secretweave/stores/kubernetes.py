"""`kubernetes`: Secrets of one namespace of a cluster.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: cluster}
    spec:
      kubernetes:
        namespace: shop-secrets     # the only one that is read: no ref leads out of it
        kubeconfig: kubeconfig      # optional; relative to the configuration file
        context: production         # optional; by default the kubeconfig's current one
        key: value                  # optional; the key that a ref means that names none
        configMaps: false           # may ConfigMaps be read too?

| ref | value |
|---|---|
| `NAME` | the data of the Secret, each key a field: `NAME#KEY` is one of them |
| `NAME/KEY` | one key's bytes, as they are; also what `NAME` means where the setting `key` is KEY |
| `configmap/NAME`, `configmap/NAME/KEY` | the same of a ConfigMap, where `configMaps` allows it |

Values are decoded from base64. A field that is UTF-8 comes as text, any other as bytes. A Secret is read with one
request, however many of its keys are asked for.

Kubernetes keeps no old versions: the version read is the `resourceVersion`, and asking for any other is an error.

The cluster: as the settings say, else `KUBECONFIG` of the environment, else in a Pod the mounted ServiceAccount, else
`~/.kube/config`. A kubeconfig's user may have a token, a tokenFile, a client certificate, a name with a password, or a
credential plugin (`exec`), which is then run. Proxies: `proxy-url`, else `HTTPS_PROXY` and `NO_PROXY`.

What it needs is `get` on the very names, and neither `list` nor `watch`, which would show it every Secret:

    apiVersion: rbac.authorization.k8s.io/v1
    kind: Role
    metadata: {name: secretweave, namespace: shop-secrets}
    rules:
      - {apiGroups: [""], resources: [secrets], resourceNames: [database, api-token], verbs: [get]}

The Flux controller (`secretweave flux controller`), and nothing else, also asks whether there is a new version, with
one request per Secret that gives no data: a GET of its metadata alone (PartialObjectMetadata), which `get` allows, too.
What `kubectl apply` has written of the data into an annotation comes along, and is not looked at. Where the API server
gives something else the Secret is read instead.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/#get-read-the-specified-secret
https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from secretweave.errors import NotFound, StoreError, listed
from secretweave.forms import FilePath, Form
from secretweave.model import Record, SecretFields, SecretValue
from secretweave.stores.base import BatchStore, Context, Outcome, Wanted

if TYPE_CHECKING:
    from secretweave.sdk.cluster import Cluster, Object

SHOWN = 20
"""How many names of keys an error lists."""


def _text(match: re.Match[str], _folder: str) -> str:
    return match[0]


Namespace = Annotated[str, Form("the name of a namespace", r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", _text)]
Key = Annotated[str, Form("a key of a Secret", r"[-._a-zA-Z0-9]{1,253}", _text)]


class Settings(NamedTuple):
    namespace: Namespace
    """Of the Secrets."""
    kubeconfig: FilePath | None = None
    """By default `KUBECONFIG`, else in a Pod its ServiceAccount, else `~/.kube/config`."""
    context: str | None = None
    """Of the kubeconfig; by default its current one."""
    key: Key | None = None
    """The key that a ref without one means; by default such a ref means all keys, as fields."""
    config_maps: bool = False
    """May ConfigMaps be read, too?"""


class Target(NamedTuple):
    """What a ref names."""

    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str | None


def words(_settings: Settings) -> frozenset[str]:
    """`configmap/NAME` is a ConfigMap, whosever it is."""
    return frozenset({"configmap"})


def connect(settings: Settings, context: Context) -> BatchStore:
    """Finds the cluster, and asks it nothing yet."""
    from secretweave.sdk import cluster

    found = cluster.connect(
        context.environ, context.limits, context.warn, kubeconfig=settings.kubeconfig, context=settings.context
    )
    return KubernetesStore(found, settings, show_names=context.show_key_names)


def preload() -> None:
    from secretweave.sdk import cluster

    cluster.preload()


class KubernetesStore:
    concurrency = 16

    def __init__(self, cluster: "Cluster", settings: Settings, *, show_names: bool) -> None:
        self._cluster = cluster
        self._settings = settings
        self._show_names = show_names

    def fetch(self, ref: str, version: str | None) -> Record:
        (outcome,) = self.fetch_batch([Wanted(ref, version)])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """By object, whichever of its keys; a ref that names none stands alone."""
        groups: dict[Any, list[Wanted]] = {}
        for each in wanted:
            try:
                target = self._target(each.ref)
            except StoreError:
                groups[each] = [each]
            else:
                groups.setdefault((target.kind, target.name), []).append(each)
        return list(groups.values())

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        target = self._target(batch[0].ref)
        found = self._cluster.get(target.kind, self._settings.namespace, target.name)
        return [self._outcome(found, each) for each in batch]

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        return self.batches(wanted)

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        """Of an object, whether or not it has the key: who has read that there is none compares with no version."""
        try:
            target = self._target(batch[0].ref)
        except StoreError:
            return [None] * len(batch)
        found = self._cluster.version(target.kind, self._settings.namespace, target.name)
        return [found if each.version in {None, "", found} else None for each in batch]

    def probe(self) -> None:
        self._cluster.probe()

    def close(self) -> None:
        self._cluster.close()

    def _target(self, ref: str) -> Target:
        from secretweave.sdk.cluster import KEY, NAME

        prefix, slash, rest = ref.partition("/")
        is_config_map = bool(slash) and prefix == "configmap"
        if is_config_map and not self._settings.config_maps:
            raise StoreError(
                "ConfigMaps are not read from this store",
                why="`configmap/` begins the reference of one",
                fix="set spec.kubernetes.configMaps to true; a key of a Secret named configmap is `configmap#KEY`",
            )
        name, slash, key = (rest if is_config_map else ref).partition("/")
        if not NAME.fullmatch(name) or (slash and not KEY.fullmatch(key)):
            raise StoreError(
                "the reference is neither the name of a Secret nor NAME/KEY",
                why="a name is made of a-z, 0-9, `-` and `.`, a key also of A-Z and `_`",
                fix="correct the reference; the namespace is set in the SecretStore alone",
            )
        return Target("ConfigMap" if is_config_map else "Secret", name, key if slash else self._settings.key)

    def _outcome(self, found: "Object", wanted: Wanted) -> Outcome:
        if wanted.version and wanted.version != found.version:
            return StoreError(
                "this version is not there",
                why="Kubernetes keeps only the present one of a Secret",
                fix="remove the version from the reference",
            )
        kind, name, key = self._target(wanted.ref)
        if key is None:
            fields = {each: _field(value) for each, value in found.data.items()}
            return Record(SecretFields(fields), found.version)
        if key not in found.data:
            return NotFound(
                f"the {kind} `{name}` has no key `{key}`",
                why=self._names(found) if self._show_names else "",
                fix="correct the key, or add it",
            )
        return Record(SecretValue(found.data[key]), found.version)

    def _names(self, found: "Object") -> str:
        names = [f"`{name}`" for name in sorted(found.data)]
        return f"it has: {listed(names, SHOWN)}" if names else "it has no keys"


def _field(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
