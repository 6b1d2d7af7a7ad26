"""Picks one value out of a record: a field, a JSON pointer, or the record as a whole.

| record | key | value |
|---|---|---|
| blob | none | the blob, verbatim |
| fields | none | the field `value` if it is the only one; else an error that asks for a `#FIELD` |
| fields | `name` | that field |
| blob | `name` | the blob read as JSON, else as YAML; the field of that |
| either | `/a/0` | an RFC 6901 pointer; a text on its way is read as JSON, else as YAML, and walked into |

Text comes out verbatim, bytes too; true, false and numbers as JSON writes them; a list or a mapping as compact JSON.
Null is no value and an error: a password `null` would be a trap.

A key that is absent from a secret that is there counts as missing, so `optional` and `default` answer it, as users of
vals and External Secrets expect. They do not answer null, nor a secret that has no fields at all.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from secretweave.errors import BadReference, InputError, NotFound, StoreError
from secretweave.model import Record, SecretValue

ONLY_FIELD = "value"
SHOWN = 20
"""How many names of fields an error lists."""
INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pick(record: Record, key: str | None, *, show_names: bool) -> SecretValue:
    """The value of *key* in *record*. Raises NotFound (no such key), StoreError, BadReference (a malformed pointer).

    *show_names*: may an error list the names of the fields there are?
    """
    value: Any = record.value
    if key is None:
        if isinstance(value, SecretValue):
            return value
        if list(value) != [ONLY_FIELD]:
            raise StoreError(
                "the secret has fields, and the reference names none",
                why=_names(value, show_names),
                fix="add `#FIELD` (or `key: FIELD`) to the reference",
            )
        return SecretValue(text(value[ONLY_FIELD]))
    for step in _steps(key) if key.startswith("/") else [key]:
        value = _step(value, step, show_names)
    return value if isinstance(value, SecretValue) else SecretValue(text(value))


def text(value: Any) -> bytes:
    """What a typed value is as the content of a Secret. Raises StoreError: null, or not to be written as text."""
    if isinstance(value, bytes):
        return value
    if value is None:
        raise StoreError("the value is null", fix="store a value, or remove the field and mark the reference optional")
    if not isinstance(value, str):
        import json

        try:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise StoreError(
                "the value cannot be written as JSON",
                why="it holds bytes, or a number that JSON lacks",
                fix="point the key at one of its fields",
            ) from None
    try:
        return bytes(value, "utf-8")
    except UnicodeEncodeError:
        raise StoreError(
            "the value is not text", why="it holds half of a surrogate pair", fix="correct it in the store"
        ) from None


def _steps(pointer: str) -> list[str]:
    if re.search(r"~(?![01])", pointer):
        raise BadReference("the key is no JSON pointer", why="`~` stands without 0 or 1", fix="write `~0` for `~`")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _step(value: Any, step: str, show_names: bool) -> Any:
    if not isinstance(value, (Mapping, list)):
        value = _structure(value)
    if isinstance(value, list):
        if INDEX.fullmatch(step) and int(step) < len(value):
            return value[int(step)]
        raise NotFound(
            f"the secret has no item {step!r} there",
            why=f"the list has {len(value)} items",
            fix="correct the key of the reference",
        )
    if step not in value:
        raise NotFound(
            f"the secret has no field `{step}`", why=_names(value, show_names), fix="correct the key of the reference"
        )
    return value[step]


def _structure(value: Any) -> Any:
    """The mapping or list that a text spells."""
    if isinstance(value, SecretValue):
        value = value.reveal()
    try:
        source = str(value, "utf-8-sig") if isinstance(value, bytes) else value
        found = _parse(source) if isinstance(source, str) else None
    except (ValueError, RecursionError, InputError):
        found = None
    if isinstance(found, (dict, list)):
        return found
    raise StoreError(
        "the reference names a field, but the secret has none there",
        why="it is neither a JSON nor a YAML mapping or list",
        fix="remove the key from the reference, or correct it",
    )


def _parse(source: str) -> Any:
    import json

    from secretweave import yamltree

    try:
        return json.loads(source)
    except ValueError:
        roots = yamltree.load(source.encode())
        return yamltree.plain(roots[0]) if len(roots) == 1 else None


def _names(value: Mapping[str, Any], show: bool) -> str:
    if not show:
        return ""
    if not value:
        return "it has no fields"
    more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
    return "it has: " + ", ".join(f"`{name}`" for name in islice(value, SHOWN)) + more
