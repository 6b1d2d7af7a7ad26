"""Step two: every reference of the stream, where it stands, and what will change there. No value is known yet."""

from collections.abc import Iterable
from itertools import islice

from secretweave import policy, references
from secretweave.config import STORE, Config
from secretweave.errors import Faults, InputError, SecretweaveError, Where
from secretweave.places import elsewhere, env, mapping, secret
from secretweave.reading.manifests import Document
from secretweave.scan.objects import Object, walk
from secretweave.scan.page import TEXT_TAGS, Findings, Made, Options, Page
from secretweave.yamltree import Mapping, Reading, Scalar, Sequence, parse

MARKERS = (*references.markers(), b"secretStoreRef")
"""Bytes of which one stands in every document with a reference that its kind does not tell of."""


def concerns(api_version: str, kind: str, rules: policy.Policy) -> bool:
    """Whether every object of a kind is looked into: a Secret can hold references in base64 and as objects."""
    return kind == "Secret" or policy.concerns(api_version, kind, rules)


def scan(documents: Iterable[Document], config: Config, options: Options) -> Findings:
    """Reads every document that may matter. Faults are gathered, not raised."""
    found = Findings()
    for document in documents:
        try:
            _scan(document, config, options, found)
        except SecretweaveError as fault:
            line = document.line + fault.where.line if fault.where.line else document.line + 1
            for each in fault.faults if isinstance(fault, Faults) else [fault]:
                found.faults.append(each.at(Where(document.source, document.index, line, field=fault.where.field)))
    mapping.finish(found)
    return found


def _scan(document: Document, config: Config, options: Options, found: Findings) -> None:
    limits = config.settings.limits
    reading = Reading(references.may_hold, options.mask, limits.depth, limits.nodes)
    tree = parse(document.data, reading)
    if tree.root is None:
        return
    page = Page(document, tree, config, options, found)
    if not isinstance(tree.root, Mapping):
        if tree.root.live:
            raise InputError(
                "a document that is no Kubernetes object", where=Where(line=tree.root.line + 1), fix="remove it"
            )
        return
    objects = list(islice(walk(tree.root, options.namespace), page.visits + 1))
    if len(objects) > page.visits:
        raise InputError(
            "the document's aliases unfold into too many objects",
            fix="write out what they stand for, or cut the document up",
        )
    if any(policy.is_of_ours(obj.api_version) or obj.kind == "SecretList" for obj in objects):
        # The rules over resources need every string of them; Secrets of a list that tells their kind, their names.
        page.tree = tree = parse(document.data, reading._replace(whole=True))
        assert tree.root is not None
        objects = list(walk(tree.root, options.namespace))
    for obj in objects:
        _object(obj, page)
        if page.visits < 0:
            # Told once: what comes after it would be judged with nothing left to judge by.
            return
    page.finish()


def _object(obj: Object, page: Page) -> None:
    found = page.found
    where = page.where(obj, obj.node.line, "")
    for name in ("apiVersion", "kind"):
        node = obj.node.get(name)
        if node is not None and (not isinstance(node, Scalar) or node.tag not in TEXT_TAGS):
            page.fault(InputError("not a plain string", fix="write it as one"), page.where(obj, node.line, name))
    found.kinds.append((obj.api_version, obj.kind, where))
    items = obj.node.get("items")
    listed = len(items.items) if isinstance(items, Sequence) else 0
    if listed > len(obj.items) and obj.kind.endswith("List"):
        # Items whose kind the list's kind tells are forgotten where they hold nothing of interest.
        found.kinds.append((obj.api_version, obj.kind.removesuffix("List"), where))
    keys = page.config.settings.policy.restricted.resource_keys
    own = obj.node if not listed or listed > len(obj.items) else _without_items(obj.node)
    resource = policy.read(obj.api_version, obj.kind, own, page.where(obj, 0, ""), keys)
    if resource is not None:
        found.resources.append(resource)
    if obj.kind == "SecretMapping" and obj.group == "humanitec.io":
        mapping.find(obj, page)
        return
    if (obj.api_version, obj.kind) == STORE and page.config.settings.secret_stores.output == "drop":
        try:
            page.edit(page.without(obj), where)
        except SecretweaveError as bad:
            page.fault(bad, where)
        return
    handled: set[str] = set()
    if obj.kind == "Secret" and obj.api_version == "v1":
        found.claim(obj.name, obj.namespace, Made(where, "stream"))
        handled |= secret.find(obj, page)
    handled |= env.find(obj, page)
    elsewhere.find(obj, page, handled)


def _without_items(node: Mapping) -> Mapping:
    """A list of objects without these, which are looked at on their own."""
    bare = Mapping(node.flow, node.tag, node.start, node.line)
    bare.pairs = [(key, value) for key, value in node.pairs if key.value != "items"]
    bare.twice = node.twice
    return bare
