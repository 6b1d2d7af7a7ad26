from typing import Protocol


class Readable(Protocol):
    """What the input is read from: a file, or whatever gives bytes like one."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none at the end."""
