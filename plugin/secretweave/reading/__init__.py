from collections.abc import Iterable
from typing import Protocol


class Readable(Protocol):
    """What the input is read from: a file, or whatever gives bytes like one."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none at the end."""


class Pieces:
    """Readable: bytes that come in pieces of any size."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = iter(pieces)
        self._left: bytes | memoryview = b""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        portion, self._left = self._left[:size], self._left[size:]
        return bytes(portion)
