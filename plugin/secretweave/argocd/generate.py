"""What the plugin's commands do for one Application: prepare its source, render it, have it woven.

The source is rendered here, beside the repository's copy, and woven by the daemon where one listens: its stores are
open already. Where none does it is woven here, to the same bytes. A daemon that ends in the midst of it is a failure,
which Argo CD tries again: what a part of the stream was read for must not be read twice without a word.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from secretweave.argocd import app as apps
from secretweave.argocd import parameters
from secretweave.argocd.app import App
from secretweave.errors import InputError
from secretweave.sources import kinds, tree
from secretweave.sources.kinds import Job

if TYPE_CHECKING:
    from secretweave.argocd.settings import ArgoCD
    from secretweave.config import Config

SOCKET = "/var/run/secretweave/daemon/socket"
"""Where the daemon listens, unless SECRETWEAVE_SOCKET names another place."""


class Host(NamedTuple):
    """What the process that runs the command has."""

    environ: Mapping[str, str]
    load: "Callable[[], Config]"
    """Reads the configuration. Raises ConfigError or Faults."""
    warn: Callable[[str], None]
    started: float
    """On time.monotonic's clock."""


def generate(host: Host, out: BinaryIO) -> None:
    """Writes the Application's woven manifests. Raises SecretweaveError or Faults before the first byte is written."""
    from secretweave.argocd.daemon import client

    app = apps.from_environment(host.environ)
    daemon = client.connect(socket_of(host.environ), host.started)
    if daemon is not None:
        terms = daemon.begin(app)
        with _manifests(app, host, terms.settings, terms.seconds) as sources:
            daemon.weave(sources, out, host.warn)
        return
    from secretweave import memory
    from secretweave.argocd import weaving
    from secretweave.outputs import Outside

    # What helm or kustomize might become, by a defect of theirs, must not read this process.
    memory.protect()
    config = host.load()
    seconds = config.settings.limits.deadline
    with _manifests(app, host, config.settings.argocd, seconds) as sources:
        weaving.weave(app, config, sources, out, Outside(host.environ, host.started + seconds, host.warn))


def prepare(host: Host) -> None:
    """What must be there before the source is rendered: dependencies of charts, from hosts that are allowed."""
    app = apps.from_environment(host.environ)
    source = _source(app, host.environ)
    if not hasattr(source.kind, "prepare") or source.kind.is_prepared(source.folder):
        return
    # Argo CD has this run before each rendering: only now is there a reason to read a configuration.
    config = host.load()
    source.kind.prepare(_job(app, host, source, config.settings.argocd, config.settings.limits.deadline))


def announced(host: Host) -> str:
    """The parameters that Argo CD's UI offers for the Application, as JSON."""
    choices = parameters.read(host.environ)
    return parameters.announce(apps.to_be(host.environ), choices.get("type") or kinds.of_folder(os.getcwd()))


def socket_of(environ: Mapping[str, str]) -> str:
    return environ.get("SECRETWEAVE_SOCKET") or SOCKET


def _manifests(app: App, host: Host, settings: "ArgoCD", seconds: float) -> Any:
    """(name, stream) of each part; to be closed."""
    source = _source(app, host.environ)
    for name in parameters.idle(source.choices, source.kind.__name__.rpartition(".")[2]):
        host.warn(f"the parameter {name} is for sources of another type: it has no effect")
    return closing(source.kind.manifests(_job(app, host, source, settings, seconds)))


class _Source(NamedTuple):
    root: str
    """Of the repository's copy. Absolute and without symbolic links, like the next one."""
    folder: str
    choices: Mapping[str, Any]
    kind: Any
    """The module."""


def _source(app: App, environ: Mapping[str, str]) -> _Source:
    """What is to be rendered, when nothing in the repository leads out of it. Raises SecretweaveError, or Faults."""
    folder = os.path.realpath(os.getcwd())
    root = tree.root_of(folder, app.source_path)
    # A source that lies elsewhere was reached by a link, if argocd-cmp-server let it through.
    above = environ.get("ARGOCD_CMP_WORKDIR") or environ.get("TMPDIR") or "/tmp"  # noqa: S108 - Go's folder, not ours
    copies = os.path.realpath(os.path.join(above, "_cmp_server"))
    if os.path.isdir(copies) and (root == copies or not tree.holds(copies, root)):
        raise InputError(
            "the app's folder is not in the repository", fix="let spec.source.path name a folder that is no link"
        )
    tree.check(root, folder)
    choices = parameters.read(environ)
    return _Source(root, folder, choices, kinds.of_source(folder, choices.get("type")))


def _job(app: App, host: Host, source: _Source, settings: "ArgoCD", seconds: float) -> Job:
    deadline = host.started + seconds
    return Job(app, source.choices, source.root, source.folder, settings, host.environ, deadline, seconds, host.warn)
