"""The nodes of a document's tree, and the Python values that they stand for."""

import re
from typing import Any

from secretweave.errors import InputError, Where

BINARY_TAG = "tag:yaml.org,2002:binary"


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

    __slots__ = ("crowded", "end", "flow", "line", "live", "merged", "pairs", "start", "tag", "twice")

    def __init__(self, flow: bool, tag: str | None, start: int, line: int) -> None:
        self.pairs: list[tuple[Scalar, Node]] = []
        self.flow = flow
        self.tag = tag
        self.start = start
        self.end = start
        self.line = line
        self.live = False
        self.twice: tuple[str, int] | None = None
        self.merged = False
        """A merge key takes its pairs elsewhere as well, or those of others into it, where its own may hide them."""
        self.crowded = 0
        """Above 0: pairs were let go before it closed, and it is no reference object, whatever its keys say."""

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


STRIDE = 1024


class Tree:
    """One document: its root (None: no content), its text and its aliases."""

    __slots__ = ("_milestones", "aliases", "root", "text")

    def __init__(self, root: Node | None, text: str, aliases: list[tuple[int, int]]) -> None:
        self.root = root
        self.text = text
        self.aliases = aliases
        """(where an alias stands, where the node that it names begins), in code points."""
        self._milestones: list[int] | None = None
        """The byte offset of each STRIDE-th code point: without them every offset would cost the text before it."""

    def offset(self, index: int) -> int:
        """The byte offset of a code point index."""
        if self.text.isascii():
            return index
        if self._milestones is None:
            self._milestones = [0]
            for start in range(0, len(self.text), STRIDE):
                self._milestones.append(self._milestones[-1] + len(self.text[start : start + STRIDE].encode()))
        near = index // STRIDE
        return self._milestones[near] + len(self.text[near * STRIDE : index].encode())


def twice(key: str, line: int) -> InputError:
    return InputError(
        "a mapping has the same key twice",
        where=Where(line=line + 1, field=key if re.fullmatch(r"[\w./-]{1,64}", key) else ""),
        why="parsers differ in which of the two counts",
        fix="keep one of them",
    )


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
