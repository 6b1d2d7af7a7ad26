"""One YAML document's bytes -> a tree whose nodes know their span; the only importer of ruamel.yaml's C parser.

The tree is built from libyaml's events, never constructed into Python values and never dumped: spans are all that the
weaver needs, and a round trip would rewrite bytes that are not ours. A document can be 4 MiB of which three scalars
matter, so the tree is pruned while it grows: a container that closes without anything live in it is forgotten.

Live is a scalar for which `alive` says yes, a mapping key for which it does, a `{store, ref}` object, a
`secretStoreRef`, a mapping as a value in `data`, and whatever holds one of these. `metadata`, and what has an anchor,
stay whole: an alias may yet put it where it matters. Items with a kind stay, with what names them.

Marks count code points (https://github.com/yaml/libyaml); `Tree.offset` turns them into bytes.
"""

import base64
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from secretweave.errors import InputError, SecretweaveError, Where

try:
    from _ruamel_yaml import CParser
    from ruamel.yaml import events
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
except ImportError as missing:
    raise SecretweaveError(
        "the C part of ruamel.yaml is not installed",
        why="ruamel.yaml leaves it to an extra",
        fix="pip install 'ruamel.yaml[oldlibyaml]'",
    ) from missing

MAX_DEPTH = 100
MAX_NODES = 1_000_000

BINARY_TAG = "tag:yaml.org,2002:binary"
KEPT_KEYS = frozenset({"apiVersion", "kind", "metadata", "items", "name", "type"})
"""Keys whose pair stays as long as its mapping does."""
AMBIGUOUS_TWICE = KEPT_KEYS | {"namespace", "spec", "data", "stringData", "env", "value", "valueFrom", "store", "ref"}
"""Keys that may not stand twice: parsers differ in which one counts, and policy must judge what the cluster gets."""


MARKS_OF_A_REFERENCE = KEPT_KEYS | {"<<", "store", "ref", "secretStoreRef"}
CROWDED = 64
"""Pairs of one mapping that are kept until it closes; more than a reference object has members."""


class Scalar:
    """A scalar: its effective text, and where and how it is written."""

    __slots__ = ("end", "line", "live", "start", "style", "tag", "value")

    def __init__(self, value: str, style: str, tag: str | None, start: int, end: int, line: int) -> None:
        self.value = value
        self.style = style
        """Empty for plain, else one of `'`, `"`, `|`, `>`."""
        self.tag = tag
        self.start = start
        self.end = end
        self.line = line
        """Counted from 0 in the document."""
        self.live = False


class Mapping:
    """A mapping: its surviving pairs in order; merge keys (`<<`) are already followed, the merged pairs stand last."""

    __slots__ = ("crowded", "end", "flow", "line", "live", "pairs", "start", "tag", "twice")

    def __init__(self, flow: bool, tag: str | None, start: int, line: int) -> None:
        self.pairs: list[tuple[Scalar, Node]] = []
        self.flow = flow
        self.tag = tag
        self.start = start
        self.end = start
        self.line = line
        self.live = False
        self.twice: tuple[str, int] | None = None
        self.crowded = False
        """Pairs were let go before it closed: it is no reference object, whatever its keys say."""

    def get(self, key: str) -> "Node | None":
        return next((value for name, value in self.pairs if name.value == key), None)

    def text(self, key: str) -> str:
        """The scalar under *key*; empty: none, or null."""
        node = self.get(key)
        return node.value if isinstance(node, Scalar) and plain(node) is not None else ""


class Sequence:
    """A sequence; items that were forgotten are `DULL`, so that the indices stay right."""

    __slots__ = ("end", "flow", "items", "line", "live", "start", "tag")

    def __init__(self, flow: bool, tag: str | None, start: int, line: int) -> None:
        self.items: list[Node] = []
        self.flow = flow
        self.tag = tag
        self.start = start
        self.end = start
        self.line = line
        self.live = False


Node = Scalar | Mapping | Sequence
Container = Mapping | Sequence
DULL = Scalar("", "", None, 0, 0, 0)


class Tree(NamedTuple):
    """One document: its root (None: no content) and its text."""

    root: Node | None
    text: str

    def offset(self, index: int) -> int:
        """The byte offset of a code point index."""
        return index if self.text.isascii() else len(self.text[:index].encode())


class Reading(NamedTuple):
    """What a reader wants of a document."""

    alive: Callable[[str], bool] = lambda _: False
    """Which scalars matter."""
    whole: bool = False
    """Nothing is pruned; live is marked all the same."""
    depth: int = MAX_DEPTH
    nodes: int = MAX_NODES


class _Builder:
    """Takes one document's events off a parser and keeps what is live."""

    def __init__(self, get_event: Callable[[], Any], reading: Reading) -> None:
        self.next = get_event
        self.reading = reading
        self.left = reading.nodes
        self.anchors: dict[str, Node] = {}

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
                wholes.append(bool(event.anchor) or (key is not None and key.value == "metadata"))
                whole += wholes[-1]
                stack.append(made)
                keys.append(None)
                seen.append(set())
                continue
            elif kind is alias_event:
                end = event.end_mark.index
                if event.anchor not in self.anchors:
                    raise InputError("an alias names no anchor", where=Where(line=event.start_mark.line + 1))
                node = self.anchors[event.anchor]
                if node in stack:
                    raise InputError("an alias is part of what it names", where=Where(line=event.start_mark.line + 1))
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
                    _close(node, whole=bool(whole), field=len(keys) > 1 and _under_data(keys[-2]))
                whole -= wholes.pop()
            self.left -= 1
            if self.left < 0:
                raise InputError(
                    "the document has too many nodes",
                    fix="raise limits.nodes in the configuration if the manifest is meant so",
                )
            if not stack:
                return node
            parent = stack[-1]
            if isinstance(parent, Sequence):
                parent.items.append(node if whole or node.live or _is_object(node) else DULL)
                continue
            key = keys[-1]
            if key is None:
                if not isinstance(node, Scalar):
                    raise InputError("a mapping key is not a scalar", where=Where(line=node.line + 1))
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
            if len(parent.pairs) >= CROWDED and not whole:
                parent.crowded = True
                parent.pairs = _kept(parent.pairs, MARKS_OF_A_REFERENCE)


def _kept(pairs: list[tuple[Scalar, Node]], names: frozenset[str]) -> list[tuple[Scalar, Node]]:
    """The pairs that somebody may ask for: live ones, objects, and those under *names*."""
    return [
        (key, value)
        for key, value in pairs
        if value.live or key.live or key.value in names or (isinstance(value, Mapping) and _is_object(value))
    ]


def _close(node: Mapping, *, whole: bool, field: bool) -> None:
    """Decides whether a mapping is live, and lets go of the pairs that nobody will ask for."""
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
    if merged:
        node.pairs = _merge(node.pairs, merged)
    names = {key.value for key, _ in node.pairs}
    reference = field or {"store", "ref"} <= names or "secretStoreRef" in names
    node.live = reference or any(value.live or key.live for key, value in node.pairs)
    if not (whole or reference):
        node.pairs = _kept(node.pairs, KEPT_KEYS)


def _under_data(key: Scalar | None) -> bool:
    """A mapping as a value in a Secret's data can only be a reference object, or a mistake that must be told."""
    return key is not None and key.value in {"data", "stringData"}


def _is_live(node: Node | None) -> bool:
    return node is not None and node.live


def _is_object(node: Node) -> bool:
    return isinstance(node, Mapping) and any(key.value == "kind" for key, _ in node.pairs)


def _merge(pairs: list[tuple[Scalar, Node]], merged: list[Node]) -> list[tuple[Scalar, Node]]:
    """Pairs with merge keys followed (https://yaml.org/type/merge.html): an own key wins, then the first merged."""
    own = [pair for pair in pairs if pair[0].value != "<<" or pair[0].style]
    names = {key.value for key, _ in own}
    sources = [each for node in merged for each in (node.items if isinstance(node, Sequence) else [node])]
    for source in sources:
        if not isinstance(source, Mapping):
            raise InputError("a merge key (<<) whose value is no mapping", where=Where(line=source.line + 1))
        for key, value in source.pairs:
            if key.value not in names:
                names.add(key.value)
                own.append((key, value))
    return own


def _binary(node: Scalar) -> str:
    """The text of a `!!binary` scalar; bytes that are no UTF-8 stand in it as lone surrogates."""
    try:
        return base64.b64decode("".join(node.value.split()), validate=True).decode(errors="surrogateescape")
    except ValueError:
        raise InputError("a !!binary value is not base64", where=Where(line=node.line + 1)) from None


def twice(key: str, line: int) -> InputError:
    return InputError(
        "a mapping has the same key twice",
        where=Where(line=line + 1, field=key if re.fullmatch(r"[\w./-]{1,64}", key) else ""),
        why="parsers differ in which of the two counts",
        fix="keep one of them",
    )


UNREAD_FLOW = frozenset(
    {
        "found unexpected ':'",
        "did not find expected ',' or '}'",
        "did not find expected ',' or ']'",
        "did not find expected node content",
    }
)
"""What libyaml 0.1.7, which ruamel.yaml.clib bundles, says of `[http://x]` and its like: `:` and `?` in flow style.

Kubernetes reads them. Such a document is parsed again by ruamel.yaml's own parser, a fiftieth as fast.
"""
UNLIKE_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Line breaks for libyaml and for Go, not for ruamel.yaml's own parser."""


def _documents(text: str, reading: Reading) -> list[Node]:
    try:
        return _built(CParser(text).get_event, reading)
    except MarkedYAMLError as error:
        if error.problem in UNREAD_FLOW and not UNLIKE_BREAKS.search(text):
            try:
                return _documents_slowly(text, reading)
            except YAMLError:
                pass
        raise _not_yaml(error) from None
    except YAMLError as error:
        reason = getattr(error, "reason", None) or "a character that YAML does not allow"
        raise InputError(f"not YAML: {reason}") from None


def _documents_slowly(text: str, reading: Reading) -> list[Node]:
    from ruamel.yaml import YAML

    return _built(iter(YAML(typ="safe", pure=True).parse(text)).__next__, reading)


def _built(get_event: Callable[[], Any], reading: Reading) -> list[Node]:
    roots = []
    while True:
        event = get_event()
        if isinstance(event, events.DocumentStartEvent):
            roots.append(_Builder(get_event, reading).build())
        elif event is None or isinstance(event, events.StreamEndEvent):
            return roots


def _not_yaml(error: Any) -> InputError:
    line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
    return InputError(f"not YAML: {error.problem or error.context}", where=Where(line=line))


def parse(data: bytes, reading: Reading) -> Tree:
    """The tree of the one document in *data* (UTF-8, without its marker line).

    Raises InputError, its line counted from 1 in *data*: not YAML, a limit met, ambiguous, or more than one document.
    """
    text = data.decode()
    roots = _documents(text, reading)
    if len(roots) > 1:
        raise InputError(
            "a document marker where Kubernetes sees none",
            why="it follows a line break that is neither LF nor CRLF",
            fix="write every document marker on a line of its own",
        )
    return Tree(roots[0] if roots else None, text)


def load(data: bytes) -> list[Node]:
    """Every document of a small file (a configuration, a file of secrets), unpruned. Raises InputError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not UTF-8") from None
    return _documents(text, Reading(whole=True))


_INT = re.compile(r"-?(0|[1-9][0-9]{0,999})")
_FLOAT = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # type: ignore[dict-item]


def plain(node: Node) -> Any:
    """The Python value of a node by YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

    A number is one only if it is spelled as JSON would write it: a PIN 0755, a version 1.10 and 1e6 stay the text that
    they are, as does everything that is quoted or tagged `!!str`.
    """
    if isinstance(node, Mapping):
        if node.twice:
            raise twice(*node.twice)
        return {key.value: plain(value) for key, value in node.pairs}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    if node.tag == BINARY_TAG:
        return node.value.encode(errors="surrogateescape")
    if node.style or node.tag is not None:
        return node.value
    if node.value in _WORDS:
        return _WORDS[node.value]
    if _INT.fullmatch(node.value):
        return int(node.value)
    if _FLOAT.fullmatch(node.value) and repr(float(node.value)) == node.value:
        return float(node.value)
    return node.value
