"""What the manifests of the original system say of resources: Definitions, and the objects of `humanitec.io`.

The schema of Definitions is public (https://github.com/humanitec-architecture/example-library), that of the objects is
not: in these every string and every `{store, ref}` counts, wherever it stands.
"""

from collections.abc import Iterator
from typing import NamedTuple

from secretweave.errors import Where
from secretweave.policy.placeholders import Pointer, find
from secretweave.policy.settings import ResourceKeys
from secretweave.yamltree import Mapping, Node, Scalar, Sequence

DEFINITION_VERSIONS = frozenset({"entity.humanitec.io/v1b1", "core.api.humanitec.io/v1"})
GROUP = "humanitec.io"
NO_RESOURCES = frozenset({"SecretStore", "SecretMapping"})


class Criterion(NamedTuple):
    """What a Definition serves; None: any."""

    class_: str | None
    id: str | None


class Provision(NamedTuple):
    """A co-provisioned resource."""

    pointer: Pointer
    is_dependent: bool
    """It refers to this resource."""
    match_dependents: bool
    """What refers to this resource refers to it."""
    where: Where


class Resource(NamedTuple):
    """One resource, or one Definition of resources."""

    type: str
    """Empty: not told."""
    name: str
    serves: tuple[Criterion, ...]
    """None: anything of its type."""
    points: tuple[tuple[Pointer, Where], ...]
    secrets: tuple[tuple[str, Where], ...]
    """`store:ref` of the secret references that it holds."""
    provisions: tuple[Provision, ...]
    where: Where

    def __str__(self) -> str:
        return f"{self.type or 'resource'}/{self.name}"


def is_of_ours(api_version: str) -> bool:
    """Whether objects of this apiVersion are read as resources."""
    group = api_version.partition("/")[0]
    return group == GROUP or group.endswith(f".{GROUP}")


def read(api_version: str, kind: str, root: Mapping, where: Where, keys: ResourceKeys) -> Resource | None:
    """The resource that an object describes (its tree unpruned); None: none."""
    if kind in NO_RESOURCES or not is_of_ours(api_version):
        return None
    if kind == "Definition":
        return _definition(root, where)
    name = _at(root, "metadata.name") or _at(root, "metadata.id")
    class_, identifier = _at(root, keys.class_) or None, _at(root, keys.id) or None
    return Resource(
        _at(root, keys.type) or ("" if kind == "Resource" else kind.lower()),
        name,
        (Criterion(class_, identifier),),
        tuple(_points(root, where, "")),
        tuple(_secrets(root, where, "")),
        (),
        where,
    )


def _definition(root: Mapping, where: Where) -> Resource:
    entity: Mapping = next(
        (each for key in ("entity", "object", "spec") if isinstance(each := root.get(key), Mapping)), root
    )
    criteria = entity.get("criteria")
    provision = entity.get("provision")
    body = Mapping(False, None, 0, 0)
    body.pairs = [(key, value) for key, value in root.pairs if value is not entity]
    inner = Mapping(False, None, 0, 0)
    inner.pairs = [(key, value) for key, value in entity.pairs if value is not criteria and value is not provision]
    path = next((key.value for key, value in root.pairs if value is entity), "")
    return Resource(
        entity.text("type"),
        _at(root, "metadata.id") or _at(root, "metadata.name") or entity.text("name"),
        tuple(_criteria(criteria)),
        (*_points(body, where, ""), *_points(inner, where, path)),
        (*_secrets(body, where, ""), *_secrets(inner, where, path)),
        tuple(_provisions(provision, where, f"{path}.provision" if path else "provision")),
        where,
    )


def _criteria(node: Node | None) -> Iterator[Criterion]:
    for each in node.items if isinstance(node, Sequence) else ():
        if isinstance(each, Mapping):
            yield Criterion(each.text("class") or None, each.text("res_id") or None)


def _provisions(node: Node | None, where: Where, path: str) -> Iterator[Provision]:
    for key, value in node.pairs if isinstance(node, Mapping) else ():
        settings = value if isinstance(value, Mapping) else Mapping(False, None, 0, 0)
        pointers = find("${resources['" + key.value + "']}")
        for pointer in pointers:
            yield Provision(
                pointer,
                settings.text("is_dependent").lower() == "true",
                settings.text("match_dependents").lower() == "true",
                _down(where, value, path, key.value),
            )


def _points(node: Node, where: Where, path: str) -> Iterator[tuple[Pointer, Where]]:
    for text, found in _texts(node, where, path):
        for pointer in find(text):
            yield pointer, found


def _texts(node: Node, where: Where, path: str) -> Iterator[tuple[str, Where]]:
    """Every string, keys too: a placeholder may stand in either."""
    if isinstance(node, Scalar):
        yield node.value, where._replace(line=where.line + node.line, field=path)
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from _texts(item, where, f"{path}[{index}]")
    else:
        for key, value in node.pairs:
            deeper = f"{path}.{key.value}" if path else key.value
            yield key.value, where._replace(line=where.line + key.line, field=path)
            yield from _texts(value, where, deeper)


def _secrets(node: Node, where: Where, path: str) -> Iterator[tuple[str, Where]]:
    if isinstance(node, Scalar):
        if "secret://" in node.value:
            yield "a secret:// reference", where._replace(line=where.line + node.line, field=path)
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from _secrets(item, where, f"{path}[{index}]")
    else:
        if node.text("store") and node.text("ref"):
            yield f"{node.text('store')}:{node.text('ref')}", where._replace(line=where.line + node.line, field=path)
        for key, value in node.pairs:
            yield from _secrets(value, where, f"{path}.{key.value}" if path else key.value)


def _down(where: Where, node: Node, path: str, key: str) -> Where:
    return where._replace(line=where.line + node.line, field=f'{path}["{key}"]')


def _at(node: Node | None, path: str) -> str:
    """The text under a key path; empty: none."""
    for key in path.split("."):
        if not isinstance(node, Mapping):
            return ""
        node = node.get(key)
    return node.value if isinstance(node, Scalar) and node.value not in {"null", "~"} else ""
