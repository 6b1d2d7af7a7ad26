"""The Secrets that secretweave makes: their names, their metadata, and how they are written."""

import re
from hashlib import sha256
from typing import TYPE_CHECKING

from secretweave import references
from secretweave.edits import Entry, Head, NestedText, NewSecret, Piece
from secretweave.errors import BadReference, SecretweaveError, Where
from secretweave.model import Use
from secretweave.scan.objects import MAX_NAME, Object
from secretweave.scan.page import Made, Page
from secretweave.scan.spans import before_item
from secretweave.text.scalars import quote
from secretweave.yamltree import Scalar

if TYPE_CHECKING:
    from collections.abc import Hashable

MANAGED_BY = ("app.kubernetes.io/managed-by", "secretweave")
HELM_HOOK, HELM_WEIGHT, HELM_DELETE = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"
ARGO_HOOK, ARGO_WAVE, ARGO_DELETE = (
    "argocd.argoproj.io/hook",
    "argocd.argoproj.io/sync-wave",
    "argocd.argoproj.io/hook-delete-policy",
)
HOOK_ANNOTATIONS = (HELM_HOOK, HELM_WEIGHT, HELM_DELETE, ARGO_HOOK, ARGO_WAVE, ARGO_DELETE)
POSTRENDER_FILENAME = "postrenderer.helm.sh/postrender-filename"
"""Helm 4 files each document by it: https://helm.sh/docs/topics/advanced/#post-rendering."""


class WorkloadSecret:
    """The one Secret that the containers of a workload read their values from."""

    def __init__(self, obj: Object, page: Page) -> None:
        self.obj = obj
        self.page = page
        self.annotations = _annotations(dict(obj.written("annotations")))
        self.name = _name(obj, hook=any(key in {HELM_HOOK, ARGO_HOOK} for key, _ in self.annotations))
        self.entries: dict[str, Entry] = {}
        self._keys: dict[Hashable, str] = {}
        self._hoisted: set[int] = set()
        self._variables = 0

    def key(
        self,
        container: str,
        variable: str,
        node: "Hashable",
        pieces: tuple[Piece, ...],
        where: Where,
        *,
        optional: bool,
    ) -> str:
        """The Secret's key for a value; one that two containers share through an alias is kept once."""
        if node not in self._keys:
            raw = f"{container}.{variable}"
            key = readable = re.sub(r"[^-._a-zA-Z0-9]", "_", raw)[:MAX_NAME]
            while key in self.entries:
                # Another variable of like spelling; or the same once more, for what stands between sees the first.
                key = f"{readable[: MAX_NAME - 9]}-{sha256(raw.encode()).hexdigest()[:8]}"
                raw += "/"
            self._keys[node] = key
            self.entries[key] = Entry(key, pieces, where, signature(pieces), optional)
        return self._keys[node]

    def hoists(self, node: Scalar) -> bool:
        """Whether a text is to be hoisted from: not if it was, by way of another container and an alias."""
        fresh = id(node) not in self._hoisted
        self._hoisted.add(id(node))
        return fresh

    def variable(self) -> str:
        """A name for a variable of ours that the document does not use."""
        if self.page.taken_variables is None:
            self.page.taken_variables = frozenset(re.findall("SECRETWEAVE_[0-9]+", self.page.tree.text))
        while f"SECRETWEAVE_{self._variables}" in self.page.taken_variables:
            self._variables += 1
        self._variables += 1
        return f"SECRETWEAVE_{self._variables - 1}"

    def plan(self) -> None:
        """Puts the Secret directly before its workload, if anything went into it."""
        if not self.entries:
            return
        obj, page = self.obj, self.page
        where = page.where(obj, obj.node.line, "")
        if not obj.name:
            page.fault(
                BadReference("a workload without a name", fix="name it, for its Secret is named after it"), where
            )
            return
        namespace = obj.metadata.text("namespace") if obj.metadata else ""
        head = Head(self.name, namespace, (MANAGED_BY,), self.annotations)
        if any(references.parse(text) for text in (obj.name, namespace, *(value for _, value in self.annotations))):
            page.fault(
                BadReference(
                    "a secret:// in metadata that a generated Secret takes over",
                    why="the Secret has its name, namespace and hooks from its workload",
                    fix="write the metadata out",
                ),
                where,
            )
            return
        page.found.claim(self.name, obj.namespace, Made(where, "workload"))
        at, before, after, inline = page.document.begin, "---\n", "", False
        if page.document.begin == page.document.start:
            before, after = "", "---\n"
        if obj.listed and obj.siblings is not None:
            try:
                place, before, after = before_item(page.tree.text, obj.node, obj.siblings)
            except SecretweaveError as bad:
                page.fault(bad, where)
                return
            at, inline = page.offset(place), True
        page.edit(NewSecret(at, at, head, tuple(self.entries.values()), inline, before, after, page.newline), where)


def signature(pieces: tuple[Piece, ...]) -> str:
    """What the pieces are made of, without a value."""
    parts = []
    for piece in pieces:
        if isinstance(piece, Use):
            parts.append(repr((piece.address, piece.reference)))
        elif isinstance(piece, NestedText):
            parts.append(f"base64({signature(piece.pieces)})")
        else:
            parts.append(repr(piece))
    return "+".join(parts)


def _name(obj: Object, *, hook: bool) -> str:
    """`<workload>-<8 hex of what it is>`: stable, and without a value or a version in it."""
    identity = "/".join((obj.group, obj.kind, obj.namespace or "", obj.name))
    # A hook's Secret goes with the hook: one of the same name that is none must not go with it.
    end = f"-{sha256((identity + '/hook' * hook).encode()).hexdigest()[:8]}"
    return obj.name[: MAX_NAME - len(end)].rstrip("-.") + end


def _annotations(written: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What the Secret takes over from its workload: it must be there before the workload, and go when that goes."""
    kept = {key: written[key] for key in (POSTRENDER_FILENAME, *HOOK_ANNOTATIONS) if key in written}
    for hook, weight in ((HELM_HOOK, HELM_WEIGHT), (ARGO_HOOK, ARGO_WAVE)):
        if hook in kept:
            kept[weight] = str(_integer(kept.get(weight, "0")) - 1)
    return tuple(kept.items())


def _integer(text: str) -> int:
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else 0


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NOT_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT else quote(text)


def block(head: Head, data: list[tuple[str, str]]) -> str:
    """The Secret as YAML; *data* values are base64."""
    lines = ["apiVersion: v1", "kind: Secret", "metadata:", f"  name: {_word(head.name)}"]
    if head.namespace:
        lines.append(f"  namespace: {_word(head.namespace)}")
    for section, pairs in (("labels", head.labels), ("annotations", head.annotations)):
        if pairs:
            lines.append(f"  {section}:")
            lines += [f"    {_word(key)}: {quote(value)}" for key, value in pairs]
    lines.append("type: Opaque")
    lines.append("data:" if data else "data: {}")
    lines += [f"  {_word(key)}: {quote(value)}" for key, value in data]
    return "".join(f"{line}\n" for line in lines)


def line(head: Head, data: list[tuple[str, str]]) -> str:
    """The Secret as one line of JSON, which is YAML too."""
    metadata = [f'"name": {quote(head.name)}']
    if head.namespace:
        metadata.append(f'"namespace": {quote(head.namespace)}')
    for section, pairs in (("labels", head.labels), ("annotations", head.annotations)):
        if pairs:
            metadata.append(f'"{section}": {_object(pairs)}')
    return (
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{{", ".join(metadata)}}}, '
        f'"type": "Opaque", "data": {_object(data)}}}'
    )


def _object(pairs: "list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> str:
    return "{" + ", ".join(f"{quote(key)}: {quote(value)}" for key, value in pairs) + "}"
