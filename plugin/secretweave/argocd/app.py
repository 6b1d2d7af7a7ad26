"""The Application that Argo CD asks for, as its own variables tell: a tenant can set none of them.

What a tenant sets arrives as ARGOCD_ENV_*, PARAM_* and ARGOCD_APP_PARAMETERS, and is read by `parameters` alone.
https://argo-cd.readthedocs.io/en/stable/user-guide/build-environment/
"""

from collections.abc import Mapping
from typing import NamedTuple

from secretweave.errors import ConfigError
from secretweave.forms import NAMESPACE, PROJECT


class App(NamedTuple):
    name: str
    """As Argo CD gives it: `NAMESPACE_NAME` for an Application outside of Argo CD's own namespace."""
    project: str
    namespace: str | None
    """Of the destination; None: the Application names none."""
    source_path: str
    """Of the app's folder in the repository; empty: unknown."""
    kube_version: str
    """Of the destination cluster; empty: unknown."""
    api_versions: tuple[str, ...]

    @property
    def short_name(self) -> str:
        """Without the Application's own namespace: no name of Kubernetes has an underscore."""
        return self.name.rpartition("_")[2]


def from_environment(environ: Mapping[str, str]) -> App:
    """Raises ConfigError: this is no call of Argo CD's, or one of an Argo CD that is too old."""
    name, project = environ.get("ARGOCD_APP_NAME", ""), environ.get("ARGOCD_APP_PROJECT_NAME", "")
    if not name or not PROJECT.fullmatch(project):
        missing = "ARGOCD_APP_PROJECT_NAME" if name else "ARGOCD_APP_NAME"
        raise ConfigError(
            f"{missing} is not set, or is malformed",
            why="Argo CD 3.0 or newer sets it when it calls a config-management plugin",
            fix="let Argo CD call the plugin, or set it as Argo CD would to try it by hand",
        )
    namespace = environ.get("ARGOCD_APP_NAMESPACE") or None
    if namespace is not None and not NAMESPACE.fullmatch(namespace):
        raise ConfigError("the destination's namespace is malformed", fix="correct spec.destination.namespace")
    return App(
        name,
        project,
        namespace,
        environ.get("ARGOCD_APP_SOURCE_PATH", ""),
        environ.get("KUBE_VERSION", ""),
        tuple(filter(None, environ.get("KUBE_API_VERSIONS", "").split(","))),
    )


def to_be(environ: Mapping[str, str]) -> App:
    """The Application whose parameters are asked for: Argo CD tells no project then, and no name while it is made."""
    return App(environ.get("ARGOCD_APP_NAME", ""), "", None, environ.get("ARGOCD_APP_SOURCE_PATH", ""), "", ())
