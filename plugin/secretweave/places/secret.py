"""A Secret's `data` and `stringData`: what is referenced goes in as text, or base64-encoded once.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
"""

from collections.abc import Iterable, Iterator

from secretweave import references
from secretweave.edits import Piece, Removal, Token, may_be_left_out
from secretweave.errors import BadReference, SecretweaveError, Where
from secretweave.model import Reference
from secretweave.references import reference_object
from secretweave.scan.objects import Object, step
from secretweave.scan.page import NO_SCALAR, Page
from secretweave.scan.spans import pair, removal
from secretweave.yamltree import Mapping, Node, Scalar

MASK = "***"


def find(obj: Object, page: Page) -> set[str]:
    handled = set()
    for section in ("data", "stringData"):
        fields = obj.node.get(section)
        if not isinstance(fields, Mapping):
            continue
        for key, node in fields.pairs:
            path = step(section, key.value)
            if not (node.live or page.options.mask):
                continue
            page.visit()
            handled.add(path)
            where = page.where(obj, node.line, path)
            field = _Field(obj, page, fields, key, where, encoded=section == "data")
            if isinstance(node, Scalar):
                field.weave_scalar(node)
            elif isinstance(node, Mapping):
                field.weave_object(node)
            else:
                page.fault(
                    BadReference("a list where a Secret holds text", fix="write the text, or a reference"), where
                )
    return handled


class _Field:
    """One field of `data` or `stringData`."""

    def __init__(self, obj: Object, page: Page, fields: Mapping, key: Scalar, where: Where, *, encoded: bool) -> None:
        self.obj = obj
        self.page = page
        self.fields = fields
        self.key = key
        self.where = where
        self.encoded = encoded
        """Its text is base64, as under `data`."""

    def weave_scalar(self, node: Scalar) -> None:
        already = False
        if not self.encoded:
            parts = self.page.read(node, self.where)
        else:
            # Base64 may be wrapped over lines: it is one run all the same.
            joined = "".join(node.value.split())
            parts = self.page.read(node, self.where, joined if references.decoded(joined) is not None else None)
            already = parts is not None and not any(isinstance(part, Reference) for part in parts)
            already = already and any(isinstance(part, references.Nested) for part in parts or ())
            inked = tuple(part for part in parts or () if not isinstance(part, str) or part.strip())
            # White space around one value is how a block scalar is written, not what is to be encoded.
            parts = inked if len(inked) == 1 else parts
        if self.page.options.mask and parts is not None:
            # The text around a reference can hold a literal secret.
            parts, already = tuple(_references(parts)) or None, False
        if parts is None:
            if self.page.options.mask and not (node.style == "" and node.value in {"", "~", "null"}):
                self.page.edit(self.page.token(node, (MASK,), self.where)._replace(base64=self.encoded), self.where)
            return
        pieces = self.page.pieces(parts, self.obj, self.where, "secret")
        if pieces is not None:
            try:
                gone = self._removal(node, pieces)
            except SecretweaveError as bad:
                self.page.fault(bad, self.where)
                return
            self.page.edit(
                self.page.token(node, pieces, self.where)._replace(base64=self.encoded and not already, removal=gone),
                self.where,
            )

    def weave_object(self, node: Mapping) -> None:
        """`{store, ref, version?, ...}` where the text would stand."""
        try:
            read = reference_object.read(node, default_store=self.page.allows_default_store)
        except SecretweaveError as bad:
            self.page.fault(bad, self.where)
            return
        if read is None:
            self.page.fault(
                BadReference("a mapping where a Secret holds text", fix="write text, or an object with store and ref"),
                self.where,
            )
            return
        parts: tuple[Reference | str, ...] = (read,) if isinstance(read, Reference) else self._literal(read.value)
        pieces = self.page.pieces(parts, self.obj, self.where, "secret")
        if pieces is None:
            return
        try:
            _, end, line_break = pair(self.page.tree.text, self.key, node)
        except SecretweaveError as bad:
            self.page.fault(bad, self.where)
            return
        start = node.start if node.flow else self.page.tree.text.index(":", self.key.end) + 1
        self.page.edit(
            Token(
                self.page.offset(start),
                self.page.offset(end),
                NO_SCALAR,
                '"',
                pieces,
                self.where,
                base64=self.encoded,
                before="" if node.flow else " ",
                after=line_break,
                removal=self._removal(node, pieces),
            ),
            self.where,
        )

    def _literal(self, value: str) -> tuple[str, ...]:
        """`{value: ...}`: a literal that the original system would have written to its primary store."""
        if self.page.config.settings.references.literal_value == "refuse":
            self.page.fault(
                BadReference(
                    "a reference object with a literal value",
                    why="references.literalValue is `refuse`",
                    fix="put the value into a store and name it with store and ref",
                ),
                self.where,
            )
        else:
            self.page.found.warnings.append(
                (self.where, "a literal value in a reference object goes into the Secret as it is")
            )
        return (MASK if self.page.options.mask else value,)

    def _removal(self, node: Node, pieces: tuple[Piece, ...]) -> Removal | None:
        """Raises BadReference: the pair cannot be taken out."""
        if not may_be_left_out(pieces):
            return None
        return self.page.removal(removal(self.page.tree.text, self.key, node, self.fields))


def _references(parts: Iterable[references.Piece]) -> Iterator[Reference]:
    for part in parts:
        if isinstance(part, references.Nested):
            yield from _references(part.pieces)
        elif isinstance(part, Reference):
            yield part
