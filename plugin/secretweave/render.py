"""Step five: planned edits and resolved values -> finished changes. Everything that can still fail, fails here."""

from collections.abc import Iterable, Mapping

from secretweave import encode, generated, structure
from secretweave.edits import Change, Edit, NestedText, NewSecret, Piece, Swap, Token, lone
from secretweave.errors import Faults, SecretweaveError
from secretweave.model import Address, Reference, SecretValue, Template, Use
from secretweave.scalars import respell

Values = Mapping[tuple[Address, str | None], SecretValue | None]
"""(address, key) -> the value; None: missing, and every use of it can do without."""


def render(edits: Iterable[Edit], values: Values, *, masked: bool) -> tuple[list[Change], list[SecretweaveError]]:
    """The changes in the order of the input, and a fault for each that cannot be made.

    An edit whose value is not among *values* is left out: its fault is known. *masked*: the values are stand-ins and
    need not fit their place.
    """
    changes: list[Change] = []
    faults: list[SecretweaveError] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        try:
            changes.append(_render(edit, values, masked))
        except KeyError:
            continue
        except SecretweaveError as fault:
            faults += fault.faults if isinstance(fault, Faults) else [fault]
    return changes, faults


def _render(edit: Edit, values: Values, masked: bool) -> Change:
    if isinstance(edit, Swap):
        return Change(edit.start, edit.end, edit.text.encode())
    if isinstance(edit, NewSecret):
        return _secret(edit, values, masked)
    return _token(edit, values, masked)


def _token(edit: Token, values: Values, masked: bool) -> Change:
    use = lone(edit.pieces)
    if edit.removal and use is not None and not masked and _bytes(use, values) is None:
        return Change(*edit.removal, b"")
    newline = "\r\n" if "\r\n" in edit.source else "\n"
    try:
        if edit.base64:
            text = SecretValue(weave(edit.pieces, values, masked)).base64()
        else:
            text = encode.text(weave(edit.pieces, values, masked))
        cast = _cast(edit.pieces)
        token = (
            encode.cast(text, cast)
            if cast and not masked
            else respell(edit.source, edit.style, text, newline=newline, parent=edit.parent)
        )
    except SecretweaveError as fault:
        raise fault.at(edit.where) from None
    return Change(edit.start, edit.end, f"{edit.before}{token}{edit.after}".encode())


def _cast(pieces: tuple[Piece, ...]) -> str | None:
    return next((piece.reference.cast for piece in pieces if isinstance(piece, Use)), None)


def _secret(edit: NewSecret, values: Values, masked: bool) -> Change:
    data = []
    faults = []
    for entry in edit.entries:
        try:
            use = lone(entry.pieces)
            if use is not None and entry.optional and not masked and _bytes(use, values) is None:
                continue
            data.append((entry.key, SecretValue(weave(entry.pieces, values, masked)).base64()))
        except SecretweaveError as fault:
            faults.append(fault.at(entry.where))
    if faults:
        raise Faults(faults)
    text = generated.line(edit.head, data) if edit.inline else generated.block(edit.head, data)
    text = f"{edit.before}{text}{edit.after}"
    return Change(edit.start, edit.end, text.replace("\n", edit.newline).encode())


def weave(pieces: tuple[Piece, ...], values: Values, masked: bool) -> bytes:
    """The pieces put together: the bytes of a lone value as they are, else UTF-8 text.

    Raises StoreError (a value is no text) or BadReference (it would break the text around it).
    """
    if len(pieces) == 1 and isinstance(pieces[0], Use):
        return _bytes(pieces[0], values) or b""
    texts = [_text(piece, values, masked) for piece in pieces]
    if not masked:
        template: Template = tuple(piece if isinstance(piece, str) else _stands_for(piece) for piece in pieces)
        inserted = [text for text, piece in zip(texts, pieces, strict=True) if not isinstance(piece, str)]
        broken = structure.check(template, inserted)
        if broken is not None:
            raise broken
    return "".join(texts).encode()


def _stands_for(piece: Use | NestedText) -> Reference:
    return piece.reference if isinstance(piece, Use) else Reference("", "", encode="base64")


def _text(piece: Piece, values: Values, masked: bool) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, NestedText):
        return SecretValue(weave(piece.pieces, values, masked)).base64()
    return encode.text(_bytes(piece, values) or b"")


def _bytes(use: Use, values: Values) -> bytes | None:
    """A value as it goes in, its `default` applied, its `encode` done; None: missing."""
    value = values[use.address, use.reference.key]
    if value is not None:
        return encode.apply(value.reveal(), use.reference.encode)
    if use.reference.default is not None:
        return encode.apply(use.reference.default.encode(), use.reference.encode)
    return None
