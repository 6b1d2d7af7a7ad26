"""A container's `env`: the value moves into a generated Secret, and the item refers to that by `secretKeyRef`.

The kubelet expands `$(NAME)` in `value` only. So a text that also holds `$(NAME)` stays, and only its secret pieces
move, each into an item of its own directly before, which the text names by `$(SECRETWEAVE_n)`.
https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from secretweave import references
from secretweave.edits import Piece, Swap, may_be_left_out
from secretweave.errors import BadReference, SecretweaveError, Where
from secretweave.generated import WorkloadSecret
from secretweave.model import Reference, Use
from secretweave.references import reference_object
from secretweave.scan.objects import Object, step
from secretweave.scan.page import Page
from secretweave.scan.spans import before_item, pair
from secretweave.scan.workloads import Container, containers
from secretweave.text import kubelet
from secretweave.text.scalars import quote, respell
from secretweave.yamltree import Mapping, Scalar, Sequence


def find(obj: Object, page: Page) -> set[str]:
    handled: set[str] = set()
    secret = WorkloadSecret(obj, page)
    for container in containers(obj, page.config.settings.pod_templates):
        env = container.node.get("env")
        if not isinstance(env, Sequence):
            continue
        for index, item in enumerate(env.items):
            page.visit()
            if isinstance(item, Mapping) and item.live:
                path = step(step(container.path, "env"), index)
                handled |= _Item(obj, page, secret, container, item, env).weave(path)
    secret.plan()
    return handled


def _as_seen(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """The pieces as the kubelet would show them, judged as one text: a `$(` may stand open before a value."""
    texts = kubelet.unescape("".join(piece if isinstance(piece, str) else "\0" for piece in pieces)).split("\0")
    values = [piece for piece in pieces if not isinstance(piece, str)]
    if len(texts) != len(values) + 1:
        raise BadReference("NUL in the value of an environment variable", fix="take it out")
    mixed = [each for pair in zip(texts, [*values, ""], strict=True) for each in pair]
    return tuple(each for each in mixed if each != "")


class _Item:
    """One item of an `env` list."""

    def __init__(
        self, obj: Object, page: Page, secret: WorkloadSecret, container: Container, item: Mapping, siblings: Sequence
    ) -> None:
        self.obj = obj
        self.page = page
        self.secret = secret
        self.container = container
        self.item = item
        self.siblings = siblings
        self.name = item.text("name")

    def weave(self, path: str) -> set[str]:
        """Plans the item's edits; returns the key paths that are dealt with."""
        handled = set()
        for key, node in self.item.pairs:
            field = step(path, key.value)
            where = self.page.where(self.obj, node.line, field)
            if key.value == "value" and isinstance(node, Scalar) and node.live:
                handled.add(field)
                if self.item.get("valueFrom") is None:
                    self._value(key, node, where)
                else:
                    self._refuse_two(where)
            elif key.value == "valueFrom" and isinstance(node, Mapping):
                store_ref = node.get("secretStoreRef")
                if store_ref is not None:
                    handled.add(field)
                    self._store_ref(key, node, store_ref, where)
        return handled

    def _refuse_two(self, where: Where) -> None:
        self.page.fault(
            BadReference(
                "an environment variable with both value and valueFrom",
                why="a value that is secret becomes a valueFrom",
                fix="keep one of them",
            ),
            where,
        )

    def _value(self, key: Scalar, node: Scalar, where: Where) -> None:
        parts = self.page.read(node, where)
        if parts is None:
            return
        if any(isinstance(part, references.Nested) for part in parts):
            self.page.fault(
                BadReference(
                    "a reference in base64 in a container's env",
                    fix="write the reference in plain sight, with ?encode=base64 where the program wants base64",
                ),
                where,
            )
            return
        pieces = self.page.pieces(parts, self.obj, where, "env")
        if pieces is None:
            return
        if not any(isinstance(piece, Use) for piece in pieces):
            self.page.edit(self.page.token(node, pieces, where), where)
        elif kubelet.mentions(tuple(part for part in parts if isinstance(part, str | Reference))):
            self._hoist(key, node, pieces, where)
        else:
            self._move(key, node, _as_seen(pieces), where)

    def _store_ref(self, key: Scalar, value_from: Mapping, node: object, where: Where) -> None:
        try:
            read = (
                reference_object.read(node, default_store=self.page.allows_default_store)
                if isinstance(node, Mapping)
                else None
            )
        except SecretweaveError as bad:
            self.page.fault(bad, where)
            return
        if not isinstance(read, Reference):
            self.page.fault(BadReference("a secretStoreRef without store and ref", fix="give it both"), where)
            return
        if len(value_from.pairs) > 1:
            self.page.fault(BadReference("a secretStoreRef beside another source", fix="keep one of them"), where)
            return
        pieces = self.page.pieces((read,), self.obj, where, "env")
        if pieces is not None:
            self._move(key, value_from, pieces, where)

    def _move(self, key: Scalar, node: Scalar | Mapping, pieces: tuple[Piece, ...], where: Where) -> None:
        """The whole value goes into the Secret."""
        try:
            start, end, line_break = self._own(key, node)
            if self.item.merged:
                raise _behind_merge_key()
        except SecretweaveError as bad:
            self.page.fault(bad, where)
            return
        optional = may_be_left_out(pieces)
        data_key = self.secret.key(self.container.name, self.name, id(node), pieces, where, optional=optional)
        selector = self._selector(data_key, optional=optional, flow=self.item.flow)
        text = f'"valueFrom": {selector}' if self.item.flow else f"valueFrom: {selector}"
        self.page.edit(Swap(self.page.offset(start), self.page.offset(end), text + line_break), where)

    def _own(self, key: Scalar, node: Scalar | Mapping) -> tuple[int, int, str]:
        """The pair's range, as `pair` has it. Raises BadReference, also where it is merged into the item."""
        if not self.item.start <= key.start < self.item.end:
            raise _behind_merge_key()
        return pair(self.page.tree.text, key, node)

    def _hoist(self, key: Scalar, node: Scalar, pieces: tuple[Piece, ...], where: Where) -> None:
        """Each secret piece becomes an item of its own before this one; the text stays and names them."""
        text = self.page.tree.text
        try:
            self._own(key, node)
            place, before, after = before_item(text, self.item, self.siblings)
            if not self.secret.hoists(node):
                return
            variables = [self.secret.variable() for piece in pieces if not isinstance(piece, str)]
            kept = kubelet.refer(pieces, variables)
        except SecretweaveError as bad:
            self.page.fault(bad, where)
            return
        flow = after == ", "
        items = []
        for variable, piece in zip(variables, (each for each in pieces if not isinstance(each, str)), strict=True):
            data_key = self.secret.key(self.container.name, variable, variable, (piece,), where, optional=False)
            selector = self._selector(data_key, optional=False, flow=flow)
            name, value_from = ('"name"', '"valueFrom"') if flow else ("name", "valueFrom")
            items.append(f"{before}{{{name}: {quote(variable)}, {value_from}: {selector}}}{after}")
        at = self.page.offset(place)
        self.page.edit(Swap(at, at, "".join(items).replace("\n", self.page.newline)), where)
        source = text[node.start : node.end]
        parent = self.page.parent_indentation(node)
        woven = respell(source, node.style, kept, newline=self.page.newline, parent=parent)
        self.page.edit(Swap(self.page.offset(node.start), self.page.offset(node.end), woven), where)

    def _selector(self, data_key: str, *, optional: bool, flow: bool) -> str:
        names = (
            ('"secretKeyRef"', '"name"', '"key"', '"optional"') if flow else ("secretKeyRef", "name", "key", "optional")
        )
        selector, name, key, may_miss = names
        rest = f", {may_miss}: true" if optional else ""
        return f"{{{selector}: {{{name}: {quote(self.secret.name)}, {key}: {quote(data_key)}{rest}}}}}"


def _behind_merge_key() -> BadReference:
    return BadReference(
        "a reference behind a YAML merge key",
        why="another key, or a variable before it, takes its place, which does not fit where it is merged too",
        fix="write the item out",
    )
