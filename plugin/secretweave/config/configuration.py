"""What the `spec` of a Configuration document may hold, and what holds where it says nothing.

Its JSON Schema, for editors, is schemas/configuration.json.
"""

from typing import Literal, NamedTuple

from secretweave.argocd.settings import ArgoCD
from secretweave.flux.settings import Flux
from secretweave.forms import Count, FilePath, Seconds, Size
from secretweave.policy.settings import Policy
from secretweave.sealing.settings import Sops


class References(NamedTuple):
    """How the reference object `{store, ref}` is read."""

    default_store: Literal["refuse", "allow"] = "refuse"
    """A `ref` without `store`: an error, or the default store."""
    literal_value: Literal["warn", "refuse"] = "warn"
    """A literal secret `{value: ...}`: used with a warning, or an error."""


class Credentials(NamedTuple):
    """Where the credentials lie that a SecretStore names (`tokenSecretRef` and the like), by namespace, name and key.

    The namespace is that of the SecretStore; the operator's where it has none.
    """

    from_: Literal["cluster", "folder", "environment"] = "cluster"
    """`cluster`: Kubernetes Secrets; `folder`: files, as Secrets are mounted; `environment`: variables called
    SECRETWEAVE_CREDENTIAL_NAME_KEY, in capitals, with `_` for what is no letter or digit."""
    folder: FilePath | None = None
    """It holds NAMESPACE/NAME/KEY, or NAME/KEY."""
    kubeconfig: FilePath | None = None
    """Of the cluster. Left out: that of the Pod, else KUBECONFIG, else ~/.kube/config."""
    context: str | None = None
    """Of the kubeconfig. Left out: its current one."""


class SecretStores(NamedTuple):
    """What becomes of SecretStore documents in the manifests. In a sidecar they belong to the tenant."""

    in_stream: Literal["ignore", "use"] = "ignore"
    """`use`: references find them as if they stood in the configuration. Whoever writes a manifest then chooses the
    addresses to which this process's identity is shown: only for manifests that are trusted like the configuration."""
    output: Literal["keep", "drop"] = "keep"
    """Do they leave with the other manifests?"""


class PodTemplate(NamedTuple):
    """A pod template in a kind that is not Kubernetes' own."""

    api_version: str
    """Such as `argoproj.io/v1alpha1`."""
    kind: str
    """Such as `Rollout`."""
    path: str = "spec.template"
    """The key path from the object to the mapping that holds `metadata` and `spec` of the pod."""


class Limits(NamedTuple):
    document_bytes: Size = 4 << 20
    """The longest document that is looked into; a longer one passes only if it holds nothing of ours."""
    depth: Count = 100
    """The deepest nesting of a document."""
    nodes: Count = 1_000_000
    """The most nodes of a document, its aliases expanded."""
    spool_memory: Size = 16 << 20
    """The input up to this size is kept in memory, a longer one encrypted in the spool folder."""
    spool_folder: str = ""
    """Empty: $TMPDIR, else /tmp."""
    deadline: Seconds = 50.0
    """The longest that a run may take until its output begins; below the 60 s that Argo CD waits for manifests."""
    request: Seconds = 15.0
    """The longest that opening a store, or one read, may take, with its retries."""


class Report(NamedTuple):
    file: str = ""
    """Where faults are written beside stderr; empty: nowhere."""
    show_key_names: bool = True
    """May an error list the paths and field names that a store holds? Under Argo CD other tenants can read it."""


class Settings(NamedTuple):
    """The `spec` of the Configuration document."""

    operator_namespace: str = "humanitec-operator-system"
    """A SecretStore there serves every namespace."""
    references: References = References()
    credentials: Credentials = Credentials()
    secret_stores: SecretStores = SecretStores()
    pod_templates: tuple[PodTemplate, ...] = ()
    """Kinds with a pod template, beside Kubernetes' own."""
    allow_empty_input: bool = False
    """Is an input without any document a success?"""
    policy: Policy = Policy()
    limits: Limits = Limits()
    report: Report = Report()
    sops: Sops = Sops()
    argocd: ArgoCD = ArgoCD()
    """Only for the commands of `secretweave argocd`."""
    flux: Flux = Flux()
    """Only for the commands of `secretweave flux`."""
