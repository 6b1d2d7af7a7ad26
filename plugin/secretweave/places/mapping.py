"""`SecretMapping` (`humanitec.io/v1alpha1`): the whole object becomes the Secret that it describes.

Several of one target become one Secret, which stands at the first of them and has its metadata.
"""

import re

from secretweave.edits import Entry, Head, NewSecret
from secretweave.errors import BadReference, InputError, SecretweaveError, Where
from secretweave.generated import HOOK_ANNOTATIONS, MANAGED_BY, signature
from secretweave.model import Reference
from secretweave.scan.objects import MAX_NAME, Object, step
from secretweave.scan.page import Findings, Made, Merged, Page
from secretweave.yamltree import Mapping, Node, Scalar, Sequence, twice

API_VERSION = "humanitec.io/v1alpha1"
SPEC_KEYS = {"secretName", "secretData"}
ITEM_KEYS = {"secretKey", "secretStoreName", "remoteRef"}
REMOTE_KEYS = {"key", "version", "property"}
"""`property`, a field of the secret, is an extension of ours: the public schema has none."""


def find(obj: Object, page: Page) -> None:
    where = page.where(obj, obj.node.line, "")
    try:
        target, entries = _read(obj, page)
    except SecretweaveError as bad:
        page.fault(bad, bad.where if bad.where.line else where)
        return
    if _holds_reference(obj.node, where, page):
        page.fault(
            BadReference(
                "a secret:// in a SecretMapping",
                why="it names its secrets by secretStoreName and remoteRef, and its metadata becomes the Secret's",
                fix="write the text out",
            ),
            where,
        )
        return
    labels = dict(obj.written("labels"))
    annotations = obj.written("annotations")
    hooks = labels | {key: value for key, value in annotations if key in HOOK_ANNOTATIONS}
    merged = page.found.mappings.get((obj.namespace, target))
    if merged is None:
        namespace = obj.metadata.text("namespace") if obj.metadata else ""
        labels[MANAGED_BY[0]] = MANAGED_BY[1]
        secret = _secret(obj, page, Head(target, namespace, tuple(labels.items()), annotations))
        page.rewritten(secret)
        merged = Merged(secret, hooks, where)
        page.found.mappings[obj.namespace, target] = merged
        page.found.claim(target, obj.namespace, Made(where, "mapping"))
    else:
        try:
            page.edit(page.without(obj), where)
        except SecretweaveError as bad:
            page.fault(bad, where)
        if merged.hooks != hooks:
            page.fault(
                InputError(
                    f"two SecretMappings onto the Secret {target} with different labels or hooks",
                    why=f"the other one: {merged.where}",
                    fix="give both the same labels and hook annotations, or each a secretName of its own",
                ),
                where,
            )
    for entry in entries:
        other = merged.entries.setdefault(entry.key, entry)
        if other.source != entry.source:
            page.fault(
                InputError(
                    f"the key {entry.key} of the Secret {target} from two different sources",
                    why=f"the other one: {other.where}",
                    fix="rename one of the keys",
                ),
                entry.where,
            )


def finish(found: Findings) -> None:
    """Plans the Secrets once every SecretMapping of the stream is known."""
    for merged in found.mappings.values():
        found.edits.append(merged.secret._replace(entries=tuple(merged.entries.values())))


def _read(obj: Object, page: Page) -> tuple[str, list[Entry]]:
    if obj.api_version != API_VERSION:
        raise BadReference("a SecretMapping of a version that is not known", fix=f"write it as {API_VERSION}")
    spec = obj.node.get("spec")
    if not isinstance(spec, Mapping):
        raise BadReference("a SecretMapping without spec", fix="give it spec.secretName and spec.secretData")
    _known(spec, SPEC_KEYS, page.where(obj, spec.line, "spec"))
    target = spec.text("secretName")
    items = spec.get("secretData")
    if not target or not isinstance(items, Sequence):
        raise BadReference(
            "a SecretMapping without secretName or secretData", fix="give it spec.secretName and a list spec.secretData"
        )
    entries = []
    for index, item in enumerate(items.items):
        page.visit()
        where = page.where(obj, item.line, step("spec.secretData", index))
        reference, key = _item(item, where)
        pieces = page.pieces((reference,), obj, where, "mapping")
        if pieces is not None:
            entries.append(Entry(key, pieces, where, signature(pieces)))
    return target, entries


def _item(item: object, where: Where) -> tuple[Reference, str]:
    remote = item.get("remoteRef") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or not isinstance(remote, Mapping):
        raise BadReference("an item without remoteRef", where=where, fix="give it secretKey and remoteRef.key")
    _known(item, ITEM_KEYS, where)
    _known(remote, REMOTE_KEYS, where)
    key, ref = item.text("secretKey"), remote.text("key")
    if not key or not ref:
        raise BadReference("an item without secretKey or remoteRef.key", where=where, fix="give it both")
    if len(key) > MAX_NAME or not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
        raise BadReference(
            "a secretKey that a Secret cannot have",
            where=where,
            fix=f"write it with letters, digits, `-`, `_` and `.`, at most {MAX_NAME} of them",
        )
    if "${" in ref + item.text("secretStoreName") + remote.text("version"):
        raise BadReference("a placeholder in a secret reference", where=where, fix="write the reference out")
    version = remote.text("version") or None
    return Reference(item.text("secretStoreName"), ref, version, remote.text("property") or None), key


def _holds_reference(node: Node, where: Where, page: Page) -> bool:
    page.visit()
    if not node.live:
        return False
    if isinstance(node, Scalar):
        return page.read(node, where) is not None
    inner = node.items if isinstance(node, Sequence) else [each for pair in node.pairs for each in pair]
    return any(_holds_reference(each, where, page) for each in inner)


def _known(node: Mapping, known: set[str], where: Where) -> None:
    if node.twice:
        raise twice(*node.twice).at(where)
    for key, value in node.pairs:
        null = isinstance(value, Scalar) and not value.style and value.value in {"", "null", "~"}
        if key.value not in known and not null:
            raise BadReference(
                "a key that a SecretMapping does not have there",
                where=where,
                fix=f"use only {', '.join(sorted(known))}",
            )


def _secret(obj: Object, page: Page, head: Head) -> NewSecret:
    node = obj.node
    text = page.tree.text
    inline = node.flow or bool(obj.path)
    after = "\n" if text[node.start : node.end].endswith("\n") else ""
    if not inline and not after:
        # The block of YAML brings its own last line break: take the mapping's, if there is one, out with it.
        end = node.end + len(text[node.end :]) - len(text[node.end :].lstrip(" "))
        rest = text[end : end + 2]
        taken = 2 if rest == "\r\n" else 1 if rest[:1] == "\n" else 0
        # A root can be indented as a whole.
        start = len(text[: node.start].rstrip(" "))
        return NewSecret(
            page.offset(start),
            page.offset(end + taken if taken else node.end),
            head,
            (),
            False,
            "",
            "",
            page.newline,
        )
    return NewSecret(
        page.offset(node.start), page.offset(node.end), head, (), inline, "", after if inline else "", page.newline
    )
