"""What `find` plans and `render` carries out: changes to ranges of the input, before any value is known.

Offsets are absolute byte offsets of the input. Edits do not overlap; several may be inserted at one offset.
"""

from typing import NamedTuple

from secretweave.errors import Where
from secretweave.model import Use


class NestedText(NamedTuple):
    """A piece of text that leaves base64-encoded."""

    pieces: "tuple[Piece, ...]"


Piece = str | Use | NestedText
"""Literal text, a value, or base64 of more of these."""


def lone(pieces: tuple[Piece, ...]) -> Use | None:
    """The one value that the pieces are, apart from white space, in base64 or not."""
    values = [piece for piece in pieces if not isinstance(piece, str) or piece.strip()]
    if len(values) != 1 or isinstance(values[0], str):
        return None
    return values[0] if isinstance(values[0], Use) else lone(values[0].pieces)


def may_be_left_out(pieces: tuple[Piece, ...]) -> bool:
    """Whether a missing secret takes the whole field with it."""
    use = lone(pieces)
    return use is not None and use.reference.optional and use.reference.default is None


class Swap(NamedTuple):
    """A range becomes a fixed text; no value is in it."""

    start: int
    end: int
    text: str


class Removal(NamedTuple):
    """Takes a pair or an item out; its comma is told apart, for in flow style neighbours can go as well."""

    start: int
    end: int
    before: int | None = None
    """Where the comma before it stands, with the white space around."""
    after: int | None = None
    """Where the comma behind it and the white space around end."""


class Token(NamedTuple):
    """A scalar's source becomes the source of its woven text."""

    start: int
    end: int
    source: str
    """The token as it stands, from which style, indentation and line breaks are taken."""
    style: str
    pieces: tuple[Piece, ...]
    where: Where
    parent: int | None = None
    """The indentation of the collection that holds the scalar; None: not plain to see."""
    base64: bool = False
    """The woven text leaves base64-encoded, as under `data` of a Secret."""
    before: str = ""
    after: str = ""
    """What joins the new token to its neighbours, where the range is more than a scalar."""
    removal: Removal | None = None
    """What goes when the one reference is optional and its secret is missing; None: empty text stays."""


class Entry(NamedTuple):
    """One key of a Secret that secretweave makes."""

    key: str
    pieces: tuple[Piece, ...]
    where: Where
    source: str
    """What makes two entries the same: the pieces' addresses, never a value."""
    optional: bool = False
    """A missing secret leaves the key out."""


class Head(NamedTuple):
    """The metadata of a Secret that secretweave makes."""

    name: str
    namespace: str
    """As written in its owner; empty: not written."""
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]


class NewSecret(NamedTuple):
    """A Secret that takes a range's place (often an empty one, before its workload)."""

    start: int
    end: int
    head: Head
    entries: tuple[Entry, ...]
    inline: bool
    """One line of JSON, as an item of a list; else a block of YAML."""
    before: str
    after: str
    """What joins it to its neighbours."""
    newline: str


Edit = Swap | Token | NewSecret | Removal


class Change(NamedTuple):
    """A finished edit: the bytes that take a range's place."""

    start: int
    end: int
    data: bytes
