"""What the `spec` of a Configuration document may hold, and what holds where it says nothing.

Its JSON Schema, for editors, is schemas/configuration.json.
"""

from typing import Literal, NamedTuple

from secretweave.policy.settings import Policy
from secretweave.settings import Count, Size


class References(NamedTuple):
    """How the reference object `{store, ref}` is read."""

    default_store: Literal["refuse", "allow"] = "refuse"
    """A `ref` without `store`: an error, or the default store."""
    literal_value: Literal["warn", "refuse"] = "warn"
    """A literal secret `{value: ...}`: used with a warning, or an error."""


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
    pod_templates: tuple[PodTemplate, ...] = ()
    """Kinds with a pod template, beside Kubernetes' own."""
    allow_empty_input: bool = False
    """Is an input without any document a success?"""
    policy: Policy = Policy()
    limits: Limits = Limits()
    report: Report = Report()
