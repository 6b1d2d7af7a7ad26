"""Reads a YAML mapping into a NamedTuple class whose annotations say what is allowed: the one validator of settings.

The YAML key of a field is its name in camelCase, with Kubernetes' spelling of initialisms: `project_id` is `projectID`
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#naming-conventions).
A trailing underscore, there because the name is a Python word, is dropped. A null member counts as absent.

Allowed annotations: str, int, bool, float, `Literal[...]`, a nested NamedTuple, `tuple[X, ...]`, `Mapping[str, str]`,
`X | None`, and `Annotated[X, Form(...)]` for text with a form of its own, such as `Size` and `Seconds`.
"""

import os
import re
from collections.abc import Iterable
from collections.abc import Mapping as AnyMapping
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from secretweave import yamltree
from secretweave.errors import ConfigError, SecretweaveError, Where
from secretweave.forms import FilePath, Form
from secretweave.yamltree import Mapping, Node, Scalar, Sequence

T = TypeVar("T")

INITIALISMS = frozenset({"id", "arn", "url", "uri", "ip", "ca", "tls", "api"})
SHOWABLE = re.compile(r"[\w./-]{1,64}")
"""What a key must look like to be shown: a mis-indented line can make a key of a credential."""
BAD: Any = object()
"""Stands for a value whose fault has been recorded."""


class Place(NamedTuple):
    """Where in a configuration a node stands."""

    source: str
    document: int = 0
    resource: str = ""
    path: str = ""
    line: int = 0
    """The line breaks before the document."""
    files: bool = True
    """May its settings name files of this machine?"""

    def under(self, key: str | int) -> "Place":
        if isinstance(key, int):
            return self._replace(path=f"{self.path}[{key}]")
        return self._replace(path=f"{self.path}.{key}" if self.path else key)

    def where(self, node: Node) -> Where:
        return Where(self.source, self.document, self.line + node.line + 1, self.resource, self.path)

    def fault(self, node: Node, what: str, fix: str = "") -> ConfigError:
        return ConfigError(what, where=self.where(node), fix=fix)


def key_of(field: str) -> str:
    """The YAML key of a field's name."""
    first, *rest = field.rstrip("_").split("_")
    return first + "".join(word.upper() if word in INITIALISMS else word.capitalize() for word in rest)


def read(node: Node, cls: type[T], place: Place, faults: list[SecretweaveError]) -> T | None:
    """The *cls* that *node* spells; None if it has faults, each of which is then in *faults* as a ConfigError."""
    value = _tuple(node, cls, place, faults)
    return None if value is BAD else value


def pairs(node: Node, place: Place, faults: list[SecretweaveError]) -> dict[str, tuple[Scalar, Node]] | None:
    """A mapping's members by key, null ones left out; None if it is no mapping."""
    if not isinstance(node, Mapping):
        faults.append(place.fault(node, f"expected a mapping, found {_kind(node)}"))
        return None
    members: dict[str, tuple[Scalar, Node]] = {}
    seen = set()
    for key, value in node.pairs:
        if key.value in seen:
            faults.append(place.fault(key, f"{shown(key.value)} stands here twice", "keep one of the two"))
        seen.add(key.value)
        if not is_null(value):
            members[key.value] = (key, value)
    return members


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and yamltree.plain(node) is None


def shown(key: str) -> str:
    """A key as an error may show it."""
    return f"`{key}`" if SHOWABLE.fullmatch(key) else "a key that is no plain word"


def unknown(key: str, known: Iterable[str], what: str) -> tuple[str, str]:
    """The `what` and `fix` of an unknown name, with the nearest known one."""
    names = sorted(known)
    near = nearest(key, names)
    fix = f"write `{near}`, if that is meant" if near else "use one of " + ", ".join(names) if names else ""
    return f"{what} {shown(key)}", fix


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of *names*, or an empty string."""
    import difflib

    folded = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), folded, 1)
    return folded[matches[0]] if matches else ""


def _tuple(node: Node, cls: Any, place: Place, faults: list[SecretweaveError]) -> Any:
    before = len(faults)
    members = pairs(node, place, faults)
    if members is None:
        return BAD
    kinds = {key_of(field): (field, kind) for field, kind in cls.__annotations__.items()}
    values = {}
    for key, (name, value) in members.items():
        if key not in kinds:
            faults.append(place.fault(name, *unknown(key, kinds, "unknown key")))
            continue
        field, kind = kinds[key]
        values[field] = _value(value, kind, place.under(key), faults)
    for key, (field, _) in kinds.items():
        if key not in members and field not in cls._field_defaults:
            faults.append(place.fault(node, f"`{key}` is missing", f"add `{key}`"))
    return BAD if len(faults) > before or BAD in values.values() else cls(**values)


def _value(node: Node, kind: Any, place: Place, faults: list[SecretweaveError]) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return _value(node, next(each for each in arguments if each is not type(None)), place, faults)
    if kind == FilePath and not place.files:
        faults.append(place.fault(node, "a manifest may not name a file of this machine", "leave the key out"))
        return BAD
    if origin is tuple:
        return _sequence(node, arguments[0], place, faults)
    if origin is AnyMapping:
        return _texts(node, place, faults)
    if origin is None and hasattr(kind, "_fields"):
        return _tuple(node, kind, place, faults)
    expected, value = _scalar(node, kind, origin, arguments, place)
    if value is BAD:
        quote = isinstance(node, Scalar) and not node.style and (kind is str or origin is Literal)
        fix = "put it in quotes" if quote and not isinstance(yamltree.plain(node), str) else ""
        found = _kind(node)
        other = "other " if found == "text" and origin in {Literal, Annotated} else ""
        faults.append(place.fault(node, f"expected {expected}, found {other}{found}", fix))
    return value


def _scalar(node: Node, kind: Any, origin: Any, arguments: tuple[Any, ...], place: Place) -> tuple[str, Any]:
    """(what is expected, the value or BAD)"""
    value = yamltree.plain(node) if isinstance(node, Scalar) else BAD
    if origin is Annotated:
        form: Form = arguments[1]
        folder = os.path.dirname(os.path.abspath(place.source))
        match = re.fullmatch(form.pattern, node.value) if isinstance(node, Scalar) else None
        return form.expected, form.read(match, folder) if match else BAD
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)), value if value in arguments else BAD
    if kind is float:
        return "a number", float(value) if type(value) in {int, float} else BAD
    expected = {str: "text", int: "a whole number", bool: "true or false"}[kind]
    return expected, value if type(value) is kind else BAD


def _sequence(node: Node, kind: Any, place: Place, faults: list[SecretweaveError]) -> Any:
    if not isinstance(node, Sequence):
        faults.append(place.fault(node, f"expected a list, found {_kind(node)}"))
        return BAD
    items = tuple(_value(item, kind, place.under(index), faults) for index, item in enumerate(node.items))
    return BAD if BAD in items else items


def _texts(node: Node, place: Place, faults: list[SecretweaveError]) -> Any:
    members = pairs(node, place, faults)
    if members is None:
        return BAD
    texts = {key: _value(value, str, place.under(key), faults) for key, (_, value) in members.items()}
    return BAD if BAD in texts.values() else texts


def _kind(node: Node) -> str:
    """What a node is, in words that hold nothing of its text."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", bytes: "binary"}
    return words.get(type(yamltree.plain(node)), "nothing")
