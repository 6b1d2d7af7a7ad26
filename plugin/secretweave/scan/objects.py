"""The Kubernetes objects of a document: its root, or the items of a list, whatever its kind and however nested."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from secretweave.errors import InputError, Where
from secretweave.yamltree import Mapping, Node, Scalar, Sequence, plain

MAX_NAME = 253
"""Of a kind, an apiVersion, a namespace, a name and a key of a Secret; Kubernetes takes none that is longer.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""
MAX_PATH = 2048
"""Characters of a key path. Each reference is told with its own: long keys would make gigabytes of a small document."""


class Object(NamedTuple):
    """One object, and how a person finds it."""

    node: Mapping
    api_version: str
    kind: str
    namespace: str | None
    """The effective one: as written, else the run's; None: unknown."""
    name: str
    path: str
    """The key path from the document's root, such as `items[2].`; empty for the root itself."""
    siblings: Sequence | None
    """The list that it is an item of."""
    listed: bool
    """That list takes any kind, so that another object can be put before it."""
    items: frozenset[int]
    """The indices of `items` that are objects of their own."""

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def metadata(self) -> Mapping | None:
        node = self.node.get("metadata")
        return node if isinstance(node, Mapping) else None

    @property
    def title(self) -> str:
        """`Kind namespace/name`, for people."""
        place = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name
        return f"{self.kind or 'object'} {place}".rstrip()

    def written(self, section: str) -> tuple[tuple[str, str], ...]:
        """The scalars under `metadata.<section>` (labels, annotations), in order."""
        node = self.metadata.get(section) if self.metadata else None
        if not isinstance(node, Mapping):
            return ()
        scalars = ((key.value, value) for key, value in node.pairs if isinstance(value, Scalar))
        return tuple((key, "" if plain(value) is None else value.value) for key, value in scalars)


def walk(root: Node, namespace: str | None) -> Iterator[Object]:
    """Every object of the document, a list before its items. *namespace* is for those that name none."""
    if isinstance(root, Mapping):
        yield from _walk(root, root.text("apiVersion"), root.text("kind"), namespace, "", None, False)


def _walk(
    node: Mapping,
    api_version: str,
    kind: str,
    namespace: str | None,
    path: str,
    siblings: Sequence | None,
    listed: bool,
) -> Iterator[Object]:
    metadata = node.get("metadata")
    here = metadata if isinstance(metadata, Mapping) else Mapping(False, None, 0, 0)
    name = here.text("name") or here.text("generateName").rstrip("-")
    items = node.get("items")
    told = kind.removesuffix("List") if kind.endswith("List") and kind != "List" else ""
    members = [
        (index, member)
        for index, member in enumerate(items.items if isinstance(items, Sequence) else ())
        if isinstance(member, Mapping) and (told or member.text("kind"))
    ]
    own_namespace = here.text("namespace") or namespace
    names = (own_namespace or "", name)
    if max(map(len, (api_version, kind, *names))) > MAX_NAME or not all(map(str.isprintable, names)):
        raise InputError(
            f"an object whose kind or name has more than {MAX_NAME} characters, or whose name cannot be printed",
            where=Where(line=node.line + 1),
            why="Kubernetes takes no such name",
            fix="correct it",
        )
    yield Object(
        node,
        api_version,
        kind,
        own_namespace,
        name,
        path,
        siblings,
        listed,
        frozenset(index for index, _ in members),
    )
    for index, member in members:
        yield from _walk(
            member,
            member.text("apiVersion") or api_version,
            member.text("kind") or told,
            namespace,
            f"{path}items[{index}].",
            items if isinstance(items, Sequence) else None,
            kind in {"List", ""},
        )


_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$-][A-Za-z0-9_$/-]*")


def step(path: str, key: str | int) -> str:
    """*path* one level deeper: `data` + `config.ini` -> `data["config.ini"]`, `env` + 2 -> `env[2]`.

    Raises InputError: the path gets too long.
    """
    if isinstance(key, int):
        return f"{path}[{key}]"
    if len(path) + len(key) > MAX_PATH:
        raise InputError(
            f"a key path of more than {MAX_PATH} characters", fix="shorten the keys, or write the text as a scalar"
        )
    if not _PLAIN_KEY.fullmatch(key):
        escaped = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{escaped}"]'
    return f"{path}.{key}" if path else key
