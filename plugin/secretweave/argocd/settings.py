"""What `spec.argocd` of a Configuration document may hold: what an Application may choose among under Argo CD."""

from typing import NamedTuple

from secretweave.forms import Count, FilePath, Seconds


class Helm(NamedTuple):
    program: FilePath | None = None
    """Left out: the first `helm` on the PATH."""
    repository_hosts: tuple[str, ...] = ()
    """Hosts, as `HOST` or `HOST:PORT`, from which `init` may fetch a chart's dependencies (https and OCI). None: they
    are vendored, and nothing is fetched. A host is trusted: its index, redirects and token service may name others."""


class Kustomize(NamedTuple):
    program: FilePath | None = None
    """Left out: the first `kustomize` on the PATH."""
    helm: bool = False
    """May a kustomization inflate charts that lie in the repository (`--enable-helm`)?"""


class Daemon(NamedTuple):
    """Of `secretweave argocd serve`."""

    concurrency: Count = 16
    """The most requests that are served at a time; further ones wait. Read at the start alone, like `metrics`."""
    clients: Count = 256
    """The most store clients that are kept; the one that was used longest ago goes first."""
    client_seconds: Seconds = 3600.0
    """A client that was not used for so long is closed."""
    drain: Seconds = 25.0
    """How long requests may still take after SIGTERM; below the 30 s that Kubernetes gives a Pod."""
    metrics: str = ""
    """`HOST:PORT` (`:PORT`: every address) where /metrics and /healthz are served; empty: nowhere."""


class ArgoCD(NamedTuple):
    helm: Helm = Helm()
    kustomize: Kustomize = Kustomize()
    daemon: Daemon = Daemon()
