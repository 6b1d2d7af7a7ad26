"""Ranges of a document's text around nodes: where a pair or an item begins and ends, as its neighbours see it."""

import re

from secretweave.errors import BadReference
from secretweave.yamltree import Mapping, Node, Scalar


def removal(text: str, key: Scalar, value: Node) -> tuple[int, int]:
    """The range that takes the pair out of its mapping, block or flow, with its comma or its line break."""
    return _without(text, key.start, value.end)


def item_removal(text: str, item: Mapping) -> tuple[int, int]:
    """The range that takes an item out of its sequence."""
    dash = _dash(text, item)
    return _without(text, item.start if dash is None else dash, item.end)


def _without(text: str, start: int, end: int) -> tuple[int, int]:
    line = text.rfind("\n", 0, start) + 1
    after = re.compile(r"\s*,\s*").match(text, end)
    if after:
        return start, after.end()
    before = re.compile(r"\s*,\s*$").search(text, 0, start)
    if before:
        return before.start(), end
    if not text[line:start].strip(" "):
        rest = re.compile(r"[ \t]*(#[^\n]*)?(\r?\n|$)").match(text, end)
        return line, end if text[end - 1 : end] == "\n" or rest is None else rest.end()
    return start, end


def pair(text: str, key: Scalar, value: Node) -> tuple[int, int, str]:
    """A pair's range, and the line break that its end includes (a block scalar's does).

    Raises BadReference: the value stands elsewhere, behind an alias, or the key is written as `? key`.
    """
    if value.start < key.end or not re.fullmatch(r"\s*:(\s|#[^\n]*\n)*", text[key.end : value.start]):
        raise BadReference(
            "a reference behind a YAML alias or an explicit key",
            why="the item cannot be rewritten where it stands",
            fix="write the reference out as `key: value`",
        )
    if text[: key.start].rstrip(" ").endswith("?"):
        raise BadReference("a reference under an explicit key (`? key`)", fix="write it as `key: value`")
    tail = re.search(r"(\r?\n)+$", text[value.start : value.end])
    return key.start, value.end, tail.group() if tail else ""


def before_item(text: str, item: Mapping) -> tuple[int, str, str]:
    """Where another item can be put before *item*, and what stands before and after it there."""
    dash = _dash(text, item)
    if dash is None:
        return item.start, "", ", "
    line = text.rfind("\n", 0, dash) + 1
    indent = text[line:dash]
    if indent.strip(" "):
        raise BadReference(
            "a list item that shares its line with the list's own key or item",
            fix="write the list as one item per line",
        )
    return dash, "- ", "\n" + indent


def _dash(text: str, item: Mapping) -> int | None:
    """The `-` of a block item; None: a flow sequence."""
    found = re.compile(r"-\s+(?:#[^\n]*\n\s*)*$").search(text, max(0, item.start - 500), item.start)
    return found.start() if found and text[: found.start()].rstrip(" ")[-1:] in {"", "\n", "-"} else None
