"""A value inside a text that has a structure of its own may not break it: JSON, YAML, a URL, a shell script, lines.

The references are replaced by tokens that mean nothing anywhere. Where the text then reads as one of these kinds, the
text with the values in it must read the same, but for the values in the tokens' places. A reference with `encode` says
itself what its place wants: it stays a token, and its value is not judged.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from secretweave import yamltree
from secretweave.errors import BadReference, InputError, SecretweaveError
from secretweave.model import Reference, Template
from secretweave.text.encode import NOT_SHELL_SAFE

# Compiled where they are used: most runs weave no such text.
_URL = r"[A-Za-z][A-Za-z0-9+.-]*://\S+"
_NOT_IN_A_COMPONENT = r"[\0-\x20\x7f%:/?#\[\]@!$&'()*+,;=\"<>\\^`{|}]"
"""Reserved characters and what no URI holds: https://www.rfc-editor.org/rfc/rfc3986#section-2.2."""
_SHEBANG = r"#!\s*(\S*/env\s+(-\S+\s+)*)?(\S*/)?(ba|da|a|k|z)?sh\b"

_CANONICAL = r"true|false|0|-?[1-9][0-9]{0,17}"
_CANONICAL_FRACTION = r"-?(0|[1-9][0-9]{0,5})\.[0-9]{0,7}[1-9]"
"""Longer ones, and those with a zero at the end, some languages print otherwise."""
_WORDS = frozenset({"", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<"})
_NUMBER = (
    r"(?i:[-+]?(0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)(e[-+]?[0-9]+)?|\.inf)|\.nan"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t \t].*)?)"
)
"""What YAML 1.1 or 1.2 takes for a number or a date: https://yaml.org/type/, https://yaml.org/spec/1.2.2/#103-core-schema."""

MOST_CULPRITS = 5
"""How many references a fault names."""


class _Weaving:
    """A template that can be put together with any of its values in place, and tokens in the other places."""

    def __init__(self, template: Template, texts: Sequence[str]) -> None:
        self.template = template
        values = iter(texts)
        self.values = {index: next(values) for index, piece in enumerate(template) if isinstance(piece, Reference)}
        self.literal = "".join(piece for piece in template if isinstance(piece, str))
        # A word for YAML and a number for JSON: each can stand bare, and within quotes.
        self.word = self._stem("secretweave", "x")
        self.number = self._stem("90817263545", "7")

    def _stem(self, stem: str, more: str) -> str:
        """*stem* with as many *more* behind it as the literal text has nowhere."""
        runs = re.findall(f"{stem}({more}*)", self.literal)
        return stem + more * (max(map(len, runs)) + 1) if runs else stem

    def unended(self, index: int) -> str:
        """A value without the line breaks at its end, where the text's own line ends there too: one more is no harm."""
        after = self.template[index + 1] if index + 1 < len(self.template) else "\n"
        ends = isinstance(after, str) and after.startswith(("\n", "\r\n"))
        return self.values[index].rstrip("\r\n") if ends else self.values[index]

    def text(self, which: Collection[int], stem: str) -> str:
        return "".join(
            piece if isinstance(piece, str) else self.unended(index) if index in which else f"{stem}{index:06d}"
            for index, piece in enumerate(self.template)
        )

    def tokens(self, which: Collection[int], stem: str) -> "_Tokens":
        return _Tokens(re.compile(f"{stem}([0-9]{{6}})"), {index: self.unended(index) for index in which})


class _Tokens(NamedTuple):
    """How tokens are found in a tokenised text, and the values of those that are woven."""

    pattern: re.Pattern[str]
    values: Mapping[int, str]

    def within(self, text: str) -> bool:
        return any(int(token[1]) in self.values for token in self.pattern.finditer(text))

    def filled(self, text: str) -> str:
        return self.pattern.sub(lambda token: self.values.get(int(token[1]), token[0]), text)


class _Kind(NamedTuple):
    name: str
    fix: str
    holds: Callable[[_Weaving, Collection[int]], bool | None]
    """Whether the values of these references keep the structure; None: the text is not of this kind."""


def check(template: Template, texts: Sequence[str]) -> SecretweaveError | None:
    """The fault of values that break the text around them. *texts*: the final text of each reference, in order."""
    judged = [index for index, piece in enumerate(template) if isinstance(piece, Reference) and not piece.encode]
    if not judged or not any(isinstance(piece, str) and piece.strip() for piece in template):
        return None
    weaving = _Weaving(template, texts)
    for kind in _KINDS:
        holds = kind.holds(weaving, judged)
        if holds is None:
            continue
        if holds:
            return None
        culprits = list(islice(_culprits(weaving, judged, kind), MOST_CULPRITS)) or judged[:MOST_CULPRITS]
        names = ", ".join(dict.fromkeys(str(template[index]) for index in culprits))
        return BadReference(
            f"the value of {names} would break the {kind.name} that it stands in",
            why="as it is, it would end its own place in the text, or be read as something else than this text",
            fix=kind.fix,
        )
    return None


def _culprits(weaving: _Weaving, which: Sequence[int], kind: _Kind) -> Iterator[int]:
    """The references whose values break the text: by halves, because each question costs a reading of all of it."""
    if kind.holds(weaving, which):
        return
    if len(which) == 1:
        yield which[0]
        return
    middle = len(which) // 2
    yield from _culprits(weaving, which[:middle], kind)
    yield from _culprits(weaving, which[middle:], kind)


def _json(weaving: _Weaving, which: Collection[int]) -> bool | None:
    opening = weaving.literal.lstrip()[:1]
    if opening != "{" and not (opening == "[" and re.search('["{]', weaving.literal)):
        return None
    tokens = weaving.tokens(which, weaving.number)
    try:
        before = _read_json(weaving.text((), weaving.number))
    except (ValueError, RecursionError):
        return None
    try:
        expected = _filled(before, tokens)
    except RecursionError:  # the text itself is too deep, which some Pythons can read and others not
        return None
    except ValueError:
        return False
    try:
        return bool(expected == _read_json(weaving.text(which, weaving.number)))
    except (ValueError, RecursionError):
        return False


def _read_json(text: str) -> Any:
    """JSON with numbers as `("number", source)` and objects as `("object", pairs)`, so that nothing is lost."""
    import json

    def number(source: str) -> tuple[str, str]:
        return "number", source

    def constant(_name: str) -> None:
        raise ValueError

    def pairs(found: list[tuple[str, Any]]) -> tuple[str, list[tuple[str, Any]]]:
        return "object", found

    return json.loads(text, parse_int=number, parse_float=number, parse_constant=constant, object_pairs_hook=pairs)


def _filled(node: Any, tokens: _Tokens) -> Any:
    if isinstance(node, str):
        return tokens.filled(node)
    if isinstance(node, list):
        return [_filled(item, tokens) for item in node]
    if not isinstance(node, tuple):
        return node
    kind, content = node
    if kind == "object":
        return kind, [(tokens.filled(key), _filled(value, tokens)) for key, value in content]
    if not tokens.within(content):
        return node
    # A bare place takes one JSON value, whole; beside digits it takes more digits.
    return _read_json(tokens.filled(content))


def _url(weaving: _Weaving, which: Collection[int]) -> bool | None:
    if not re.fullmatch(_URL, weaving.text((), weaving.word).strip()):
        return None
    return not any(re.search(_NOT_IN_A_COMPONENT, weaving.values[index]) for index in which)


def _shell(weaving: _Weaving, which: Collection[int]) -> bool | None:
    if not re.match(_SHEBANG, weaving.text((), weaving.word)):
        return None
    return not any(re.search(NOT_SHELL_SAFE, weaving.unended(index)) for index in which)


def _yaml(weaving: _Weaving, which: Collection[int]) -> bool | None:
    """One line alone is more likely prose (`user: $(...)`) than YAML, unless it ends like a file does."""
    if "\n" not in weaving.literal:
        return None
    before = _read_yaml(weaving.text((), weaving.word))
    if not before or any(isinstance(root, yamltree.Scalar) for root in before):
        return None
    after = _read_yaml(weaving.text(which, weaving.word))
    tokens = weaving.tokens(which, weaving.word)
    return after is not None and _same_nodes(before, after, tokens, set())


def _read_yaml(text: str) -> list[yamltree.Node] | None:
    try:
        return yamltree.load(text.encode(errors="replace"))
    except InputError:
        return None


def _same_nodes(
    before: Sequence[yamltree.Node], after: Sequence[yamltree.Node], tokens: _Tokens, seen: set[tuple[int, int]]
) -> bool:
    return len(before) == len(after) and all(
        _same(old, new, tokens, seen) for old, new in zip(before, after, strict=True)
    )


def _same(before: yamltree.Node, after: yamltree.Node, tokens: _Tokens, seen: set[tuple[int, int]]) -> bool:
    """Whether *after* is *before* with the values in the places of their tokens. *seen*: pairs that aliases share."""
    pair = id(before), id(after)
    if pair in seen:
        return True
    seen.add(pair)
    if type(before) is not type(after) or before.tag != after.tag:
        return False
    if isinstance(before, yamltree.Mapping) and isinstance(after, yamltree.Mapping):
        old = [node for entry in before.pairs for node in entry]
        return _same_nodes(old, [node for entry in after.pairs for node in entry], tokens, seen)
    if isinstance(before, yamltree.Sequence) and isinstance(after, yamltree.Sequence):
        return _same_nodes(before.items, after.items, tokens, seen)
    assert isinstance(before, yamltree.Scalar)
    assert isinstance(after, yamltree.Scalar)
    if before.style != after.style or tokens.filled(before.value) != after.value:
        return False
    return bool(before.style) or not tokens.within(before.value) or _prints_back(after.value)


def _prints_back(plain: str) -> bool:
    """Whether every program that reads the plain scalar, and prints what it took it for, prints the same text."""
    if re.fullmatch(_CANONICAL, plain) or (re.fullmatch(_CANONICAL_FRACTION, plain) and repr(float(plain)) == plain):
        return True
    return plain.lower() not in _WORDS and not re.fullmatch(_NUMBER, plain)


def _lines(weaving: _Weaving, which: Collection[int]) -> bool | None:
    """INI, .env, properties and their like: a line break in a value would begin an entry of its own."""
    if "\n" not in weaving.literal:
        return None
    token = re.compile(f"{weaving.word}([0-9]{{6}})")
    broken = {index for index in which if re.search("[\r\n]", weaving.unended(index))}
    for line in weaving.text((), weaving.word).split("\n"):
        found = [int(each[1]) for each in token.finditer(line)]
        alone = len(found) == 1 and not token.sub("", line).strip()
        if not alone and broken.intersection(found):
            return False
    return True


_KINDS = (
    _Kind("JSON text", 'write it in double quotes, as `"$(secret://...?encode=json)"`', _json),
    _Kind("URL", "write it as `$(secret://...?encode=url)`", _url),
    _Kind("shell script", "write it as `$(secret://...?encode=shell)`, with no quotes around it", _shell),
    _Kind("YAML text", 'write it in double quotes, as `"$(secret://...?encode=json)"`', _yaml),
    _Kind("text of one entry a line", "let it stand alone on its line, or add ?encode=base64 or ?encode=json", _lines),
)
