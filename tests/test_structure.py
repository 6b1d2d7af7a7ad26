"""A value may not break the JSON, YAML, URL, shell script or lines that it stands in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from secretweave.errors import BadReference
from secretweave.model import Template
from secretweave.references import uri
from secretweave.text import encode
from secretweave.text.structure import check

A = "$(secret://shop/a)"
B = "$(secret://shop/b#k)"


def template(text: str) -> Template:
    found = uri.parse(text)
    assert found is not None
    return found


def verdict(text: str, *values: str) -> str | None:
    """What is said of *text* with *values* in the places of its references; no value and no text is ever in it."""
    fault = check(template(text), values)
    if fault is None:
        return None
    assert isinstance(fault, BadReference)
    assert fault.why
    assert "encode=" in fault.fix
    said = f"{fault.what} {fault.why} {fault.fix}"
    assert all(value not in said for value in values if len(value) > 6)
    return fault.what


JSON = "the value of shop:a would break the JSON text that it stands in"
YAML_TEXT = "the value of shop:a would break the YAML text that it stands in"
URL = "the value of shop:a would break the URL that it stands in"
SHELL = "the value of shop:a would break the shell script that it stands in"
LINES = "the value of shop:a would break the text of one entry a line that it stands in"


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (f'{{"a": "{A}"}}', "plain é \U0001f600", None),
        (f'{{"a": "{A}"}}', "", None),
        (f'{{"a": "{A}"}}', 'quo"te', JSON),
        (f'{{"a": "{A}"}}', 'x", "admin": "yes', JSON),
        (f'{{"a": "{A}"}}', "back\\slash", JSON),
        (f'{{"a": "{A}"}}', "\\u0041bcdefg", JSON),
        (f'{{"a": "{A}"}}', "line\nbreak", JSON),
        (f'{{"a": "{A}"}}', "ends\n", JSON),
        (f'{{"a": "{A}"}}', "tab\tbed", JSON),
        (f'{{"a": "{A}"}}', "08364190275", None),
        (f'[{{"a": ["x{A}y"]}}]\n', "b", None),
        (f'[{{"a": ["x{A}y"]}}]\n', 'b"', JSON),
        (f'{{"k{A}": 1}}', "b", None),
        (f'{{"k{A}": 1}}', 'b": 2, "c', JSON),
        (f'{{"port": {A}}}', "8080", None),
        (f'{{"port": {A}}}', "1.50", None),
        (f'{{"port": {A}}}', "true", None),
        (f'{{"port": {A}}}', '{"any": ["JSON", "value"]}', None),
        (f'{{"port": {A}}}', '8080, "admin": true', JSON),
        (f'{{"port": {A}}}', "some words", JSON),
        (f'{{"port": {A}}}', "", JSON),
        (f'{{"port": {A}}}', "0755", JSON),
        (f'{{"port": 80{A}}}', "80", None),
        (f'{{"port": 80{A}}}', "80, 1", JSON),
        (f'{{"port": "{A}", "n": 90817263545000000}}', "x", None),
        (f'{{\n  "a": "{A}"\n}}\n', 'quo"te', JSON),
        (f"{{not json {A}", 'quo"te', None),
        (f"[{A}]", "a, b", None),
    ],
)
def test_json(text: str, value: str, expected: str | None):
    assert verdict(text, value) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (f"postgres://app:{A}@db:5432/shop", "s3cr3t-._~", None),
        (f"postgres://app:{A}@db:5432/shop", "", None),
        (f"postgres://app:{A}@db:5432/shop", "pässword", None),
        *[(f"postgres://app:{A}@db:5432/shop", f"p{each}w", URL) for each in ":/?#[]@!$&'()*+,;=% \n\"\\"],
        (f"https://{A}/x", "db.internal:5432", URL),
        (f"{A}://host/path", "https", None),
        (f" https://host/?token={A}\n", "a&admin=1", URL),
        (f"see https://host/?token={A}", "a&b", None),
        (f"https://host/?token={A} (the token)", "a&b", None),
        (f"{A}?sslmode=require", "postgres://u:p@h/d", None),
        (f"jdbc:sqlserver://host;password={A}", "a;b", None),
    ],
)
def test_url(text: str, value: str, expected: str | None):
    assert verdict(text, value) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (f"#!/bin/sh\nPASS={A}\n", "s3cr3t", None),
        (f"#!/bin/sh\nPASS={A}\n", "s3cr3t\n", None),
        (f'#!/bin/bash -e\nPASS="{A}"\n', "$(reboot)", SHELL),
        (f"#!/usr/bin/env bash\nPASS='{A}'\n", "it's mine", SHELL),
        (f"#! /usr/bin/env -S zsh -f\necho {A}", "two words", SHELL),
        (f"#!/bin/sh\n# {A}\n", "comment\nreboot", SHELL),
        (f"#!/usr/bin/python3\nx = '{A}'\n", "$(reboot)", None),
    ],
)
def test_shell(text: str, value: str, expected: str | None):
    assert verdict(text, value) == expected


STAYS = ("8080", "-1", "true", "1.5", "a", "10.0.0.1", "1.2.3", "x0755", "12ab", "http://h:1/", "0o9", "12:99", "=a")
CHANGES = (
    "", "0755", "1e3", "yes", "No", "null", "~", "True", "-0", "+1", "1_000", "0x1F", "0o17", "0b1", "12:30", ".5",
    "1.50", "1.0", "1.", ".inf", "-.INF", ".NaN", "2026-11-24", "2026-11-24T10:00:00Z", "on", "=", "<<",
    "12345678901234567890", "1234567.5", "0.00001",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (f"user: x\npassword: {A}\n", "s3cr3t", None),
        (f"user: x\npassword: {A}\n", "s3cr3t\n", None),
        (f"user: x\r\npassword: {A}\r\n", "s3cr3t\n", None),
        (f"user: x\npassword: {A}\n", "a\nadmin: true", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "key: value", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "hash #mark", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "*alias99", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "&anchor9 x", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "!tagged99 x", YAML_TEXT),
        (f"user: x\npassword: {A}\n", '"quoted99"', YAML_TEXT),
        (f"user: x\npassword: {A}\n", " leading9", YAML_TEXT),
        (f"user: x\npassword: {A}\n", "{a: b99999}", YAML_TEXT),
        *[(f"a: 1\nport: {A}\n", plain, None) for plain in STAYS],
        *[(f"a: 1\nport: {A}\n", plain, YAML_TEXT) for plain in CHANGES],
        (f"a: 1\nport: '{A}'\n", "0755", None),
        (f'a: 1\nport: "{A}"\n', "yes", None),
        (f'a: 1\nport: "{A}"\n', 'quo"te', YAML_TEXT),
        (f'a: 1\nport: "{A}"\n', "back\\nslash", YAML_TEXT),
        (f"a: 1\nport: '{A}'\n", "it's mine", YAML_TEXT),
        (f"a: 1\nport: '{A}'\n", 'quo"te', None),
        (f"a: 1\nurl: http://{A}/x\n", "0755", None),
        (f"- x\n- {A}\n", "v", None),
        (f"- x\n- {A}\n", "y\n- z", YAML_TEXT),
        (f"a: 1\n{A}: 2\n", "key", None),
        (f"a: 1\n{A}: 2\n", "key: [x", YAML_TEXT),
        (f"a: 1\n# {A}\n", "comment", None),
        (f"a: 1\n# {A}\n", "comment\nadmin: true", YAML_TEXT),
        (f"key: |\n  {A}\nb: 1\n", "one line", None),
        (f"key: |\n  {A}\nb: 1\n", "two\nlines9", YAML_TEXT),
        (f"x: &x {A}\ny: *x\nz: [*x, *x]\n", "v", None),
        (f"a: {A}\n---\nb: 1\n", "v", None),
        (f"a: {A}\n---\nb: 1\n", "v\n---\nc: 1", YAML_TEXT),
        (f"password: {A}\n", "a: b c", YAML_TEXT),
        (f"password: {A}", "a: b c", None),
        (f"postgres: user {A}", "a\nb", None),
        (f"Dear all,\nthe password is {A} now.\n", "a: b # c", None),
        (f"{{{{ template }}}}\nx: {A}\n", "a: b # c", None),
    ],
)  # fmt: skip
def test_yaml(text: str, value: str, expected: str | None):
    assert verdict(text, value) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (f"[db]\nuser = x\npassword = {A}\n", "s3cr3t", None),
        (f"[db]\nuser = x\npassword = {A}\n", "s3cr3t\n", None),
        (f"[db]\nuser = x\npassword = {A}\n", "s3cr3t\nadmin = true", LINES),
        (f"[db]\nuser = x\npassword = {A}\n", "s3cr3t\radmin = true", LINES),
        (f"A=1\nB={A}\n", "x\nC=1", LINES),
        (f"B={A}\n", "x\nC=1", LINES),
        (f"A=1\nB={A};x\n", "trailing\n", LINES),
        (f"A=1\nB={A}", "a=b c # d", None),
        (f"-----BEGIN-----\n{A}\n-----END-----\n", "two\nlines", None),
        (f"one\n  {A}\n", "two\nlines", None),
        (f"B={A}", "x\nC=1", None),
        (f"{A}\n", "x\ny\n", None),
    ],
)
def test_lines(text: str, value: str, expected: str | None):
    assert verdict(text, value) == expected


@pytest.mark.parametrize("value", ['a"b', "a: b", "\n", "0755", "a/b"])
@pytest.mark.parametrize(
    "text",
    [
        '{{"a": "{}"}}', "https://h/{}", "#!/bin/sh\necho {}\n", "a: 1\nb: {}\n", "A=1\nB={}\n",
    ],
)  # fmt: skip
def test_a_reference_with_encode_is_not_judged(text: str, value: str):
    for how in ("json", "url", "base64", "shell"):
        assert verdict(text.format(f"$(secret://shop/a?encode={how})"), value) is None


def test_a_reference_beside_one_with_encode_is_judged():
    text = f'{{"a": "$(secret://shop/a?encode=json)", "b": "{B}"}}'
    assert verdict(text, 'wrong" and', "fine") is None
    assert verdict(text, "fine", 'wrong" and') == "the value of shop:b#k would break the JSON text that it stands in"


def test_those_that_break_it_are_named():
    text = f'{{"a": "{A}", "b": "{B}", "c": "{A}"}}'
    assert verdict(text, "x", 'y"', "x") == "the value of shop:b#k would break the JSON text that it stands in"
    assert (
        verdict(text, 'x"', 'y"', 'x"') == "the value of shop:a, shop:b#k would break the JSON text that it stands in"
    )


def test_values_that_break_it_only_together_are_all_named():
    text = f"a: 1\nb: {A}{B}\n"
    assert verdict(text, "0", "755") == "the value of shop:a, shop:b#k would break the YAML text that it stands in"


@pytest.mark.parametrize("text", ["secret://shop/a", " secret://shop/a\n", f"{A}{B}", f"{A}\n"])
def test_a_value_alone_has_nothing_to_break(text: str):
    assert verdict(text, *['{"a": [\n: #'] * text.count("secret://")) is None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    st.sampled_from("\"'\\{}[],:# \n\tae0179-.&*!|>%/?@=$`"), max_size=6
)


@given(texts, texts)
def test_json_that_passes_reads_back_with_the_values(one: str, two: str):
    text = f'{{"a": ["{A}", {{"x {B}": null}}]}}'
    expected = {"a": [one, {f"x {two}": None}]}
    if check(template(text), (one, two)) is None:
        assert json.loads(text.replace(A, one).replace(B, two)) == expected
    encoded = [encode.apply(value.encode(), "json").decode() for value in (one, two)]
    assert check(template(text), encoded) is None or "\\" in "".join(encoded)


@given(texts)
def test_yaml_that_passes_reads_back_with_the_value(value: str):
    for place in ("a: 1\nb: {}\n", 'a: 1\nb: "{}"\n', "a: 1\nb: '{}'\n", "- a: 1\n  b: {}\n- c\n"):
        if check(template(place.format(A)), (value,)) is None:
            loaded = YAML(typ="safe", pure=False).load(place.format(value))
            found = loaded[0]["b"] if isinstance(loaded, list) else loaded["b"]
            assert found == value.rstrip("\r\n") or json.dumps(found) == value.rstrip("\r\n")


@given(
    st.lists(
        st.sampled_from([A, B, "{", "}", '"', "[", "]", ": ", "\n", "a", "- ", "#!/bin/sh", "x://", "&a ", "*a "]),
        max_size=12,
    ),
    texts,
)
def test_no_text_makes_it_fail(parts: list[str], value: str):
    found = uri.parse("".join(parts))
    if found is not None:
        check(found, [value] * sum(not isinstance(piece, str) for piece in found))


def test_deep_texts_are_no_failure():
    deep = '{"a":' * 3000 + f'"{A}"' + "}" * 3000
    assert verdict(deep, "x") is None
    assert verdict('{"a":' * 90 + f'"{A}"' + "}" * 90, 'x"') == JSON
