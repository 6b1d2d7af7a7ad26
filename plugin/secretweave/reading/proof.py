r"""Which documents cannot matter, proved from their bytes, so that nine tenths of a stream are never parsed.

What matters: an object of a kind that must be looked at, a list of objects, and a scalar with a marker in its text. A
document passes unparsed only if all of this holds; else it is parsed, which is never wrong:

1.  It is UTF-8 without NUL; every line break is LF or CRLF (no lone CR, U+0085, U+2028, U+2029); no U+FEFF.
2.  After blank and comment lines, the first line is `key:` at column 0, then a space or the line's end.
3.  Every line is blank, begins with a space, `#` or `- `, or is such a `key:` line; a key is `[A-Za-z][A-Za-z0-9_.-]*`.
4.  One `kind:` and one `apiVersion:` line, each with one plain word and at most a comment after it, the next line that
    is not blank is not indented; no `items:`; none of the three in another case, which Go's encoding/json would match.
5.  The kind is none to be looked at.
6.  No marker anywhere, no escape that spells a character of one, no tag that could be `!!binary`.

Why it is sound for libyaml and for what Kubernetes and Helm read with, go-yaml, a port of libyaml's scanner:

-   By 2 the first token is a plain key, so the root is a block mapping at indent 0. Only a document's end closes that:
    no column is below 0, and `---`, `...` and `%` at column 0 break 3 (or have cut the document before).
-   A key of the root is a simple key at column 0, or `?`. At a greater column the scanner opens a nested mapping first;
    a column counts from a line break, and by 1 there are only the visible ones. So each key of the root begins one of
    the lines of 3, and as no such line begins with a quote, `&`, `*`, `!`, `{`, `[`, `?` or `<<`, it is what it shows.
-   The converse does not hold: a quoted scalar or a flow collection may go on at column 0, so a `kind:` line may be no
    key. But then, by 4, the root has no key `kind` at all, and no reader takes it for an object. If it is the key, its
    value is the word: a plain scalar goes on only on an indented line, which 4 excludes. Likewise `items`.
-   Aliases and merge keys below the root move nodes, but not to the root (`<<` at column 0 breaks 3), and they change
    no scalar. A scalar's text differs from its bytes only by line folding, which puts white space where the break was,
    by doubled single quotes, by the escapes of double quotes, and by `!!binary`. Markers hold no white space, quote or
    backslash, so 6 finds each of them: an escaped line break joins text only after a character that is no white space.
-   `!!binary` is spelled `!!...` or `!<...>`; with %TAG otherwise, but %TAG is refused. `!%` (`!%21binary`, which some
    readers could take for it) is counted too.

Refused, because readers disagree: what is not UTF-8 or holds NUL; `---` with content on or glued to it (Kubernetes
refuses it or takes `---#` for a marker, Helm cuts there and keeps the rest as content, libyaml reads `---x` as text);
%YAML and %TAG (Kubernetes and Helm cut them off from their document).

The lines at column 0 are a document's signature; the slow judgement of 2 to 5 runs once for each different one.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

MARKER_LINE = b"\n---"
BASE64_MARKERS = (b"c2VjcmV0Oi8v", b"NlY3JldDovL", b"zZWNyZXQ6Ly")
"""What stays the same of `secret://` in base64, at each of the three alignments."""


class Interest(NamedTuple):
    """What makes a document matter."""

    markers: tuple[bytes, ...]
    """Any of these anywhere in its bytes; printable ASCII without space, quotes and backslash, at most 64 long."""
    kinds: Callable[[str, str], bool]
    """(apiVersion, kind) -> must be looked at."""


class Verdict(NamedTuple):
    """What is to be done with a document."""

    passes: bool
    refusal: str = ""
    """A key of REFUSALS; empty: it may be parsed."""
    content: bool = True
    """It holds more than comments."""


ORDINARY = Verdict(passes=True)
EMPTY = Verdict(passes=True, content=False)
MATTERS = Verdict(passes=False)

REFUSALS = {
    "nul": ("a NUL byte", "it is no YAML; UTF-16 is full of them", "write the manifest as UTF-8"),
    "encoding": ("not UTF-8", "Kubernetes reads nothing else", "write the manifest as UTF-8"),
    "marker": (
        "a line that begins with --- and goes on",
        "Kubernetes, Helm and libyaml disagree on where that document begins",
        "put the content on the next line; keep --- off the beginning of a line within a text",
    ),
    "directive": (
        "a %YAML or %TAG directive",
        "Kubernetes and Helm cut it off from its document",
        "remove it, and write out what it abbreviates",
    ),
}
"""what, why and fix of each."""

# A marker line is taken together with what follows if the first content is indented or `- `, so that the signature
# shows it. An indented line after `kind:` or `apiVersion:` could be part of the value, so it is taken too. Comments go
# by the thousand lines, each for good, so that a megabyte of them needs no stack. No group is possessive: Python
# before 3.11.5 goes on in the wrong place after one (https://github.com/python/cpython/issues/106052).
_COLUMN_0 = re.compile(
    rb"\n("
    rb"---[^\n]*+(?:(?>(?:\n *+(?:#[^\n]*+)?\r?+(?=\n)){1,1000}))*\n(?: ++[^ #\r\n]|-[ \r\n])[^\n]*+"
    rb"|(?:kind|apiVersion):[^\n]*+(?:[\r\n]++ [^\n]*+)?"
    rb"|[^ \n#\-][^\n]*+"
    rb"|-[^ \n][^\n]*+"
    rb")"
)
_MARKER_REST = re.compile(rb"[ \t]*+(?:(?<=[ \t])#.*+)?")
_KEY = re.compile(rb"([A-Za-z][A-Za-z0-9_.-]*):(?: (.*))?")
_WORD = re.compile(rb" *([A-Za-z][A-Za-z0-9./-]{0,511}) *(?:(?<= )#.*)?")
_TELLING = frozenset({b"kind", b"apiversion", b"items"})

_ESCAPE = re.compile(
    rb"\\(?:x[2-7][0-9A-Fa-f]|u00[2-7][0-9A-Fa-f]|U000000[2-7][0-9A-Fa-f]|/|(?<=[^ \t\r\n]\\)\r?\n)",
)
_BINARY_TAG = re.compile(rb"![!<%]")
_LONE_CR = re.compile(rb"\r(?!\n)")
_UNICODE_BREAKS = (b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
BOM = b"\xef\xbb\xbf"

MEMO_ENTRIES = 4096
MEMO_LENGTH = 1024
"""The longest signature kept: a line at column 0 can be megabytes."""
SIGNATURE_MAX = 1 << 16
PORTION = 1 << 14
MAX_CHARACTER = 4
"""Bytes of a character in UTF-8."""

Search = tuple[Callable[[int], int], str]
"""(from where -> the next position, or -1; the refusal it means, or empty: the document there matters)"""


class Judge:
    """Applies the proof to a stream; *text* is always cut out of it so that it begins with a line break."""

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self._markers = (*interest.markers, *(marker for marker in BASE64_MARKERS if marker not in interest.markers))
        self._verdicts: dict[bytes, Verdict] = {}

    def signatures(self, text: bytes, end: int) -> list[bytes]:
        """One for each document of text[:end], which begins with a marker line."""
        return (b"\n" + self.lines(text, end)).split(MARKER_LINE)[1:]

    def lines(self, text: bytes, end: int) -> bytes:
        return b"\n".join(_COLUMN_0.findall(text, 0, end))

    def verdict(self, signature: bytes) -> Verdict:
        """By conditions 2 to 5, and by the marker line and directives."""
        verdict = self._verdicts.get(signature)
        if verdict is None:
            verdict = self._judge(signature)
            if len(signature) <= MEMO_LENGTH:
                if len(self._verdicts) >= MEMO_ENTRIES:
                    self._verdicts.clear()
                self._verdicts[signature] = verdict
        return verdict

    def _judge(self, signature: bytes) -> Verdict:
        marker, *rest = signature.split(b"\n")
        lines = [line for each in rest if (line := each.removesuffix(b"\r"))]
        if not _MARKER_REST.fullmatch(marker.removesuffix(b"\r")):
            return Verdict(passes=False, refusal="marker")
        if any(line.startswith((b"%YAML", b"%TAG")) for line in lines):
            return Verdict(passes=False, refusal="directive")
        if not lines:
            return EMPTY
        told: dict[bytes, str] = {}
        for line in lines:
            match = _KEY.fullmatch(line)
            if match is None:
                return MATTERS
            key, value = match.groups(b"")
            if key.lower() in _TELLING:
                word = _WORD.fullmatch(value)
                if key not in {b"kind", b"apiVersion"} or key in told or word is None:
                    return MATTERS
                told[key] = word[1].decode()
        if len(told) < 2 or self._interest.kinds(told[b"apiVersion"], told[b"kind"]):
            return MATTERS
        return ORDINARY

    def searches(self, text: bytes, end: int) -> Iterator[Search]:
        """A search for each thing of conditions 1 and 6 that stands in text[:end]."""
        for search, refusal in self._candidates(text, end):
            if search(0) >= 0:
                yield search, refusal

    def _candidates(self, text: bytes, end: int) -> Iterator[Search]:
        for marker in self._markers:
            yield _bytes(text, marker, end), ""
        yield _bytes(text, b"\0", end), "nul"
        if b"\\" in text:
            yield _pattern(text, _ESCAPE, end), ""
        if b"!" in text:
            yield _pattern(text, _BINARY_TAG, end), ""
        if b"\r" in text and text.count(b"\r", 0, end) != text.count(b"\r\n", 0, end):
            yield _pattern(text, _LONE_CR, end), ""
        if not text.isascii():
            yield _undecodable(text, end), "encoding"
            for sign in (BOM, *_UNICODE_BREAKS):
                yield _bytes(text, sign, end), ""


def _bytes(text: bytes, sought: bytes, end: int) -> Callable[[int], int]:
    return lambda position: text.find(sought, position, end)


def _pattern(text: bytes, pattern: re.Pattern[bytes], end: int) -> Callable[[int], int]:
    def search(position: int) -> int:
        match = pattern.search(text, position, end)
        return match.start() if match else -1

    return search


def _undecodable(text: bytes, end: int) -> Callable[[int], int]:
    def search(position: int) -> int:
        # In portions, because an error copies what was to be decoded.
        while position < end:
            stop = min(position + PORTION, end)
            try:
                text[position:stop].decode()
            except UnicodeDecodeError as error:
                at_edge = stop < end and stop - position - error.start < MAX_CHARACTER and error.start
                if not at_edge:
                    return position + error.start
                stop = position + error.start
            position = stop
        return -1

    return search


class Piecemeal:
    """The judgement of one document that comes in pieces, because it is too long to keep."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._signature = b""
        self._verdict: Verdict | None = None

    def add(self, text: bytes, end: int) -> None:
        """Judges text[:end], cut where `cut` says; the first piece begins with the marker line."""
        first = not self._signature
        found = [Verdict(passes=False, refusal=refusal) for _, refusal in self._judge.searches(text, end)]
        lines = self._judge.lines(text, end)
        self._signature = b"\n" + lines if first else self._signature + (b"\n" + lines if lines else b"")
        begun = not first or self._judge.verdict(lines.removeprefix(b"---")).content
        if not begun or len(self._signature) > SIGNATURE_MAX:
            # What comes first is not known, or too much is: not worth a proof.
            found.append(MATTERS)
            self._signature = self._signature[:SIGNATURE_MAX]
        if found and not (self._verdict and self._verdict.refusal):
            self._verdict = max(found, key=lambda verdict: bool(verdict.refusal))

    def give_up(self) -> None:
        """A piece could not be cut off: not worth a proof."""
        self._verdict = self._verdict or MATTERS

    def verdict(self) -> Verdict:
        return self._verdict or self._judge.verdict(self._signature.removeprefix(MARKER_LINE))


OVERLAP = 64


def cut(text: bytes) -> tuple[int, int] | None:
    """(where a piece ends, where the next begins) so that both, judged apart, tell what they would tell together.

    That is after an indented line, whose line break both have; else, if the text is within one long line, anywhere,
    with an overlap that no marker is longer than. None: nowhere.
    """
    last = text.rfind(b"\n ")
    for start in (last, text.rfind(b"\n ", 0, max(last, 0))):
        end = text.find(b"\n", start + 1)
        if start >= 0 and end > 0:
            return end + 1, end
    if text.find(b"\n", 1) >= 0:
        return None
    return _between(text, len(text) - MAX_CHARACTER), _between(text, len(text) - MAX_CHARACTER - OVERLAP)


def _between(text: bytes, position: int) -> int:
    """A position at or shortly before *position* that is not within a character."""
    for each in range(position, max(position - MAX_CHARACTER, 0), -1):
        if text[each] & 0xC0 != 0x80:
            return each
    return max(position, 0)
