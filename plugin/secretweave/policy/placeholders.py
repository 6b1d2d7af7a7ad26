"""The resource placeholders of Humanitec: `${resources['postgres.default#db'].outputs.host}` in all its spellings.

https://developer.humanitec.com/platform-orchestrator/reference/placeholders
"""

import re
from typing import NamedTuple


class Pointer(NamedTuple):
    """What a placeholder refers to."""

    type: str
    """`*`: it cannot be told, and counts as every type."""
    class_: str | None = None
    """None: any."""
    id: str | None = None
    """None: any."""

    def __str__(self) -> str:
        return self.type + (f".{self.class_}" if self.class_ else "") + (f"#{self.id}" if self.id else "")


ANY = Pointer("*")

_OPENED = re.compile(r"\$\{\s*")
_STEP = re.compile(
    r"""\s*(?:\.\s*)?(?:
      \[\s*(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*\]
    | (?P<plain>[^.\[\]{}"'\s]+)
    )""",
    re.VERBOSE,
)
_SPEC = re.compile(r"(?P<type>[A-Za-z0-9_-]+)(?:\.(?P<class>[A-Za-z0-9_-]+))?(?:\#(?P<id>.+))?")
_MEMBERS = frozenset({"outputs", "values", "account", "guresid"})
"""What follows the resource; a class has no such name."""


def find(text: str) -> tuple[Pointer, ...]:
    r"""Every resource that the placeholders of *text* refer to.

    `$\{` is the escape. `$${`, Terraform's, counts as a placeholder. One that starts with `resources` and cannot be
    read counts as a reference to every type. Other `${...}` (shell, Flux, `context`, `shared`) are not references.
    """
    return tuple(pointer for opened in _OPENED.finditer(text) for pointer in _read(text, opened.end()))


def _read(text: str, start: int) -> list[Pointer]:
    steps: list[tuple[str, bool]] = []
    position = start
    while found := _STEP.match(text, position):
        quoted = found["quoted"]
        steps.append((_unquoted(quoted) if quoted else found["plain"], bool(quoted)))
        position = found.end()
    if not steps:
        return []
    first = steps[0][0]
    if first != "resources":
        return [ANY] if first.startswith("resources") and not first.replace("_", "").isalnum() else []
    return _specification(steps[1:])


def _specification(steps: list[tuple[str, bool]]) -> list[Pointer]:
    if not steps:
        return [ANY]
    spec, quoted = steps[0]
    if not quoted:
        # Without brackets the class is a step of its own: resources.TYPE.CLASS#ID.outputs.x
        if len(steps) > 1 and "#" not in spec and steps[1][0] not in _MEMBERS and not steps[1][1]:
            spec = f"{spec}.{steps[1][0]}"
        while len(steps) > 1 and steps[1][1] and spec.endswith("#"):
            spec += steps.pop(1)[0]
    return [_pointer(part) for part in re.split(r"[<>]", spec) if part] or [ANY]


def _pointer(spec: str) -> Pointer:
    found = _SPEC.fullmatch(spec.strip())
    if found is None:
        kind = re.match(r"[A-Za-z0-9_-]+(?=[.#])", spec)
        return Pointer(kind[0]) if kind and "${" not in kind[0] else ANY
    identifier = found["id"]
    return Pointer(found["type"], found["class"], None if identifier and "$" in identifier else identifier)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
