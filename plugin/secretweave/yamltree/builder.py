"""Events -> the tree of one document, pruned while it grows."""

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from ruamel.yaml import events

from secretweave.errors import InputError, Where
from secretweave.yamltree.nodes import BINARY_TAG, DULL, Container, Mapping, Node, Scalar, Sequence, twice

MAX_DEPTH = 100
MAX_NODES = 1_000_000

KEPT_KEYS = frozenset({"apiVersion", "kind", "metadata", "items", "name", "type", "valueFrom"})
"""Keys whose pair stays as long as its mapping does."""
AMBIGUOUS_TWICE = KEPT_KEYS | {"namespace", "spec", "data", "stringData", "env", "value", "valueFrom", "store", "ref"}
"""Keys that may not stand twice: parsers differ in which one counts, and policy must judge what the cluster gets."""


MARKS_OF_A_REFERENCE = KEPT_KEYS | {"<<", "store", "ref", "secretStoreRef"}
WHOLE_UNDER = frozenset({"metadata", "<<"})
"""Keys whose value stays whole: what is merged counts only together with what it is merged into."""
CROWDED = 64
"""Pairs of one mapping that are kept until it closes; more than a reference object has members."""


class Reading(NamedTuple):
    """What a reader wants of a document."""

    alive: Callable[[str], bool] = lambda _: False
    """Which scalars matter."""
    whole: bool = False
    """Nothing is pruned; live is marked all the same."""
    depth: int = MAX_DEPTH
    nodes: int = MAX_NODES


class Builder:
    """Takes one document's events off a parser and keeps what is live."""

    def __init__(self, get_event: Callable[[], Any], reading: Reading) -> None:
        self.next = get_event
        self.reading = reading
        self.left = reading.nodes
        self.anchors: dict[str, Node] = {}
        self.aliases: list[tuple[int, int]] = []
        """(where an alias stands, where the node that it names begins), in code points."""

    def build(self) -> Node:  # noqa: PLR0915 - one loop over events: a call per event would cost a third
        """The root node of the document whose start event has just been taken."""
        alive, depth = self.reading.alive, self.reading.depth
        scalar_event, alias_event = events.ScalarEvent, events.AliasEvent
        mapping_start, sequence_start = events.MappingStartEvent, events.SequenceStartEvent
        stack: list[Container] = []
        keys: list[Scalar | None] = []
        seen: list[set[str]] = []
        whole = int(self.reading.whole)
        """Above 0 inside an anchor, in `metadata`, or where nothing is pruned."""
        wholes: list[bool] = []
        end = 0
        """Where the last content stood: a block collection's own end mark lies behind the comments that follow it."""
        while True:
            event = self.next()
            kind = type(event)
            node: Node
            if kind is scalar_event:
                mark = event.start_mark
                end = event.end_mark.index
                node = Scalar(event.value, event.style or "", event.tag and str(event.tag), mark.index, end, mark.line)
                if node.tag == BINARY_TAG:
                    node.value = _binary(node)
                if alive(node.value):
                    node.live = True
                if event.anchor:
                    self.anchors[event.anchor] = node
            elif kind is mapping_start or kind is sequence_start:
                mark = event.start_mark
                if len(stack) >= depth:
                    raise InputError(
                        f"nested deeper than {depth} levels",
                        where=Where(line=mark.line + 1),
                        fix="raise limits.depth in the configuration if the manifest is meant so",
                    )
                made = (Mapping if kind is mapping_start else Sequence)(
                    bool(event.flow_style), event.tag, mark.index, mark.line
                )
                if event.anchor:
                    self.anchors[event.anchor] = made
                key = keys[-1] if keys else None
                wholes.append(bool(event.anchor) or (key is not None and key.value in WHOLE_UNDER))
                whole += wholes[-1]
                stack.append(made)
                keys.append(None)
                seen.append(set())
                continue
            elif kind is alias_event:
                end = event.end_mark.index
                if event.anchor not in self.anchors:
                    raise _bad("an alias names no anchor", event.start_mark.line, "put the anchor before it")
                node = self.anchors[event.anchor]
                if node in stack:
                    raise _bad("an alias is part of what it names", event.start_mark.line, "write the text out")
                self.aliases.append((event.start_mark.index, node.start))
            else:
                node = stack.pop()
                keys.pop()
                seen.pop()
                if node.flow:
                    end = event.end_mark.index
                node.end = end
                if isinstance(node, Sequence):
                    node.live = any(item.live or _is_object(item) for item in node.items)
                else:
                    self.left -= _close(
                        node, self.left, whole=bool(whole), field=len(keys) > 1 and _under_data(keys[-2])
                    )
                whole -= wholes.pop()
            self.left -= 1
            if self.left < 0:
                raise _too_many()
            if not stack:
                return node
            parent = stack[-1]
            if isinstance(parent, Sequence):
                parent.items.append(node if whole or node.live or _is_object(node) else DULL)
                continue
            key = keys[-1]
            if key is None:
                if not isinstance(node, Scalar):
                    raise _bad("a mapping key is not a scalar", node.line, "write text as the key")
                keys[-1] = node
                continue
            keys[-1] = None
            text = key.value
            if text in seen[-1] and text != "<<":
                parent.twice = (text, key.line)
                if text in AMBIGUOUS_TWICE or node.live or key.live or _is_live(parent.get(text)):
                    raise twice(text, key.line)
            seen[-1].add(text)
            parent.pairs.append((key, node))
            if not whole and len(parent.pairs) >= max(CROWDED, 2 * parent.crowded):
                parent.pairs = _kept(parent.pairs, MARKS_OF_A_REFERENCE)
                parent.crowded = max(CROWDED, len(parent.pairs))


def _kept(pairs: list[tuple[Scalar, Node]], names: frozenset[str]) -> list[tuple[Scalar, Node]]:
    """The pairs that somebody may ask for: live ones, objects, and those under *names*."""
    return [
        (key, value)
        for key, value in pairs
        if value.live or key.live or key.value in names or (isinstance(value, Mapping) and _is_object(value))
    ]


def _bad(what: str, line: int, fix: str) -> InputError:
    """*line*: counted from 0."""
    return InputError(what, where=Where(line=line + 1), fix=fix)


def _too_many() -> InputError:
    return InputError(
        "the document has too many nodes",
        fix="raise limits.nodes in the configuration if the manifest is meant so",
    )


def _close(node: Mapping, most: int, *, whole: bool, field: bool) -> int:
    """Decides whether a mapping is live, and lets go of the pairs that nobody will ask for.

    Returns how many pairs were merged into it; raises InputError where they are more than *most*.
    """
    merges = [(key, value) for key, value in node.pairs if key.value == "<<"]
    for key, _ in merges:
        if key.tag is not None:
            raise InputError(
                "a merge key (<<) with a tag",
                where=Where(line=key.line + 1),
                why="parsers differ in whether it merges",
                fix="write it without",
            )
    merged = [value for key, value in merges if not key.style]
    count = _merge(node, merged, most) if merged else 0
    names = {key.value for key, _ in node.pairs}
    reference = field or {"store", "ref"} <= names or "secretStoreRef" in names
    node.live = reference or any(value.live or key.live for key, value in node.pairs)
    if not (whole or reference):
        node.pairs = _kept(node.pairs, KEPT_KEYS)
    return count


def _under_data(key: Scalar | None) -> bool:
    """A mapping as a value in a Secret's data can only be a reference object, or a mistake that must be told."""
    return key is not None and key.value in {"data", "stringData"}


def _is_live(node: Node | None) -> bool:
    return node is not None and node.live


def _is_object(node: Node) -> bool:
    return isinstance(node, Mapping) and any(key.value == "kind" for key, _ in node.pairs)


def _merge(node: Mapping, merged: list[Node], most: int) -> int:
    """Follows merge keys (https://yaml.org/type/merge.html): an own key wins, then the first merged.

    Returns how many pairs were looked at: a short document can merge a long mapping many times.
    """
    own = [pair for pair in node.pairs if pair[0].value != "<<" or pair[0].style]
    names = {key.value for key, _ in own}
    sources = [each for value in merged for each in (value.items if isinstance(value, Sequence) else [value])]
    count = 0
    for source in sources:
        if not isinstance(source, Mapping):
            raise _bad("a merge key (<<) whose value is no mapping", source.line, "name an anchor of a mapping")
        source.merged = True
        count += len(source.pairs) + 1
        if count > most:
            raise _too_many()
        for pair in source.pairs:
            if pair[0].value not in names:
                names.add(pair[0].value)
                own.append(pair)
    node.pairs = own
    node.merged = True
    return count


def _binary(node: Scalar) -> str:
    """The text of a `!!binary` scalar; bytes that are no UTF-8 stand in it as lone surrogates."""
    try:
        return base64.b64decode("".join(node.value.split()), validate=True).decode(errors="surrogateescape")
    except ValueError:
        raise _bad("a !!binary value is not base64", node.line, "correct the base64, or take the tag away") from None
