"""Unpacks the archive of a Flux source, which is hostile: files and folders, nothing else, and none outside.

It takes what Flux's own reader takes (https://github.com/fluxcd/pkg/blob/tar/v1.2.0/tar/untar.go): symbolic links are
left out without a word, as kustomize-controller leaves them out, and anything else is refused. It refuses more: hard
links, which Flux unpacks as empty files; sparse files; a file that comes twice, of which Flux keeps the last; what is
cut short after a whole entry, since an app's missing part would be deleted from the cluster; bytes after the end.

Python's tarfile is not asked: it knows devices, links and sparse maps, follows long names by recursion, and its filters
came with 3.11.4. What is read here is POSIX's ustar with pax headers, and GNU's long names:

    https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13
    https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from secretweave.errors import InputError, PolicyError, SecretweaveError, Where
from secretweave.flux.settings import Artifacts

PATH_BYTES = 1024
DEPTH_MAX = 64
"""Folders in one another."""
EXTENDED_BYTES = 1 << 20
"""Of a pax header, or of a long name: Go's own limit."""
BLOCK = 512
PIECE = 64 << 10
GZIP = 31
"""zlib's name for: with a header and a checksum of gzip."""
USTAR = b"ustar\0"
FILE, OLD_FILE, CONTIGUOUS, FOLDER, LINK = b"0", b"\0", b"7", b"5", b"2"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
UNUSUAL = {b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
SHOWN_CHARS = 200


def unpack(data: BinaryIO, folder: str, limits: Artifacts) -> None:
    """Puts what the tar.gz *data* holds into the *folder*, which is there and is empty.

    Files come out as 0600, folders as 0700, whatever the archive says: nothing of a source is ever executed. Raises
    InputError: it is no such archive, or is larger than *limits*; PolicyError: an entry that may not be there;
    SecretweaveError: no room. What it had unpacked until then stays.
    """
    target = _Target(folder, limits)
    stream = _Stream(data, limits)
    try:
        for entry in _entries(stream):
            if entry.kind == LINK:
                _parts(entry.name)
            elif entry.kind == FOLDER:
                target.add_folder(_parts(entry.name), entry.name)
            else:
                target.add_file(entry, stream)
    except OSError as error:
        raise SecretweaveError(
            f"the source cannot be unpacked: {error.strerror}",
            fix="give the controller's temporary folder more room; or use shorter names in the source",
        ) from None


class _Entry(NamedTuple):
    name: str
    """As the archive writes it; what is not UTF-8 as os.fsdecode gives it."""
    kind: bytes
    size: int
    """In bytes, which the stream gives next."""


class _Target:
    """The folder that is filled. It holds nothing that is not made here, so no path in it leads elsewhere."""

    def __init__(self, folder: str, limits: Artifacts) -> None:
        self._folder = folder
        self._limits = limits
        self._folders: set[tuple[str, ...]] = {()}
        self._left = limits.entries

    def add_folder(self, parts: tuple[str, ...], name: str) -> None:
        for depth in range(1, len(parts) + 1):
            path = parts[:depth]
            if path not in self._folders:
                self._count()
                try:
                    os.mkdir(os.path.join(self._folder, *path), 0o700)
                except FileExistsError:
                    raise _twice(name) from None
                self._folders.add(path)

    def add_file(self, entry: _Entry, stream: "_Stream") -> None:
        parts = _parts(entry.name)
        if not parts or entry.name.endswith("/"):
            raise _malformed("a file has the name of a folder")
        if entry.size > self._limits.file_bytes:
            raise _too_large(f"a file of more than {self._limits.file_bytes:,} bytes", "fileBytes", entry.name)
        self.add_folder(parts[:-1], entry.name)
        self._count()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(os.path.join(self._folder, *parts), flags, 0o600)
        except FileExistsError:
            raise _twice(entry.name) from None
        with open(handle, "wb") as file:
            file.writelines(stream.content(entry.size))

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _too_large(f"more than {self._limits.entries:,} files and folders", "entries")


class _Stream:
    """The archive without its compression: one gzip member after the other, as RFC 1952 has it, up to a limit."""

    def __init__(self, data: BinaryIO, limits: Artifacts) -> None:
        self._data = data
        self._total = self._left = limits.total_bytes
        # What estargz makes has a member for each file and for each header.
        self._members = 2 * limits.entries + 64
        self._inflate = zlib.decompressobj(GZIP)
        self._input = b""
        self._begun = False

    def block(self) -> bytes:
        """The next 512 bytes; none at the end."""
        data = self.some(BLOCK)
        return data + self.exactly(BLOCK - len(data)) if data else b""

    def exactly(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def content(self, size: int) -> Iterator[bytes]:
        """Of an entry, without the zeros that fill its last block."""
        yield from self._pieces(size)
        self.exactly(-size % BLOCK)

    def some(self, size: int) -> bytes:
        """At least one byte and at most so many; none at the end."""
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            self._input = self._input or self._data.read(PIECE)
            if not self._input:
                raise _malformed("it is cut short" if self._begun else "it is empty")
            self._begun = True
            try:
                found = self._inflate.decompress(self._input, size)
            except zlib.error:
                raise _malformed("its gzip compression is damaged, or it has none") from None
            self._input = self._inflate.unconsumed_tail
            if found:
                self._left -= len(found)
                if self._left < 0:
                    raise _too_large(f"more than {self._total:,} bytes", "totalBytes")
                return found

    def _next_member(self) -> bool:
        """Is there another one?"""
        self._input = self._inflate.unused_data or self._data.read(PIECE)
        if not self._input:
            return False
        self._members -= 1
        if self._members < 0:
            raise _malformed("it is in too many gzip members")
        self._inflate = zlib.decompressobj(GZIP)
        return True

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.some(min(size, PIECE))
            if not piece:
                raise _malformed("it is cut short")
            size -= len(piece)
            yield piece


def _entries(stream: _Stream) -> Iterator[_Entry]:
    """Each file, folder and symbolic link; the content of a file must be read before the next one is asked for."""
    # What a header says of the entry after it: pax records, and GNU's long name.
    records: dict[str, bytes] = {}
    ahead: set[bytes] = set()
    long_name = b""
    while True:
        head = stream.block()
        if not head:
            raise _malformed("it is cut short: the mark of its end is missing")
        if not any(head):
            break
        kind, size = head[156:157], _size(head)
        if kind in {PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK}:
            if kind in ahead or size > EXTENDED_BYTES:
                raise _malformed("a header that belongs to an entry is repeated, or is too long")
            text = b"".join(stream.content(size))
            if kind == PAX:
                records = _records(text)
            elif kind == LONG_NAME:
                long_name = text.rstrip(b"\0")
            elif kind == PAX_GLOBAL and not _records(text).keys().isdisjoint({"path", "size"}):
                raise _malformed("a header for all entries names one of them")
            # Git's own header with the commit stands before all; what is for all entries may come again.
            ahead |= {kind} - {PAX_GLOBAL}
            continue
        raw = long_name or records.get("path") or _name(head)
        if b"\0" in raw:
            raise PolicyError("a name in the source's archive holds a NUL character", fix="rename it in the source")
        name = os.fsdecode(raw)
        if records.get("size"):
            size = _decimal(records["size"])
        records, ahead, long_name = {}, set(), b""
        if kind == OLD_FILE and name.endswith("/"):
            kind = FOLDER
        if kind not in {FILE, OLD_FILE, CONTIGUOUS, FOLDER, LINK}:
            raise _unusual(UNUSUAL.get(kind, "of an unknown kind"), name)
        if size and kind in {FOLDER, LINK}:
            raise _malformed("a folder or a link has a content")
        yield _Entry(name, kind, size)
    if ahead:
        raise _malformed("it ends in the middle of an entry")
    while rest := stream.some(PIECE):
        if any(rest):
            raise _malformed("something stands behind its end")


def _name(head: bytes) -> bytes:
    name = head[:100].partition(b"\0")[0]
    prefix = head[345:500].partition(b"\0")[0]
    # In GNU's own format, whose mark is another, times stand there.
    return prefix + b"/" + name if prefix and head[257:263] == USTAR else name


def _size(head: bytes) -> int:
    """Of what follows. Raises InputError: the header is none."""
    # The sum of the header's bytes, with spaces in the place of the sum.
    told = _octal(head[148:156])
    if told != sum(head) - sum(head[148:156]) + 8 * ord(" "):
        raise _malformed("the checksum of a header is wrong")
    field = head[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise _malformed("a number in a header is none")
    return int(text or b"0", 8)


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise _malformed("a number in a pax header is none")
    return int(text)


def _records(text: bytes) -> dict[str, bytes]:
    """`LENGTH KEY=VALUE\\n`, where the length is of all of it."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(text):
        match = RECORD.match(text, place)
        end = place + int(match[1]) if match else 0
        key, equals, value = text[match.end() if match else 0 : end - 1].partition(b"=")
        if not match or not equals or end > len(text) or end <= match.end() or text[end - 1 : end] != b"\n":
            raise _malformed("a pax header is none")
        if key.startswith(b"GNU.sparse."):
            raise _unusual(UNUSUAL[b"S"], "")
        found[key.decode(errors="replace")] = value
        place = end
    return found


def _parts(name: str) -> tuple[str, ...]:
    """The folders on the way to it, and its own name. Raises PolicyError: it would lie elsewhere."""
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or ".." in parts or "\\" in name or not name:
        raise PolicyError(
            "a path in the source's archive leads out of it, or may",
            where=Where(_shown(name)),
            why="only relative paths without `..` and backslashes are unpacked, as in Flux",
            fix="rename it in the source, or leave it out of the artifact with .sourceignore",
        )
    if len(os.fsencode(name)) > PATH_BYTES or len(parts) > DEPTH_MAX:
        raise InputError(
            f"a path in the source's archive is longer than {PATH_BYTES} bytes, or has more than {DEPTH_MAX} folders",
            where=Where(_shown(name)),
            fix="shorten it in the source, or leave it out of the artifact with .sourceignore",
        )
    return parts


def _shown(name: str) -> str:
    """A name as an error may tell it: on one line, and as UTF-8."""
    text = name if len(name) <= SHOWN_CHARS else f"...{name[-SHOWN_CHARS:]}"
    return "".join(char if char.isprintable() else "?" for char in text)


def _unusual(what: str, name: str) -> PolicyError:
    return PolicyError(
        f"an entry of the source's archive is {what}",
        where=Where(_shown(name)),
        why="only files and folders are unpacked",
        fix="replace it by a file in the source, or leave it out of the artifact with .sourceignore",
    )


def _twice(name: str) -> InputError:
    return InputError(
        "an entry of the source's archive comes twice, or is both a file and a folder",
        where=Where(_shown(name)),
        why="which of them is meant cannot be known",
        fix="make the artifact anew, with each file once",
    )


def _too_large(what: str, setting: str, name: str = "") -> InputError:
    return InputError(
        f"the source holds {what}",
        where=Where(_shown(name)),
        fix="leave out of the artifact what the app does not need, with .sourceignore or the source's spec.ignore; "
        f"or ask the platform to raise spec.flux.artifacts.{setting}",
    )


def _malformed(why: str) -> InputError:
    return InputError(
        "the source's archive cannot be read",
        why=why,
        fix="let the source be made anew: `flux reconcile source`; an OCI artifact must have a layer of type tar+gzip",
    )
