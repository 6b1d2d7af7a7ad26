"""`secretweave flux push`: renders a folder, weaves it, and pushes it as what Flux's OCIRepository takes.

The artifact is what `flux push artifact` writes: an OCI image with one layer, whose config says nothing but when it was
made. https://github.com/fluxcd/pkg/blob/oci/v0.68.1/oci/push.go, and `build.go`, `meta.go` beside it.

**The same input, the same digest.** The archive holds nothing of when and where it was made, ciphertext is taken from
the artifact that the tag names, where it still says the same, and so is `created`, as long as nothing else differs. So
a run without a change pushes nothing, and no cluster reconciles. --created and SOURCE_DATE_EPOCH say another time.

What the registry has is read for that, and believed in nothing: ciphertext is known again by the digest key alone.
Neither it nor what is made is on a disk.
"""

import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave import pipeline
from secretweave.argocd import settings as argocd
from secretweave.argocd.app import App
from secretweave.config import Config
from secretweave.errors import ConfigError, InputError, SecretweaveError
from secretweave.flux import archive, docker, layout, oci
from secretweave.outputs import Outside
from secretweave.sources import kinds, tree
from secretweave.sources.kinds import Host, Job

if TYPE_CHECKING:
    from secretweave.options import Request

CONFIG_TYPE = "application/vnd.cncf.flux.config.v1+json"
CONTENT_TYPE = "application/vnd.cncf.flux.content.v1.tar+gzip"
CREATED = "org.opencontainers.image.created"
SOURCE = "org.opencontainers.image.source"
REVISION = "org.opencontainers.image.revision"
NO_TIME = "0001-01-01T00:00:00Z"
"""Of the layer: what Go writes where none is said."""
KINDS = ("kustomize", "helm", "plain")
HOST = Host(
    section="spec.flux",
    fix="correct what it complains of, in the folder or in what --values names",
    no_manifests="correct --path: files below it count, too, and a chart has a Chart.yaml",
    no_charts="kustomize-controller inflates none either",
    instead="push the chart's folder with --helm, or commit what `helm template` makes of it",
    no_fetching="dependencies are not fetched",
    more_hosts="",
    container="machine",
    reads_whole_root=True,
)
ANNOTATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class Pushed(NamedTuple):
    name: str
    """`HOST/REPO@sha256:...`"""
    changed: bool
    """False: the tag names it already."""


def push(request: "Request", config: Config, run: pipeline.Run, outside: Outside) -> Pushed:
    """*run*: its output is `sops` or `secret`. Raises SecretweaveError or Faults; the tag then names what it named."""
    reference = oci.parse(request.files[0])
    annotations = _annotations(request)
    created = _created(request, outside.environ)
    source = _source(request)
    login = docker.login(reference.registry, reference.repository, outside.environ, outside.deadline)
    registry = oci.Registry(reference, login, outside.deadline, plain_http=request.insecure_registry)
    with closing(registry):
        previous = _previous(registry)
        if previous is None:
            outside.warn(f"the tag {reference.tag} names what is no artifact of Flux: it is replaced")
            previous = _Previous()
        if run.output == "secret":
            outside.warn(
                f"Secrets are not encrypted: whoever may pull {reference.registry}/{reference.repository} reads them, "
                "and so does who reaches the storage of the registry or of source-controller"
            )
            content = _content(source, request, config, run, outside)
        else:
            with _sealed_before(previous, request, registry, config, outside) as paths:
                sealing = outside.sealing._replace(previous=paths)
                content = _content(source, request, config, run, outside._replace(sealing=sealing))
        artifact = _artifact(content, created or previous.created or _now(), annotations)
        if artifact.manifest != previous.manifest:
            artifact = _artifact(content, created or _now(), annotations)
        changed = artifact.manifest != previous.manifest
        if changed and not request.dry_run:
            registry.upload(content)
            registry.upload(artifact.config)
            registry.tag(artifact.manifest)
    return Pushed(reference.pinned(oci.digest_of(artifact.manifest)), changed)


class _Artifact(NamedTuple):
    config: bytes
    manifest: bytes


def _artifact(content: bytes, created: str, annotations: Mapping[str, str]) -> _Artifact:
    """The members in the order in which Go writes them."""
    unpacked = oci.digest_of(zlib.decompress(content, zlib.MAX_WBITS | 16))
    config = _json(
        {
            "architecture": "",
            "created": created,
            "history": [{"created": NO_TIME}],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [unpacked]},
            "config": {},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": _described(CONFIG_TYPE, config),
        "layers": [_described(CONTENT_TYPE, content)],
        "annotations": dict(sorted({CREATED: created, **annotations}.items())),
    }
    return _Artifact(config, _json(manifest))


def _described(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": oci.digest_of(data)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _content(source: "_Source", request: "Request", config: Config, run: pipeline.Run, outside: Outside) -> bytes:
    """The archive. Raises SecretweaveError or Faults."""
    out = BytesIO()
    with closing(_rendered(source, request, config, outside)) as rendered:
        pipeline.weave(rendered, out, config, run, outside)
    data = archive.packed(layout.files([out.getvalue()], config.settings.limits))
    limit = config.settings.flux.artifacts.archive_bytes
    if len(data) > limit:
        raise InputError(
            f"the artifact has {len(data)} bytes, and {limit} are the most",
            fix="push a part of it, or raise flux.artifacts.archiveBytes in the configuration",
        )
    return data


class _Source(NamedTuple):
    root: str
    """Nothing above it is read. Absolute and without symbolic links, like the next one."""
    folder: str
    kind: Any
    """The module."""


def _source(request: "Request") -> _Source:
    """What is to be rendered. Raises SecretweaveError, or Faults."""
    if not request.path:
        raise ConfigError("there is no folder to be rendered", fix="name it with --path")
    folder = os.path.realpath(request.path)
    if not os.path.isdir(folder):
        raise InputError("what --path names is no folder", fix="name a folder of the repository")
    root = _repository(folder)
    try:
        tree.check(folder, folder)
    except SecretweaveError:
        if root == folder:
            raise
        # A link may lead to another part of the repository: then all of it is judged.
        tree.check(root, folder)
    return _Source(root, folder, _kind(folder, request))


def _repository(folder: str) -> str:
    """The folder above, or the one itself, in which `.git` lies; else the one itself."""
    above = folder
    while not os.path.lexists(os.path.join(above, ".git")):
        if above == "/":
            return folder
        above = os.path.dirname(above)
    return above


def _kind(folder: str, request: "Request") -> Any:
    chosen = [name for name in KINDS if getattr(request, name)]
    options = ", ".join(f"--{name}" for name in KINDS)
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(f'--{name}' for name in chosen)} at once", fix=f"pass one of {options}")
    if not chosen:
        try:
            return kinds.of_source(folder, None)
        except InputError as error:
            raise InputError(error.what, fix=f"say with one of {options} what it is, or rename the file") from None
    kind = kinds.find(chosen[0])
    if kind.MARKERS and not any(os.path.isfile(os.path.join(folder, name)) for name in kind.MARKERS):
        raise InputError(f"--{chosen[0]} is passed, and the folder holds no {kind.MARKERS[0]}", fix="correct --path")
    return kind


def _rendered(source: _Source, request: "Request", config: Config, outside: Outside) -> Any:
    """(name, stream) of each part; to be closed. Raises ConfigError."""
    name = os.path.basename(source.folder)
    kind = source.kind.__name__.rpartition(".")[2]
    choices: dict[str, Any] = {}
    if kind == "helm":
        choices["release-name"] = request.release_name or name
        if not re.fullmatch(source.kind.RELEASE, choices["release-name"]):
            raise ConfigError(
                "the release's name is not one that Helm takes",
                why="it has at most 53 lower-case letters, digits, dots and dashes, a letter or digit first and last",
                fix="pass another --release-name; without it the folder's name is taken",
            )
        choices["values-files"] = tuple(os.path.relpath(path, source.folder) for path in request.values)
    elif request.release_name or request.values:
        raise ConfigError(
            f"--release-name and --values are for charts, and the folder is taken for {kind}",
            fix="take them away, or correct --path",
        )
    elif kind == "plain":
        # As the kustomization that kustomize-controller generates.
        choices["recurse"] = True
    flux = config.settings.flux
    return source.kind.manifests(
        Job(
            App(name, "", request.namespace, "", "", ()),
            choices,
            source.root,
            source.folder,
            argocd.ArgoCD(argocd.Helm(flux.helm.program), argocd.Kustomize(flux.kustomize.program)),
            outside.environ,
            outside.deadline,
            config.settings.limits.deadline,
            outside.warn,
            HOST,
        )
    )


class _Previous(NamedTuple):
    """What the tag names; all of it empty: nothing."""

    manifest: bytes = b""
    created: str = ""
    layer: str = ""
    """Its digest."""


def _previous(registry: oci.Registry) -> _Previous | None:
    """None: it is no artifact of Flux."""
    manifest = registry.manifest()
    if manifest is None:
        return _Previous()
    try:
        told = json.loads(manifest)
        (layer,) = told["layers"]
        types = told["config"]["mediaType"], layer["mediaType"]
        created, digest = told["annotations"][CREATED], layer["digest"]
        is_one = TIME.fullmatch(created) and re.fullmatch("sha256:[0-9a-f]{64}", digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return _Previous(manifest, created, digest) if is_one and types == (CONFIG_TYPE, CONTENT_TYPE) else None


@contextmanager
def _sealed_before(
    previous: _Previous, request: "Request", registry: oci.Registry, config: Config, outside: Outside
) -> Iterator[tuple[str, ...]]:
    """The paths of earlier output: what was named, else what the tag names, in a file of the memory.

    It may have been pushed with --plaintext, and so does not belong on a disk.
    """
    if request.previous or request.unstable:
        yield request.previous
        return
    file = os.memfd_create("secretweave")
    try:
        found = b""
        if previous.layer:
            limits = config.settings.flux.artifacts
            data = registry.blob(previous.layer, limits.archive_bytes)
            found = _documents(data or b"", limits.total_bytes)
            if not found:
                outside.warn("what the tag names cannot be read: every Secret is encrypted anew")
        with open(file, "wb", closefd=False) as memory:
            # An empty file would be taken for one that a shell has emptied.
            memory.write(b"# earlier output\n---\n" + found)
        yield (f"/proc/self/fd/{file}",)
    finally:
        os.close(file)


def _documents(data: bytes, limit: int) -> bytes:
    """The manifests of an archive as one stream; empty: it is none, or larger than *limit* bytes."""
    import tarfile

    inflating = zlib.decompressobj(zlib.MAX_WBITS | 16)
    found = []
    try:
        tar = inflating.decompress(data, limit)
        if inflating.unconsumed_tail or not inflating.eof:
            return b""
        with tarfile.open(fileobj=BytesIO(tar), mode="r:") as entries:
            for entry in entries:
                content = entries.extractfile(entry) if entry.isfile() else None
                if content is not None and entry.name.endswith((".yaml", ".yml")):
                    found.append(content.read())
    except (zlib.error, tarfile.TarError, ValueError, OSError):
        return b""
    return b"\n---\n".join(found)


def _annotations(request: "Request") -> dict[str, str]:
    """Raises ConfigError."""
    told = {SOURCE: request.source, REVISION: request.revision}
    found = {name: text for name, text in told.items() if text}
    for each in _with_commas(request.annotation):
        name, equals, text = each.partition("=")
        if not equals or not ANNOTATION.fullmatch(name):
            raise ConfigError("an annotation is malformed", fix="write --annotation NAME=TEXT")
        if name in {CREATED, SOURCE, REVISION}:
            raise ConfigError(
                f"the annotation {name} has an option of its own",
                fix=f"write --{name.rpartition('.')[2]}",
            )
        found[name] = text
    return found


def _with_commas(parts: tuple[str, ...]) -> Iterator[str]:
    """The options are cut at commas; a part without `=` belongs to the text before it."""
    whole = ""
    for part in parts:
        if whole and "=" not in part:
            whole += f",{part}"
            continue
        if whole:
            yield whole
        whole = part
    if whole:
        yield whole


def _created(request: "Request", environ: Mapping[str, str]) -> str:
    """As it is asked for; empty: it is not. https://reproducible-builds.org/specs/source-date-epoch/"""
    if request.created:
        try:
            valid = TIME.fullmatch(request.created) and datetime.fromisoformat(request.created)
        except ValueError:
            valid = None
        if not valid:
            raise ConfigError("--created is no time", fix="write it as 2026-11-25T12:00:00Z")
        return request.created
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return ""
    if not re.fullmatch("[0-9]{1,11}", epoch):
        raise ConfigError(
            "SOURCE_DATE_EPOCH is no time", fix="let it be seconds since 1970, as `git log -1 --format=%ct`"
        )
    return _as_text(int(epoch))


def _now() -> str:
    return _as_text(int(time.time()))


def _as_text(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
