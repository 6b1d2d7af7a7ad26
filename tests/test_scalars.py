"""What is woven into a document reads back as exactly that text, and nothing else in the document changes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from _ruamel_yaml import CParser
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML, events
from ruamel.yaml.scanner import ScannerError

from secretweave.text.scalars import escape, parent_indentation, quote, respell

NASTY = (
    "", " ", "\n", "\n\n", "a\n", "a\n\n\n", "\na", "\n\n  a\n b", " a", "a ", "\ta", "a\t", " \n", " \na", "a\n ",
    "a\n  \nb", "\t\n\tb\n", "---", "...", "---\na", "a\n---\nb\n", "a\n...\n", "a: b", ": ", " #", "a #b", "# a", "#",
    "%", "%YAML 1.1", "- a", "-", "? a", "&a", "*a", "!a", "|", ">", "|2\n", "'", "''", '"', '""', "\\", "\\n", "a\\",
    "{", "}", "[", "]", ",", "{}", "[]", "a, b", "`", "@", "0755", "1e3", "yes", "null", "~", "=", "<<", "true",
    "1_000", "12:30:45", "2026-11-24", ".inf", "0x1F", "\x00", "\x01", "\x07", "\x08", "\x0c", "\x1b[31m", "\x7f",
    "\x85", "\x9f", "\xa0", "a\x85b", "\u2028", "\u2029", "a\u2028b\n", "\ufeff", "\ufeffa", "\ufffe", "\uffff",
    "\U0001f600", "\U0001f600\n\U0010ffff", "\ufdd0", "\u200b", "\u202e", "\r", "a\rb", "a\r\nb\r\n", "\r\n",
    "x" * 5000, "x y " * 2000, "line\n" * 300, "-----BEGIN KEY-----\nMIIE/+==\n-----END KEY-----\n",
)  # fmt: skip

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text(st.sampled_from(" \t\n\r-:#'\"\\{}[],|>&*!%@`~=<.0ae\x85\u2028\ufeff\U0001f600"), max_size=12),
    st.lists(st.sampled_from(["a", " a", "  ", "", "\t", "b: c", "- d", "---", "# e"]), max_size=6).map("\n".join),
    st.sampled_from(NASTY),
)

MARK = "secret://s/r"
FLOW = (
    ("", "secret://s/r"),
    ("'", "' secret://s/r '"),
    ('"', '"\\tsecret://s/r\\n"'),
    ('"', '"a\n     secret://s/r\n     b"'),
)
FLOW_PLACES = (
    "{}\n",
    "{}",
    "a: {}\nb: 1\n",
    "a: {} # comment\nb: 1\n",
    "a:\n     {}\nb: 1\n",
    "- {}\n- b\n",
    "- - a: {}\n    b: c\n",
    "a: [x, {}, y]\nb: 1\n",
    "a: [{}]\n",
    "a: {{k: {}, l: m}} # c\n",
    "a: {{k: {}}}\n",
    "a: &x {}\nb: *x\n",
    "a: !!str {}\nb: c\n",
    "a: !!str &x {}\nb: c\n",
    "a: &x # why\n  {}\nb: c\n",
    '{{"a": {}, "b": [{}, 1]}}\n',
)
BLOCK_PLACES = (
    ("a: {}", "\nb: 1\n"),
    ("a: {}", "\nb: [http://x]\n"),
    ("a: {}", "\n\n# comment\n\nb: [http://x]\n"),
    ("b: [http://x]\na: {}", ""),
    ("a: {}", ""),
    ("a: {}", "\n"),
    ("a: {}", "\n\n\nb: 1\n"),
    ("a: {}", "\n \n  \nb: 1\n"),
    ("a: {}", "\n# comment\nb: 1\n"),
    ("- {}", "\n- b\n"),
    ("a:\n- {}", "\n- b\n"),
    ("- - {}", "\n  - c\n- b\n"),
    ("- k: {}", "\n  l: m\n"),
    ("x:\n  y:\n    - k: {}", "\n      l: m\n    - n\n"),
    ("x:\n  y: {}", "\n  z: 1\n"),
    ("a: &x {}", "\nb: *x\n"),
    ("a: !!str {}", "\nb: c\n"),
    ("a: !!str # why\n   {}", "\nb: c\n"),
    ("--- {}", "\n"),
    ("{}", "\n"),
)
BLOCK_BODIES = (
    "{header}\n{i}secret://s/r",
    "{header}\n{i}one\n{i}\n\n{i}  $(secret://s/r) two\n{i}three",
    "{header}\n\n{i}one\n{i}$(secret://s/r)",
    "{header} # a comment\n{i}secret://s/r",
    "{header}\n{i}secret://s/r\n{i}  ",
)


def parsed(text: str) -> list[Any]:
    """Its events as libyaml tells them; ruamel.yaml's own parser where that cannot read a URI in flow style."""
    parser = CParser(text)
    found = []
    try:
        while not isinstance(event := parser.get_event(), events.StreamEndEvent):
            found.append(event)
    except ScannerError:
        return list(YAML(typ="safe", pure=True).parse(text))[:-1]
    return found


def scalars(text: str) -> list[tuple[Any, ...]]:
    """Every event of a document; scalars with their span."""
    return [
        (event.value, event.tag, event.anchor, event.style or "", event.start_mark.index, event.end_mark.index)
        if isinstance(event, events.ScalarEvent)
        else (type(event).__name__, getattr(event, "anchor", None))
        for event in parsed(text)
    ]


def others(found: list[tuple[Any, ...]], index: int) -> list[tuple[Any, ...]]:
    return [each[:4] for place, each in enumerate(found) if place != index]


def weave(text: str, value: str, *, with_parent: bool = True) -> str:
    """*text* with *value* in the place of its first scalar that holds a reference; checks all that must hold."""
    before = scalars(text)
    index = next(place for place, each in enumerate(before) if MARK in each[0])
    _, tag, anchor, style, start, end = before[index]
    newline = "\r\n" if "\r\n" in text[start:end] else "\n"
    parent = parent_indentation(text, start) if with_parent else None
    token = respell(text[start:end], style, value, newline=newline, parent=parent)
    woven = text[:start] + token + text[end:]
    after = scalars(woven)
    assert after[index][:3] == (value, tag, anchor)
    assert after[index][3], "a plain scalar could be taken for a number"
    assert others(after, index) == others(before, index)
    return woven


def flow_documents() -> st.SearchStrategy[str]:
    return st.builds(
        lambda place, token: place.format(token[1], token[1]), st.sampled_from(FLOW_PLACES), st.sampled_from(FLOW)
    )


@st.composite
def block_documents(draw: Callable[[Any], Any]) -> str:
    before, after = draw(st.sampled_from(BLOCK_PLACES))
    style = draw(st.sampled_from("|>"))
    digit = draw(st.sampled_from(["", "", "2", "4"]))
    chomping = draw(st.sampled_from(["", "-", "+"]))
    body = draw(st.sampled_from(BLOCK_BODIES))
    line = before.rpartition("\n")[2].format("")
    outer = (len(line) - len(line.lstrip(" -"))) if ":" in line and "---" not in line else max(line.rfind("-"), 0)
    outer = 0 if "---" in line or before == "{}" or "# why" in before else outer
    indent = " " * (outer + int(digit or draw(st.sampled_from("234"))))
    source = body.format(header=f"{style}{digit}{chomping}", i=indent)
    text: str = before.format(source) + after
    crlf: bool = draw(st.booleans())
    return text.replace("\n", "\r\n") if crlf else text


@given(flow_documents(), texts)
def test_plain_and_quoted_scalars_read_back_as_the_text(text: str, value: str):
    weave(text, value)


@given(block_documents(), texts, st.booleans())
def test_block_scalars_read_back_as_the_text(text: str, value: str, with_parent: bool):
    weave(text, value, with_parent=with_parent)


@pytest.mark.parametrize("value", NASTY)
def test_nasty_texts_everywhere(value: str):
    for place in FLOW_PLACES:
        for _, token in FLOW:
            weave(place.format(token, token), value)
    for before, after in BLOCK_PLACES:
        for body in BLOCK_BODIES:
            for header in ("|", "|+", ">-"):
                weave(before.format(body.format(header=header, i="        ")) + after, value)


@given(texts)
@example("\ud83d")
def test_quoted_text_is_json_and_ascii_controls_are_escaped(value: str):
    assert json.loads(quote(value)) == value
    assert (
        escape(value).isprintable()
        or any(not each.isprintable() and each > "\xa0" for each in value)
        or "\xa0" in value
    )


@given(texts)
def test_a_json_document_stays_json_with_the_same_text(value: str):
    text = '{"a":"x","b":["secret://s/r",1.50],"c":{"d":null}}'
    assert json.loads(weave(text, value)) == {"a": "x", "b": [value, 1.5], "c": {"d": None}}


@given(block_documents(), st.text(st.sampled_from("ab :#-'\"\n\t"), max_size=12))
def test_another_parser_reads_the_same(text: str, value: str):
    yaml = YAML(typ="safe", pure=True)
    woven = weave(text, value)
    assert value in strings(yaml.load(woven))


def strings(node: object) -> list[str]:
    if isinstance(node, dict):
        return [text for child in node.values() for text in strings(child)]
    if isinstance(node, list):
        return [text for child in node for text in strings(child)]
    return [node] if isinstance(node, str) else []


@pytest.mark.parametrize(
    ("source", "style", "value", "expected"),
    [
        ("secret://s/r", "", "s3cr3t", '"s3cr3t"'),
        ("secret://s/r", "", "8080", '"8080"'),
        ("'secret://s/r'", "'", "it's", "'it''s'"),
        ("'secret://s/r'", "'", "a\nb", '"a\\nb"'),
        ('"secret://s/r"', '"', 'a"b\\c\té\U0001f600\x85', '"a\\"b\\\\c\\té\U0001f600\\u0085"'),
        ("|\n  secret://s/r\n", "|", "a\nb\n", "|\n  a\n  b\n"),
        ("|\n  secret://s/r\n", "|", "a\nb", "|-\n  a\n  b\n"),
        ("|-\n  secret://s/r\n", "|", "a\nb", "|-\n  a\n  b\n"),
        ("|-\n  secret://s/r\n", "|", "a\n", "|\n  a\n"),
        ("|\n  secret://s/r\n", "|", "a\n\n\n", "|+\n  a\n\n\n"),
        ("|+\n  secret://s/r\n\n", "|", "a\n\n", "|+\n  a\n\n"),
        ("|\n  secret://s/r\n\n\n", "|", "a\n", "|\n  a\n\n\n"),
        ("| # why\n  secret://s/r\n", "|", "a\nb\n", "| # why\n  a\n  b\n"),
        (">#why\n  secret://s/r\n", ">", "a\n", '"a\\n" #why\n'),
        ("| # why\n  secret://s/r\n", "|", "a\rb", '"a\\rb" # why\n'),
        ("|\n  a\n  \n  secret://s/r\n  b\n", "|", "a\n\nx\ny\nb\n", "|\n  a\n  \n  x\n  y\n  b\n"),
        ("|\r\n  secret://s/r\r\n", "|", "a\nb\n", "|\r\n  a\r\n  b\r\n"),
        ("|\n  secret://s/r", "|", "a\n", "|\n  a\n"),
        ("|\n  secret://s/r", "|", "a", "|\n  a"),
        ("|\n  secret://s/r\n", "|", "", '""\n'),
        ("|2\n    secret://s/r\n", "|", "a\n", "|2\n  a\n"),
        ("|\n  secret://s/r\n", "|", " a\n", "|2\n   a\n"),
        ("&x !!str |-2 # why\n  secret://s/r\n", "|", "a\n", "&x !!str |2 # why\n  a\n"),
        (">\n  secret://s/r\n  b\n\n", ">", "a b\n", '"a b\\n"\n\n'),
        ("&x", "", "a", '&x "a"'),
        ("", "", "a", ' "a"'),
    ],
)
def test_spelling(source: str, style: str, value: str, expected: str):
    newline = "\r\n" if "\r\n" in source else "\n"
    assert respell(source, style, value, newline=newline, parent=0) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: @", 0),
        ("a:\n  b:   @", 2),
        ("- @", 0),
        ("  - - @", 4),
        ("  - - b: @", 6),
        ('  - "b: - c": @', 4),
        ("&a b: @", 0),
        ("a:\n  @", None),
        ("@", None),
        ("--- @", None),
        ("--- a: @", None),
        ("? @", None),
        ("? a\n: @", None),
        ("- ? a: @", None),
        ("{a: @", None),
        ("-\ta: @", None),
        ("a: 1\rb: @", None),
    ],
)
def test_the_indentation_around_is_told_only_where_it_is_plain_to_see(text: str, expected: int | None):
    assert parent_indentation(text, text.index("@")) == expected
