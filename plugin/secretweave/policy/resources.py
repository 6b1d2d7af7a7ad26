"""What the manifests of the original system say of resources: Definitions, and the objects of `humanitec.io`.

The shape of Definitions is public (https://github.com/humanitec-architecture/example-library), that of the objects is
not: in these every string and every `{store, ref}` counts, wherever it stands.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from secretweave import references
from secretweave.errors import SecretweaveError, Where
from secretweave.model import Reference
from secretweave.policy.placeholders import Pointer, find, specified
from secretweave.policy.settings import ResourceKeys
from secretweave.scan.objects import step
from secretweave.yamltree import Mapping, Node, Scalar, Sequence, twice

GROUP = "humanitec.io"
NO_RESOURCES = frozenset({"SecretStore", "SecretMapping"})
SECTIONS = ("entity", "object", "spec")
"""Where a Definition says what it is: the first in `entity.humanitec.io`, the second in `core.api.humanitec.io`."""

_TYPE = r"[A-Za-z0-9_/-]+"
_NO = frozenset({"", "false", "no", "off", "n", "0"})


class Criterion(NamedTuple):
    """What a Definition serves; None: any. Application and environment do not count: a stream can be for several."""

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
    """Empty: it cannot be told."""
    name: str
    serves: tuple[Criterion, ...]
    """Empty: anything of its type."""
    points: tuple[tuple[Pointer, Where], ...]
    secrets: tuple[tuple[str, Where], ...]
    """`store:ref` of the secret references that it holds."""
    provisions: tuple[Provision, ...]
    where: Where
    type_key: str
    """The key path at which the type was looked for."""

    def __str__(self) -> str:
        return f"{self.type or 'resource'}/{self.name}"


def is_of_ours(api_version: str) -> bool:
    """Whether objects of this apiVersion are read as resources."""
    group = api_version.partition("/")[0]
    return group == GROUP or group.endswith(f".{GROUP}")


def read(api_version: str, kind: str, root: Mapping, where: Where, keys: ResourceKeys) -> Resource | None:
    """The resource that an object describes (its tree unpruned); None: none.

    *where*: of the object, with the document's first line. Raises InputError where a key stands twice in a mapping.
    """
    if kind in NO_RESOURCES or not is_of_ours(api_version):
        return None
    content = _Content(where)
    content.walk(root, "")
    if kind == "Definition":
        return _definition(root, content)
    return Resource(
        _type(_at(root, keys.type)) or ("" if kind == "Resource" else kind.lower()),
        _at(root, "metadata.name") or _at(root, "metadata.id"),
        (Criterion(_known(_at(root, keys.class_)), _known(_at(root, keys.id))),),
        tuple(content.points),
        tuple(content.secrets),
        (),
        content.at(root, ""),
        keys.type,
    )


def _definition(root: Mapping, content: "_Content") -> Resource:
    sections = [(key, section) for key in SECTIONS if isinstance(section := root.get(key), Mapping)]
    bodies = [*sections, ("", root)]
    types = {body.text("type") for _, body in bodies} - {""}
    return Resource(
        _type(types.pop()) if len(types) == 1 else "",
        _at(root, "metadata.id") or _at(root, "metadata.name") or next((body.text("name") for _, body in bodies), ""),
        tuple(criterion for _, body in bodies for criterion in _criteria(body.get("criteria"))),
        tuple(content.points),
        tuple(content.secrets),
        tuple(
            provision
            for key, body in bodies
            for provision in _provisions(body.get("provision"), content, step(key, "provision"))
        ),
        content.at(root, ""),
        f"{sections[0][0]}.type" if sections else "entity.type",
    )


def _criteria(node: Node | None) -> Iterator[Criterion]:
    for each in node.items if isinstance(node, Sequence) else ():
        known = each if isinstance(each, Mapping) else Mapping(False, None, 0, 0)
        yield Criterion(_known(known.text("class")), _known(known.text("res_id")))


def _provisions(node: Node | None, content: "_Content", path: str) -> Iterator[Provision]:
    for key, value in node.pairs if isinstance(node, Mapping) else ():
        settings = value if isinstance(value, Mapping) else Mapping(False, None, 0, 0)
        yield Provision(
            specified(key.value),
            settings.text("is_dependent").lower() not in _NO,
            settings.text("match_dependents").lower() not in _NO,
            content.at(key, step(path, key.value)),
        )


class _Content:
    """The placeholders and the secret references in an object. Each node is seen once, however many aliases it has."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._seen: set[tuple[int, bool]] = set()
        self.points: list[tuple[Pointer, Where]] = []
        self.secrets: list[tuple[str, Where]] = []

    def at(self, node: Node, path: str) -> Where:
        return self._where._replace(line=self._where.line + node.line, field=self._where.field + path)

    def walk(self, node: Node, path: str, *, in_secret_refs: bool = False) -> None:
        seen = id(node), in_secret_refs
        if seen in self._seen:
            return
        self._seen.add(seen)
        if isinstance(node, Scalar):
            self._scalar(node, path)
        elif isinstance(node, Sequence):
            for index, item in enumerate(node.items):
                self.walk(item, step(path, index), in_secret_refs=in_secret_refs)
        else:
            self._mapping(node, path, in_secret_refs=in_secret_refs)

    def _mapping(self, node: Mapping, path: str, *, in_secret_refs: bool) -> None:
        if node.twice:
            raise twice(*node.twice)
        store, ref = node.text("store"), node.text("ref")
        if ref and (store or in_secret_refs):
            self.secrets.append((f"{store or '(default store)'}:{ref}", self.at(node, path)))
        for key, value in node.pairs:
            self._scalar(key, path)
            deeper = step(path, key.value)
            self.walk(value, deeper, in_secret_refs=in_secret_refs or key.value == "secret_refs")

    def _scalar(self, node: Scalar, path: str) -> None:
        text = node.value
        if "${" in text:
            self.points += ((pointer, self.at(node, path)) for pointer in find(text))
        if references.may_hold(text):
            self.secrets += ((secret, self.at(node, path)) for secret in _woven(text))
        if "store" in text and "ref" in text:
            self.secrets += ((secret, self.at(node, path)) for secret in _written_in(text))


def _woven(text: str) -> Iterator[str]:
    """The references of our own grammars; one that is malformed is a fault of its own, told elsewhere."""
    try:
        template = references.parse(text)
    except SecretweaveError:
        return
    yield from (str(piece) for piece in template or () if isinstance(piece, Reference))


def _written_in(text: str) -> Iterator[str]:
    """A `{store, ref}` in a text that is itself JSON, YAML or HCL, as Terraform writes `driver_inputs`."""
    member = r"""(?:^|[\s{,\[])\\*["']?(store|ref)\\*["']?\s*[:=]\s*\\*["']?([^\s"'\\,}]+)"""
    members: dict[str, str] = {}
    for name, value in re.findall(member, text):
        if value != "null":
            members.setdefault(name, value)
    if len(members) == 2:
        yield f"{members['store']}:{members['ref']}"


def _known(text: str) -> str | None:
    """A class or an id; None: not told, or by a placeholder."""
    return text if text and "${" not in text else None


def _type(text: str) -> str:
    return text if re.fullmatch(_TYPE, text) else ""


def _at(node: Node | None, path: str) -> str:
    """The text under a key path; empty: none, or null."""
    *way, last = path.split(".")
    for key in way:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node.text(last) if isinstance(node, Mapping) else ""
