"""One YAML document's bytes -> a tree whose nodes know their span; the only importer of ruamel.yaml's C parser.

The tree is built from libyaml's events, never constructed into Python values and never dumped: spans are all that the
weaver needs, and a round trip would rewrite bytes that are not ours. A document can be 4 MiB of which three scalars
matter, so the tree is pruned while it grows: a container that closes without anything live in it is forgotten.

Live is a scalar for which `alive` says yes, a mapping key for which it does, a `{store, ref}` object, a
`secretStoreRef`, a mapping as a value in `data`, and whatever holds one of these. `metadata`, and what has an anchor,
stay whole: an alias may yet put it where it matters. Items with a kind stay, with what names them.

Marks count code points (https://github.com/yaml/libyaml); `Tree.offset` turns them into bytes.
"""

import re
from collections.abc import Callable
from typing import Any

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

from secretweave.yamltree.builder import Builder, Reading
from secretweave.yamltree.nodes import BINARY_TAG, DULL, Mapping, Node, Scalar, Sequence, Tree, plain, twice

__all__ = [
    "BINARY_TAG",
    "DULL",
    "Mapping",
    "Node",
    "Reading",
    "Scalar",
    "Sequence",
    "Tree",
    "load",
    "parse",
    "plain",
    "twice",
]

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
UNLIKE = re.compile(r"[\x85\u2028\u2029]|\\(?:u|U0000)[Dd][89A-Fa-f]")
"""Line breaks for libyaml and for Go, not for ruamel.yaml's own parser; halves of characters, which only that takes."""


Built = tuple[Node, list[tuple[int, int]]]


def _documents(text: str, reading: Reading) -> list[Built]:
    try:
        return _built(CParser(text).get_event, reading)
    except MarkedYAMLError as error:
        if error.problem in UNREAD_FLOW and not UNLIKE.search(text):
            try:
                return _documents_slowly(text, reading)
            except YAMLError:
                pass
        raise _not_yaml(error) from None
    except YAMLError as error:
        reason = getattr(error, "reason", None) or "a character that YAML does not allow"
        raise InputError(f"not YAML: {reason}", fix="take that character out, or write it as an escape") from None


def _documents_slowly(text: str, reading: Reading) -> list[Built]:
    from ruamel.yaml import YAML

    return _built(iter(YAML(typ="safe", pure=True).parse(text)).__next__, reading)


def _built(get_event: Callable[[], Any], reading: Reading) -> list[Built]:
    roots = []
    while True:
        event = get_event()
        if isinstance(event, events.DocumentStartEvent):
            builder = Builder(get_event, reading)
            roots.append((builder.build(), builder.aliases))
        elif event is None or isinstance(event, events.StreamEndEvent):
            return roots


def _not_yaml(error: Any) -> InputError:
    line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
    return InputError(
        f"not YAML: {error.problem or error.context}",
        where=Where(line=line),
        fix="correct it there, or in the line before",
    )


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
    root, aliases = roots[0] if roots else (None, [])
    return Tree(root, text, aliases)


def load(data: bytes) -> list[Node]:
    """Every document of a small file (a configuration, a file of secrets), unpruned. Raises InputError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not UTF-8", fix="write the file as UTF-8") from None
    return [root for root, _ in _documents(text, Reading(whole=True))]
