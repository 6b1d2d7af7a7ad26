"""A value on its way into text: `?encode=`, `?as=`, and the proof that it is text at all.

No error here holds any part of the value.
"""

import re
from typing import Any

from secretweave.errors import StoreError
from secretweave.text.scalars import escape, quote

_NOT_UNRESERVED = rb"[^A-Za-z0-9._~-]"
"""https://www.rfc-editor.org/rfc/rfc3986#section-2.3"""
NOT_SHELL_SAFE = r"[^A-Za-z0-9_@%+=:,./-]"
"""What `shlex.quote` leaves as it is: https://docs.python.org/3/library/shlex.html#shlex.quote"""
_INTEGER = r"-?(0|[1-9][0-9]{0,18})"
_JSON_STRING_OR_SPACE = r'("(?:[^"\\]|\\.)*")|\s+'

MAX_JSON_KEY = 1000
"""Characters, as written: YAML allows a key 1024 (https://yaml.org/spec/1.2.2/#742-flow-mappings)."""


def apply(value: bytes, encode: str | None) -> bytes:
    """*value* as `?encode=` wants it: the result goes into a text as it stands.

    `base64`: standard, with padding. `json`: the inside of a JSON or YAML double-quoted string, without the quotes.
    `url`: everything but unreserved characters percent-encoded. `shell`: one word for a POSIX shell.
    Raises StoreError: `json` and `shell` take text only.
    """
    if encode == "base64":
        import base64

        return base64.b64encode(value)
    if encode == "url":
        return re.sub(_NOT_UNRESERVED, lambda found: b"%%%02X" % ord(found[0]), value)
    if encode == "json":
        return escape(_decode(value)).encode()
    if encode == "shell":
        return _shell_word(text(value)).encode()
    return value


def text(value: bytes) -> str:
    """*value* as text. Raises StoreError where it is none: not UTF-8, or with NUL in it."""
    decoded = _decode(value)
    if "\0" in decoded:
        raise _no_text("it holds NUL")
    return decoded


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _no_text("it is not UTF-8") from None


def _no_text(why: str) -> StoreError:
    return StoreError(
        "the value is not text",
        why=why,
        fix="put it under `data` of a Secret, where bytes are safe, or add ?encode=base64",
    )


def _shell_word(word: str) -> str:
    if word and not re.search(NOT_SHELL_SAFE, word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def cast(text: str, kind: str) -> str:
    """*text* as a bare scalar, or flow JSON, that YAML and JSON read alike. *kind*: `int`, `bool` or `json`.

    White space around the value does not count: many a stored value ends with a line break.
    Raises StoreError: the value is no such thing.
    """
    text = text.strip()
    if kind == "int":
        if re.fullmatch(_INTEGER, text) and -(2**63) <= int(text) < 2**63:
            return str(int(text))
        raise _not_a("an integer", "an integer is written with digits, no leading zero, and has at most 64 bits")
    if kind == "bool":
        if text.lower() in {"true", "false"} and text in {text.lower(), text.upper(), text.capitalize()}:
            return text.lower()
        raise _not_a("a bool", "a bool is `true` or `false`")
    return _json(text)


def _not_a(what: str, why: str) -> StoreError:
    return StoreError(
        f"the value is not {what}", why=why, fix="correct the secret, or take `as` away from the reference"
    )


def _json(source: str) -> str:
    """JSON without white space, its numbers as they are written."""
    import json

    try:
        json.loads(source, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_int=str)
    except (ValueError, RecursionError):
        raise _not_a("JSON", "it is not one JSON value, or an object in it has a key twice") from None

    def compact(token: re.Match[str]) -> str:
        if token[1] is None:
            return ""
        string = json.loads(token[1])
        if re.search("[\ud800-\udfff]", string):
            raise _not_a("JSON that YAML can hold", "it has half of a surrogate pair in a string")
        written = quote(string)
        if len(written) > MAX_JSON_KEY and re.compile(r"\s*:").match(source, token.end()):
            raise _not_a("JSON that YAML can hold", f"it has a key of more than {MAX_JSON_KEY} characters")
        return written

    return re.sub(_JSON_STRING_OR_SPACE, compact, source)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _refuse_constant(_name: str) -> None:
    raise ValueError
