import pytest

from secretweave import select
from secretweave.errors import BadReference, NotFound, SecretweaveError, StoreError
from secretweave.model import Record, SecretFields, SecretValue

FIELDS = SecretFields(
    {
        "user": "web",
        "password": 'p"ß\n',
        "port": 5432,
        "big": 123456789012345678901234567890,
        "rate": 1000000.0,
        "small": 0.1,
        "tls": True,
        "off": False,
        "null": None,
        "empty": "",
        "key": b"\x00\xff",
        "hosts": ["a", "b"],
        "deep": {"list": [{"name": "x"}], "a/b": "slash", "m~n": "tilde", "": "nameless", "0": "zero"},
        "json": '{"token": "t", "list": [1, null]}',
        "yaml": "token: t\nlist: [1, two]\n",
        "a/b": "path-like",
    }
)
BLOB = b'{"user": "web", "n": 1.50, "deep": {"list": ["x", "y"]}}'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user", b"web"),
        ("password", 'p"ß\n'.encode()),
        ("port", b"5432"),
        ("big", b"123456789012345678901234567890"),
        ("rate", b"1000000.0"),
        ("small", b"0.1"),
        ("tls", b"true"),
        ("off", b"false"),
        ("empty", b""),
        ("key", b"\x00\xff"),
        ("hosts", b'["a","b"]'),
        ("a/b", b"path-like"),
        ("/user", b"web"),
        ("/a~1b", b"path-like"),
        ("/hosts/1", b"b"),
        ("/deep/list/0/name", b"x"),
        ("/deep/list", b'[{"name":"x"}]'),
        ("/deep/a~1b", b"slash"),
        ("/deep/m~0n", b"tilde"),
        ("/deep/", b"nameless"),
        ("/deep/0", b"zero"),
        ("/json/token", b"t"),
        ("/json/list/0", b"1"),
        ("/json/list", b"[1,null]"),
        ("/yaml/list/1", b"two"),
        ("/key", b"\x00\xff"),
    ],
)
def test_a_field_of_fields(key: str, value: bytes):
    assert select.pick(Record(FIELDS, "1"), key, show_names=True) == SecretValue(value)


@pytest.mark.parametrize(
    ("blob", "key", "value"),
    [
        (BLOB, None, BLOB),
        (b"\x00\xff", None, b"\x00\xff"),
        (BLOB, "user", b"web"),
        (BLOB, "deep", b'{"list":["x","y"]}'),
        (BLOB, "/deep/list/1", b"y"),
        (b"user: web\npin: 0755\nversion: 1.10\n", "pin", b"0755"),
        (b"user: web\npin: 0755\nversion: 1.10\n", "version", b"1.10"),
        (b'["a", "b"]', "/1", b"b"),
        (b'\xef\xbb\xbf{"a": 1}', "a", b"1"),
        ('{"ü": "世界"}'.encode(), "ü", "世界".encode()),
    ],
)
def test_a_field_of_a_blob(blob: bytes, key: str | None, value: bytes):
    assert select.pick(Record(SecretValue(blob), ""), key, show_names=True) == SecretValue(value)


def test_the_only_field_value_is_the_whole_secret():
    assert select.pick(Record(SecretFields({"value": 5}), ""), None, show_names=True) == SecretValue(b"5")


@pytest.mark.parametrize(
    "key", ["pasword", "/deep/x", "/hosts/2", "/hosts/-", "/hosts/01", "/hosts/a", "/json/x", "/x/y"]
)
def test_an_absent_key_counts_as_missing(key: str):
    with pytest.raises(NotFound):
        select.pick(Record(FIELDS, ""), key, show_names=True)


@pytest.mark.parametrize(
    ("value", "key", "cls", "what"),
    [
        (FIELDS, None, StoreError, "the secret has fields, and the reference names none"),
        (SecretFields({}), None, StoreError, "the secret has fields, and the reference names none"),
        (SecretFields({"only": "x"}), None, StoreError, "the secret has fields, and the reference names none"),
        (FIELDS, "null", StoreError, "the value is null"),
        (FIELDS, "/null", StoreError, "the value is null"),
        (FIELDS, "/null/x", StoreError, "the reference names a field, but the secret has none there"),
        (FIELDS, "/json/list/1", StoreError, "the value is null"),
        (FIELDS, "/user/x", StoreError, "the reference names a field, but the secret has none there"),
        (FIELDS, "/port/x", StoreError, "the reference names a field, but the secret has none there"),
        (FIELDS, "/key/x", StoreError, "the reference names a field, but the secret has none there"),
        (FIELDS, "/deep~2", BadReference, "the key is no JSON pointer"),
        (SecretValue(b"just text"), "a", StoreError, "the reference names a field, but the secret has none there"),
        (SecretValue(b"a: 1\na: 2\n"), "a", StoreError, "the reference names a field, but the secret has none there"),
        (SecretValue(b"[" * 100_000), "a", StoreError, "the reference names a field, but the secret has none there"),
        (SecretFields({"a": {"b": b"\xff"}}), "a", StoreError, "the value cannot be written as JSON"),
        (SecretFields({"a": float("inf")}), "a", StoreError, "the value cannot be written as JSON"),
        (SecretFields({"a": "\ud800"}), "a", StoreError, "the value is not text"),
    ],
)
def test_what_no_default_answers(
    value: SecretValue | SecretFields, key: str | None, cls: type[SecretweaveError], what: str
):
    with pytest.raises(cls) as caught:
        select.pick(Record(value, ""), key, show_names=True)
    assert (caught.value.what, isinstance(caught.value, NotFound)) == (what, False)


@pytest.mark.parametrize(("show", "why"), [(True, "it has: `user`, `password`"), (False, "")])
@pytest.mark.parametrize("key", [None, "token"])
def test_the_names_of_the_fields_are_told_only_where_allowed(key: str | None, show: bool, why: str):
    with pytest.raises(StoreError) as caught:
        select.pick(Record(SecretFields({"user": "hunter2", "password": "hunter2"}), ""), key, show_names=show)
    assert caught.value.why == why
    assert "hunter2" not in repr(vars(caught.value))
