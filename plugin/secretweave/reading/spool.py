"""Keeps the input until all of it is judged, then gives ranges of it back.

Up to `memory` bytes stay in memory. Beyond that everything goes to an unlinked file, sealed in frames with AES-256-GCM
(package `cryptography`): a rendered chart can hold literal secrets, and a disk keeps what was once written to it. The
key lives in memory only. Where no folder is writable (a read-only root filesystem) the file is a memfd of the kernel's.
Resolved values never come here.
"""

import os
from collections.abc import Iterator
from typing import Any, Self

from secretweave.errors import SecretweaveError

FRAME = 1 << 20
"""Bytes sealed together; also the most that a read of a range takes into memory at a time."""
TAG = 16
"""Bytes that AES-GCM adds to a frame: https://csrc.nist.gov/pubs/sp/800/38/d/final."""


class Spool:
    """An append-only store of bytes; a context manager, which leaves nothing behind."""

    def __init__(self, *, memory: int = 16 << 20, folder: str = "") -> None:
        self.size = 0
        self._memory = memory
        self._folder = folder
        self._parts: list[bytes] = []
        """The bytes in memory: all of them, or, once there is a file, those of the frame that is not full yet."""
        self._starts: list[int] = []
        self._file = -1
        self._sealed = 0
        """Bytes in the file, before sealing."""
        self._cipher: Any = None
        self._opened = (-1, b"")
        """The frame that was read last: ranges are read in order, and often share it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.clear()
        self._opened = (-1, b"")
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def append(self, data: bytes) -> int:
        """Adds *data* and returns its offset. Raises SecretweaveError: no place is left."""
        offset = self.size
        self.size += len(data)
        self._starts.append(offset)
        self._parts.append(data)
        if self._file >= 0 or self.size > self._memory:
            self._spill()
        return offset

    def chunks(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The bytes from *start* to *end*, in pieces."""
        while start < end and start < self._sealed:
            number, within = divmod(start, FRAME)
            piece = memoryview(self._frame(number))[within : within + end - start]
            start += len(piece)
            yield piece
        if start < end:
            from bisect import bisect_right

            for index in range(bisect_right(self._starts, start) - 1, len(self._parts)):
                offset = self._starts[index]
                if offset >= end:
                    break
                yield memoryview(self._parts[index])[max(start - offset, 0) : end - offset]

    def read(self, start: int, end: int) -> bytes:
        return b"".join(self.chunks(start, end))

    def _spill(self) -> None:
        """Seals all full frames into the file."""
        if self._file < 0:
            self._open()
        if self.size - self._sealed < FRAME:
            return
        waiting = bytearray()
        parts, self._parts = self._parts[::-1], []
        while parts:
            waiting += parts.pop()
            done = 0
            while len(waiting) - done >= FRAME:
                self._seal(memoryview(waiting)[done : done + FRAME])
                done += FRAME
            waiting = waiting[done:]
        self._parts = [bytes(waiting)]
        self._starts = [self._sealed]

    def _seal(self, frame: memoryview) -> None:
        number = self._sealed // FRAME
        sealed = memoryview(self._cipher.encrypt(number.to_bytes(12, "big"), frame, None))
        offset = number * (FRAME + TAG)
        try:
            while sealed:
                written = os.pwrite(self._file, sealed, offset)
                sealed, offset = sealed[written:], offset + written
        except OSError as error:
            raise SecretweaveError(
                f"the input cannot be spooled: {error.strerror}",
                fix="name a folder with room in limits.spoolFolder (or TMPDIR), or raise limits.spoolMemory",
            ) from None
        self._sealed += FRAME

    def _open(self) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(os.urandom(32))
        folder = self._folder or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the file has no name there
        try:
            self._file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            self._file = _unlinked(folder)

    def _frame(self, number: int) -> bytes:
        if self._opened[0] != number:
            from cryptography.exceptions import InvalidTag

            sealed = os.pread(self._file, FRAME + TAG, number * (FRAME + TAG))
            try:
                self._opened = (number, self._cipher.decrypt(number.to_bytes(12, "big"), sealed, None))
            except InvalidTag:
                raise SecretweaveError(
                    "the spooled input was changed by another program",
                    fix="name a folder that no other program writes to in limits.spoolFolder",
                ) from None
        return self._opened[1]


def _unlinked(folder: str) -> int:
    """For a filesystem without O_TMPFILE; a memfd where the folder cannot be written."""
    path = os.path.join(folder, f".secretweave-{os.urandom(8).hex()}")
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return os.memfd_create("secretweave")
    os.unlink(path)
    return file
