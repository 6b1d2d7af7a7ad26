"""Keeps the whole input until it is written out: in memory while it is short, beyond that encrypted in a file.

A rendered chart can hold literal secrets, so what leaves memory is sealed with a key that never does, in a file that
has no name. Where no folder can be written (a read-only root file system), the file is one of memory (memfd_create).
"""

import errno
import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from secretweave.errors import SecretweaveError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FRAME = 1 << 20
"""What is sealed at a time: AES-256-GCM, the nonce is the frame's number, the key is this object's own."""
TAG = 16
MEMORY = 16 << 20

_NO_SUCH_FILE_SYSTEM = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
"""What open(2) says of O_TMPFILE where kernel or file system do not know it; ENOENT also of a folder not there."""


class Spool:
    """A growing sequence of bytes. *folder*: where a file may be put; empty: $TMPDIR, else /tmp. A context manager."""

    def __init__(self, memory: int = MEMORY, folder: str = "") -> None:
        self.size = 0
        self._memory = memory
        self._folder = folder
        self._blocks: list[bytes] = []
        """All of the input, or what of it has not filled a frame yet."""
        self._kept = 0
        """Bytes in the blocks."""
        self._file = -1
        self._frames = 0
        self._cipher: AESGCM | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def append(self, data: bytes) -> int:
        """Adds *data*; gives its offset. Raises SecretweaveError: there is no room for it."""
        offset = self.size
        self.size += len(data)
        self._kept += len(data)
        self._blocks.append(data)
        if self._file >= 0 or self._kept > self._memory:
            self._spill()
        return offset

    def chunks(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The bytes from *start* to *end*, in pieces. Raises SecretweaveError: the file was tampered with."""
        in_file = self._frames * FRAME
        while start < min(end, in_file):
            number, offset = divmod(start, FRAME)
            frame = self._open(number)
            stop = min(end - number * FRAME, FRAME)
            yield frame if stop - offset == FRAME else memoryview(frame)[offset:stop]
            start = number * FRAME + stop
        position = in_file
        for block in self._blocks:
            if position >= end:
                return
            if position + len(block) > start:
                yield memoryview(block)[max(start - position, 0) : end - position]
            position += len(block)

    def _spill(self) -> None:
        """Moves every full frame from memory to the file."""
        if self._file < 0:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(os.urandom(32))
            self._file = _nameless(self._folder)
        while self._kept >= FRAME:
            frame = self._take()
            self._kept -= FRAME
            self._seal(frame)

    def _take(self) -> bytes:
        """The next frame, out of the blocks."""
        if len(self._blocks[0]) == FRAME:
            return self._blocks.pop(0)
        parts: list[bytes | memoryview] = []
        missing = FRAME
        while missing:
            block = self._blocks.pop(0)
            if len(block) > missing:
                self._blocks.insert(0, block[missing:])
                parts.append(memoryview(block)[:missing])
                break
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def _seal(self, frame: bytes) -> None:
        assert self._cipher is not None
        left = memoryview(self._cipher.encrypt(_nonce(self._frames), frame, None))
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            _no_room(error)
        self._frames += 1

    def _open(self, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        assert self._cipher is not None
        sealed = os.pread(self._file, FRAME + TAG, number * (FRAME + TAG))
        try:
            return self._cipher.decrypt(_nonce(number), sealed, None)
        except InvalidTag:
            raise SecretweaveError(
                "the spool file is not what was written to it",
                why="the disk is faulty, or another process changed it",
                fix="run again; limits.spoolFolder in the configuration, or TMPDIR, names another folder",
            ) from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _nameless(folder: str) -> int:
    """The descriptor of a new file without a name: in *folder*, else in $TMPDIR or /tmp, else in memory."""
    for each in (folder,) if folder else (os.environ.get("TMPDIR"), "/tmp"):  # noqa: S108 - the file has no name
        if not each:
            continue
        try:
            return _in_folder(each)
        except OSError as error:
            if folder:
                raise SecretweaveError(
                    f"no file can be made in limits.spoolFolder: {error.strerror}",
                    why=f"the input is longer than limits.spoolMemory, and {folder} is not there or not writable",
                    fix="set limits.spoolFolder in the configuration to a folder that can be written",
                ) from None
    return os.memfd_create("secretweave", os.MFD_CLOEXEC)


def _in_folder(folder: str) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_SUCH_FILE_SYSTEM:
            raise
    from tempfile import mkstemp

    descriptor, path = mkstemp(dir=folder)
    os.unlink(path)
    return descriptor


def _no_room(error: OSError) -> NoReturn:
    raise SecretweaveError(
        f"the input does not fit into the spool: {error.strerror}",
        why="it is longer than limits.spoolMemory, and the folder for the rest is full",
        fix="make room there, or name another folder: limits.spoolFolder in the configuration, or TMPDIR",
    ) from None
