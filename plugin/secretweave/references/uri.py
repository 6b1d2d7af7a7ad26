r"""`secret://STORE/REF?params#KEY` as a whole scalar, and `$(secret://...)` inside a longer string.

    secret://shop/database#password        a field of a secret
    secret:///database#/users/0/name       the default store; a JSON pointer (RFC 6901) into the secret
    secret://shop/a%20b?version=3          what a URI cannot hold is percent-encoded, as UTF-8
    postgres://app:$(secret://shop/database?encode=url#password)@db/shop
    secret:!//shop/database                the text `secret://shop/database`; each further `!` stands for one

Parameters: `version`, `encode` (base64, json, url, shell), `as` (int, bool, json; for a whole scalar), `optional`
(true, false) and `default`. An embedded reference ends at its first `)`.

No error echoes the text, which can hold a literal secret: only where in it, and a well-formed store and ref.
"""

import re

from secretweave.errors import BadReference, Faults, SecretweaveError
from secretweave.model import Reference, Template
from secretweave.references import uri_parts
from secretweave.references.uri_parts import MARKER

MARKERS: tuple[bytes, ...] = (b"secret://", b"secret:!")

FAULTS_MAX = 20
"""Of one text; who made so many wants no further one told."""
_LITERALLY = "write `secret:!//` where the text itself is meant"


def parse(text: str) -> Template | None:
    """*text* cut into literal pieces and references; None: there is neither a reference nor an escape in it.

    Raises BadReference, or Faults where there is more than one fault.
    """
    if "secret:" not in text or not MARKER.search(text):
        return None
    faults: list[SecretweaveError] = []
    pieces = _whole(text, faults) or _embedded(text, faults)
    if not _alone(pieces):
        faults += [_cast_in_text(piece) for piece in pieces if isinstance(piece, Reference) and piece.cast]
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    return _merged(pieces)


def _alone(pieces: list[str | Reference]) -> bool:
    return sum(isinstance(piece, Reference) or bool(piece.strip()) for piece in pieces) == 1


def _merged(pieces: list[str | Reference]) -> Template:
    merged: list[str | Reference] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece != "":
            merged.append(piece)
    return tuple(merged)


def _whole(text: str, faults: list[SecretweaveError]) -> list[str | Reference] | None:
    """The pieces of a text that is one reference and white space around it; None: it is not."""
    inner = text.strip()
    if not inner.startswith("secret://") or re.search(r"\s", inner):
        return None
    start = text.index(inner)
    reference = uri_parts.read(inner, _spot(start), faults)
    return [text[:start], *([reference] if reference else []), text[start + len(inner) :]]


def _embedded(text: str, faults: list[SecretweaveError]) -> list[str | Reference]:
    """The pieces of a text with references in `$(...)`, and with escapes."""
    pieces: list[str | Reference] = []
    done = 0
    while len(faults) < FAULTS_MAX and (marker := MARKER.search(text, done)):
        start = marker.start()
        if marker[1]:
            pieces += [text[done:start], f"secret:{marker[1][1:]}//"]
            done = marker.end()
            continue
        opened = text[done:start]
        end = text.find(")", start)
        if not opened.endswith("$("):
            faults.append(_bare(start))
        elif opened.endswith("$$("):
            faults.append(_doubled(start))
        elif end < 0:
            faults.append(_unclosed(start))
        else:
            reference = uri_parts.read(text[start:end], _spot(start), faults)
            pieces += [opened[:-2], *([reference] if reference else [])]
            done = end + 1
            continue
        pieces.append(text[done : marker.end()])
        done = marker.end()
    return [*pieces, text[done:]]


def _spot(offset: int) -> str:
    return f"at character {offset + 1} of the value"


def _cast_in_text(reference: Reference) -> BadReference:
    return BadReference(
        f"`as` in the reference {reference}, which is not the whole value",
        why="a string stays a string, whatever is woven into it",
        fix="take `as` away, or let the reference be the whole value",
    )


def _bare(offset: int) -> BadReference:
    return BadReference(
        f"a secret:// that is neither the whole value nor in $(...), {_spot(offset)}",
        why="in a longer text it is not clear where the reference ends",
        fix=f"write `$(secret://STORE/REF#KEY)`, with %20 for a space in it; {_LITERALLY}",
    )


def _doubled(offset: int) -> BadReference:
    return BadReference(
        f"a reference after `$$`, {_spot(offset)}",
        why="Kubernetes reads `$$(` as an escape, so it is not clear whether the reference is meant",
        fix=f"write one `$`; {_LITERALLY}",
    )


def _unclosed(offset: int) -> BadReference:
    return BadReference(
        f"a reference in $(...) that is not closed, {_spot(offset)}",
        fix=f"write `)` directly after it; {_LITERALLY}",
    )
