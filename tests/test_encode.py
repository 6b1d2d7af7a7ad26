"""A value on its way into text."""

import base64
import json
import shlex
import subprocess
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from secretweave.errors import StoreError
from secretweave.text import encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.binary(max_size=40))
def test_without_encode_and_with_base64_and_url_any_bytes_survive(value: bytes):
    assert encode.apply(value, None) == value
    assert base64.b64decode(encode.apply(value, "base64"), validate=True) == value
    assert encode.apply(value, "url").decode() == quote(value, safe="")
    assert unquote_to_bytes(encode.apply(value, "url")) == value


@given(texts)
def test_json_is_for_the_inside_of_a_json_or_yaml_string(value: str):
    inside = encode.apply(value.encode(), "json").decode()
    assert json.loads(f'"{inside}"') == value
    assert YAML(typ="safe", pure=False).load(f'a: "{inside}"') == {"a": value}


@given(texts)
def test_shell_is_one_word_as_shlex_quotes_it(value: str):
    value = value.replace("\0", "")
    assert encode.apply(value.encode(), "shell").decode() == shlex.quote(value)


@pytest.mark.parametrize("value", ["", "a b", "it's", '"', "$(x)`y`\\", "a\nb", "*", "~", "#", "é", "-n"])
def test_a_real_shell_reads_one_word(value: str):
    word = encode.apply(value.encode(), "shell").decode()
    script = f"printf '%s|' {word}"
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode() == f"{value}|"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("a/b+c", "base64", "YS9iK2M="),
        ("a b/é~", "url", "a%20b%2F%C3%A9~"),
        ('a"b\\\n\x7f\u2028\U0001f600', "json", 'a\\"b\\\\\\n\\u007f\\u2028\U0001f600'),
        ("nul \0", "json", "nul \\u0000"),
        ("a'b", "shell", "'a'\"'\"'b'"),
    ],
)
def test_encoded(value: str, kind: str, expected: str):
    assert encode.apply(value.encode(), kind) == expected.encode()


@pytest.mark.parametrize("kind", ["json", "shell"])
def test_bytes_that_are_no_text_are_refused_where_text_is_needed(kind: str):
    with pytest.raises(StoreError, match="the value is not text"):
        encode.apply(b"hunter2\xff", kind)


def test_text():
    assert encode.text("é\x01\n".encode()) == "é\x01\n"
    for value in (b"\xff", b"hunter2\0", b"\xed\xa0\x80"):
        with pytest.raises(StoreError, match="the value is not text") as caught:
            encode.text(value)
        assert "hunter2" not in f"{caught.value} {caught.value.why} {caught.value.fix}"


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("0", "int", "0"),
        ("-0", "int", "0"),
        (" 8080\n", "int", "8080"),
        ("-9223372036854775808", "int", "-9223372036854775808"),
        ("true", "bool", "true"),
        ("FALSE\n", "bool", "false"),
        ("True", "bool", "true"),
        ("null", "json", "null"),
        ('"a b"', "json", '"a b"'),
        ("1.50", "json", "1.50"),
        ("1" * 5000, "json", "1" * 5000),
        ('{ "a" : [ 1 , true, null ] ,\n "b": "c : d" }\n', "json", '{"a":[1,true,null],"b":"c : d"}'),
        ('{"\\ud83d\\ude00": "\\/\u2028"}', "json", '{"\U0001f600":"/\\u2028"}'),
    ],
)
def test_cast(text: str, kind: str, expected: str):
    assert encode.cast(text, kind) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *[
            (text, "int")
            for text in ("", "x", "1.5", "1e3", "0755", "+1", "1_000", "0x1F", "9223372036854775808", "1 2", "\u0661")
        ],
        *[(text, "bool") for text in ("", "yes", "on", "1", "y", "tRUE", "truex")],
        *[
            (text, "json")
            for text in (
                "",
                "x",
                "{",
                "{'a': 1}",
                "NaN",
                "-Infinity",
                '{"a": 1, "a": 2}',
                "1 2",
                "01",
                "[1,]",
                '"\\ud800"',
            )
        ],
        ("[" * 100000, "json"),
        ('{"' + "k" * 1100 + '": 1}', "json"),
    ],
)
def test_what_cannot_be_cast_is_refused_without_its_text(text: str, kind: str):
    with pytest.raises(StoreError) as caught:
        encode.cast(f"{text}", kind)
    assert len(f"{caught.value}{caught.value.why}{caught.value.fix}") < 300
    assert caught.value.__cause__ is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_json_reads_back_the_same_from_json_and_from_yaml(value: object):
    written = encode.cast(json.dumps(value, indent=2), "json")
    assert "\n" not in written
    assert json.loads(written) == value
    loaded = YAML(typ="safe", pure=False).load(f"a: {written}\n")
    assert json.loads(json.dumps(loaded["a"])) == value or "e" in written.lower()
