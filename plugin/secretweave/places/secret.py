"""A Secret's `data` and `stringData`: what is referenced goes in as text, or base64-encoded once.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
"""

from secretweave import references
from secretweave.edits import Piece, Removal, Token, may_be_left_out
from secretweave.errors import BadReference, SecretweaveError, Where
from secretweave.model import Reference
from secretweave.places.elsewhere import refuse_key
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
            if key.live:
                refuse_key(key, path, obj, page)
            if not (node.live or page.options.mask):
                continue
            handled.add(path)
            where = page.where(obj, node.line, path)
            if isinstance(node, Scalar):
                _scalar(node, key, section == "data", where, obj, page)
            elif isinstance(node, Mapping):
                _object(node, key, section == "data", where, obj, page)
            else:
                page.fault(
                    BadReference("a list where a Secret holds text", fix="write the text, or a reference"), where
                )
    return handled


def _scalar(node: Scalar, key: Scalar, encoded: bool, where: Where, obj: Object, page: Page) -> None:
    already = False
    if not encoded:
        parts = page.read(node, where)
    else:
        # Base64 may be wrapped over lines: it is one run all the same.
        joined = "".join(node.value.split())
        parts = page.read(node, where, joined if references.decoded(joined) is not None else None)
        already = parts is not None and not any(isinstance(part, Reference) for part in parts)
        already = already and any(isinstance(part, references.Nested) for part in parts or ())
        # White space around it is how a block scalar is written, not what is to be encoded.
        parts = tuple(part for part in parts if not isinstance(part, str) or part.strip()) if parts else parts
    if parts is None:
        if page.options.mask and not (node.style == "" and node.value in {"", "~", "null"}):
            page.edit(page.token(node, (MASK,), where)._replace(base64=encoded), where)
        return
    pieces = page.pieces(parts, obj, where, "secret")
    if pieces is not None:
        try:
            gone = _removal(key, node, pieces, page)
        except SecretweaveError as bad:
            page.fault(bad, where)
            return
        page.edit(page.token(node, pieces, where)._replace(base64=encoded and not already, removal=gone), where)


def _object(node: Mapping, key: Scalar, encoded: bool, where: Where, obj: Object, page: Page) -> None:
    """`{store, ref, version?, ...}` where the text would stand."""
    try:
        read = reference_object.read(node, default_store=page.allows_default_store)
    except SecretweaveError as bad:
        page.fault(bad, where)
        return
    if read is None:
        page.fault(
            BadReference("a mapping where a Secret holds text", fix="write text, or an object with store and ref"),
            where,
        )
        return
    parts: tuple[Reference | str, ...] = (read,) if isinstance(read, Reference) else _literal(read.value, where, page)
    pieces = page.pieces(parts, obj, where, "secret")
    if pieces is None:
        return
    try:
        _, end, line_break = pair(page.tree.text, key, node)
    except SecretweaveError as bad:
        page.fault(bad, where)
        return
    start = node.start if node.flow else page.tree.text.index(":", key.end) + 1
    page.edit(
        Token(
            page.offset(start),
            page.offset(end),
            NO_SCALAR,
            '"',
            pieces,
            where,
            base64=encoded,
            before="" if node.flow else " ",
            after=line_break,
            removal=_removal(key, node, pieces, page),
        ),
        where,
    )


def _literal(value: str, where: Where, page: Page) -> tuple[str, ...]:
    """`{value: ...}`: a literal that the original system would have written to its primary store."""
    if page.config.settings.references.literal_value == "refuse":
        page.fault(
            BadReference(
                "a reference object with a literal value",
                why="references.literalValue is `refuse`",
                fix="put the value into a store and name it with store and ref",
            ),
            where,
        )
    else:
        page.found.warnings.append((where, "a literal value in a reference object goes into the Secret as it is"))
    return (value,)


def _removal(key: Scalar, node: Node, pieces: tuple[Piece, ...], page: Page) -> Removal | None:
    return page.removal(removal(page.tree.text, key, node)) if may_be_left_out(pieces) else None
