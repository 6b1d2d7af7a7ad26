"""The grammars of references in text: one module each, found by name.

A grammar has `MARKERS`, byte strings of which one stands in every document that could hold its references, and
`parse(text) -> Template | None`, None where nothing of it is in the text; it raises BadReference or Faults.
"""

import base64
import binascii
import importlib
import re
from typing import Any, NamedTuple

from secretweave import modules
from secretweave.errors import BadReference
from secretweave.model import Reference, Template

NOT_GRAMMARS = frozenset({"reference_object", "uri_parts"})


class Nested(NamedTuple):
    """A run of base64 inside a text, with references in what it encodes."""

    pieces: "tuple[Piece, ...]"


Piece = str | Reference | Nested


def _stable_base64(text: bytes) -> list[str]:
    """The characters of *text* in base64 that do not depend on its neighbours, at each of the three alignments."""
    stable = []
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + text).decode()
        first, last = -(-shift * 8 // 6), (shift + len(text)) * 8 // 6
        stable.append(encoded[first:last])
    return stable


_ONCE = _stable_base64(b"secret://") + _stable_base64(b"secret:!")
_IN_BASE64 = re.compile("|".join([*_ONCE, *(each for once in _ONCE for each in _stable_base64(once.encode()))]))
"""Once, and twice: the `auth` of a `.dockerconfigjson` is base64, and so is the whole."""
_RUN = re.compile(r"[A-Za-z0-9+/]{12,}={0,2}")
PORTION = 1 << 16
_grammars: list[Any] = []


def _loaded() -> list[Any]:
    if not _grammars:
        names = modules.names(__path__[0], but=NOT_GRAMMARS)
        _grammars.extend(importlib.import_module(f"{__name__}.{name}") for name in names)
    return _grammars


def markers() -> tuple[bytes, ...]:
    """Byte strings of which one stands in every document with a reference in plain sight."""
    return tuple(marker for grammar in _loaded() for marker in grammar.MARKERS)


def may_hold(text: str) -> bool:
    """Whether *text* can hold a reference, in plain sight or in base64, also wrapped over lines."""
    if "secret:" in text:
        return True
    if len(text) < 12:
        return False
    return _IN_BASE64.search(text if " " not in text and "\n" not in text else _joined(text)) is not None


def parse(text: str) -> Template | None:
    """*text* cut by the first grammar that finds something of its own in it."""
    for grammar in _loaded():
        template: Template | None = grammar.parse(text)
        if template is not None:
            return template
    return None


def unwrap(text: str) -> tuple[Piece, ...] | None:
    """The pieces of a text: references in plain sight and inside runs of base64; None: there are none.

    Raises BadReference or Faults: malformed, or in base64 that is no text.
    """
    template = parse(text)
    pieces: list[Piece] = []
    for piece in template if template is not None else (text,):
        pieces += _split_runs(piece) if isinstance(piece, str) and _IN_BASE64.search(piece) else [piece]
    if template is None and not any(isinstance(piece, Nested) for piece in pieces):
        return None
    return tuple(pieces)


def _split_runs(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    done = 0
    for run in _RUN.finditer(text):
        if not _IN_BASE64.search(run.group()):
            continue
        inner = decoded(run.group())
        if inner is None:
            raise BadReference(
                "a reference in base64 of something that is no text",
                why="only text can be woven: the bytes around the reference are not UTF-8, or the base64 is broken",
                fix="make the value from text, or reference the whole binary value",
            )
        within = unwrap(inner)
        if within is None:
            continue
        pieces += [text[done : run.start()], Nested(within)]
        done = run.end()
    pieces.append(text[done:])
    return [piece for piece in pieces if piece != ""]


def decoded(text: str) -> str | None:
    """The text that *text* is the base64 of (white space ignored); None: it is not base64 of a text."""
    try:
        return base64.b64decode(_joined(text), validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _joined(text: str) -> str:
    """*text* without white space; in portions, because the words of megabytes of prose take ten times their room."""
    portions = (text[start : start + PORTION] for start in range(0, len(text), PORTION))
    return "".join("".join(portion.split()) for portion in portions)
