"""Step five: planned edits and resolved values -> finished changes. Everything that can still fail, fails here."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from secretweave import generated
from secretweave.edits import Change, Edit, NestedText, NewSecret, Piece, Removal, Swap, Token, lone
from secretweave.errors import Faults, SecretweaveError
from secretweave.model import Address, Reference, SecretValue, Template, Use
from secretweave.text import encode, structure
from secretweave.text.scalars import respell

Values = Mapping[tuple[Address, str | None], SecretValue | None]
"""(address, key) -> the value; None: missing, and every use of it can do without."""


def render(edits: Iterable[Edit], values: Values, *, masked: bool) -> tuple[list[Change], list[SecretweaveError]]:
    """The changes in the order of the input, and a fault for each that cannot be made.

    An edit whose value is not among *values* is left out: its fault is known. *masked*: the values are stand-ins, which
    are not encoded and need not fit their place.
    """
    renderer = _Renderer(values, masked)
    changes: list[Change] = []
    faults: list[SecretweaveError] = []
    gone: list[Removal] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        try:
            done = renderer.change(edit)
        except KeyError:
            continue
        except SecretweaveError as fault:
            faults += fault.faults if isinstance(fault, Faults) else [fault]
            continue
        if isinstance(done, Removal):
            gone.append(done)
        else:
            changes.append(done)
    changes = sorted([*changes, *_cuts(gone)], key=lambda change: (change.start, change.end))
    if any(later.start < change.end for change, later in pairwise(changes)):
        raise SecretweaveError("two edits overlap", fix="report it: this is a defect")
    return changes, faults


def _cuts(gone: list[Removal]) -> Iterator[Change]:
    """Each with the comma behind it; at a collection's end the one before goes, of neighbours that of the first."""
    run: list[Removal] = []
    for removal in gone:
        if run and run[-1].after != removal.start:
            yield from _cut(run)
            run = []
        run.append(removal)
    yield from _cut(run)


def _cut(run: list[Removal]) -> Iterator[Change]:
    at_end = bool(run) and run[-1].after is None
    for index, removal in enumerate(run):
        start = removal.before if at_end and not index and removal.before is not None else removal.start
        yield Change(start, removal.end if removal.after is None else removal.after, b"")


class _Renderer:
    def __init__(self, values: Values, masked: bool) -> None:
        self.values = values
        self.masked = masked

    def change(self, edit: Edit) -> Change | Removal:
        """Raises SecretweaveError or Faults; KeyError: a value is not there."""
        if isinstance(edit, Swap):
            return Change(edit.start, edit.end, edit.text.encode())
        if isinstance(edit, Removal):
            return edit
        return self._secret(edit) if isinstance(edit, NewSecret) else self._token(edit)

    def _token(self, edit: Token) -> Change | Removal:
        if edit.removal and self._is_missing(edit.pieces):
            return edit.removal
        try:
            token = self._spelled(edit)
        except SecretweaveError as fault:
            raise fault.at(edit.where) from None
        return Change(edit.start, edit.end, f"{edit.before}{token}{edit.after}".encode())

    def _spelled(self, edit: Token) -> str:
        woven = self._woven(edit.pieces)
        text = SecretValue(woven).base64() if edit.base64 else encode.text(woven)
        cast = next((piece.reference.cast for piece in edit.pieces if isinstance(piece, Use)), None)
        if cast and not self.masked:
            return encode.cast(text, cast)
        newline = "\r\n" if "\r\n" in edit.source else "\n"
        return respell(edit.source, edit.style, text, newline=newline, parent=edit.parent)

    def _secret(self, edit: NewSecret) -> Change:
        data = []
        faults = []
        for entry in edit.entries:
            try:
                if not (entry.optional and self._is_missing(entry.pieces)):
                    data.append((entry.key, SecretValue(self._woven(entry.pieces)).base64()))
            except SecretweaveError as fault:
                faults.append(fault.at(entry.where))
        if faults:
            raise Faults(faults)
        text = generated.line(edit.head, data) if edit.inline else generated.block(edit.head, data)
        return Change(edit.start, edit.end, f"{edit.before}{text}{edit.after}".replace("\n", edit.newline).encode())

    def _is_missing(self, pieces: tuple[Piece, ...]) -> bool:
        use = lone(pieces)
        return use is not None and self._value(use) is None

    def _woven(self, pieces: tuple[Piece, ...]) -> bytes:
        """The pieces put together: the bytes of a lone value as they are, else UTF-8 text.

        Raises StoreError (a value is no text) or BadReference (it would break the text around it).
        """
        if len(pieces) == 1 and isinstance(pieces[0], Use):
            return self._value(pieces[0]) or b""
        texts = [self._text(piece) for piece in pieces]
        if not self.masked:
            template: Template = tuple(piece if isinstance(piece, str) else _stands_for(piece) for piece in pieces)
            inserted = [text for text, piece in zip(texts, pieces, strict=True) if not isinstance(piece, str)]
            broken = structure.check(template, inserted)
            if broken is not None:
                raise broken
        return "".join(texts).encode()

    def _text(self, piece: Piece) -> str:
        if isinstance(piece, str):
            return piece
        if isinstance(piece, NestedText):
            return SecretValue(self._woven(piece.pieces)).base64()
        return encode.text(self._value(piece) or b"")

    def _value(self, use: Use) -> bytes | None:
        """A value as it goes in, its `default` applied, its `encode` done; None: missing."""
        reference = use.reference
        value = self.values[use.address, reference.key]
        if value is None and reference.default is None:
            return None
        plain = value.reveal() if value is not None else (reference.default or "").encode()
        return plain if self.masked else encode.apply(plain, reference.encode)


def _stands_for(piece: Use | NestedText) -> Reference:
    return piece.reference if isinstance(piece, Use) else Reference("", "", encode="base64")
