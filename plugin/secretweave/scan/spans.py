"""Ranges of a document's text around nodes: where a pair or an item begins and ends, as its neighbours see it.

Each looks at the neighbourhood only: a document may be one long line with thousands of references.
"""

import re

from secretweave.edits import Removal
from secretweave.errors import BadReference
from secretweave.yamltree import Mapping, Node, Scalar, Sequence

_COMMA = re.compile(r"\s*,\s*")
_COMMENTED_COMMA = re.compile(r"\s+(?:#[^\n]*\n\s*)+,")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_REST_OF_LINE = re.compile(r"[ \t]*(#[^\n]*)?(\r?\n|$)")
_SEPARATOR = re.compile(r"\s*:(\s|#[^\n]*\n)*")
_BEFORE_ITEM = re.compile(r"[ \t]*(?:[-?:][ \t]+)*-[ \t]*(?:#.*)?\r?")
"""A line that ends with the `-` of an item, and a comment behind it."""
_NO_CONTENT = re.compile(r"[ \t]*(?:#.*)?\r?")


def removal(text: str, key: Scalar, value: Node, mapping: Mapping) -> Removal:
    """What takes the pair out of its mapping.

    Raises BadReference, as `pair` does, or where a comment stands between the value and its comma, or where a merge key
    takes the mapping, which may not become empty, or stands in it, and may bring another value.
    """
    if mapping.merged:
        raise BadReference(
            "an optional reference in a mapping with a merge key, or that one takes elsewhere",
            fix="write the mapping out, or give the reference a default",
        )
    start, end, _ = pair(text, key, value)
    return _out_of_flow(text, start, end) if mapping.flow else _out_of_block(text, start, end)


def item_removal(text: str, item: Mapping, siblings: Sequence) -> Removal:
    """What takes an item out of its sequence. Raises BadReference: it stands elsewhere, behind an alias."""
    _in_place(item, siblings)
    return (
        _out_of_flow(text, item.start, item.end) if siblings.flow else _out_of_block(text, _dash(text, item), item.end)
    )


def _out_of_flow(text: str, start: int, end: int) -> Removal:
    after = _COMMA.match(text, end)
    if _COMMENTED_COMMA.match(text, end):
        raise BadReference(
            "an optional reference with a comment between it and its comma",
            fix="write the comment behind the comma, or give the reference a default",
        )
    gap = _back_over_space(text, start)
    if text[gap - 1 : gap] == "," and not _ends_comment(text, gap, start):
        return Removal(start, end, _back_over_space(text, gap - 1), after.end() if after else None)
    return Removal(start, end, None, after.end()) if after else _out_of_block(text, start, end)


def _ends_comment(text: str, end: int, start: int) -> bool:
    """Whether what ends at *end* is a comment: only the line break before *start* could end one."""
    if "\n" not in text[end:start]:
        return False
    line = _STRING.sub('""', text[text.rfind("\n", 0, end) + 1 : end])
    return re.search(r"(?:^|\s)#", line) is not None


def _out_of_block(text: str, start: int, end: int) -> Removal:
    line = text.rfind("\n", 0, start) + 1
    if text[line:start].strip(" "):
        return Removal(start, end)
    rest = _REST_OF_LINE.match(text, end)
    if text[end - 1 : end] != "\n" and rest is not None:
        end = rest.end()
    # Blank lines and deeper comments behind it could become text of a block scalar before it.
    while end < len(text):
        stop = text.find("\n", end) + 1 or len(text)
        following = text[end:stop].lstrip(" ")
        comment = following.startswith("#") and stop - end - len(following) > start - line
        if following.strip() and not comment:
            break
        end = stop
    return Removal(line, end)


def _back_over_space(text: str, position: int) -> int:
    while position and text[position - 1].isspace():
        position -= 1
    return position


def pair(text: str, key: Scalar, value: Node) -> tuple[int, int, str]:
    """A pair's range, and the line break that its end includes (a block scalar's does).

    Raises BadReference: the value stands elsewhere, behind an alias, or the key is written as `? key`.
    """
    if value.start < key.end or not _SEPARATOR.fullmatch(text, key.end, value.start):
        raise BadReference(
            "a reference behind a YAML alias or an explicit key",
            why="the item cannot be rewritten where it stands",
            fix="write the reference out as `key: value`",
        )
    gap = _back_over_space(text, key.start)
    if text[gap - 1 : gap] == "?":
        raise BadReference("a reference under an explicit key (`? key`)", fix="write it as `key: value`")
    tail = value.end
    while tail > value.start and text[tail - 1] in "\r\n":
        tail -= 1
    return key.start, value.end, text[tail : value.end]


def before_item(text: str, item: Mapping, siblings: Sequence) -> tuple[int, str, str]:
    """Where another item can be put before *item*, and what stands before and after it there.

    Raises BadReference: the item stands elsewhere, behind an alias, or shares its line with another.
    """
    _in_place(item, siblings)
    if siblings.flow:
        return item.start, "", ", "
    dash = _dash(text, item)
    line = text.rfind("\n", 0, dash) + 1
    indent = text[line:dash]
    if indent.strip(" "):
        raise BadReference(
            "a list item that shares its line with the list's own key or item",
            fix="write the list as one item per line",
        )
    return dash, "- ", "\n" + indent


def _in_place(item: Mapping, siblings: Sequence) -> None:
    if not siblings.start <= item.start < siblings.end:
        raise BadReference(
            "a list item behind a YAML alias",
            why="another item is to stand before it, which the alias would not bring along",
            fix="write the item out",
        )


def _dash(text: str, item: Mapping) -> int:
    """The `-` of an item of a block sequence; blank lines and comments can stand between.

    Raises BadReference: something else stands there, such as a line break that is neither LF nor CRLF.
    """
    end = item.start
    line = text.rfind("\n", 0, end) + 1
    while line and _NO_CONTENT.fullmatch(text, line, end):
        end = line - 1
        line = text.rfind("\n", 0, end) + 1
    if not _BEFORE_ITEM.fullmatch(text, line, end):
        raise BadReference(
            "a list item whose `-` is not on its own line or above it",
            why="line breaks other than LF and CRLF, a tag or an anchor can hide it",
            fix="write `- ` directly before the item",
        )
    comment = text.find("#", line, end)
    return text.rindex("-", line, end if comment < 0 else comment)
