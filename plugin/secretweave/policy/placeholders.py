r"""The resource placeholders of Humanitec: `${resources['postgres.default#db'].outputs.host}` in all its spellings.

https://developer.humanitec.com/platform-orchestrator/reference/placeholders

The rules read these to refuse, so what is doubtful is read widely: an id or a class that cannot be told is any, and
what begins like a resource placeholder and cannot be read refers to every type.
"""

import re
from functools import cache
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

ROOT = "resources"
_MEMBERS = frozenset({"outputs", "values", "account", "guresid"})
"""What follows the resource."""
_TOLD = r"[A-Za-z0-9_.-]+"
"""A class or an id that says which; `@` means that of the resource in which it stands, `$` a placeholder within."""


_NEAR = 256
"""How far into what is no path at all its beginning reaches; bounded, so that no text takes quadratic time."""


class _Step(NamedTuple):
    text: str
    quoted: bool


@cache
def _grammar() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """The opening, one step of the path, and the resource's specification: compiled only for a stream that needs it."""
    step = r"""\s*(?:\.\s*)?(?:
          \[\s*(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*\]
        | \[\s*(?P<escape>\\+)(?P<quote>["'])(?P<text>[^"'\\]*)(?P=escape)(?P=quote)\s*\]
        | (?P<plain>[^.\[\]{}"'\\\s]+)
        )"""
    specification = r"(?P<type>[A-Za-z0-9_/-]+)(?:\.(?P<class>[^#]*))?(?:\#(?P<id>.*))?"
    return re.compile(r"\$\{\s*"), re.compile(step, re.VERBOSE), re.compile(specification, re.DOTALL)


def find(text: str) -> tuple[Pointer, ...]:
    r"""Every resource that the placeholders of *text* refer to, nested ones too.

    `$\{` is the escape. `$${`, Terraform's, counts as a placeholder. Other `${...}` (shell, Flux, `context`, `shared`)
    are not references. In text that stands within JSON, quotes have backslashes before them.
    """
    if "${" not in text:
        return ()
    return tuple(pointer for opened in _grammar()[0].finditer(text) for pointer in _read(text, opened.end()))


def specified(text: str) -> Pointer:
    """The resource that `TYPE[.CLASS][#ID]` names, as in the keys of `provision`."""
    found = _grammar()[2].fullmatch(text.strip())
    if found is None:
        return ANY
    class_, identifier = (
        name if name and re.fullmatch(_TOLD, name) else None for name in (found["class"], found["id"])
    )
    return Pointer(found["type"], None if class_ and "." in class_ else class_, identifier)


def _read(text: str, start: int) -> list[Pointer]:
    steps: list[_Step] = []
    position = start
    while found := _grammar()[1].match(text, position):
        if found["plain"] is not None:
            steps.append(_Step(found["plain"], quoted=False))
        else:
            steps.append(_Step(found["text"] if found["quoted"] is None else _unquoted(found["quoted"]), quoted=True))
        position = found.end()
    if not steps:
        return [ANY] if ROOT in text[start : start + _NEAR].partition("}")[0] else []
    first = steps[0]
    if first.text == ROOT:
        return _resource(steps[1:])
    unreadable = first.quoted and not re.fullmatch(_TOLD, first.text)
    alike = first.text.startswith(ROOT) and not first.text.replace("_", "").isalnum()
    return [ANY] if unreadable or alike else []


def _resource(steps: list[_Step]) -> list[Pointer]:
    if not steps:
        return [ANY]
    specification = steps[0].text
    if not steps[0].quoted:
        # TYPE.CLASS#ID without brackets: the class is a step of its own, and an id can have dots.
        ends = [index for index, step in enumerate(steps) if step.text in _MEMBERS]
        if len(ends) == 1 and ends[0] and not any(step.quoted for step in steps[: ends[0]]):
            specification = ".".join(step.text for step in steps[: ends[0]])
        else:
            specification = re.split(r"[.#]", specification, maxsplit=1)[0]
    # A selector, TYPE<TYPE or TYPE>TYPE, picks from one type by the other: both count.
    return [specified(part) for part in re.split(r"[<>]", specification) if part.strip()] or [ANY]


def _unquoted(text: str) -> str:
    """The text of a JSON string, also in single quotes; one that cannot be read is no name of anything."""
    if "\\" not in text:
        return text[1:-1]
    import json

    inner = text[1:-1].replace("\\'", "'")
    try:
        return str(json.loads('"' + (inner if text[0] == '"' else inner.replace('"', '\\"')) + '"', strict=False))
    except ValueError:
        return "\\"
