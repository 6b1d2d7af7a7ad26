"""Looks through what a kustomization names, before kustomize reads it.

It would say of a remote base that git is not there, and of a plugin that a flag is missing. It is the sandbox, not this
look, that keeps all of that from happening.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from secretweave import yamltree
from secretweave.errors import ConfigError, Faults, InputError, PolicyError, SecretweaveError, Where
from secretweave.sources import tree
from secretweave.sources.kinds import Job
from secretweave.yamltree import Mapping, Node, Scalar, Sequence

FILE_MAX = 4 << 20
FOLDERS_MAX = 1000
REMOTE = re.compile(
    r"""[a-z][a-z0-9+.-]*://        # a URL
    | [a-z][a-z0-9+.-]*::           # a transport of git's, or of go-getter: ext::, git::
    | [a-z][a-z0-9-]*@[^/]*[:/]     # USER@HOST:PATH, and what kustomize takes for it
    | github\.com[/:]
    | gh:""",
    re.IGNORECASE | re.VERBOSE,
)
"""https://github.com/kubernetes-sigs/kustomize/blob/kustomize/v5.8.2/api/internal/git/repospec.go"""
RESOURCES = ("resources", "bases", "components")
PLUGINS = ("generators", "transformers", "validators")
FILES = ("crds", "configurations", "patchesStrategicMerge")
IN_ITEMS = (("patches", "path"), ("patchesJson6902", "path"), ("replacements", "path"))
SOURCES = ("configMapGenerator", "secretGenerator")
CHARTS = ("helmCharts", "helmChartInflationGenerator")
CHART_NAMES = ("name", "chartName", "releaseName")
CHART_FILES = ("valuesFile", "values", "additionalValuesFiles")
FUNCTIONS = ("config.kubernetes.io/function", "config.k8s.io/function")
"""Annotations that name a program or a container, which reads and writes manifests."""
BUILT_IN = "builtin"
"""The apiVersion of kustomize's own generators, transformers and validators: any other names a program."""


def check(job: Job, names: tuple[str, ...], *, with_helm: bool) -> None:
    """*names*: of the files that are a kustomization. Raises Faults: all that is remote, leads out, or would run."""
    _Look(job, names, with_helm=with_helm).over()


class Place(NamedTuple):
    folder: str
    """That paths are relative to."""
    name: str
    """Of the file, as an error shows it."""


class _Look:
    """Looks at a kustomization, and at those that it reaches in the repository."""

    def __init__(self, job: Job, names: tuple[str, ...], *, with_helm: bool) -> None:
        self._job = job
        self._names = names
        self._with_helm = with_helm
        self._faults: list[SecretweaveError] = []
        self._waiting = [(job.folder, False)]
        self._seen = {job.folder}

    def over(self) -> None:
        """Raises Faults."""
        for folder, plugins in self._waiting:
            name = next((name for name in self._names if os.path.isfile(os.path.join(folder, name))), None)
            if name is None:
                # Kustomize tells what is missing there.
                continue
            place = self._place(folder, name)
            for root in self._documents(os.path.join(folder, name), place):
                if isinstance(root, Mapping):
                    self._kustomization(_folded(root), place, plugins=plugins)
        if self._faults:
            raise Faults(self._faults)

    def _place(self, folder: str, name: str) -> Place:
        return Place(folder, os.path.relpath(os.path.join(folder, name), self._job.root))

    def _documents(self, path: str, place: Place) -> list[Node]:
        try:
            with open(path, "rb") as file:
                data = file.read(FILE_MAX)
            return yamltree.load(data) if len(data) < FILE_MAX else []
        except InputError as error:
            self._faults.append(error.at(Where(place.name, line=error.where.line)))
        except OSError:
            # Kustomize tells.
            pass
        return []

    def _kustomization(self, pairs: dict[str, Node], place: Place, *, plugins: bool) -> None:
        for field in (*RESOURCES, *PLUGINS):
            for index, text in _texts(_get(pairs, field)):
                self._reached(text, f"{field}[{index}]", place, plugins=plugins or field in PLUGINS)
        for field in FILES:
            for index, text in _texts(_get(pairs, field)):
                self._file(text, f"{field}[{index}]", place)
        for field, key in IN_ITEMS:
            for index, item in _items(_get(pairs, field)):
                self._file(item if isinstance(item, Scalar) else _folded(item).get(key), f"{field}[{index}]", place)
        self._file(_folded(pairs.get("openapi")).get("path"), "openapi.path", place)
        for field in SOURCES:
            for index, item in _items(_get(pairs, field)):
                source = _folded(item)
                self._file(source.get("env"), f"{field}[{index}].env", place)
                for key in ("envs", "files"):
                    for number, text in _texts(source.get(key)):
                        self._file(text, f"{field}[{index}].{key}[{number}]", place, named=key == "files")
        shared = _folded(pairs.get("helmglobals"))
        for key in ("chartHome", "configHome"):
            self._file(_get(shared, key), f"helmGlobals.{key}", place)
        for field in CHARTS:
            for index, item in _items(_get(pairs, field)):
                self._chart(shared | _folded(item), f"{field}[{index}]", place, item.line)

    def _reached(self, item: Scalar, field: str, place: Place, *, plugins: bool) -> None:
        """A file or a folder, or, for plugins, what such a file would hold."""
        if "\n" in item.value:
            if plugins:
                self._plugins(_inline(item), field, place, item.line)
            return
        path = self._file(item, field, place)
        if path is None:
            return
        if not os.path.exists(path):
            self._faults.append(
                InputError(
                    f"there is no {item.value}",
                    where=Where(place.name, line=item.line + 1, field=field),
                    fix="correct the path: it is relative to the folder of the kustomization",
                )
            )
        elif os.path.isdir(path):
            if path not in self._seen and len(self._seen) < FOLDERS_MAX:
                self._seen.add(path)
                self._waiting.append((path, plugins))
        elif plugins:
            there = self._place(place.folder, item.value)
            self._plugins(self._documents(path, there), "", Place(place.folder, there.name), None)

    def _file(self, item: Node | None, field: str, place: Place, *, named: bool = False) -> str | None:
        """Where it lies in the repository; None: it is none, or a fault. *named*: it may be written NAME=PATH."""
        if not isinstance(item, Scalar) or "\n" in item.value:
            return None
        text = item.value.partition("=")[2] or item.value if named else item.value
        where = Where(place.name, line=item.line + 1, field=field)
        path = os.path.join(place.folder, text)
        if REMOTE.match(text) and not os.path.isfile(path):
            self._faults.append(
                PolicyError(
                    "a kustomization names something remote",
                    where=where,
                    why="nothing is fetched while an app is rendered",
                    fix="vendor it: commit a copy to the repository, and name that",
                )
            )
            return None
        try:
            return tree.inside(path, self._job.root, field)
        except PolicyError as error:
            self._faults.append(error.at(where))
            return None

    def _plugins(self, documents: list[Node], field: str, place: Place, line: int | None) -> None:
        for root in documents:
            pairs = _folded(root)
            where = Where(place.name, line=(root.line if line is None else line) + 1, field=field)
            annotations = _folded(_folded(pairs.get("metadata")).get("annotations"))
            api_version = pairs.get("apiversion")
            if any(name in annotations for name in FUNCTIONS):
                self._faults.append(
                    PolicyError(
                        "a function would be run",
                        where=where,
                        why="nothing that a repository holds or names may run as a program or a container",
                        fix="run it before you commit, and commit what it makes",
                    )
                )
            elif isinstance(api_version, Scalar) and api_version.value != BUILT_IN:
                self._faults.append(
                    PolicyError(
                        "a plugin would be run that is no part of kustomize",
                        where=where,
                        why="nothing that a repository holds or names may run as a program or a container",
                        fix="use what kustomize has built in, with apiVersion: builtin",
                    )
                )
            elif _word(pairs.get("kind")) == "HelmChartInflationGenerator":
                self._chart(pairs, field, place, where.line - 1)

    def _chart(self, chart: dict[str, Node], field: str, place: Place, line: int) -> None:
        where = Where(place.name, line=line + 1, field=field)
        if not self._with_helm:
            self._faults.append(
                ConfigError(
                    "a chart would be inflated, which is not chosen",
                    where=where,
                    fix="set the parameter enable-helm to true",
                )
                if self._job.settings.kustomize.helm
                else PolicyError(
                    "a chart would be inflated, which is not allowed here",
                    where=where,
                    why=self._job.host.no_charts,
                    fix=self._job.host.instead,
                )
            )
            return
        if any(_word(_get(chart, key)).startswith("-") for key in CHART_NAMES):
            self._faults.append(
                PolicyError(
                    "a name is an option of Helm",
                    where=where,
                    why="kustomize hands it over as it is, and Helm would take it for what it looks like",
                    fix="let the names of charts and releases begin with a letter",
                )
            )
        for key in CHART_FILES:
            self._file(_get(chart, key), f"{field}.{key}", place)
            for index, text in _texts(_get(chart, key)):
                self._file(text, f"{field}.{key}[{index}]", place)
        name = _word(chart.get("name")) or _word(chart.get("chartname"))
        repository = _word(chart.get("repo")) or _word(chart.get("chartrepourl"))
        version = _word(chart.get("version")) or _word(chart.get("chartversion"))
        home = _word(chart.get("charthome")) or "charts"
        # Kustomize looks for a chart that has a repository where it would itself have put it.
        folder = os.path.join(home, f"{name}-{version}") if repository and version else home
        try:
            path = tree.inside(os.path.join(place.folder, folder, name), self._job.root, field)
        except PolicyError as error:
            self._faults.append(error.at(where))
            return
        if repository and not os.path.isdir(path):
            self._faults.append(
                PolicyError(
                    "a chart is remote",
                    where=where,
                    why="nothing is fetched while an app is rendered",
                    fix=f"vendor it: commit the chart as {os.path.join(folder, name)}, beside the kustomization",
                )
            )


def _folded(node: Node | None) -> dict[str, Node]:
    """Go finds a field whatever the case of its key is (https://pkg.go.dev/encoding/json#Unmarshal)."""
    return {key.value.casefold(): value for key, value in node.pairs} if isinstance(node, Mapping) else {}


def _get(pairs: dict[str, Node], field: str) -> Node | None:
    return pairs.get(field.casefold())


def _items(node: Node | None) -> Iterator[tuple[int, Node]]:
    return enumerate(node.items) if isinstance(node, Sequence) else iter(())


def _texts(node: Node | None) -> Iterator[tuple[int, Scalar]]:
    return ((index, item) for index, item in _items(node) if isinstance(item, Scalar))


def _word(node: Node | None) -> str:
    return node.value if isinstance(node, Scalar) else ""


def _inline(item: Scalar) -> list[Node]:
    try:
        return yamltree.load(item.value.encode())
    except InputError:
        # Kustomize tells.
        return []
