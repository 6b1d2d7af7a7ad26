"""The .tar.gz of an artifact: the same files give the same bytes, and so the same digest and revision.

Neither who packed it, when, nor where shows in it. The gzip header is written here, because Python's differ between
its versions. One thing is left that can differ: what a zlib of another version or make compresses to. Who moves to such
a one sees a new revision once, with the same files in it.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html (ustar), https://www.rfc-editor.org/rfc/rfc1952
"""

import tarfile
import zlib
from collections.abc import Mapping
from io import BytesIO

LEVEL = 6
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Deflate, no flags and so no name, no time, no word on the level, an unknown system."""
MODE = 0o644


def packed(files: Mapping[str, bytes]) -> bytes:
    """The archive of *files*, by their names: relative, of at most 100 bytes. The caller bounds their size."""
    tar = BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files, key=str.encode):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = MODE
            archive.addfile(entry, BytesIO(files[name]))
    data = tar.getbuffer()
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY)
    end = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return b"".join((HEADER, deflate.compress(data), deflate.flush(), end))
