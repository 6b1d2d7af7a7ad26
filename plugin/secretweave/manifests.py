"""The byte stream -> the documents that may matter. The others are counted, spooled and never looked at again.

The input is read in blocks and cut at the marker lines. A whole block of documents is judged at once: see `proof`, which
says what matters and why that is sound; what it tells is then tracked down to single documents.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from secretweave.errors import InputError, SecretweaveError, Where
from secretweave.proof import BOM, MARKER_LINE, REFUSALS, Interest, Judge, Piecemeal, Search, Verdict, cut
from secretweave.spool import Spool

__all__ = ["Document", "Interest", "Reader"]

BLOCK = 1 << 20


class Document(NamedTuple):
    """A document that may matter. Offsets are absolute byte offsets of the spool."""

    source: str
    """Its file's name, or `stdin`."""
    index: int
    """Counted from 1 in its source; what stands before the first marker line counts if it is more than comments."""
    begin: int
    """Where its marker line begins; the same as *start* if it has none."""
    start: int
    """Where its content begins: after its marker line and a byte order mark."""
    end: int
    """Where the next marker line begins, or the end of its source."""
    line: int
    """The line breaks of its source before *start*."""
    data: bytes
    """Its content, UTF-8."""


class Reader:
    """Iterates over the documents that may matter, in order; everything goes into the spool on the way.

    *limit*: the longest document, in bytes, that may matter. What must be refused becomes an InputError in *faults*, and
    reading goes on. Sources become one stream: a marker line is put between two where there is none.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, BinaryIO]],
        spool: Spool,
        interest: Interest,
        limit: int,
        faults: list[SecretweaveError],
    ) -> None:
        self._sources = sources
        self._spool = spool
        self._judge = Judge(interest)
        self._limit = limit
        self._faults = faults
        self._last = b""
        self.saw_content = False
        """Was there a document that is more than comments, so far?"""

    def __iter__(self) -> Iterator[Document]:
        for name, stream in self._sources:
            block = _read(stream, BLOCK)
            if block:
                yield from _Source(self, name, stream, block)


class _Source:
    """One input. *text* is what has been read of it and not yet judged; it begins with the line break before a marker.

    At the input's start that line break, and the marker if there is none, are not part of the spool.
    """

    def __init__(self, reader: Reader, name: str, stream: BinaryIO, block: bytes) -> None:
        self._name = name
