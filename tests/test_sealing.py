"""What is sealed, and how an earlier run's ciphertext is known again, without the program."""

import base64
import hashlib
import hmac
import os
from pathlib import Path

import pytest

from secretweave import options
from secretweave.errors import ConfigError, InputError, PolicyError, SecretweaveError, StoreError
from secretweave.sealing import manifest, reuse
from secretweave.sealing.manifest import Part, parts, verify
from tests.conftest import Command

ENC = "ENC[AES256_GCM,data:YQ==,iv:aQ==,tag:dA==,type:str]"
HEAD = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
ENC_IN_BASE64 = base64.b64encode(f"sops_mac={ENC}\npassword={ENC}\n".encode()).decode()
WRITTEN = 'apiVersion: "v1"\nkind: "Secret"\nmetadata:\n  name: "s"\n'


def sealed(text: str, namespace: str | None = None) -> list[Part]:
    return parts(text.encode(), namespace, depth=100, nodes=1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# a comment\n",
        "just: text\n",
        "[a, b]\n",
        HEAD,
        HEAD + "data:\n",
        HEAD + "data: {}\nstringData: ~\n",
        "apiVersion: example.com/v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b}\n",
        "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n",
        f"kind: SecretList\nitems: [{{metadata: {{name: s}}, sops: {{mac: '{ENC}'}}, data: {{a: '{ENC}'}}}}]\n",
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret, metadata: {name: s}}]\n",
        HEAD + f"data: {{a: '{ENC}', b: ''}}\nsops: {{mac: '{ENC}'}}\n",
    ],
)
def test_what_passes_as_it_is(text: str):
    assert sealed(text) == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (HEAD + "stringData: {a: b}\n", WRITTEN + 'stringData:\n  a: "b"\n'),
        (HEAD + "data: {a: ''}\n", WRITTEN + 'data:\n  a: ""\n'),
        (
            HEAD + "# hunter2\nstringData:\n  a: '0755' # hunter2\n  b: |\n    x\n     y\n  c: 2026-01-31\n  d:\n",
            WRITTEN + 'stringData:\n  a: "0755"\n  b: "x\\n y\\n"\n  c: "2026-01-31"\n  d: null\n',
        ),
        (
            HEAD.replace("name: s", "name: s, labels: {'on': 'yes', a: 1.10.0}, finalizers: [x], x: [], z: {}")
            + "immutable: yes\nstringData: {a: &v b, c: *v}\n",
            WRITTEN + '  labels:\n    "on": "yes"\n    a: "1.10.0"\n'
            '  finalizers:\n    - "x"\n  x: []\n  z: {}\nimmutable: true\nstringData:\n  a: "b"\n  c: "b"\n',
        ),
        (HEAD + "stringData: {<<: {a: x, b: w}, a: z}\n", WRITTEN + 'stringData:\n  a: "z"\n  b: "w"\n'),
        (
            HEAD + 'stringData: {a: "\\tx\\ny", b: z}\ndata: {a: b2xk, c: bmV3}\n',
            WRITTEN + 'data:\n  c: "bmV3"\n  a: "CXgKeQ=="\nstringData:\n  b: "z"\n',
        ),
        (
            '{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"1": "Yg=="}}',
            WRITTEN + 'data:\n  "1": "Yg=="\n',
        ),
    ],
)
def test_what_is_handed_to_sops(text: str, written: str):
    (part,) = sealed(text)
    assert part.text == written
    assert part.secret is not None


@pytest.mark.parametrize("text", ["kind: Secret\n", "kind: SecretList\nitems:\n- "])
def test_kubernetes_reads_an_empty_group_as_none(text: str):
    (part,) = sealed(f"apiVersion: /v1\n{text}stringData: {{a: hunter2}}\n")
    assert part.secret is not None


def test_a_secret_is_known_by_its_name_and_the_runs_namespace():
    (part,) = sealed(HEAD + "data: {a: Yg==}\n", "web")
    assert part.secret is not None
    assert (part.secret.namespace, part.secret.name, str(part.secret.where)) == ("web", "s", "Secret web/s")


def test_a_list_is_taken_apart_in_order_however_nested():
    text = (
        "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n"
        "- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: w}}\n"
        "- apiVersion: v1\n  kind: List\n  items:\n"
        "  - {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: Yg==}}\n"
        "  - {apiVersion: v1, kind: List, items: []}\n"
        "- {apiVersion: v1, kind: Service, metadata: {name: z}}\n"
    )
    found = sealed(text)
    assert [part.text for part in found] == [
        'apiVersion: "v1"\nkind: "ConfigMap"\nmetadata:\n  name: "a"\ndata:\n  x: "w"\n',
        WRITTEN + 'data:\n  a: "Yg=="\n',
        'apiVersion: "v1"\nkind: "Service"\nmetadata:\n  name: "z"\n',
    ]
    assert [part.secret is not None for part in found] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "error", "what", "field"),
    [
        ("stringData: {p: 5432}", InputError, "a value of a Secret that is no text", "stringData.p"),
        ("stringData: {p: [hunter2]}", InputError, "a value of a Secret that is no text", "stringData.p"),
        ("stringData: {p: on}", InputError, "a value of a Secret that is no text", "stringData.p"),
        ("stringData: {p: 0x1F}", InputError, "a number in a spelling", ""),
        ("stringData: {on: x}", InputError, "a key that Kubernetes does not read as text", ""),
        ("stringData: {p: !x hunter2}", InputError, "a YAML tag in a Secret", ""),
        ('stringData: {p: "\\ud83d"}', InputError, "not YAML", ""),
        ("stringData: [hunter2]", InputError, "not a mapping of keys to texts", "stringData"),
        ("stringData: hunter2", InputError, "not a mapping of keys to texts", "stringData"),
        ("stringData: {p: x, p: hunter2}", InputError, "a mapping has the same key twice", "p"),
        (f"data: {{a: '{ENC}', b: hunter2}}\nsops: {{mac: '{ENC}'}}", InputError, "encrypted in part", ""),
        (f"data: {{a: '{ENC}'}}", InputError, "encrypted in part", ""),
        # A generator has read an encrypted file.
        (f"data: {{.env: '{ENC_IN_BASE64}'}}", InputError, "SOPS has encrypted already", 'data[".env"]'),
        (
            f"data: {{.env: '{ENC_IN_BASE64[:8]}\\n{ENC_IN_BASE64[8:]}', a: Yg==}}".replace("'", '"'),
            InputError,
            "already",
            'data[".env"]',
        ),
        (f"stringData: {{.env: 'password={ENC}'}}", InputError, "encrypted in part", ""),
        ("data: {a: hunter2}\nsops: {}", InputError, "encrypted in part", ""),
    ],
)
def test_what_cannot_be_sealed(text: str, error: type[SecretweaveError], what: str, field: str):
    with pytest.raises(error, match=what) as caught:
        sealed(HEAD + text)
    assert caught.value.where.field == field
    assert "hunter2" not in repr(vars(caught.value))


def test_the_applied_configuration_is_no_place_for_values():
    annotated = HEAD.replace("name: s", "name: s, annotations: {kubectl.kubernetes.io/last-applied-configuration: x}")
    with pytest.raises(PolicyError, match="in an annotation"):
        sealed(annotated + "data: {a: Yg==}")
    assert sealed(annotated) == []


def test_aliases_that_unfold_into_too_much_are_refused():
    levels = "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    text = f"apiVersion: v1\nkind: Secret\nmetadata:\n  l0: &l0 [x]\n{levels}stringData: {{a: b}}\n"
    with pytest.raises(InputError, match="unfold into too many"):
        sealed(text)


GOOD = (
    f'apiVersion: v1\nkind: Secret\nmetadata:\n    name: s\nstringData:\n    a: {ENC}\n    b: ""\n'
    f"sops:\n    mac: {ENC}\n"
)


def check(text: str) -> None:
    (part,) = sealed(HEAD + "stringData: {a: hunter2hunter2, b: ''}\n")
    assert part.secret is not None
    verify(text.encode(), part.secret, depth=100, nodes=1000)


def test_what_is_right_passes():
    check(GOOD)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"    a: {ENC}\n", "    a: hunter2hunter2\n"),
        (f"    a: {ENC}\n", f"    a: x{ENC}\n"),
        (f"    a: {ENC}\n", ""),
        (f"    a: {ENC}\n", f"    a: {ENC}\n    c: {ENC}\n"),
        (f"    a: {ENC}\n", f"    a: [{ENC}]\n"),
        ('    b: ""\n', "    b: more\n"),
        (f"    mac: {ENC}\n", "    mac: x\n"),
        (f"sops:\n    mac: {ENC}\n", ""),
        ("kind: Secret", "kind: ConfigMap"),
        ("apiVersion: v1", "apiVersion: v2"),
        ("name: s", "name: t"),
        ("name: s", "name: s\n    more: x"),
        ("stringData:", "type: x\nstringData:"),
        ("apiVersion: v1", "# hunter2hunter2\napiVersion: v1"),
        ("apiVersion: v1", "# aHVudGVyMmh1bnRlcjI=\napiVersion: v1"),
        (GOOD, ""),
        (GOOD, "[a]"),
        (GOOD, "{"),
        (GOOD, f"{GOOD}---\n{GOOD}"),
    ],
)
def test_what_is_wrong_is_refused_without_a_word_of_it(old: str, new: str):
    assert old in GOOD
    with pytest.raises(StoreError, match="sops did not encrypt the Secret as it should") as caught:
        check(GOOD.replace(old, new))
    assert "hunter2" not in repr(vars(caught.value))


def test_a_name_may_be_what_a_value_is():
    text = HEAD.replace("name: s", "name: shop-database") + "stringData: {host: shop-database}\n"
    (part,) = sealed(text)
    assert part.secret is not None
    good = GOOD.replace("name: s", "name: shop-database").replace('    b: ""\n', "").replace("    a:", "    host:")
    verify(good.encode(), part.secret, depth=100, nodes=1000)


KEY = bytes(range(32))


@pytest.mark.parametrize(
    "data", [KEY, KEY.hex().encode() + b"\n", base64.b64encode(KEY), base64.b64encode(KEY) + b"\n"]
)
def test_a_digest_key_is_bytes_or_text_of_them(tmp_path: Path, data: bytes):
    (tmp_path / "key").write_bytes(data)
    assert reuse.read_key(str(tmp_path / "key")) == KEY


@pytest.mark.parametrize("data", [b"", b"short", base64.b64encode(KEY[:16]), b"x" * 5000])
def test_a_digest_key_of_another_length_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(ConfigError, match="the digest key has not 32 to 4096 bytes"):
        reuse.read_key(str(tmp_path / "key"))


def test_a_tag_is_what_the_documentation_says():
    """Computed by hand, so that an earlier run's tags hold after an upgrade."""
    tagger = reuse.Tagger(KEY)
    line = tagger.line(tagger.started(b"plain", b"how"), b"sealed\n")
    derived = hmac.digest(hmac.digest(bytes(32), KEY, "sha256"), b"secretweave reuse v1\x01", "sha256")
    fields = [b"secretweave reuse v1", b"plain", b"how", hashlib.sha256(b"sealed\n").digest()]
    message = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    tag = base64.urlsafe_b64encode(hmac.digest(derived, message, "sha256")).rstrip(b"=")
    key_id = hmac.digest(derived, b"id", "sha256").hex()[:8].encode()
    assert line == b"# secretweave.dev/reuse: v1." + key_id + b"." + tag + b"\n"


def test_equal_secrets_have_tags_that_differ():
    tagger = reuse.Tagger(KEY)
    state = tagger.started(b"plain", b"how")
    assert tagger.line(state, b"sealed once\n") != tagger.line(state, b"sealed again\n")


def previous(folder: Path, data: bytes) -> reuse.Previous:
    (folder / "out.yaml").write_bytes(data)
    return reuse.Previous([str(folder / "out.yaml"), str(folder / "none")], reuse.Tagger(KEY))


def test_an_earlier_document_is_found_where_its_tag_holds(tmp_path: Path):
    tagger = reuse.Tagger(KEY)
    state = tagger.started(b"plain", b"how")
    body = b"metadata:\n    name: s\nsops: x\n"
    document = tagger.line(state, body) + body
    stream = b"a: b\n---\n" + document + b"--- # next\n" + b"c: d\n"
    assert previous(tmp_path, stream).find("s", state) == document
    assert previous(tmp_path, stream).find("t", state) is None
    assert previous(tmp_path, stream).find("s", tagger.started(b"other", b"how")) is None
    assert previous(tmp_path, stream).find("s", tagger.started(b"plain", b"otherwise")) is None
    # The fields have their lengths before them.
    assert previous(tmp_path, stream).find("s", tagger.started(b"plainh", b"ow")) is None
    for changed in (stream.replace(b"sops: x", b"sops: y"), stream.replace(b"\n--- #", b"\n\n--- #"), stream[:-40]):
        assert previous(tmp_path, changed).find("s", state) is None
    other = reuse.Tagger(KEY[::-1])
    foreign = other.line(other.started(b"plain", b"how"), body) + body
    assert previous(tmp_path, foreign).find("s", state) is None


def test_hostile_earlier_output_costs_little(tmp_path: Path):
    tagger = reuse.Tagger(KEY)
    state = tagger.started(b"plain", b"how")
    names = b"".join(b"    name: n%d\n" % number for number in range(200_000))
    line = tagger.line(state, b"x")
    found = previous(tmp_path, line + names + b"---\n" + line * 10_000 + b"---\n" * 10_000 + os.urandom(1 << 20))
    assert found.find("n1", state) is None
    assert found.find("n100000", state) is None


def test_earlier_output_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reuse, "FILE_MAX", 100)
    with pytest.raises(InputError, match="earlier output is larger than 100 bytes"):
        previous(tmp_path, b"x" * 101)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="earlier output cannot be read"):
        reuse.Previous([str(tmp_path / "loop")], reuse.Tagger(KEY))


def test_earlier_output_that_the_shell_has_emptied_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="earlier output is empty"):
        previous(tmp_path, b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out.yaml").write_bytes(b"")
    reuse.Previous([str(tmp_path / "folder"), os.devnull], reuse.Tagger(KEY))


def test_a_short_digest_key_is_refused():
    with pytest.raises(ConfigError, match="less than 32 bytes"):
        reuse.Tagger(KEY[:31])


def test_options_that_may_stand_several_times() -> None:
    request = options.quick(["--age", "a,b", "--age=c", "--previous", "x"], {"SOPS_AGE_RECIPIENTS": "z"})
    assert request is not None
    assert (request.age, request.previous) == (("a", "b", "c"), ("x",))
    request = options.quick([], {"SOPS_AGE_RECIPIENTS": "z,y", "SECRETWEAVE_PREVIOUS": "x,w"})
    assert request is not None
    assert (request.age, request.previous) == (("z", "y"), ("x", "w"))


def test_they_are_read_by_click_as_well(secretweave: Command) -> None:
    told = secretweave("render", "--age", "a,b", "--age", "c", "--previous", "x", "--help").stdout
    assert b"SECRETWEAVE_AGE, SOPS_AGE_RECIPIENTS" in told
    # `--` is click's alone.
    done = secretweave("render", "--output", "sops", "--age", "a", "--age", "b", "--", "-", stdin=b"a: b\n")
    assert b"the output sops would differ at each run" in done.stderr


def test_sections_are_kubernetes_own() -> None:
    assert manifest.SECTIONS == ("data", "stringData")
