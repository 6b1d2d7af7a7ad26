"""What a check is given, and what it finds.

A check is a function `Case -> Iterator[Finding]` in a module of this folder. No text of a finding holds a secret value:
what it says of a store is the store's own error, which holds none.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from secretweave.config import Config
from secretweave.errors import Faults, SecretweaveError

Status = Literal["ok", "warning", "fault", "skipped"]
Host = Literal["plain", "sidecar", "daemon"]
"""Where this runs: by itself, or in one of the two containers beside Argo CD's repo-server."""

OF_SERVER = ("ARGOCD_PLUGINSOCKFILEPATH", "ARGOCD_CMP_WORKDIR", "ARGOCD_CMP_SERVER_LOGLEVEL", "ARGOCD_EXEC_TIMEOUT")
"""Variables of argocd-cmp-server. Others with that prefix are Argo CD's command line's, or of any Pod beside it."""


class Finding(NamedTuple):
    status: Status
    subject: str
    what: str
    fix: str = ""


class Options(NamedTuple):
    """Of the command."""

    config: str | None = None
    namespace: str | None = None
    """Of the manifests; of the Application's destination under Argo CD."""
    identity: str | None = None
    """Under Argo CD the project."""
    ref: str | None = None
    """A secret that should be readable: `secret://STORE/REF` or `STORE:REF`, either with `#KEY`."""


class Case(NamedTuple):
    environ: Mapping[str, str]
    options: Options
    host: Host
    config: Config | None
    """As it was read; None: it has faults, and what depends on it is not looked at."""
    faults: tuple[SecretweaveError, ...] = ()
    """Those of the configuration."""

    @property
    def has_tenants(self) -> bool:
        return self.host != "plain"


def judged(status: Status, subject: str, error: SecretweaveError) -> Iterator[Finding]:
    """An error as findings: one for each of several."""
    for each in error.faults if isinstance(error, Faults) else (error,):
        where = f"{each.where}: " if str(each.where) else ""
        yield Finding(status, subject, where + each.what + (f" ({each.why})" if each.why else ""), each.fix)


DEFECT = "report it: this is a defect of secretweave"


def crash(error: Exception) -> str:
    """Its text is left behind: it could hold a value."""
    return f"this check crashed ({type(error).__name__})"
