"""What the kubelet makes of `$(NAME)` in the `value` of a container's environment variable.

`$(NAME)` is replaced where a variable of that name came before, else it stays; `$$` is one `$`; any other `$` stays. A
name ends at the first `)` and may hold anything else. What is put in is not expanded again, and neither is a value
that comes by `valueFrom`.
https://github.com/kubernetes/kubernetes/blob/v1.36.3/third_party/forked/golang/expansion/expand.go
https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from secretweave.errors import BadReference

_ESCAPE_OR_VARIABLE = re.compile(r"\$\$|\$\(([^)]*)\)")
_REFERENCE = "\0"
"""Stands for a reference among literal text: no environment variable can hold it."""
_BEFORE_REFERENCE = r"\$\$|\$(?=\0)"
_TO_ESCAPE = re.compile(_BEFORE_REFERENCE + r"|\$\([^)]*\)")
_TO_ESCAPE_BEHIND = re.compile(_BEFORE_REFERENCE + r"|\$(?=\()")
"""Behind the last `)`, where `$(` is no variable until one is put in behind it."""


def has_variables(text: str) -> bool:
    """Whether the kubelet would try to expand a `$(NAME)` in *text*."""
    return any(True for _ in _variables(text))


def mentions(pieces: Iterable[object]) -> bool:
    """Whether `$(NAME)` stands in the literal text among *pieces*: strings, and references, which are anything else.

    A `$(` whose `)` comes only after a reference is no name: nobody calls a variable by a secret.
    """
    return any(_REFERENCE not in name for name in _variables(_opaque(pieces)))


def refer(pieces: Iterable[object], names: Iterable[str]) -> str:
    """The text whose expansion puts the variables *names*, in order, in the places of the references among *pieces*.

    A literal `$` that would run together with one of them is doubled. Raises BadReference: NUL is in the text.
    """
    pieces = tuple(pieces)
    if any(isinstance(piece, str) and _REFERENCE in piece for piece in pieces):
        raise BadReference("NUL in the value of an environment variable", fix="take it out: no program can be given it")
    variables = iter(names)

    def literally(found: re.Match[str]) -> str:
        whole = found[0]
        return whole.replace("$", "$$") if whole == "$" or _REFERENCE in whole else whole

    text = _opaque(pieces)
    last = _last(text)
    text = _TO_ESCAPE.sub(literally, text[:last]) + _TO_ESCAPE_BEHIND.sub(literally, text[last:])
    return re.sub(_REFERENCE, lambda _: f"$({next(variables)})", text)


def unescape(text: str) -> str:
    """What a container sees of *text* where it names no variable that there is."""
    return expand(text, {})


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The kubelet's expansion of *text*."""

    def replaced(found: re.Match[str]) -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    last = _last(text)
    return _ESCAPE_OR_VARIABLE.sub(replaced, text[:last]) + text[last:].replace("$$", "$")


def _opaque(pieces: Iterable[object]) -> str:
    return "".join(piece if isinstance(piece, str) else _REFERENCE for piece in pieces)


def _variables(text: str) -> Iterator[str]:
    for found in _ESCAPE_OR_VARIABLE.finditer(text, 0, _last(text)):
        if found[1] is not None:
            yield found[1]


def _last(text: str) -> int:
    """Where no variable can end any more: each `$(` behind it would be followed to the end of the text in vain."""
    return text.rfind(")") + 1
