"""Builds a Flux source as kustomize-controller would: a kustomization, or one that is generated for all files.

As it does, it lets a kustomization read files anywhere in the source and nowhere else, and where a folder has none it
generates one that names every .yaml and .yml below, and the folders that have their own:
https://github.com/fluxcd/pkg/blob/kustomize/v1.35.7/kustomize/kustomize_generator.go

What differs, beside the order of what comes out, which is by kind, and on which nothing depends. kustomize-controller
fetches remote bases unless it runs with --no-remote-bases, and ignores fields that kustomize does not know; both are
refused. It takes a folder without a manifest for an app that has nothing, and deletes what the app had; here that is
refused. It decrypts the files of a secretGenerator before it builds; here nothing is decrypted, and only Secrets that
are encrypted as manifests come out as they went in. It marks what a kustomization without `resources` generates with an
annotation of its origin; here nothing is marked. Where the kernel has no Landlock, a kustomization reads files of its
own folder alone, and bases anywhere in the source.
"""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave.errors import InputError, Where
from secretweave.flux.settings import Flux
from secretweave.reading import Readable
from secretweave.sources import tree
from secretweave.sources.kinds import Host, Job, kustomize

if TYPE_CHECKING:
    from secretweave import yamltree

SUFFIXES = (".yaml", ".yml")
GENERATED = "kustomization.yaml"
FILE_MAX = 4 << 20
HOST = Host(
    section="spec.flux",
    fix="correct what it complains of, in the source; "
    "where a folder has no kustomization.yaml, every .yaml and .yml below it must be manifests",
    more_time="make the source smaller, or raise spec.timeout",
    no_charts="kustomize-controller inflates none either",
    instead="commit what `helm template` makes of the chart",
    container="controller",
    has_threads=True,
    reads_whole_root=True,
)


def built(
    root: str,
    path: str,
    settings: Flux,
    environ: Mapping[str, str],
    deadline: float,
    seconds: float,
    warn: Callable[[str], None],
    *,
    target_namespace: str | None = None,
) -> Generator[tuple[str, Readable], None, None]:
    """(name, stream) of each part of the rendered stream, in order; it must be closed.

    *root*: of the unpacked source, in which a kustomization is written; *path*: of the folder in it, `spec.path`;
    *deadline*: on time.monotonic's clock; *seconds*: the whole time, as an error tells it; *target_namespace*: of every
    namespaced object, as a Kustomization's spec.targetNamespace. Raises SecretweaveError or Faults; kustomize's own
    failure comes from the stream's end.
    """
    root = os.path.realpath(root)
    # An absolute path starts at the root of the source, as in Flux.
    folder = tree.inside(os.path.join(root, path.lstrip("/")), root, "spec.path", "name a folder of the source")
    if not os.path.isdir(folder):
        raise InputError(
            "the source has no such folder", where=Where(field="spec.path"), fix="correct spec.path, or the source"
        )
    tree.check(root, folder)
    _complete(root, folder, target_namespace)
    programs = _Settings(_Helm(settings.helm.program), _Kustomize(settings.kustomize.program))
    yield from kustomize.manifests(Job(_Nobody(), {}, root, folder, programs, environ, deadline, seconds, warn, HOST))


class _Nobody(NamedTuple):
    """Who asks, as a chart would be told: there is none."""

    short_name: str = ""
    namespace: str | None = None
    kube_version: str = ""
    api_versions: tuple[str, ...] = ()


class _Helm(NamedTuple):
    program: str | None
    repository_hosts: tuple[str, ...] = ()


class _Kustomize(NamedTuple):
    program: str | None
    helm: bool = False


class _Settings(NamedTuple):
    helm: _Helm
    kustomize: _Kustomize


def _complete(root: str, folder: str, namespace: str | None) -> None:
    """Generates the folder's kustomization where it has none, and gives it the namespace. Raises InputError."""
    name = _kustomization_in(folder)
    fields: dict[str, Any]
    if name is None:
        name = GENERATED
        fields = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"./{os.path.relpath(path, folder)}" for path in _resources(folder)],
        }
        if any(not each.isprintable() for each in fields["resources"]):
            raise InputError(
                "the name of a manifest's file is not UTF-8, or holds a control character",
                why="the folder has no kustomization, and one that is generated cannot name it",
                fix="rename it, or leave it out with .sourceignore",
            )
        if not fields["resources"]:
            raise InputError(
                "the folder of the source holds no manifest",
                where=Where(field="spec.path"),
                why="an app without manifests would have all that it has in the cluster deleted",
                fix="correct spec.path, or what .sourceignore and the source's spec.ignore leave out",
            )
    elif namespace is None:
        return
    else:
        known = _read(os.path.join(folder, name), root)
        if known is None:
            return
        # Go finds a field whatever the case of its key is.
        fields = {key: value for key, value in known.items() if key.casefold() != "namespace"}
    if namespace is not None:
        fields["namespace"] = namespace
    _write(os.path.join(folder, name), fields, root)


def _kustomization_in(folder: str) -> str | None:
    return next((name for name in kustomize.MARKERS if os.path.isfile(os.path.join(folder, name))), None)


def _resources(folder: str) -> Iterator[str]:
    """In the order of Go's filepath.Walk: a folder's entries by name, folders among files."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in ordered:
        if not entry.is_dir(follow_symlinks=False):
            if entry.name.endswith(SUFFIXES):
                yield entry.path
        elif _kustomization_in(entry.path) is not None:
            yield entry.path
        else:
            yield from _resources(entry.path)


def _read(path: str, root: str) -> dict[str, Any] | None:
    """What a kustomization says; None: it is none, of which kustomize tells. Raises InputError: it is no YAML."""
    from secretweave import yamltree

    name = os.path.relpath(path, root)
    with open(path, "rb") as file:
        data = file.read(FILE_MAX)
    try:
        documents = yamltree.load(data) if len(data) < FILE_MAX else []
        if len(documents) != 1 or not isinstance(documents[0], yamltree.Mapping):
            return None
        _bound(documents[0])
        found: dict[str, Any] = yamltree.plain(documents[0])
    except InputError as error:
        raise error.at(Where(name, line=error.where.line)) from None
    return found


def _bound(root: "yamltree.Node") -> None:
    """Raises InputError: with what its aliases stand for written out, it is longer than a file may be.

    A few lines can make terabytes, and all tenants have this process' memory together.
    """
    from secretweave.yamltree import Mapping, Scalar

    left, waiting = FILE_MAX, [root]
    while waiting and len(waiting) <= left:
        node = waiting.pop()
        left -= 1
        if isinstance(node, Scalar):
            left -= len(node.value)
        elif isinstance(node, Mapping):
            left -= sum(len(key.value) for key, _ in node.pairs)
            waiting += [value for _, value in node.pairs]
        else:
            waiting += node.items
    if waiting or left < 0:
        raise InputError("the kustomization's aliases unfold into too much", fix="write out what they stand for, once")


def _write(path: str, fields: dict[str, Any], root: str) -> None:
    """In the place of what is there: a link of that name is not followed. Raises InputError."""
    try:
        # JSON is YAML.
        data = json.dumps(fields).encode()
        with suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(data)
    except (OSError, TypeError):
        raise InputError(
            "the kustomization cannot be completed",
            where=Where(os.path.relpath(path, root)),
            why="a folder has its name, or it holds binary values",
            fix="rename that folder; write values as text",
        ) from None
