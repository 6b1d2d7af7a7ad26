"""The configuration: SecretStore documents, and at most one document of settings of our own.

    apiVersion: humanitec.io/v1alpha1         apiVersion: secretweave.dev/v1alpha1
    kind: SecretStore                         kind: Configuration
    metadata: {name: local}                   spec:
    spec:                                       allowEmptyInput: true
      file: {path: secrets.yaml}

Every fault is reported at once, with file, line and key path; where the files come from: secretweave.config.files.
"""

import re
from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from typing import NamedTuple

from secretweave import settings, stores
from secretweave.config import files, lookup
from secretweave.config.configuration import Settings
from secretweave.errors import ConfigError, Faults, SecretweaveError, Where
from secretweave.forms import NAMESPACE
from secretweave.model import StoreConfig
from secretweave.settings import Place
from secretweave.yamltree import Mapping, Node, Sequence

STORE = ("humanitec.io/v1alpha1", "SecretStore")
CONFIGURATION = ("secretweave.dev/v1alpha1", "Configuration")
DEFAULT_LABEL = "app.humanitec.io/default-store"
STORE_NAME = re.compile(r"(?=..)[a-z0-9]+(-[a-z0-9]+)*")
"""As `^[a-z0-9](?:-?[a-z0-9]+)+$` in the original system's API, without its exponential backtracking."""
INTERNAL_STORE = "humanitec"


class Config(NamedTuple):
    stores: tuple[StoreConfig, ...] = ()
    settings: Settings = Settings()
    sources: tuple[str, ...] = ()
    """The files read, in load order; none: no configuration was found."""

    def store(self, name: str, namespace: str | None) -> StoreConfig:
        """The store *name* (empty: the default store) for an object in *namespace* (None: unknown).

        Raises BadReference; ConfigError or PolicyError, if it is one that this run cannot or may not use.
        """
        return lookup.find(self.stores, name, namespace, self.settings.operator_namespace)


def load(path: str | None, environ: AnyMapping[str, str]) -> Config:
    """The configuration at *path* (None: as SECRETWEAVE_CONFIG says, or from the usual folders).

    Raises ConfigError, or Faults of several.
    """
    faults: list[SecretweaveError] = []
    sources = files.read(path, environ, faults)
    configured: dict[str, Where] = {}
    found: list[tuple[StoreConfig, Where]] = []
    spec = Settings()
    for place, node in objects(sources):
        known = _known_head(node, place, faults)
        if known is None:
            continue
        where = place.where(node)
        if known == CONFIGURATION:
            once("Configuration", where, configured, faults)
            spec = _configuration(node, place, faults) or spec
        else:
            read = store(node, place, faults)
            if read is not None:
                found.append((read, where))
    for each, where in found:
        once(lookup.subject(each, spec.operator_namespace), where, configured, faults)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    return Config(tuple(each for each, _ in found), spec, tuple(source.path for source in sources))


def objects(sources: tuple[files.Source, ...]) -> Iterator[tuple[Place, Node]]:
    """Every document that is not empty; a list (`kubectl get -o yaml`) gives its items."""
    for source in sources:
        for index, root in enumerate(source.documents, 1):
            items = root.get("items") if isinstance(root, Mapping) else None
            for node in items.items if isinstance(items, Sequence) else [root]:
                if not settings.is_null(node):
                    yield Place(source.path, index), node


def head(node: Node) -> tuple[str, str]:
    """apiVersion and kind; empty where they are not there."""
    return (node.text("apiVersion"), node.text("kind")) if isinstance(node, Mapping) else ("", "")


def _known_head(node: Node, place: Place, faults: list[SecretweaveError]) -> tuple[str, str] | None:
    found = head(node)
    if found in {STORE, CONFIGURATION}:
        return found
    group, kind = found[0].partition("/")[0], found[1]
    what = "a configuration holds no document of this kind"
    if kind == "SecretStore" and settings.SHOWABLE.fullmatch(group):
        what = f"a SecretStore of the group {group}, which is another product's"
        if group == "humanitec.io":
            what = "a SecretStore in a version that is not known"
    expected = " or ".join(f"{name} ({version})" for version, name in (STORE, CONFIGURATION))
    faults.append(place.fault(node, what, f"expected: {expected}"))
    return None


def once(subject: str, where: Where, seen: dict[str, Where], faults: list[SecretweaveError]) -> None:
    """Notes a subject in *seen*; a second one of its name is a fault."""
    if subject in seen:
        faults.append(
            ConfigError(f"a second {subject}", where=where, why=f"the first: {seen[subject]}", fix="keep one")
        )
    seen.setdefault(subject, where)


def _configuration(node: Node, place: Place, faults: list[SecretweaveError]) -> Settings | None:
    place = place._replace(resource="Configuration")
    members = settings.pairs(node, place, faults) or {}
    for key, (name, _) in members.items():
        if key not in {"apiVersion", "kind", "metadata", "spec"}:
            faults.append(place.fault(name, *settings.unknown(key, ["metadata", "spec"], "unknown key")))
    return settings.read(members["spec"][1], Settings, place.under("spec"), faults) if "spec" in members else None


def store(node: Node, place: Place, faults: list[SecretweaveError]) -> StoreConfig | None:
    """The store of a SecretStore document; what the cluster adds to one (status, annotations) is left alone."""
    before = len(faults)
    metadata = _member(node, "metadata")
    name, namespace = metadata.text("name"), metadata.text("namespace")
    at = place.under("metadata")
    if not STORE_NAME.fullmatch(name):
        fix = "lower-case letters, digits and single hyphens between them, at least two characters"
        faults.append(at.under("name").fault(metadata, "the store's name is missing or malformed", fix))
    elif name == INTERNAL_STORE:
        fix = "that is the original system's own store; choose another name"
        faults.append(at.under("name").fault(metadata, f"a store may not be called `{name}`", fix))
    if namespace and not NAMESPACE.fullmatch(namespace):
        fix = "write a namespace, or leave it out"
        faults.append(at.under("namespace").fault(metadata, "the namespace is malformed", fix))
    if len(faults) == before:
        place = place._replace(resource=f"SecretStore {namespace}/{name}" if namespace else f"SecretStore {name}")
    kind, value = _provider(node, place, faults)
    if len(faults) > before:
        return None
    default = _member(metadata, "labels").text(DEFAULT_LABEL) == "true"
    return StoreConfig(name, namespace or None, kind, value, default)


def _provider(node: Node, place: Place, faults: list[SecretweaveError]) -> tuple[str, object]:
    """The one provider key under `spec`, and its settings."""
    spec = _member(node, "spec")
    place = place.under("spec")
    members = settings.pairs(spec, place, faults) or {}
    known = stores.types()
    for key, (name, _) in members.items():
        if key not in known:
            faults.append(place.fault(name, *settings.unknown(key, known, "unknown store type")))
    kinds = [key for key in members if key in known]
    if len(members) != 1:
        what = f"a SecretStore has exactly one provider, this one has {len(members)}"
        faults.append(place.fault(spec, what, "write one of " + ", ".join(known)))
    if len(kinds) != 1:
        return "", None
    kind = kinds[0]
    return kind, settings.read(members[kind][1], stores.settings_class(kind), place.under(kind), faults)


def _member(node: Node, key: str) -> Mapping:
    """The mapping under *key*; an empty one in its place if there is none."""
    found = node.get(key) if isinstance(node, Mapping) else None
    return found if isinstance(found, Mapping) else Mapping(False, None, node.start, node.line)
