"""The `secret://` grammar: what a text is cut into, and what is refused."""

from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import BadReference, Faults, SecretweaveError
from secretweave.model import Reference
from secretweave.references.uri import MARKERS, parse

DB = Reference("shop", "db")


def what(text: str) -> list[str]:
    """What each fault of *text* says."""
    with pytest.raises(SecretweaveError) as caught:
        parse(text)
    faults = caught.value.faults if isinstance(caught.value, Faults) else (caught.value,)
    assert all(isinstance(fault, BadReference) and fault.fix for fault in faults)
    return [fault.what for fault in faults]


def told(text: str) -> str:
    """Everything that the faults of *text* say."""
    with pytest.raises(SecretweaveError) as caught:
        parse(text)
    faults = caught.value.faults if isinstance(caught.value, Faults) else (caught.value,)
    return "\n".join(f"{fault.what}\n{fault.why}\n{fault.fix}" for fault in faults)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "secret",
        "secret:",
        "secret:/",
        "secret:/x",
        "secret:!x",
        "SECRET://shop/db",
        "Secret://shop/db",
        "$(DB)",
        "https://secret",
    ],
)
def test_a_text_without_anything_of_ours(text: str):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secret://shop/db", DB),
        ("secret:///db", Reference("", "db")),
        ("secret://a-b-9/db", Reference("a-b-9", "db")),
        ("secret://shop/a/b/c", Reference("shop", "a/b/c")),
        ("secret://shop//abs", Reference("shop", "/abs")),
        ("secret://shop/db#password", DB._replace(key="password")),
        ("secret://shop/tls#tls.crt", Reference("shop", "tls", key="tls.crt")),
        ("secret://shop/db#/users/0/a~1b~0c", DB._replace(key="/users/0/a~1b~0c")),
        ("secret://shop/db#/", DB._replace(key="/")),
        ("secret://shop/a%20b%23c%3Fd%25", Reference("shop", "a b#c?d%")),
        ("secret://shop/caf%C3%A9", Reference("shop", "café")),
        ("secret://shop/café", Reference("shop", "café")),
        ("secret://shop/db#%41%20b", DB._replace(key="A b")),
        ("secret://shop/a+b", Reference("shop", "a+b")),
        ("secret://shop/a(b)", Reference("shop", "a(b)")),
        (
            "secret://aws/arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf?version=1#user",
            Reference("aws", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf", "1", "user"),
        ),
        ("secret://shop/db?version=3", DB._replace(version="3")),
        ("secret://shop/db?version=a%26b", DB._replace(version="a&b")),
        ("secret://shop/db?encode=base64", DB._replace(encode="base64")),
        ("secret://shop/db?as=json", DB._replace(cast="json")),
        ("secret://shop/db?optional=true", DB._replace(optional=True)),
        ("secret://shop/db?optional=false", DB),
        ("secret://shop/db?default=", DB._replace(default="")),
        ("secret://shop/db?default=a%20%24%7Bb%7D%0A", DB._replace(default="a ${b}\n")),
        ("secret://shop/db?default=a=b", DB._replace(default="a=b")),
        (
            "secret://shop/db?version=1&encode=url&default=x&optional=true#k",
            Reference("shop", "db", "1", "k", "url", None, optional=True, default="x"),
        ),
    ],
)
def test_a_whole_value(text: str, expected: Reference):
    assert parse(text) == (expected,)
    if ")" not in text:
        assert parse(f"$({text})") == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" secret://shop/db\n", (" ", DB, "\n")),
        ("secret://shop/db?as=int\n", (DB._replace(cast="int"), "\n")),
        ("a$(secret://shop/db)b", ("a", DB, "b")),
        ("$(secret://shop/db)$(secret:///x)", (DB, Reference("", "x"))),
        ("$(secret://shop/db))", (DB, ")")),
        ("$(A)$(secret://shop/db)$$(B)", ("$(A)", DB, "$$(B)")),
        ('{"a": "$(secret://shop/db?encode=json#k)"}', ('{"a": "', DB._replace(encode="json", key="k"), '"}')),
        ("a\n$(secret://shop/db)\n", ("a\n", DB, "\n")),
    ],
)
def test_a_reference_among_text(text: str, expected: tuple[str | Reference, ...]):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secret:!//x", ("secret://x",)),
        ("secret:!!//x", ("secret:!//x",)),
        ("secret:!!!//", ("secret:!!//",)),
        ("a secret:!//x b secret:!//y", ("a secret://x b secret://y",)),
        ("$(secret:!//x)", ("$(secret://x)",)),
        ("$$(secret:!//x)", ("$$(secret://x)",)),
        ("secret:!//$(secret://shop/db)secret:!//", ("secret://", DB, "secret://")),
    ],
)
def test_an_escape_is_the_literal_text(text: str, expected: tuple[str | Reference, ...]):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a secret://shop/db", "{bare}, at character 3 of the value"),
        ("mysecret://shop/db", "{bare}, at character 3 of the value"),
        ("secret://shop/db b", "{bare}, at character 1 of the value"),
        ("${secret://shop/db}", "{bare}, at character 3 of the value"),
        ("$( secret://shop/db)", "{bare}, at character 4 of the value"),
        ("$$(secret://shop/db)", "a reference after `$$`, at character 4 of the value"),
        ("$$$(secret://shop/db)", "a reference after `$$`, at character 5 of the value"),
        ("$(secret://shop/db", "a reference in $(...) that is not closed, at character 3 of the value"),
        ("$(secret://shop/a b)", "the reference at character 3 of the value has white space in it"),
        (
            "$(secret://shop/a$(secret://shop/b))",
            "the reference at character 3 of the value has another secret:// in it",
        ),
        ("secret://shop/a,secret://shop/b", "{it} has another secret:// in it"),
        ("secret://shop/a,secret:!//shop/b", "{it} has another secret:// in it"),
        ('secret://shop/a"', "{it} has a character that a URI cannot hold"),
        ("secret://shop/{a}", "{it} has a character that a URI cannot hold"),
        ("secret://shop/a\x00", "{it} has a character that a URI cannot hold"),
        ("secret://shop/a\u202eb", "{it} has a character that a URI cannot hold"),
        ("secret://", "{it} names no secret"),
        ("secret:///", "{it} names no secret"),
        ("secret://shop", "{it} names no secret"),
        ("secret://shop/", "{it} names no secret"),
        ("secret://shop/#k", "{it} names no secret"),
        ("secret://s/db", "{it} has no well-formed store"),
        ("secret://Shop/db", "{it} has no well-formed store"),
        ("secret://a--b/db", "{it} has no well-formed store"),
        ("secret://-ab/db", "{it} has no well-formed store"),
        ("secret://a.b/db", "{it} has no well-formed store"),
        ("secret://" + "a" * 5000 + "!/db", "{it} has no well-formed store"),
        ("secret://${x}/db", "{it} holds a placeholder"),
        ("secret://shop/${context.app.id}/db", "{it} holds a placeholder"),
        ("secret://shop/%24%7Bx%7D", "{it} holds a placeholder"),
        ("secret://shop/db?version=${x}", "{it} holds a placeholder"),
        ("secret://shop/a%", "{it} has a bad %-sequence in its ref"),
        ("secret://shop/a%2", "{it} has a bad %-sequence in its ref"),
        ("secret://shop/a%zz", "{it} has a bad %-sequence in its ref"),
        ("secret://shop/a%FF", "{it} has %-sequences in its ref that are not UTF-8"),
        ("secret://shop/a%ED%A0%80", "{it} has %-sequences in its ref that are not UTF-8"),
        ("secret://shop/a%0Ab", "{it} has a character in its ref that cannot be printed"),
        ("secret://shop/db#", "{db} has an empty key"),
        ("secret://shop/db#%zz", "{db} has a bad %-sequence in its key"),
        ("secret://shop/db#k?version=1", "{db} has a `#` or a `?` in its key"),
        ("secret://shop/db#/a~2", "{db} has a key that is no JSON pointer"),
        ("secret://shop/db?", "{db} has an unknown parameter"),
        ("secret://shop/db?region=x", "{db} has an unknown parameter"),
        ("secret://shop/db?Version=1", "{db} has an unknown parameter"),
        ("secret://shop/db?version=1&", "{db} has an unknown parameter"),
        ("secret://shop/db?version", "{db} has the parameter `version` without a value"),
        ("secret://shop/db?version=", "{db} has the parameter `version` without a value"),
        ("secret://shop/db?default", "{db} has the parameter `default` without a value"),
        ("secret://shop/db?version=1&version=2", "{db} has the parameter `version` twice"),
        ("secret://shop/db?encode=hex", "{db} has an unknown value for `encode`"),
        ("secret://shop/db?optional=yes", "{db} has an unknown value for `optional`"),
        ("secret://shop/db?encode=json&as=json", "{db} has both `encode` and `as`"),
        (
            "secret:///db?version=",
            "the reference (default store):db at character 1 of the value has the parameter `version` without a value",
        ),
        ("x $(secret://shop/db?as=int)", "`as` in the reference shop:db, which is not the whole value"),
        (
            "$(secret://shop/db?as=int)$(secret://shop/db)",
            "`as` in the reference shop:db, which is not the whole value",
        ),
    ],
)
def test_a_fault(text: str, fault: str):
    names = {
        "{it}": "the reference at character 1 of the value",
        "{db}": "the reference shop:db at character 1 of the value",
        "{bare}": "a secret:// that is neither the whole value nor in $(...)",
    }
    for short, long in names.items():
        fault = fault.replace(short, long)
    assert what(text) == [fault]


def test_every_fault_of_a_text_is_told():
    text = "secret:!//ok $(secret://shop/a%zz) secret://x $(secret://shop/b?region=1&region=2#) $$(secret://shop/c) "
    text += "$(secret://shop/d"
    assert what(text) == [
        "the reference at character 16 of the value has a bad %-sequence in its ref",
        "a secret:// that is neither the whole value nor in $(...), at character 36 of the value",
        "the reference shop:b at character 49 of the value has an empty key",
        "the reference shop:b at character 49 of the value has an unknown parameter",
        "the reference shop:b at character 49 of the value has an unknown parameter",
        "a reference after `$$`, at character 88 of the value",
        "a reference in $(...) that is not closed, at character 107 of the value",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "hunter2 secret://hunter2",
        "$$(secret://hunter2/x) hunter2",
        "$(secret://hunter2 hunter2) hunter2",
        "secret://shop/${hunter2}",
        "secret://Hunter2hunter2/hunter2",
        "secret://shop/%zzhunter2?hunter2=hunter2&encode=hunter2#hunter2%zz",
        "secret://shop/db?hunter2&version=hunter2%zz&as=hunter2#hunter2?",
        "hunter2 $(secret://shop/db?as=json&default=hunter2)",
    ],
)
def test_no_fault_echoes_the_text(text: str):
    assert "hunter2" not in told(text)


def test_unknown_and_empty_parameters_are_answered_with_the_known_ones():
    for text in ("secret://shop/db?x=1", "secret://shop/db?version="):
        assert "the parameters are version, encode, as, optional, default" in told(text)


stores = st.one_of(st.just(""), st.from_regex(r"[a-z0-9]{2,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True))
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20).filter(
    lambda name: "${" not in name
)


@given(
    stores,
    names,
    names,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.sampled_from([None, "json", "url"]),
)
def test_what_is_percent_encoded_comes_back(store: str, ref: str, version: str, default: str, encode: str | None):
    text = (
        f"secret://{store}/{quote(ref, safe='/:')}?version={quote(version, safe='')}&default={quote(default, safe='')}"
    )
    text += f"&encode={encode}" if encode else ""
    expected = Reference(store, ref, version, encode=encode, default=default)
    assert parse(text) == (expected,)
    assert parse(f"a {text.join(['$(', ')'])} b") == ("a ", expected, " b") or ")" in text


PARTS = ["secret:", "//", "!", "$", "(", ")", "shop", "/", "#", "?", "version=", "&", "%", "2", " ", "\n", "a"]


@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join))
def test_any_text_is_cut_refused_or_not_ours(text: str):
    try:
        template = parse(text)
    except SecretweaveError:
        return
    if template is None:
        assert "secret://" not in text
        return
    assert any(marker.decode() in text for marker in MARKERS)
    assert all(first != "" for first in template)
    assert not any(isinstance(a, str) and isinstance(b, str) for a, b in pairwise(template))


@given(st.text(max_size=40))
def test_escaping_every_marker_gives_the_text_back(text: str):
    text = f"{text}secret://{text}secret:!//"
    assert parse(text.replace("secret:", "secret:!")) == (text,)
