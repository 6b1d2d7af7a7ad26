"""What the proof lets pass unparsed holds nothing that matters, by two parsers that are not ours to change."""

import base64
import io
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from secretweave.errors import SecretweaveError
from secretweave.reading.manifests import Interest, Reader
from secretweave.reading.spool import Spool
from tests import yaml_fuzz
from tests.sizes import examples

INTEREST = Interest((b"secret://",), lambda _, kind: kind == "Secret")
LIMIT = 4 << 20


def passes(data: bytes, limit: int = LIMIT) -> bool:
    """Whether nothing of the stream is parsed or refused."""
    faults: list[SecretweaveError] = []
    with Spool() as spool:
        documents = list(Reader([("stdin", io.BytesIO(data))], spool, INTEREST, limit, faults))
    return not documents and not faults


Pairs = list[tuple[Any, Any]]


def composed(data: bytes, *, pure: bool) -> list[Any]:
    """Every document of *data*: scalars as text, mappings as lists of pairs, sequences as tuples."""
    events = iter(YAML(typ="safe", pure=pure).parse(io.BytesIO(data)))
    anchors: dict[str, Any] = {}

    def node(event: Any) -> Any:
        if isinstance(event, AliasEvent):
            return anchors.get(event.anchor)
        made: Any
        if isinstance(event, ScalarEvent):
            made = event.value
            if event.tag and str(event.tag).endswith("binary"):
                made = base64.b64decode(made).decode(errors="replace")
        elif isinstance(event, SequenceStartEvent):
            made = tuple(nodes())
        else:
            assert isinstance(event, MappingStartEvent)
            flat = list(nodes())
            made = list(zip(flat[::2], flat[1::2], strict=True))
        if event.anchor:
            anchors[event.anchor] = made
        return made

    def nodes() -> Iterator[Any]:
        while type(event := next(events)).__name__ not in {"SequenceEndEvent", "MappingEndEvent"}:
            yield node(event)

    roots = []
    while not isinstance(event := next(events), StreamEndEvent):
        if isinstance(event, DocumentStartEvent):
            roots.append(node(next(events)))
    return roots


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, tuple | list):
        for each in node:
            yield from texts(each)


def root_pairs(root: Pairs) -> Iterator[tuple[Any, Any]]:
    for key, value in root:
        yield key, value
        if key == "<<":
            merged = [value] if isinstance(value, list) else value
            for each in merged if isinstance(merged, tuple | list) else ():
                yield from root_pairs(each) if isinstance(each, list) else ()


def matters(data: bytes, *, pure: bool) -> bool:
    """Whether a reader finds in *data* an object to be looked at; what it cannot read is no object."""
    try:
        roots = composed(data, pure=pure)
    except (YAMLError, ValueError):
        return False
    for root in roots:
        if any("secret://" in text for text in texts(root)):
            return True
        if not isinstance(root, list):
            if root not in ("", None):
                return True
            continue
        for key, value in root_pairs(root):
            if (key == "kind" and value == "Secret") or key == "items":
                return True
    return len(roots) > 1


@given(st.randoms(use_true_random=False))
@examples(1500)
def test_what_passes_matters_to_no_parser(random: Random) -> None:
    data = yaml_fuzz.document(random)
    if b"\n---" in data or not passes(data):
        return
    assert not matters(data, pure=False)
    assert not matters(data, pure=True)


@given(st.randoms(use_true_random=False))
@examples(500)
def test_judged_in_pieces_nothing_more_passes(random: Random) -> None:
    data = yaml_fuzz.document(random)
    if passes(data, limit=1):
        assert passes(data)


def test_the_fuzz_is_about_something() -> None:
    documents = [yaml_fuzz.document(Random(seed)) for seed in range(2000)]
    passing = [data for data in documents if passes(data)]
    assert 300 < len(passing) < 1500
    assert len(set(passing)) > 200
    assert sum(matters(data, pure=False) for data in documents if data not in passing) > 100
