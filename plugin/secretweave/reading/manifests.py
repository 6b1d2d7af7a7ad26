"""The byte stream -> the documents that may matter. The others are counted, spooled and never looked at again.

The input is read in blocks and cut at the marker lines. A whole block of documents is judged at once by `proof`, which
says what matters and why that is sound; only what it finds is tracked down to single documents.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from secretweave.errors import Faults, InputError, SecretweaveError, Where
from secretweave.reading import Readable
from secretweave.reading.proof import BOM, MARKER_LINE, REFUSALS, Interest, Judge, Piecemeal, Search, cut
from secretweave.reading.spool import Spool

__all__ = ["Document", "Interest", "Reader"]

BLOCK = 1 << 20
FAULTS_MAX = 1000
"""Who made so many wants no further one told."""


class Document(NamedTuple):
    """A document that may matter. Offsets are absolute byte offsets of the spool."""

    source: str
    """Its file's name, or `stdin`."""
    index: int  # type: ignore[assignment] # nobody searches in a Document
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

    *limit*: the longest document, in bytes, that may matter. What must be refused becomes an InputError in *faults*,
    and reading goes on; only too many of them are raised at once, as Faults. Sources become one stream: a marker line
    is put between two where there is none.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, Readable]],
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
        self.saw_content = False
        """Was there a document that is more than comments, so far?"""

        self._name = ""
        self._text = b""
        """What has been read and not yet judged; it begins with the line break before a marker line.

        At a source's start that line break, and the marker line if there is none, are not part of the input.
        """
        self._base = 0
        """The spool's offset of the text; can be negative at the start."""
        self._bare = False
        """The text begins with a document without a marker line."""
        self._index = 0
        """Documents of this source before the text."""
        self._line = 0
        """Line breaks of this source before `_counted`."""
        self._counted = 0
        self._ended = True
        """The spool ends with a line break, or is empty."""

    def __iter__(self) -> Iterator[Document]:
        for name, stream in self._sources:
            self._name = name
            if self._begin(_read(stream, BLOCK)):
                yield from self._documents(stream)

    def _begin(self, block: bytes) -> bool:
        """Takes a source's first block; False: there is nothing in it."""
        content = block.removeprefix(BOM)
        marked = content.startswith(b"---")
        joined = self._spool.size > 0
        if not joined:
            self._keep(block)
        elif content:
            # Without its byte order mark: within a stream it would hide the marker line that follows it.
            self._keep((b"" if self._ended else b"\n") + (b"" if marked else b"---\n"))
            self._keep(content)
        prefix = b"\n" if marked else b"\n---\n"
        self._counted = self._spool.size - len(content)
        self._text = prefix + content
        self._base = self._counted - len(prefix)
        self._bare = not (marked or joined)
        self._index = self._line = 0
        return bool(content)

    def _keep(self, data: bytes) -> None:
        if data:
            self._spool.append(data)
            self._ended = data.endswith(b"\n")

    def _more(self, stream: Readable) -> bool:
        """Reads on; more at a time while one document grows, so that joining the text stays linear."""
        growth = min(len(self._text), self._limit + 1 - len(self._text))
        block = _read(stream, max(BLOCK, growth))
        self._keep(block)
        self._text += block
        return bool(block)

    def _documents(self, stream: Readable) -> Iterator[Document]:
        reading = True
        while reading:
            if len(self._faults) > FAULTS_MAX:
                raise Faults(self._faults)
            end = self._text.rfind(MARKER_LINE, 1) + 1
            if end:
                yield from self._whole(end)
                self._drop(end - 1)
            elif len(self._text) > self._limit + len(MARKER_LINE):
                self._giant(stream)
                if not self._text:
                    return
                continue
            reading = self._more(stream)
        yield from self._whole(len(self._text))

    def _whole(self, end: int) -> Iterator[Document]:
        """Those of the documents in text[:end] that may matter."""
        text, judge = self._text, self._judge
        signatures = judge.signatures(text, end)
        verdicts = {signature: judge.verdict(signature) for signature in set(signatures)}
        self.saw_content = self.saw_content or any(verdict.content for verdict in verdicts.values())
        if self._bare and not verdicts[signatures[0]].content:
            self._index -= 1
        searches = list(judge.searches(text, end))
        if searches or not all(verdict.passes for verdict in verdicts.values()):
            bounds = [match.start() + 1 for match in _MARKERS.finditer(text, 0, end)]
            found = _located(searches, [*bounds, end])
            for number, (signature, begin, stop) in enumerate(zip(signatures, bounds, [*bounds[1:], end], strict=True)):
                refusal, position = found.get(number, ("", begin))
                refusal = verdicts[signature].refusal or refusal
                if refusal:
                    self._refuse(refusal, self._index + number + 1, self._lines_before(position))
                elif number in found or not verdicts[signature].passes:
                    yield from self._one(number, begin, stop)
        self._index += len(signatures)
        self._bare = False

    def _one(self, number: int, begin: int, end: int) -> Iterator[Document]:
        """The document of text[begin:end], if it is not too long."""
        start = self._text.find(b"\n", begin, end) + 1 or end
        if self._text.startswith(BOM, start):
            start += len(BOM)
        line = self._lines_before(start)
        index = self._index + number + 1
        if end - start > self._limit:
            self._faults.append(self._too_long(index, line))
            return
        offset = self._base + start
        bare = self._bare and number == 0
        yield Document(
            self._name,
            index,
            offset if bare else self._base + begin,
            offset,
            self._base + end,
            line,
            self._text[start:end],
        )

    def _giant(self, stream: Readable) -> None:
        """Judges a document that is too long to keep, in pieces; leaves in the text what follows it."""
        pieces = Piecemeal(self._judge)
        line = self._lines_before(1)
        self._index += 1
        self._bare = False
        end = -1
        while end < 0:
            place = cut(self._text)
            if place is None:
                pieces.give_up()
                self._drop(self._text.rfind(b"\n"))
            else:
                pieces.add(self._text, place[0])
                self._drop(place[1])
            if not self._more(stream):
                break
            end = self._text.find(MARKER_LINE)
        pieces.add(self._text, len(self._text) if end < 0 else end + 1)
        verdict = pieces.verdict()
        self.saw_content = self.saw_content or verdict.content
        if verdict.refusal:
            self._refuse(verdict.refusal, self._index, line)
        elif not verdict.passes:
            self._faults.append(self._too_long(self._index, line))
        self._drop(len(self._text) if end < 0 else end)

    def _drop(self, length: int) -> None:
        self._lines_before(length)
        self._text = self._text[length:]
        self._base += length

    def _lines_before(self, position: int) -> int:
        """The line breaks of this source before a position of the text; positions are asked in order."""
        counted = self._counted - self._base
        if position > counted:
            self._line += self._text.count(b"\n", counted, position)
            self._counted = self._base + position
        return self._line

    def _refuse(self, refusal: str, index: int, line: int) -> None:
        what, why, fix = REFUSALS[refusal]
        where = Where(self._name, index, line + 1)
        self._faults.append(InputError(what, where=where, why=why, fix=fix))

    def _too_long(self, index: int, line: int) -> InputError:
        return InputError(
            f"a document of more than {self._limit} bytes that must be looked into",
            where=Where(self._name, index, line + 1),
            why="it may hold a reference, or is of a kind that a rule is about",
            fix="raise limits.documentBytes in the configuration, or cut the document up",
        )


_MARKERS = re.compile(MARKER_LINE)


def _located(searches: Iterable[Search], bounds: list[int]) -> dict[int, tuple[str, int]]:
    """What the searches find, once for each document: its number -> (the refusal or nothing, the position)."""
    found: dict[int, tuple[str, int]] = {}
    for search, refusal in searches:
        position = search(0)
        while position >= 0:
            number = bisect_right(bounds, position) - 1
            if refusal or number not in found:
                found[number] = refusal, position
            position = search(bounds[number + 1])
    return found


def _read(stream: Readable, size: int) -> bytes:
    """The next *size* bytes, fewer only at the end; a pipe gives them in small portions."""
    block = stream.read(size)
    while 0 < len(block) < size:
        more = stream.read(size - len(block))
        if not more:
            break
        block += more
    return block
