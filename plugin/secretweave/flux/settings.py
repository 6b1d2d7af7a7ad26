"""What `spec.flux` of a Configuration document may hold."""

from typing import NamedTuple

from secretweave.forms import Count, FilePath, Seconds, Size


class Helm(NamedTuple):
    program: FilePath | None = None
    """Left out: the first `helm` on the PATH."""


class Kustomize(NamedTuple):
    program: FilePath | None = None
    """Left out: the first `kustomize` on the PATH."""


class Artifacts(NamedTuple):
    """What the controller takes from Flux and gives to it."""

    folder: FilePath = "/data"
    """Where what is published is kept: a volume, so that a restart serves the same."""
    address: str = ":9790"
    """`HOST:PORT` where it is served."""
    url: str = ""
    """The same as others reach it, such as `http://secretweave.flux-system.svc.cluster.local`; --artifact-url says it
    too. The controller needs it."""
    archive_bytes: Size = 50 << 20
    """The largest archive of a source, as it is fetched."""
    total_bytes: Size = 256 << 20
    """The same, unpacked."""
    file_bytes: Size = 32 << 20
    """The largest file in it."""
    entries: Count = 20_000
    """The most files and folders in it."""


class Flux(NamedTuple):
    helm: Helm = Helm()
    kustomize: Kustomize = Kustomize()
    artifacts: Artifacts = Artifacts()
    allow_plaintext: bool = False
    """May a SecretWeave publish Secrets that are not encrypted (`output: secret`)? Whoever reaches the controller's
    port then reads them: only behind the NetworkPolicy."""
    allow_cross_namespace: bool = False
    """May a SecretWeave take its source from another namespace?"""
    workers: Count = 4
    """The most objects that are reconciled at a time."""
    share_seconds: Seconds = 5.0
    """A value that was read for one object serves others with the same identity for so long."""
    health: str = ":9440"
    """`HOST:PORT` of /healthz and /readyz."""
    metrics: str = ":8080"
    """`HOST:PORT` of /metrics; empty: nowhere."""
