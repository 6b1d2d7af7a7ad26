"""Ciphertext that stays the same while what it stands for does.

SOPS encrypts with a fresh data key and fresh nonces each time, as it must. A GitOps tool would see every Secret change
at every run, so an earlier run's document is used again, whole, with its MAC and its date, if it can be known that its
plaintext is the new one. Who encrypts need not be able to decrypt, so that is known by a tag, in the first line of the
document:

    # secretweave.dev/reuse: v1.KEYID.TAG

TAG is HMAC-SHA256 under a key that is derived from the digest key, over, each with its length before it: a label, the
plaintext as it was handed to sops, how it was encrypted (recipients, the content of the .sops.yaml, the file's name),
and the SHA-256 of the document below the line. KEYID tells two digest keys apart; it too is an HMAC.

**What a reader of Git learns.** Without the digest key the tag is the output of a pseudorandom function, on an input
that holds the hash of a fresh random ciphertext and so never repeats. It tells nothing of the plaintext: a guess cannot
be tried on it, and two Secrets with equal values have tags that differ. That a document did not change is to be seen,
as with every stable ciphertext; which of its values changed is not, for a document is encrypted anew as a whole.

**What a writer of Git can do.** A tag holds for one ciphertext alone. Who moves a ciphertext under another's tag, or
changes a byte of it, gets it encrypted afresh. What can be had is an earlier document whose plaintext, name and
recipients are the new one's: put back, it is what it was. Who never had the digest key can make no tag.

**Whoever has the digest key** can try guesses of a plaintext against a tag, as against an unsalted hash. It is a
secret of whoever runs this and goes nowhere near Git or the cluster, and 32 random bytes are no guess.

Another digest key, another recipient, another rule in the .sops.yaml: every document is encrypted anew. The line is a
comment outside of what SOPS authenticates; kustomize-controller and kubectl drop it, so that it reaches no cluster.

HKDF: https://www.rfc-editor.org/rfc/rfc5869
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator

from secretweave.errors import ConfigError, InputError

LABEL = b"secretweave reuse v1"
PREFIX = b"# secretweave.dev/reuse: "
LINE = re.compile(rb"# secretweave\.dev/reuse: v1\.([0-9a-f]{8})\.([A-Za-z0-9_-]{43})\n")
KEY_MIN = 32
"""Bytes of a digest key."""
KEY_MAX = 4096
FILE_MAX = 64 << 20
TOTAL_MAX = 256 << 20
"""Bytes of earlier output that are read: of one file, and together."""
SUFFIXES = (".yaml", ".yml")
_MARKER = re.compile(rb"(?m)^---[^\n]*(?:\n|\Z)")
_NAME = re.compile(rb"""(?m)^ {1,8}name: ["']?([^\s"']{1,253})["']?$""")
NAMES_MAX = 16
"""Lines of a document that are taken for its name."""


def read_key(path: str) -> bytes:
    """The digest key in a file: raw bytes, or base64 or hexadecimal text of them. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_MAX + 1)
    except OSError as error:
        raise ConfigError(
            "the file of the digest key cannot be read", why=error.strerror or "", fix="correct --digest-key-file"
        ) from None
    text = data.strip()
    for decode in (_hexadecimal, _base64):
        decoded = decode(text)
        if decoded is not None and len(decoded) >= KEY_MIN:
            return decoded
    if not KEY_MIN <= len(data) <= KEY_MAX:
        raise ConfigError(
            f"the digest key has not {KEY_MIN} to {KEY_MAX} bytes",
            fix="make one with `openssl rand -base64 32`, and keep it like a password",
        )
    return data


def _hexadecimal(text: bytes) -> bytes | None:
    return bytes.fromhex(text.decode()) if re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", text) else None


def _base64(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


class Tagger:
    """Makes and checks tags under one digest key. Raises ConfigError: the key is too short."""

    def __init__(self, digest_key: bytes) -> None:
        if len(digest_key) < KEY_MIN:
            raise ConfigError(
                f"the digest key has less than {KEY_MIN} bytes", fix="make one with `openssl rand -base64 32`"
            )
        extracted = hmac.digest(b"\0" * 32, digest_key, "sha256")
        self._key = hmac.digest(extracted, LABEL + b"\1", "sha256")
        self.key_id = hmac.digest(self._key, b"id", "sha256").hex()[:8].encode()

    def started(self, plaintext: bytes, fingerprint: bytes) -> "hmac.HMAC":
        """What all tags of a plaintext have in common."""
        state = hmac.new(self._key, digestmod="sha256")
        for field in (LABEL, plaintext, fingerprint):
            state.update(len(field).to_bytes(8, "big") + field)
        return state

    def line(self, state: "hmac.HMAC", sealed: bytes) -> bytes:
        """The first line of a sealed document."""
        return PREFIX + b"v1." + self.key_id + b"." + _tag(state, hashlib.sha256(sealed).digest()) + b"\n"

    def holds(self, state: "hmac.HMAC", document: "Earlier") -> bool:
        return hmac.compare_digest(_tag(state, document.digest), document.tag)


def _tag(state: "hmac.HMAC", digest: bytes) -> bytes:
    state = state.copy()
    state.update(len(digest).to_bytes(8, "big") + digest)
    return base64.urlsafe_b64encode(state.digest()).rstrip(b"=")


class Earlier:
    """A document of earlier output that has a tag under the key at hand."""

    __slots__ = ("digest", "tag", "text")

    def __init__(self, text: bytes, tag: bytes, body: bytes) -> None:
        self.text = text
        """Whole, with its first line."""
        self.tag = tag
        self.digest = hashlib.sha256(body).digest()


class Previous:
    """Earlier output, by the names that stand in it. Nothing in it is trusted but for its tags."""

    def __init__(self, paths: Iterable[str], tagger: Tagger) -> None:
        """Raises InputError: something is there and cannot be read, or is too large."""
        self._tagger = tagger
        self._documents: dict[bytes, list[Earlier]] = {}
        left = TOTAL_MAX
        for path in paths:
            for file in _files(path):
                data = _read(file, min(FILE_MAX, left))
                if not data and file == path and os.path.isfile(path):
                    raise InputError(
                        "earlier output is empty",
                        why="a shell empties the file that a command's output goes to before the command can read it",
                        fix="let the output go to another file, and move it over the earlier one when all went well",
                    )
                left -= len(data)
                self._take(data)

    def find(self, name: str, state: "hmac.HMAC") -> bytes | None:
        """The document whose tag holds for a plaintext."""
        for document in self._documents.get(name.encode(), ()):
            if self._tagger.holds(state, document):
                return document.text
        return None

    def _take(self, data: bytes) -> None:
        if PREFIX not in data:
            return
        start = 0
        for end, following in _bounds(data):
            line = LINE.match(data, start, end)
            if line is not None and hmac.compare_digest(line[1], self._tagger.key_id):
                document = Earlier(data[start:end], line[2], data[line.end() : end])
                names = {match[1] for match, _ in zip(_NAME.finditer(data, start, end), range(NAMES_MAX), strict=False)}
                for name in names:
                    self._documents.setdefault(name, []).append(document)
            start = following


def _bounds(data: bytes) -> Iterator[tuple[int, int]]:
    """(where a document ends, where the next begins)"""
    for marker in _MARKER.finditer(data):
        yield marker.start(), marker.end()
    yield len(data), len(data)


def _files(path: str) -> Iterator[str]:
    """The file, or those below a folder, by name; none if there is nothing yet."""
    if not os.path.isdir(path):
        if os.path.lexists(path):
            yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES):
                yield os.path.join(folder, name)


def _read(path: str, limit: int) -> bytes:
    try:
        # O_NONBLOCK: a pipe under this name must not hang the run.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(limit + 1) or b""
    except OSError as error:
        raise InputError(
            "earlier output cannot be read", why=error.strerror or "", fix="correct --previous, or the file's mode"
        ) from None
    if len(data) > limit:
        raise InputError(
            f"earlier output is larger than {FILE_MAX} bytes in one file, or {TOTAL_MAX} together",
            fix="name with --previous only what this command wrote",
        )
    return data
