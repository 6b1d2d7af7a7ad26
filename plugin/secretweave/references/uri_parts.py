"""The parts of one `secret://STORE/REF?params#KEY`; `uri` finds it in its text.

Nothing of the source is echoed in a fault but a well-formed store and ref.
"""

import re
from typing import NoReturn

from secretweave.errors import BadReference, SecretweaveError
from secretweave.model import Reference

PARAMETERS: dict[str, tuple[str, ...]] = {
    "version": (),
    "encode": ("base64", "json", "url", "shell"),
    "as": ("int", "bool", "json"),
    "optional": ("true", "false"),
    "default": (),
}
"""The known parameters and the values each may have; none: any text."""

MARKER = re.compile(r"secret:(!*)//")
_STORE = re.compile(r"(?=..)[a-z0-9]+(-[a-z0-9]+)*")
"""`^[a-z0-9](?:-?[a-z0-9]+)+$` in linear time; https://github.com/humanitec/humanitec-go-autogen, `SecretReference`."""
_NOT_IN_A_URI = re.compile(r"[\"<>\\^`{|}]")
"""https://www.rfc-editor.org/rfc/rfc3986#appendix-A, without what has an error of its own."""
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_BAD_POINTER = re.compile(r"~(?![01])")


def read(source: str, spot: str, faults: list[SecretweaveError]) -> Reference | None:
    """The reference that *source* spells at *spot*; None: it has faults, now among *faults*."""
    reader = _Reader(spot, faults)
    before = len(faults)
    found = reader.read(source.removeprefix("secret://"))
    return found if len(faults) == before else None


class _Wrong(Exception):
    """One part of a reference is malformed; caught here, where the next part is read."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fault = (what, fix)


class _Reader:
    """Reads the parts of one reference, and goes on after a fault."""

    def __init__(self, spot: str, faults: list[SecretweaveError]) -> None:
        self.spot = spot
        self.faults = faults
        self.name = ""
        """The store and the ref, once they are known to be well-formed."""

    def read(self, source: str) -> Reference | None:
        rest, sharp, key = source.partition("#")
        path, _, query = rest.partition("?")
        store = ref = ""
        try:
            _characters(source)
        except _Wrong as wrong:
            # Where it is cut into parts is then in doubt: no further fault would be worth telling.
            self.wrong(*wrong.fault)
            return None
        try:
            store, ref = _path(path)
            self.name = f" {Reference(store, ref)}"
        except _Wrong as wrong:
            self.wrong(*wrong.fault)
        field = self.key(key) if sharp else None
        values = self.parameters(query) if "?" in rest else {}
        return Reference(
            store,
            ref,
            values.get("version"),
            field,
            values.get("encode"),
            values.get("as"),
            values.get("optional") == "true",
            values.get("default"),
        )

    def wrong(self, what: str, fix: str) -> None:
        self.faults.append(BadReference(f"the reference{self.name} {self.spot} {what}", fix=fix))

    def key(self, key: str) -> str | None:
        try:
            if not key:
                _fail("has an empty key", "write a field after the `#`, or take the `#` away")
            if "#" in key or "?" in key:
                _fail(
                    "has a `#` or a `?` in its key",
                    "write the parameters before the key (`?version=1#KEY`); write %23 for `#` and %3F for `?`",
                )
            decoded = _decoded(key, "key")
            if decoded.startswith("/") and _BAD_POINTER.search(decoded):
                _fail("has a key that is no JSON pointer", "write ~0 for `~` and ~1 for `/` in a step")
        except _Wrong as wrong:
            self.wrong(*wrong.fault)
            return None
        return decoded

    def parameters(self, query: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for parameter in query.split("&"):
            try:
                name, value = _parameter(parameter)
                if name in values:
                    _fail(f"has the parameter `{name}` twice", "keep one of them")
                values[name] = value
            except _Wrong as wrong:
                self.wrong(*wrong.fault)
        if "encode" in values and "as" in values:
            self.wrong("has both `encode` and `as`", "keep `encode` for a text, or `as` for a number, a bool or JSON")
        return values


def _fail(what: str, fix: str) -> NoReturn:
    raise _Wrong(what, fix)


def _characters(source: str) -> None:
    if MARKER.search(source):
        _fail(
            "has another secret:// in it", "write each as `$(secret://...)`; inside a reference, write %3A for its `:`"
        )
    if "${" in source:
        _fail("holds a placeholder", "write its parts out: a reference may hold no `${...}`")
    if re.search(r"\s", source):
        _fail("has white space in it", "write %20 for a space, and `)` directly after a reference in $(...)")
    if _NOT_IN_A_URI.search(source) or not source.isprintable():
        _fail("has a character that a URI cannot hold", "percent-encode it, such as %22 for a double quote")


def _path(path: str) -> tuple[str, str]:
    store, slash, ref = path.partition("/")
    if store and not _STORE.fullmatch(store):
        _fail(
            "has no well-formed store",
            "a store's name has two or more of a-z and 0-9, with single `-` between; the default store is `secret:///REF`",
        )
    if not slash or not ref:
        _fail("names no secret", "write it as `secret://STORE/REF`, or `secret:///REF` for the default store")
    return store, _decoded(ref, "ref")


def _parameter(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    known = ", ".join(PARAMETERS)
    if name not in PARAMETERS:
        _fail(
            "has an unknown parameter", f"the parameters are {known}; write %3F for a `?` and %26 for a `&` in a name"
        )
    if not equals or (not value and name != "default"):
        _fail(
            f"has the parameter `{name}` without a value",
            f"write `{name}=...`, or take it away; the parameters are {known}",
        )
    allowed = PARAMETERS[name]
    if allowed and value not in allowed:
        _fail(f"has an unknown value for `{name}`", f"use one of {', '.join(allowed)}")
    return name, _decoded(value, f"parameter `{name}`", printable=name != "default")


def _decoded(text: str, part: str, *, printable: bool = True) -> str:
    """Percent-decoded, as UTF-8. *printable*: what names something can neither hide nor move a cursor."""
    if _BAD_PERCENT.search(text):
        _fail(
            f"has a bad %-sequence in its {part}", "write %25 for a percent sign, else two hexadecimal digits after it"
        )
    try:
        decoded = _PERCENT.sub(lambda code: chr(int(code[0][1:], 16)), text.encode().decode("latin-1"))
        decoded = decoded.encode("latin-1").decode()
    except UnicodeError:
        _fail(f"has %-sequences in its {part} that are not UTF-8", "percent-encode the bytes of its UTF-8 form")
    if printable and not decoded.isprintable():
        _fail(f"has a character in its {part} that cannot be printed", "name the secret without control characters")
    if printable and "${" in decoded:
        _fail("holds a placeholder", "write its parts out: a reference may hold no `${...}`")
    return decoded
