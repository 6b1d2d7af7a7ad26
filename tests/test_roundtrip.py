"""Streams of many documents: without a reference every byte passes, with some only their spans differ.

A document is made of fixed text and slots. A slot is a reference where it stands: a scalar of a Secret, or the pair of
an environment variable; what is woven must be the fixed text, with something else in the place of each slot.
"""

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave import config, pipeline, yamltree
from secretweave.outputs import Outside
from secretweave.pipeline import Run
from secretweave.yamltree import Reading
from tests.sizes import examples
from tests.test_weaving import LITERAL, effective, spell

VALUES = {"a": "plain", "b": 'two\nlines: "quoted" # and more\n', "c": "", "d": "ünï\u2028\t\x07"}


class Slot(NamedTuple):
    source: str


Pieces = list[str | Slot]
NAME = st.sampled_from(sorted(VALUES))
SPELLING = st.sampled_from(["{}", "'{}'", '"{}"', "!!str {}", "$({})"])
WORD = st.from_regex("[a-z][a-z0-9]{0,5}", fullmatch=True)
STYLE = st.sampled_from(["double", "single", "literal", "plain"])
COMMENT = st.sampled_from(["", " # a comment", "   #", " # it's: {odd} | text"])
LINES = st.sampled_from(["", "\n", "# on its own line\n", "\n  # indented\n\n"])


@st.composite
def literal(draw: st.DrawFn, indent: str) -> str:
    """A text that is no reference, spelled somehow, and what follows it on its line."""
    spelled = spell(draw(LITERAL), draw(STYLE), indent)
    return spelled if spelled.startswith("|") else spelled + draw(COMMENT)


@st.composite
def reference(draw: st.DrawFn) -> str:
    return draw(SPELLING).format(f"secret://shop/{draw(NAME)}")


@st.composite
def plain_document(draw: st.DrawFn) -> Pieces:
    kind = draw(st.sampled_from(["ConfigMap", "Secret", "Widget"]))
    text = f"apiVersion: v1\nkind: {kind}\nmetadata:\n  name: {draw(WORD)}\n{draw(LINES)}stringData:\n"
    for number in range(draw(st.integers(1, 3))):
        text += f"  k{number}: {draw(literal('  '))}\n{draw(LINES)}"
    return [text]


@st.composite
def secret(draw: st.DrawFn, name: str) -> Pieces:
    pieces: Pieces = [f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n"]
    for number in range(draw(st.integers(1, 4))):
        pieces += [f"{draw(LINES)}  k{number}: ", *draw(value(draw(literal("  "))))]
        pieces.append(draw(COMMENT) + "\n" if isinstance(pieces[-1], Slot) else "\n")
    return pieces


@st.composite
def value(draw: st.DrawFn, other: str) -> Pieces:
    return [Slot(draw(reference()))] if draw(st.booleans()) else [other]


@st.composite
def workload(draw: st.DrawFn, name: str) -> Pieces:
    dash = draw(st.sampled_from(["", "  "]))
    head = f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  template:\n    spec:\n"
    pieces: Pieces = [head + "      containers:\n"]
    for number in range(draw(st.integers(1, 2))):
        pieces.append(f"      {dash}- name: c{number}\n        {dash}env:\n")
        for each in range(draw(st.integers(1, 3))):
            pieces += draw(variable(f"V{each}", f"        {dash}"))
    return pieces


@st.composite
def variable(draw: st.DrawFn, name: str, indent: str) -> Pieces:
    found = Slot(f"value: {draw(reference())}")
    style = draw(st.sampled_from(["block", "reversed", "flow", "none"]))
    if style == "block":
        return [f"{indent}- name: {name}{draw(COMMENT)}\n{indent}  ", found, draw(COMMENT) + "\n"]
    if style == "reversed":
        return [f"{indent}- ", found, f"{draw(COMMENT)}\n{indent}  name: {name}\n"]
    if style == "flow":
        quoted = Slot(f'value: "secret://shop/{draw(NAME)}"')
        return [f"{indent}- {{ name: {name} ,", quoted, f" }}{draw(COMMENT)}\n"]
    return [f"{indent}- name: {name}\n{indent}  value: {draw(literal(indent + '  '))}\n"]


@st.composite
def json_workload(draw: st.DrawFn, name: str) -> Pieces:
    env = [{"name": f"V{n}", "value": draw(st.sampled_from(["@", "x"]))} for n in range(draw(st.integers(1, 3)))]
    pod = {"containers": [{"name": "c", "env": env, "args": [draw(LITERAL.filter(str.isascii))]}]}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
    text = json.dumps(whole, indent=draw(st.sampled_from([None, 0, 2]))) + "\n"
    pieces: Pieces = []
    for part in re.split(r'("value": "@")', text):
        pieces.append(Slot(part.replace("@", f"secret://shop/{draw(NAME)}")) if part == '"value": "@"' else part)
    return pieces


@st.composite
def listed(draw: st.DrawFn, name: str) -> Pieces:
    pieces: Pieces = ["apiVersion: v1\nkind: List\nitems:\n"]
    for number in range(draw(st.integers(1, 3))):
        inner = draw(st.sampled_from([secret, workload]))(f"{name}-{number}")
        lines = "".join(piece if isinstance(piece, str) else f"\0{piece.source}\0" for piece in draw(inner))
        lines = "".join(f"  {line}" if line.strip() else line for line in lines.splitlines(keepends=True))
        parts = ("- " + lines[2:]).split("\0")
        pieces += [Slot(part) if index % 2 else part for index, part in enumerate(parts)]
    return pieces


@st.composite
def stream(draw: st.DrawFn, *, plain: bool) -> Pieces:
    """Documents with what can stand between them; named apart, so that no two generated Secrets meet."""
    pieces: Pieces = [draw(st.sampled_from(["", "---\n", "# first\n---\n", "\n\n"]))]
    for number in range(draw(st.integers(1, 4))):
        bare = plain or draw(st.booleans())
        pieces += draw(plain_document() if bare else draw(st.sampled_from(MAKERS))(f"n{number}"))
        pieces.append(draw(st.sampled_from(["---\n", "--- # comment\n", "...\n---\n", "---\n---\n", "---   \n"])))
    pieces += draw(plain_document())
    if draw(st.booleans()):
        pieces = [_each(piece, lambda text: text.replace("\n", "\r\n")) for piece in pieces]
    if draw(st.booleans()):
        pieces[0] = f"\ufeff{pieces[0]}" if isinstance(pieces[0], str) else pieces[0]
    last = pieces[-1]
    if draw(st.booleans()) and isinstance(last, str):
        pieces[-1] = last.rstrip("\r\n")
    return pieces


def _each(piece: str | Slot, change: Any) -> str | Slot:
    return change(piece) if isinstance(piece, str) else piece


MAKERS = (secret, workload, json_workload, listed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> config.Config:
    folder: Path = tmp_path_factory.mktemp("store")
    (folder / "secrets.json").write_text(json.dumps(VALUES))
    (folder / "secrets.json").chmod(0o600)
    (folder / "config.yaml").write_text(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: shop}\n"
        "spec: {file: {path: secrets.json}}\n"
    )
    return config.load(str(folder / "config.yaml"), {})


def weave(source: str, store: config.Config) -> str:
    out = io.BytesIO()
    outside = Outside({}, time.monotonic() + 60, lambda _: None)
    pipeline.weave([("stdin", io.BytesIO(source.encode()))], out, store, Run(), outside)
    return out.getvalue().decode()


@given(stream(plain=True))
@examples(150)
def test_a_stream_without_references_passes_byte_for_byte(store: config.Config, pieces: Pieces) -> None:
    source = "".join(piece for piece in pieces if isinstance(piece, str))
    assert weave(source, store) == source


BODY = (
    r"apiVersion: v1\r?\nkind: Secret\r?\nmetadata:\r?\n  name: [^\n]*\n  labels:\r?\n"
    r'    app.kubernetes.io/managed-by: "secretweave"\r?\ntype: Opaque\r?\ndata:\r?\n(?:  [^\n]*\n)+'
)
GENERATED = rf"---\r?\n{BODY}(?=---)|{BODY}---\r?\n"
"""Before the marker line of its workload; with one of its own where that has none."""
LISTED = r'(?:\{"apiVersion": "v1", "kind": "Secret"[^\n]*\}\r?\n *- )'


def documents(text: str) -> list[Any]:
    parts = re.split(r"(?m)^---[^\n]*$", text.removeprefix("\ufeff"))
    roots = (yamltree.parse(part.encode(), Reading(whole=True)).root for part in parts)
    return [effective(root) for root in roots if root is not None]


def objects(documents: list[Any]) -> list[Any]:
    return [each for one in documents for each in (objects(one["items"]) if "items" in one else [one])]


def substituted(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: substituted(each) for key, each in node.items()}
    if isinstance(node, list):
        return [substituted(each) for each in node]
    for name, text in VALUES.items():
        if node in {f"secret://shop/{name}", f"$(secret://shop/{name})"}:
            return text
    return node


def read_by_the_cluster(found: list[Any]) -> list[Any]:
    """The objects without the generated Secrets, each variable with the value that it gets from one."""
    generated = {
        each["metadata"]["name"]: {key: base64.b64decode(text).decode() for key, text in each["data"].items()}
        for each in found
        if "labels" in each["metadata"]
    }

    def read(node: Any) -> Any:
        if isinstance(node, dict) and "valueFrom" in node:
            selector = node["valueFrom"]["secretKeyRef"]
            return {"name": node["name"], "value": generated[selector["name"]][selector["key"]]}
        if isinstance(node, dict):
            return {key: read(each) for key, each in node.items()}
        return [read(each) for each in node] if isinstance(node, list) else node

    return [read(each) for each in found if "labels" not in each["metadata"]]


@given(stream(plain=False))
@examples(300)
def test_only_the_spans_of_references_differ(store: config.Config, pieces: Pieces) -> None:
    source = "".join(piece if isinstance(piece, str) else piece.source for piece in pieces)
    woven = weave(source, store)
    assert read_by_the_cluster(objects(documents(woven))) == substituted(objects(documents(source)))
    rest = re.sub(LISTED, "", re.sub(GENERATED, "", woven))
    fixed = "".join(piece if isinstance(piece, str) else "\0" for piece in pieces).split("\0")
    assert re.fullmatch("[^\n]*?".join(map(re.escape, fixed)), rest)
