"""What is handed to SOPS of a document, and how it is told that what comes back is right.

A Secret is written anew before it is encrypted, every text of it quoted: SOPS reads YAML by other rules than
Kubernetes, and what it takes for a number, a time or an anchor does not come back as it was. Comments do not go along:
SOPS would leave them readable, and they can hold what a Secret held before.

How Kubernetes reads a plain scalar (sigs.k8s.io/yaml on go-yaml v2):
https://github.com/kubernetes-sigs/yaml/blob/master/goyaml.v2/resolve.go
"""

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from secretweave.errors import InputError, PolicyError, SecretweaveError, StoreError, Where
from secretweave.scan.objects import Object, step, walk
from secretweave.scan.page import TEXT_TAGS
from secretweave.sdk.sops import SEALED
from secretweave.text.scalars import quote
from secretweave.yamltree import Mapping, Node, Reading, Scalar, parse, twice

SECTIONS = ("data", "stringData")
METADATA = "sops"
CORE = ("v1", "/v1", "")
"""What Kubernetes reads as the apiVersion of a Secret, and what an item of a list may leave out:
https://github.com/kubernetes/apimachinery/blob/v0.34.1/pkg/runtime/schema/group_version.go"""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
TELLING = 8
"""Characters from which on a text is looked for in what was encrypted: shorter ones turn up by chance."""

_LOST = re.compile("\t[^\n\x85\u2028\u2029]*[\n\x85\u2028\u2029]")
"""How a text begins that is null once SOPS has decrypted it: go-yaml v3 writes it as a block that it cannot read."""

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NUMBER = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
    r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


class Part(NamedTuple):
    """A document to be written: one that is to be encrypted, or an item of a list that was taken apart for one."""

    text: str
    """As YAML, ended by a line break."""
    secret: "Secret | None" = None
    """None: it holds no Secret with data, or one that is encrypted already."""


class Secret(NamedTuple):
    """A Secret with values in it."""

    namespace: str | None
    name: str
    where: Where
    node: Mapping
    api_version: str


def parts(data: bytes, namespace: str | None, *, depth: int, nodes: int) -> list[Part]:
    """The documents that are to stand in the place of one; none: it stays as it is, byte for byte.

    *namespace*: of objects that name none. Raises InputError, or PolicyError for what could not be kept secret.
    """
    tree = parse(data, Reading(depth=depth, nodes=nodes, whole=True))
    root = tree.root
    if not isinstance(root, Mapping):
        return []
    objects = list(islice(walk(root, namespace), nodes + 1))
    if len(objects) > nodes:
        raise InputError("the document's aliases unfold into too many objects", fix="cut the document up")
    plain = [obj for obj in objects if is_secret(obj) and _has_plaintext(obj)]
    if not plain:
        return []
    if not objects[0].items:
        return [_part(objects[0], depth, nodes)]
    for obj in objects:
        if obj.items and obj.kind and not obj.kind.endswith("List"):
            raise InputError(
                "a Secret inside of an object that is no list",
                where=Where(resource=obj.title, field="items"),
                why="only a document of its own, or an item of a list, can be encrypted",
                fix="make the Secret a document of its own",
            )
    return [_part(obj, depth, nodes) for obj in objects if not obj.items and not _is_list(obj)]


def is_secret(obj: Object) -> bool:
    return obj.kind == "Secret" and obj.api_version in CORE


def _is_list(obj: Object) -> bool:
    return obj.kind.endswith("List") and obj.node.get("items") is not None


def _part(obj: Object, depth: int, nodes: int) -> Part:
    found = None
    if is_secret(obj) and _has_plaintext(obj):
        where = Where(resource=obj.title)
        if LAST_APPLIED in dict(obj.written("annotations")):
            raise PolicyError(
                "a Secret whose values stand in an annotation as well",
                where=where,
                why=f"{LAST_APPLIED} holds the Secret as it was applied, and annotations are not encrypted",
                fix="take the annotation away",
            )
        obj = obj._replace(node=_without_what_is_lost(obj.node))
        found = Secret(obj.namespace, obj.name, where, obj.node, obj.api_version or "v1")
    try:
        return Part(_Writer(depth, nodes).document(obj), found)
    except SecretweaveError as fault:
        raise fault.at(Where(resource=obj.title, field=fault.where.field)) from None


def _has_plaintext(obj: Object) -> bool:
    """Has it values that are to be encrypted? Raises InputError: they are no texts, or some of them are encrypted."""
    sealed = plain = empty = False
    for section in SECTIONS:
        fields = obj.node.get(section)
        if fields is None or (isinstance(fields, Scalar) and _token(fields) == "null"):
            continue
        if not isinstance(fields, Mapping):
            raise InputError(
                "not a mapping of keys to texts", where=Where(resource=obj.title, field=section), fix="write one"
            )
        for key, node in _pairs(fields):
            spelled = _token(node) if isinstance(node, Scalar) else ""
            if spelled != "null" and not spelled.startswith('"'):
                raise InputError(
                    "a value of a Secret that is no text",
                    where=Where(resource=obj.title, field=step(section, key.value)),
                    why="Kubernetes takes none, and shows the value when it says so",
                    fix="put quotes around the value",
                )
            if SEALED.search(spelled):
                sealed = True
                plain = plain or not SEALED.fullmatch(spelled[1:-1])
            elif spelled in {"null", '""'}:
                empty = True
            elif section == "data" and isinstance(node, Scalar) and _holds_sealed(node.value):
                raise InputError(
                    "a value of a Secret that SOPS has encrypted already",
                    where=Where(resource=obj.title, field=step(section, key.value)),
                    why="it would reach the cluster encrypted: a generator has read a file that nothing decrypts, or a "
                    "store gave one",
                    fix="encrypt a manifest of the Secret in place of the generator's file, or write a reference",
                )
            else:
                plain = True
    metadata = obj.node.get(METADATA)
    if metadata is None and not sealed:
        return plain or empty
    if plain or not isinstance(metadata, Mapping) or not SEALED.fullmatch(metadata.text("mac")):
        raise InputError(
            "a Secret that is encrypted in part",
            where=Where(resource=obj.title),
            why="some of its values are encrypted by SOPS and some are not, or their metadata is missing",
            fix="write references into Secrets of their own, and decrypt or remove what is encrypted",
        )
    return False


def _holds_sealed(encoded: str) -> bool:
    try:
        return SEALED.search(base64.b64decode(encoded).decode("latin-1")) is not None
    except ValueError:
        # Kubernetes tells.
        return False


def _without_what_is_lost(secret: Mapping) -> Mapping:
    """The Secret, with the texts of `stringData` that SOPS would lose in base64 under `data`, which means the same."""
    texts, data = (
        dict(_pairs(node)) if isinstance(node, Mapping) else {} for node in map(secret.get, reversed(SECTIONS))
    )
    by_name = {key.value: key for key in data}
    lost = {key: node for key, node in texts.items() if isinstance(node, Scalar) and _LOST.match(node.value)}
    if not lost:
        return secret
    for key, node in lost.items():
        data.pop(by_name.get(key.value, key), None)
        encoded = base64.b64encode(node.value.encode()).decode()
        data[key] = Scalar(encoded, '"', None, node.start, node.end, node.line)
        del texts[key]
    made = _mapping(secret, [(key, node) for key, node in _pairs(secret) if key.value not in SECTIONS])
    for name, section in zip(SECTIONS, (data, texts), strict=True):
        if section:
            made.pairs.append((Scalar(name, "", None, 0, 0, 0), _mapping(secret, list(section.items()))))
    return made


def _mapping(like: Mapping, pairs: list[tuple[Scalar, Node]]) -> Mapping:
    made = Mapping(like.flow, None, like.start, like.line)
    made.pairs = pairs
    return made


def _pairs(node: Mapping) -> Iterator[tuple[Scalar, Node]]:
    """Each key once; those that a merge key brings stand last, and are hidden by the mapping's own."""
    if node.twice:
        raise twice(*node.twice)
    seen = set()
    for key, value in node.pairs:
        if key.value not in seen:
            seen.add(key.value)
            yield key, value
        elif not node.merged:
            raise twice(key.value, key.line)


def _token(node: Scalar) -> str:
    """A scalar as Kubernetes reads it, in JSON's spelling. Raises InputError."""
    if node.tag not in TEXT_TAGS:
        raise InputError("a YAML tag in a Secret, or beside one", fix="write the value without the tag, in quotes")
    text = node.value
    if node.style or node.tag is not None:
        return _quoted(text)
    if text in _NULLS:
        return "null"
    if text in _TRUE | _FALSE:
        return "true" if text in _TRUE else "false"
    if _NUMBER.fullmatch(text):
        if not _JSON_NUMBER.fullmatch(text):
            raise InputError(
                "a number in a spelling that Kubernetes and SOPS read differently", fix="write it in digits, or quoted"
            )
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("a text that holds half of a character", fix="write the character as itself") from None
    return quote(text)


class _Writer:
    """Writes an object as block YAML. What aliases stand for is written out, within limits."""

    def __init__(self, depth: int, nodes: int) -> None:
        self._lines: list[str] = []
        self._depth = depth
        self._left = nodes

    def document(self, obj: Object) -> str:
        """Raises InputError."""
        told = {"apiVersion": obj.api_version or ("v1" if is_secret(obj) else ""), "kind": obj.kind}
        for name, text in told.items():
            if text:
                self._lines.append(f"{name}: {quote(text)}")
        for key, node in _pairs(obj.node):
            if key.value not in told:
                self._write(f"{self._key(key)}:", node, 2)
        return "\n".join(self._lines) + "\n"

    def section(self, node: Node) -> str:
        self._write("", node, 2)
        return "\n".join(self._lines)

    def _write(self, before: str, node: Node, indent: int) -> None:
        self._left -= 1
        if self._left < 0 or indent > 2 * self._depth + 2:
            raise InputError("the document's aliases unfold into too many nodes", fix="write out what they stand for")
        if isinstance(node, Scalar):
            self._lines.append(f"{before} {_token(node)}")
            return
        if isinstance(node, Mapping):
            children = [(f"{self._key(key)}:", value) for key, value in _pairs(node)]
        else:
            children = [("-", item) for item in node.items]
        if not children:
            self._lines.append(before + (" {}" if isinstance(node, Mapping) else " []"))
            return
        self._lines.append(before)
        for name, value in children:
            self._write(" " * indent + name, value, indent + 2)

    def _key(self, key: Scalar) -> str:
        if key.tag in TEXT_TAGS and (key.style or _token(key).startswith('"') or key.value.isdecimal()):
            plain = _PLAIN_KEY.fullmatch(key.value) and key.value not in _NULLS | _TRUE | _FALSE
            return key.value if plain else _quoted(key.value)
        raise InputError("a key that Kubernetes does not read as text", fix="put quotes around it")


def verify(sealed: bytes, secret: Secret, *, depth: int, nodes: int) -> None:
    """Raises StoreError: what came back is not the Secret with its values encrypted, and nothing but these."""
    try:
        root = parse(sealed, Reading(depth=depth, nodes=nodes, whole=True)).root
    except (SecretweaveError, UnicodeDecodeError):
        root = None
    if not isinstance(root, Mapping):
        raise _wrong("what it gave is no manifest")
    members = {key.value: node for key, node in root.pairs}
    metadata = members.pop(METADATA, None)
    mac = metadata.text("mac") if isinstance(metadata, Mapping) else ""
    if not SEALED.fullmatch(mac):
        raise _wrong("what it gave has no MAC")
    if (root.text("apiVersion"), root.text("kind")) != (secret.api_version, "Secret"):
        raise _wrong("apiVersion or kind is another one")
    expected = {key.value: node for key, node in _pairs(secret.node) if key.value not in {"apiVersion", "kind"}}
    if set(members) - {"apiVersion", "kind"} != set(expected):
        raise _wrong("a member is missing, or was added")
    for key, node in expected.items():
        if key in SECTIONS and isinstance(node, Mapping):
            _verify_section(members[key], node)
        elif _Writer(depth, nodes).section(members[key]) != _Writer(depth, nodes).section(node):
            raise _wrong(
                f"`{key}` is not what it was: a key `data` or `stringData` below it would be encrypted, "
                "and some texts of several lines are lost by SOPS"
            )
    _search(sealed.decode(), secret)


def _verify_section(found: Node, expected: Mapping) -> None:
    sealed = dict(_texts(found)) if isinstance(found, Mapping) else {}
    plain = dict(_texts(expected))
    if sealed.keys() != plain.keys():
        raise _wrong("the keys of its values are others")
    for key, text in plain.items():
        if text and not SEALED.fullmatch(sealed[key]):
            raise _wrong("a value is not encrypted")
        if not text and sealed[key]:
            raise _wrong("an empty value is not empty any more")


def _texts(fields: Mapping) -> Iterator[tuple[str, str]]:
    for key, node in _pairs(fields):
        text = node.value if isinstance(node, Scalar) else "\0"
        yield key.value, "" if isinstance(node, Scalar) and _token(node) == "null" else text


def _search(sealed: str, secret: Secret) -> None:
    """Raises StoreError: a value stands in what was encrypted, where it did not stand before.

    SOPS' metadata is left out: the recipients there may be what a Secret holds, and are public.
    """
    head = sealed.partition(f"\n{METADATA}:\n")[0]
    public: list[str] = []
    values: list[str] = []
    for key, node in _pairs(secret.node):
        if key.value in SECTIONS and isinstance(node, Mapping):
            public += [name.value for name, _ in node.pairs]
            values += [text for _, text in _texts(node)]
        else:
            public += _all_texts(node)
    rest = "\n".join(public)
    for text in values:
        for form in (text, *text.splitlines(), *_other_forms(text)):
            if len(form) >= TELLING and form in head and form not in rest:
                raise _wrong("a value can be read in what it gave")


def _all_texts(node: Node) -> list[str]:
    if isinstance(node, Scalar):
        return [node.value]
    if isinstance(node, Mapping):
        return [text for key, value in _pairs(node) for text in (key.value, *_all_texts(value))]
    return [text for item in node.items for text in _all_texts(item)]


def _other_forms(text: str) -> Iterator[str]:
    yield quote(text)[1:-1]
    yield base64.b64encode(text.encode()).decode()
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield decoded
    yield from decoded.splitlines()


def _wrong(why: str) -> StoreError:
    return StoreError(
        "sops did not encrypt the Secret as it should",
        why=why,
        fix="compare with what `sops encrypt` makes of the Secret by hand; use sops 3.9 or newer",
    )
