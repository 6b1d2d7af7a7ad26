"""What the scan gathers, and one document under scan: the way from a node to a place, a use, an edit."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Literal, NamedTuple

from secretweave import policy, references
from secretweave.config import Config
from secretweave.edits import Edit, Entry, NestedText, NewSecret, Piece, Removal, Swap, Token
from secretweave.errors import BadReference, Faults, InputError, SecretweaveError, Where
from secretweave.model import Address, Reference, Use
from secretweave.reading.manifests import FAULTS_MAX, Document
from secretweave.scan.objects import Object
from secretweave.scan.spans import item_removal
from secretweave.text.scalars import parent_indentation
from secretweave.yamltree import Scalar, Tree

Sink = Literal["secret", "env", "mapping", "elsewhere"]
BYTES_OF_A_NODE = 4
SLACK = 1000
"""What a document may unfold into: a node for so many of its bytes, and these. Only aliases can make more."""
NO_SCALAR = '""'
"""The source of a Token that takes the place of what was no scalar."""
TEXT_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})


class Options(NamedTuple):
    """What a run is told besides its configuration."""

    namespace: str | None = None
    """Of objects that name none."""
    mask: bool = False
    """Literal values of Secrets are edited too: they become masks."""


class Made(NamedTuple):
    """A Secret that the stream holds or will hold: for each name, one."""

    where: Where
    by: str
    """`stream`, `mapping` or `workload`."""


class Merged:
    """The one Secret that the SecretMappings of one target become; it stands where the first of them stood."""

    def __init__(self, secret: NewSecret, hooks: dict[str, str], where: Where) -> None:
        self.secret = secret
        self.hooks = hooks
        """The labels and hook annotations of the first: all must agree on them."""
        self.where = where
        self.entries: dict[str, Entry] = {}


class Findings:
    """What the scan has gathered; filled document by document, then only read."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.edits: list[Edit] = []
        self.kinds: list[policy.Kind] = []
        self.resources: list[policy.Resource] = []
        self.mappings: dict[tuple[str | None, str], Merged] = {}
        self.secrets: dict[tuple[str | None, str], Made] = {}
        self.faults: list[SecretweaveError] = []
        self.warnings: list[tuple[Where, str]] = []

    def claim(self, name: str, namespace: str | None, made: Made) -> None:
        """Notes a Secret of the stream; a fault is kept where another has its name."""
        other = self.secrets.setdefault((namespace, name), made)
        if other is not made and not made.by == other.by == "stream":
            self.faults.append(
                InputError(
                    f"two Secrets named {name} in one namespace",
                    where=made.where,
                    why=f"the other one: {other.where}",
                    fix="rename one of them",
                )
            )


class Page:
    """One document under scan: its tree, and the way from a node to a place, a use, an edit."""

    def __init__(self, document: Document, tree: Tree, config: Config, options: Options, found: Findings) -> None:
        self.document = document
        self.tree = tree
        self.config = config
        self.options = options
        self.found = found
        self.newline = "\r\n" if "\r\n" in tree.text else "\n"
        self.visits = min(config.settings.limits.nodes, len(document.data) // BYTES_OF_A_NODE + SLACK)
        self._template = template(document.data)
        self.taken_variables: frozenset[str] | None = None
        """Names like those of our variables in the document; None: nobody has asked."""
        self._rewritten: list[tuple[int, int]] = []
        self._edited: dict[tuple[int, int], Edit] = {}

    def visit(self) -> None:
        """Counts a node looked at. Raises InputError: aliases make too many of few."""
        self.visits -= 1
        if self.visits < 0:
            raise InputError(
                "the document's aliases unfold into too many nodes",
                fix="write out what they stand for, or cut the document up",
            )

    @property
    def allows_default_store(self) -> bool:
        """Of reference objects without a store; a URI says so by an empty one."""
        return self.config.settings.references.default_store == "allow"

    def offset(self, index: int) -> int:
        """The absolute byte offset of a code point index of this document."""
        return self.document.start + self.tree.offset(index)

    def removal(self, found: Removal) -> Removal:
        """A removal of this document's code points as one of the input's bytes."""
        before, after = (None if index is None else self.offset(index) for index in (found.before, found.after))
        return Removal(self.offset(found.start), self.offset(found.end), before, after)

    def without(self, obj: Object) -> Edit:
        """The edit that takes a whole object out. Raises InputError: not out of this list."""
        if obj.siblings is not None:
            return self.removal(item_removal(self.tree.text, obj.node, obj.siblings))
        return Swap(self.document.begin, self.document.end, "")

    def where(self, obj: Object | None, line: int, field: str) -> Where:
        title, path = (obj.title, obj.path) if obj else ("", "")
        line += self.document.line + 1
        return Where(self.document.source, self.document.index, line, title, path + field, self._template)

    def fault(self, fault: SecretweaveError, where: Where) -> None:
        """Keeps a fault, or each of several, told where it stands; not the thousand-and-first, which nobody reads."""
        room = FAULTS_MAX - len(self.found.faults)
        for each in (fault.faults if isinstance(fault, Faults) else [fault])[: max(room, 0)]:
            self.found.faults.append(each.at(where))

    def use(self, reference: Reference, obj: Object, where: Where, sink: Sink) -> Use | None:
        """A value needed at *where*; None, and a fault kept, where no store answers to the name."""
        try:
            store = self.config.store(reference.store, obj.namespace)
        except SecretweaveError as unknown:
            self.fault(unknown, where)
            return None
        if reference.cast and sink != "elsewhere":
            self.fault(
                BadReference(
                    f"?as={reference.cast} where only text can stand",
                    why="the values of a Secret and of an environment variable are text",
                    fix=f"take ?as={reference.cast} away",
                ),
                where,
            )
            return None
        address = Address(store.id, reference.ref, reference.version)
        field = where.field.removeprefix(obj.path)
        found = Use(reference, store, address, where, obj.api_version, obj.kind, obj.namespace, obj.name, field, sink)
        self.found.uses.append(found)
        return found

    def pieces(
        self, parts: Iterable[references.Piece], obj: Object, where: Where, sink: Sink
    ) -> tuple[Piece, ...] | None:
        """The pieces with each reference bound to its store; None, and faults kept, where one cannot be."""
        bound: list[Piece] = []
        whole = True
        for part in parts:
            if isinstance(part, str):
                bound.append(part)
            elif isinstance(part, references.Nested):
                inner = self.pieces(part.pieces, obj, where, sink)
                whole = whole and inner is not None
                bound.append(NestedText(inner or ()))
            else:
                use = self.use(part, obj, where, sink)
                whole = whole and use is not None
                if use is not None:
                    bound.append(use)
        return tuple(bound) if whole else None

    def read(self, node: Scalar, where: Where, text: str | None = None) -> tuple[references.Piece, ...] | None:
        """The pieces of a scalar's text (or of *text* for it); None: no reference, or a fault, which is kept."""
        if node.tag not in TEXT_TAGS and references.may_hold(node.value):
            self.fault(
                BadReference(
                    "a reference under a YAML tag",
                    why="the tag says that the scalar is no plain text",
                    fix="write the reference without the tag",
                ),
                where,
            )
            return None
        try:
            return references.unwrap(node.value if text is None else text)
        except SecretweaveError as bad:
            self.fault(bad, where)
            return None

    def token(self, node: Scalar, pieces: tuple[Piece, ...], where: Where) -> Token:
        """The edit that replaces a scalar by its woven text."""
        source = self.tree.text[node.start : node.end]
        parent = self.parent_indentation(node)
        return Token(self.offset(node.start), self.offset(node.end), source, node.style, pieces, where, parent)

    def parent_indentation(self, node: Scalar) -> int | None:
        """That of the collection around a block scalar; the other styles do not ask, and their lines can be long."""
        return parent_indentation(self.tree.text, node.start) if node.style in {"|", ">"} else None

    def edit(self, edit: Edit, where: Where) -> None:
        """Keeps an edit. One place reached twice through an alias is edited once, if both ways agree."""
        span = edit.start, edit.end
        if span[0] == span[1] or span not in self._edited:
            self._edited[span] = edit
            self.found.edits.append(edit)
        elif _intent(self._edited[span]) != _intent(edit):
            self.fault(
                BadReference(
                    "a reference behind a YAML alias that is used in two different ways",
                    why="the anchor's one text cannot become two",
                    fix="write the reference out in both places",
                ),
                where,
            )

    def rewritten(self, edit: Edit) -> None:
        """Notes a place whose edit is kept elsewhere until the stream has ended."""
        self._rewritten.append((edit.start, edit.end))

    def finish(self) -> None:
        """Refuses what an alias elsewhere would miss: the anchors in what is rewritten as a whole are gone."""
        edited = ((edit.start, edit.end) for edit in self._edited.values() if not _keeps_anchor(edit))
        gone = sorted([*edited, *self._rewritten])
        for position, target in self.tree.aliases if gone else ():
            place, anchor = self.offset(position), self.offset(target)
            start, end = gone[max(bisect_right(gone, (anchor, self.document.end)) - 1, 0)]
            if start <= anchor < end and not start <= place < end:
                line = self.tree.text.count("\n", 0, position)
                self.fault(
                    BadReference(
                        "a YAML alias for a place that is rewritten",
                        why="its anchor stands in a reference, which does not stay",
                        fix="write out what the alias stands for",
                    ),
                    self.where(None, line, ""),
                )


_SOURCE = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\n)*?# Source: ([^\r\n]{1,512})")
_FILENAME = re.compile(rb"postrenderer\.helm\.sh/postrender-filename[\"']?: *[\"']?([\w./-]{1,512})")


def template(data: bytes) -> str:
    """The chart's file that a document comes from: Helm 3 says it in a comment, Helm 4 in an annotation."""
    found = _SOURCE.match(data) or _FILENAME.search(data)
    return found[1].decode(errors="replace") if found else ""


def _keeps_anchor(edit: Edit) -> bool:
    """A scalar is woven behind its own anchor; that of a reference object goes with it."""
    return isinstance(edit, Token) and edit.source != NO_SCALAR


def _intent(edit: Edit) -> object:
    """What an edit does, whatever the place it was reached from."""
    if not isinstance(edit, Token):
        return edit
    pieces = [piece.address if isinstance(piece, Use) else piece for piece in edit.pieces]
    return edit.start, edit.end, pieces, edit.base64, edit.removal
