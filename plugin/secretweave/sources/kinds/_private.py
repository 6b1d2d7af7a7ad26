"""What every program that renders a source gets: a folder of its own, and nothing of the sidecar's environment."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from secretweave.errors import ConfigError, Where
from secretweave.sources.kinds import Job

VERSION = r"v?[0-9]+\.[0-9]+(\.[0-9]+)?([-+][0-9A-Za-z.+-]*)?"
API_VERSION = r"[A-Za-z0-9.-]+(/[A-Za-z0-9.-]+){0,2}"


@contextmanager
def home(environ: Mapping[str, str]) -> Iterator[str]:
    """A fresh folder that only this user may enter, without symbolic links in its path; gone at the end."""
    # Not tempfile: it takes longer to import than a small chart to render.
    above = os.path.realpath(environ.get("TMPDIR") or "/tmp")  # noqa: S108 - the name below it cannot be guessed
    folder = os.path.join(above, f"secretweave-{os.urandom(16).hex()}")
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        # What cannot be removed is no reason to refuse what was rendered.
        with suppress(OSError):
            _remove(folder)


def _remove(folder: str) -> None:
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        for name in folders:
            entry = os.path.join(path, name)
            (os.unlink if os.path.islink(entry) else os.rmdir)(entry)
    os.rmdir(folder)


def environment(folder: str) -> dict[str, str]:
    """Of helm, or of what starts it: no plugin, getter or cluster is found, no program by its name (git among them)."""
    return {
        "PATH": f"{folder}/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "HELM_CACHE_HOME": f"{folder}/cache",
        "HELM_CONFIG_HOME": f"{folder}/config",
        "HELM_DATA_HOME": f"{folder}/data",
        "HELM_PLUGINS": f"{folder}/plugins",
        "KUBECONFIG": os.devnull,
    }


def capabilities(job: Job, version: str, api: str) -> list[str]:
    """The arguments that tell Helm of the cluster, by the flags' names. Raises ConfigError."""
    found = []
    kube_version = job.choices.get("kube-version") or job.app.kube_version
    if kube_version:
        if not re.fullmatch(VERSION, kube_version):
            raise ConfigError(
                "the Kubernetes version is malformed", where=Where(field="kube-version"), fix="write it as 1.34.0"
            )
        found.append(f"{version}={kube_version}")
    chosen = job.choices.get("api-versions", ())
    # Helm takes the argument for a line of comma-separated values.
    if not all(re.fullmatch(API_VERSION, each) for each in chosen):
        raise ConfigError(
            "an API version is malformed",
            where=Where(field="api-versions"),
            fix="write it as apps/v1, or apps/v1/Deployment",
        )
    return [*found, *(f"{api}={each}" for each in chosen or job.app.api_versions)]
