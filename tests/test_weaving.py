"""The weaver's law: weaving then parsing equals parsing then substituting, and no other byte changes."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from secretweave import config, pipeline, yamltree
from secretweave.errors import Faults, SecretweaveError
from secretweave.outputs import Outside
from secretweave.pipeline import Run
from secretweave.yamltree import Mapping, Node, Reading, Scalar, Sequence
from tests.sizes import examples

REFERENCES = {f"$(secret://shop/v{number})": f"v{number}" for number in range(3)}

# Text that YAML can carry and that is no reference by accident.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs", "Cn", "Cc"])
NASTY = [
    "---",
    "...",
    ": ",
    " #",
    "'",
    '"',
    "\\",
    "{",
    "}",
    "%",
    "  ",
    "\n",
    "\n\n",
    "yes",
    "0755",
    "&a",
    "*a",
    "!t",
    "|",
]
VALUE = st.lists(
    st.sampled_from([*NASTY, "\t", "\x07", "\x85", "\u2028", "\ufeff"]) | st.text(CHARACTERS, max_size=5)
).map("".join)
LITERAL = st.lists(st.sampled_from(NASTY) | st.text(CHARACTERS, max_size=5), max_size=4).map("".join)
TEXT = st.lists(LITERAL | st.sampled_from(sorted(REFERENCES)), max_size=4).map("".join)
STYLE = st.sampled_from(["double", "single", "literal", "flow", "json", "plain"])


def spell(text: str, style: str, indent: str) -> str:
    """One way to write *text*; the double quoted one where the style cannot hold it."""
    printable = all(each.isprintable() for each in text)
    if style == "single" and printable and "\n" not in text:
        return "'" + text.replace("'", "''") + "'"
    lines = text.split("\n")
    if (
        style == "literal"
        and text.strip()
        and all(line.isprintable() for line in lines)
        and not text.startswith((" ", "\n"))
    ):
        return "|-\n" + "\n".join(indent + "  " + line if line else "" for line in lines)
    if style == "plain" and text in REFERENCES:
        return text
    escaped = json.dumps(text, ensure_ascii=False)
    for each in "\x7f\x85\u2028\u2029\ufeff":
        escaped = escaped.replace(each, f"\\u{ord(each):04x}")
    return "".join(each if each.isprintable() or ord(each) > 0xFFFF else f"\\u{ord(each):04x}" for each in escaped)


def document(fields: list[tuple[str, str]]) -> str:
    lines = ["apiVersion: v1", "kind: Secret", "metadata: {name: s}  # a comment", "stringData:"]
    for number, (text, style) in enumerate(fields):
        if style in {"flow", "json"}:
            lines.append(f"  k{number}: {spell(text, 'double', '  ')} # {style}")
        else:
            lines.append(f"  k{number}:  {spell(text, style, '  ')}")
        lines.append(f"  # comment {number}")
    return "\n".join(lines) + "\n"


def substituted(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: substituted(each, values) for key, each in value.items()}
    if isinstance(value, str):
        for reference, name in REFERENCES.items():
            value = value.replace(reference, values[name])
    return value


def effective(node: Node) -> Any:
    if isinstance(node, Mapping):
        return {key.value: effective(each) for key, each in node.pairs}
    return [effective(each) for each in node.items] if isinstance(node, Sequence) else node.value


def bones(source: str) -> list[str]:
    """The text between the scalars: what must not change."""
    root = yamltree.parse(source.encode(), Reading(whole=True)).root
    assert root is not None
    spans: list[tuple[int, int]] = []

    def visit(node: Node) -> None:
        if isinstance(node, Scalar):
            spans.append((node.start, node.end))
        elif isinstance(node, Sequence):
            for item in node.items:
                visit(item)
        else:
            for key, value in node.pairs:
                visit(key)
                visit(value)

    visit(root)
    edges = [0, *(edge for span in spans for edge in span), len(source)]
    return [source[edges[i] : edges[i + 1]].strip("\n") for i in range(0, len(edges), 2)]


def weave(source: bytes, folder: Path, values: dict[str, str], run: Run | None = None) -> bytes:
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps(values))
    secrets.chmod(0o600)
    store = folder / "config.yaml"
    store.write_text(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: shop}\n"
        "spec: {file: {path: secrets.json}}\n"
    )
    out = io.BytesIO()
    outside = Outside({}, time.monotonic() + 60, lambda _: None)
    pipeline.weave([("stdin", io.BytesIO(source))], out, config.load(str(store), {}), run or Run(), outside)
    return out.getvalue()


@given(st.lists(st.tuples(TEXT, STYLE), min_size=1, max_size=4), st.tuples(VALUE, VALUE, VALUE))
@settings(examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weaving_then_parsing_is_parsing_then_substituting(
    tmp_path: Path, fields: list[tuple[str, str]], chosen: tuple[str, str, str]
) -> None:
    values = {f"v{number}": value for number, value in enumerate(chosen)}
    source = document(fields)
    refused: tuple[SecretweaveError, ...] = ()
    woven = ""
    try:
        woven = weave(source.encode(), tmp_path, values).decode()
    except Faults as faults:
        refused = faults.faults
    if refused:  # a value that would break the text around it is refused, never woven wrongly
        assert all("break" in fault.what or "YAML" in fault.what for fault in refused)
        return
    before, after = (
        yamltree.parse(source.encode(), Reading(whole=True)).root,
        yamltree.parse(woven.encode(), Reading(whole=True)).root,
    )
    assert before is not None
    assert after is not None
    assert effective(after) == substituted(effective(before), values)
    assert bones(woven) == bones(source)


@pytest.mark.parametrize("source", [b"", b"# only a comment\n", b"---\n---\n"])
def test_empty_input_is_an_error_unless_allowed(tmp_path: Path, source: bytes) -> None:
    with pytest.raises(Exception, match="1 faults"):
        weave(source, tmp_path, {})
    assert weave(source, tmp_path, {}, Run(allow_empty=True)) == source


def test_data_leaves_as_the_base64_of_the_value(tmp_path: Path) -> None:
    source = b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: secret://shop/v0}\n"
    woven = YAML(typ="safe").load(weave(source, tmp_path, {"v0": "x"}))
    assert woven["data"] == {"a": "eA=="}
