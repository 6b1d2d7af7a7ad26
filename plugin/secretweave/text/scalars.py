"""One scalar's source -> the source of another text in its place, which reads back as exactly that text.

Block and flow context, JSON, and one-line documents alike: what is written keeps to the scalar's own span, and where
the scalar's style cannot hold the text, it is double quoted, in the escapes that JSON and YAML share.
https://yaml.org/spec/1.2.2/#chapter-7-flow-style-productions, https://yaml.org/spec/1.2.2/#81-block-scalar-styles
"""

import re

_ESCAPED = re.compile('["\\\\\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')
"""Beside JSON's own: what YAML cannot hold raw, and what some reader takes for a line break or a BOM."""
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_NOT_RAW = "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
"""What only a double-quoted scalar can hold; tab and line feed are left to the styles."""

_PROPERTIES = r"(?:[&!]\S*(?:\s+|(?<=\s)#[^\r\n]*)*)*"
"""An anchor and a tag, with the white space and comments behind them: libyaml's span of a scalar begins with them."""
_HEADER = "[|>]([-+1-9]*)([ \\t]*(?:#[^\r\n\x85\u2028\u2029]*)?)(\\r\\n?|[\n\x85\u2028\u2029]|\\Z)"
MAX_INDENTATION = 9
"""The largest indentation indicator: https://yaml.org/spec/1.2.2/#8111-block-indentation-indicator."""


def escape(value: str) -> str:
    """*value* for the inside of a double-quoted string, of JSON and of YAML."""
    return _ESCAPED.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", value)


def quote(value: str) -> str:
    """*value* as a double-quoted scalar on one line."""
    return f'"{escape(value)}"'


def respell(source: str, style: str, value: str, *, newline: str = "\n", parent: int | None = None) -> str:
    """The source of *value* in the place of the scalar *source*, which spans what libyaml's event marks span.

    *style*: empty for plain, else one of `'`, `"`, `|`, `>`. *newline*: the line break for lines of a block scalar.
    *parent*: the indentation of the collection around, from `parent_indentation`; without it a text whose first line
    begins with white space cannot stay in a literal block, and is double quoted.
    """
    match = re.match(_PROPERTIES, source)
    assert match is not None
    properties = match[0]
    scalar = source[len(properties) :]
    if not source or (properties and not properties[-1].isspace()):
        # An empty scalar begins where its `:`, its `-` or its property ends.
        properties += " "
    if style == "'" and "\n" not in value and not re.search(_NOT_RAW, value):
        return properties + "'" + value.replace("'", "''") + "'"
    if style in {"|", ">"}:
        return properties + _block(scalar, style, value, newline, parent)
    return properties + quote(value)


def parent_indentation(text: str, start: int) -> int | None:
    """The indentation of the block collection whose value or item begins at *start*; None: not plain to see."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    dashes = re.match(r" *(?:- +)*", before)
    assert dashes is not None
    key = before[dashes.end() :]
    if not key:
        return before.rindex("-") if "-" in before else None
    if (
        not key.rstrip(" ").endswith(":")
        or re.match(r"[?:] |---|[\[{]", key)
        or re.search("[\t\r\x85\u2028\u2029]", key)
    ):
        return None
    return dashes.end()


def _block(scalar: str, style: str, value: str, newline: str, parent: int | None) -> str:
    header = re.match(_HEADER, scalar)
    assert header is not None
    literal = _literal(header[1], scalar[header.end() :], value, newline, parent) if style == "|" else None
    if literal is not None:
        indicators, lines = literal
        return f"|{indicators}{header[2]}{header[3] or newline}{lines}"
    # Its trailing blank lines belong to a block scalar's span.
    lines = scalar[header.start(3) :]
    tail = lines[len(lines.rstrip(" \r\n\x85\u2028\u2029")) :].lstrip(" ")
    comment = header[2].rstrip()
    # libyaml takes `|#` for a comment; behind a quote it wants a space.
    return f"{quote(value)}{' ' * comment.startswith('#')}{comment}{tail}"


def _literal(indicators: str, body: str, value: str, newline: str, parent: int | None) -> tuple[str, str] | None:
    """The indicators and the lines of a literal block scalar that holds *value*; None: it cannot."""
    text = value.rstrip("\n")
    if not text or re.search(_NOT_RAW, value) or re.search(_NOT_RAW, body.replace("\r\n", "\n")):
        return None
    unended = not body.endswith("\n")
    raw = re.findall(r"[^\n]*\n", body + newline if unended and body else body)
    digit = next((each for each in indicators if each.isdigit()), "")
    indentation = _indentation(raw, digit, parent)
    if indentation is None:
        return None
    if not digit and text.lstrip("\n")[0] in " \t":
        # The first line's own white space would be taken for indentation.
        if parent is None or not 0 < indentation - parent <= MAX_INDENTATION:
            return None
        digit = str(indentation - parent)
    old = [line.rstrip("\r\n")[indentation:] for line in raw]
    while old and not old[-1]:
        old.pop()
    tail = raw[len(old) :]
    chomping = next((each for each in indicators if each in "+-"), "")
    wanted = len(value) - len(text)
    if wanted != (0 if unended else {"-": 0, "": 1, "+": 1 + len(tail)}[chomping]):
        chomping = {0: "-", 1: ""}.get(wanted, "+")
        unended = unended and not wanted
        tail = [newline] * (wanted - 1) if wanted > 1 else tail
    new = text.split("\n")
    lines = _lines(raw, old, new, indentation, newline)
    if unended:
        lines[-1] = lines[-1].rstrip("\r\n")
    kept = digit + chomping
    return (indicators if set(indicators) == set(kept) else kept), "".join(lines + tail)


def _indentation(raw: list[str], digit: str, parent: int | None) -> int | None:
    """Of the lines of a block scalar; None: it cannot be told from them."""
    if digit:
        return None if parent is None else parent + int(digit)
    return next((len(line) - len(line.lstrip(" ")) for line in raw if line.strip(" \r\n")), None)


def _lines(raw: list[str], old: list[str], new: list[str], indentation: int, newline: str) -> list[str]:
    """The raw lines of *new*; unchanged ones at its ends stay as they were, with what white space a blank one has."""
    most = min(len(old), len(new))
    first = next((index for index in range(most) if old[index] != new[index]), most)
    last = next((index for index in range(most - first) if old[-1 - index] != new[-1 - index]), most - first)
    middle = new[first : len(new) - last]
    written = (f"{' ' * indentation}{line}{newline}" if line else newline for line in middle)
    return [*raw[:first], *written, *raw[len(old) - last : len(old)]]
