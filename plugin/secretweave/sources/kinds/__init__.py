"""The kinds of sources: one module each, found by name, which is also what the parameter `type` calls it.

A kind is a module with

    a docstring
    MARKERS: tuple[str, ...]                         a folder that holds a file of one of these names is of this kind;
                                                     none: what is of no other kind
    def manifests(job: Job) -> Generator[tuple[str, Readable], None, None]
                                                     (name, stream) of each part of the rendered stream, in order; it
                                                     must be closed: that ends what it started, and leaves no file
and may have

    def is_prepared(folder: str) -> bool             a quick look: is there nothing to prepare?
    def prepare(job: Job) -> None                    what `init` does: the one step that may fetch something

Both raise SecretweaveError. Nothing that the repository holds may run as code, lead outside of the repository or reach
the network: what a kind starts, it starts through `programs`, confined.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from secretweave import modules
from secretweave.errors import ConfigError, InputError


class App(Protocol):
    """What Helm is told of whoever asks."""

    @property
    def short_name(self) -> str: ...
    @property
    def namespace(self) -> str | None: ...
    @property
    def kube_version(self) -> str: ...
    @property
    def api_versions(self) -> tuple[str, ...]: ...


class HelmSettings(Protocol):
    @property
    def program(self) -> str | None: ...
    @property
    def repository_hosts(self) -> tuple[str, ...]: ...


class KustomizeSettings(Protocol):
    @property
    def program(self) -> str | None: ...
    @property
    def helm(self) -> bool: ...


class Settings(Protocol):
    """As argocd/settings.py has it, where each field is explained."""

    @property
    def helm(self) -> HelmSettings: ...
    @property
    def kustomize(self) -> KustomizeSettings: ...


class Host(NamedTuple):
    """What is particular to who has a source rendered: Argo CD's, where nothing else is said."""

    section: str = "spec.argocd"
    """Of the configuration, as errors name it: what holds `helm` and `kustomize`."""
    fix: str = "correct what it complains of, in the repository or in the Application's parameters"
    """What a failure of a program's own tells to do."""
    more_time: str = "make the source smaller, or raise limits.deadline in the configuration"
    no_manifests: str = (
        "correct spec.source.path; set the parameter recurse for files below it; look at include and exclude"
    )
    """What to do where a folder holds none."""
    no_charts: str = "the platform leaves spec.argocd.kustomize.helm off"
    """Why a kustomization may inflate no chart, where it may not."""
    instead: str = "render the chart as a source of its own, or ask the platform to allow it"
    """What to do about it."""
    no_fetching: str = "dependencies are not fetched, unless the platform allows the host that they come from"
    """Why a chart's dependency is not there."""
    more_hosts: str = "; or ask the platform to add the host to spec.argocd.helm.repositoryHosts"
    """How one could be fetched after all; empty: by no means."""
    container: str = "sidecar"
    """That whose memory may be too little."""
    has_threads: bool = False
    """Does the process have more than one thread when it renders?"""
    reads_whole_root: bool = False
    """May a kustomization read files anywhere in the root, and not in its own folder alone?"""


class Job(NamedTuple):
    """One source to be rendered."""

    app: App
    choices: Mapping[str, Any]
    """What the Application chose, by the names in `parameters`; what it did not choose is not there."""
    root: str
    """Of the repository's copy: absolute, without symbolic links. Nothing above it may be read."""
    folder: str
    """The app's, in the root: absolute, without symbolic links."""
    settings: Settings
    environ: Mapping[str, str]
    """Of the process: a kind passes on what it names, and nothing else."""
    deadline: float
    """On time.monotonic's clock."""
    seconds: float
    """The whole time, as an error tells it."""
    warn: Callable[[str], None]
    host: Host = Host()


def names() -> tuple[str, ...]:
    return modules.names(__path__[0])


def find(name: str) -> Any:
    """The module of a kind. Raises ConfigError."""
    if name not in names():
        raise ConfigError(f"no type of source is called {name}", fix=f"use one of {', '.join(names())}, or none")
    return import_module(f"{__name__}.{name}")


def of_source(folder: str, chosen: str | None) -> Any:
    """The module of the kind that is chosen, or that the folder's files tell.

    Raises ConfigError: the chosen one is unknown; InputError: the folder is not of that kind, or of two at once.
    """
    if chosen is None:
        return find(of_folder(folder))
    kind = find(chosen)
    if kind.MARKERS and not _marks(folder, kind.MARKERS):
        raise InputError(
            f"the parameter type is {chosen}, and the folder holds no {kind.MARKERS[0]}",
            fix="correct the parameter type, or leave it out; or correct spec.source.path",
        )
    return kind


def of_folder(folder: str) -> str:
    """The kind of a source, by what its folder holds. Raises InputError: it is two kinds at once, or misspells one."""
    markers = {name: find(name).MARKERS for name in names()}
    found = [name for name, files in markers.items() if _marks(folder, files)]
    if len(found) > 1:
        raise InputError(f"the folder is {' and '.join(found)} at once", fix=f"set the parameter type: {found[0]}")
    if found:
        return found[0]
    # Taken for plain files, a chart's own files would pass for manifests.
    spelled = {file.casefold(): file for files in markers.values() for file in files}
    for entry in sorted(os.listdir(folder)):
        if entry.casefold() in spelled:
            right = spelled[entry.casefold()]
            raise InputError(
                f"the folder holds a file {entry}, which is not called {right}",
                fix=f"rename it to {right}, or set the parameter type: plain",
            )
    return next(name for name, files in markers.items() if not files)


def _marks(folder: str, files: tuple[str, ...]) -> bool:
    return any(os.path.isfile(os.path.join(folder, file)) for file in files)
