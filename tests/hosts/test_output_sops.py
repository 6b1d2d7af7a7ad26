"""The output `sops`, by the real command and the real `sops`, with age recipients."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

from tests.hosts.programs import documents, need

Result = subprocess.CompletedProcess[bytes]
TOKEN = "s3cr3t-t0ken-of-the-shop"
PEM = "-----BEGIN KEY-----\n  line one of the key\n\nline two of the key \n-----END KEY-----\n"
STORE = f"""\
token: {TOKEN}
mode: "0755"
answer: "yes"
empty: ""
pem: {json.dumps(PEM)}
word: "Grüße, \\U0001F600 and \\t a tab"
binary: !!binary AAECA/8QEBAQEBAQ
"""
CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: store.yaml}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
"""
# Runs the real program, and writes down all that others could see of it.
RECORDING = """\
#!/bin/sh
{{ echo "args: $*"; env; echo "cwd: $(pwd)"; }} >> {folder}/record.$$
exec {program} "$@"
"""


class Sealer:
    """The command with a store, an age identity and a digest key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sops = need("sops")
        identity = x25519.Identity.generate()
        self.identity, self.recipient = str(identity), str(identity.to_public())
        self.program = self.sops
        (folder / "store.yaml").write_text(STORE)
        (folder / "store.yaml").chmod(0o600)
        (folder / "key").write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
        self.previous = folder / "out.yaml"

    def configured(self, **sops: Any) -> Path:
        path = self.folder / "config.yaml"
        path.write_text(CONFIG + json.dumps({"spec": {"sops": {"program": str(self.program), **sops}}})[1:-1] + "\n")
        return path

    def run(self, stdin: str | bytes, *arguments: str | Path, output: str = "sops", **environ: str) -> Result:
        """With no option but these."""
        return subprocess.run(
            [sys.executable, "-m", "secretweave", "--output", output, *arguments],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "SECRETWEAVE_CONFIG": str(self.folder / "config.yaml"),
                **environ,
            },
            cwd=self.folder,
            capture_output=True,
            check=False,
        )

    def seal(self, stdin: str | bytes, *arguments: str | Path, **environ: str) -> bytes:
        """With everything that is needed, and with the last output; it becomes the last one."""
        done = self.attempt(stdin, *arguments, **environ)
        assert (done.returncode, done.stderr) == (0, b"")
        self.previous.write_bytes(done.stdout)
        return done.stdout

    def attempt(self, stdin: str | bytes, *arguments: str | Path, age: str = "", **environ: str) -> Result:
        if not (self.folder / "config.yaml").exists():
            self.configured()
        keys = ["--age", age or self.recipient]
        keeping: list[str | Path] = ["--digest-key-file", self.folder / "key", "--previous", self.previous]
        return self.run(stdin, *keys, *keeping, *arguments, **environ)

    def opened(self, sealed: bytes, identity: str = "") -> str:
        """One document, by the real program."""
        done = subprocess.run(
            [self.sops, "decrypt", "--input-type", "yaml", "--output-type", "yaml", "/dev/stdin"],
            input=sealed,
            env={"SOPS_AGE_KEY": identity or self.identity, "HOME": str(self.folder)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    return Sealer(tmp_path)


def cut(stream: bytes) -> list[bytes]:
    return re.split(rb"(?m)^---.*\n", stream)


def secret(name: str, **texts: str) -> str:
    lines = "".join(f"  {key}: {value}\n" for key, value in texts.items())
    return f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: web\nstringData:\n{lines}"


CONFIGMAP = "# kept: as it is\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {mode: 0755, 'a' : \"b\"}\n"
EVERYTHING = f"""\
{CONFIGMAP}---
# Source: chart/templates/secret.yaml, once with another-old-value
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: web
  labels: {{app: shop, version: "1.10", "on": "yes"}}
  annotations:
    note: |
      two
        lines
    date: 2026-01-31
  creationTimestamp: null
type: Opaque
immutable: true
stringData:
  token: secret://shop/token
  url: https://user:$(secret://shop/token)@db.example.com/x
  mode: secret://shop/mode
  answer: secret://shop/answer
  empty: secret://shop/empty
  pem: secret://shop/pem
  word: secret://shop/word
  literal: 'hunter2: "hunter2"'
  quoted: "0755"
  date: 2026-01-31
  block: |-
    literal first line
      literal second line
  anchored: &a shared-literal-text
  alias: *a
  nothing:
data:
  binary: secret://shop/binary
  token: secret://shop/token
  literal: aHVudGVyMi1pbi1iYXNlNjQ=
---
{CONFIGMAP}---

# nothing
---
{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "json"}}, "data": {{"t": "aHVudGVyMmh1bnRlcjI="}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: bare}}
"""
WRONG = "sops did not encrypt the Secret as it should"
VALUES = [
    "another-old-value",
    TOKEN,
    base64.b64encode(TOKEN.encode()).decode(),
    "line one of the key",
    "line two of the key",
    "Grüße",
    "AAECA/8QEBAQEBAQ",
    "hunter2",
    "aHVudGVyMi1pbi1iYXNlNjQ=",
    "aHVudGVyMmh1bnRlcjI=",
    "literal first line",
    "shared-literal-text",
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_sops_opens_is_what_the_output_secret_gives(sealer: Sealer, newline: str):
    source = EVERYTHING.replace("\n", newline)
    sealed = cut(sealer.seal(source))
    plain = cut(sealer.run(source, output="secret").stdout)
    assert [index for index, pair in enumerate(zip(sealed, plain, strict=True)) if pair[0] != pair[1]] == [1, 4]
    for index in (1, 4):
        (expected,) = documents(plain[index].decode())
        assert documents(sealer.opened(sealed[index])) == [expected | read_as_kubernetes(expected)]
        (readable,) = documents(sealed[index].decode())
        del readable["sops"]
        for section in {"data", "stringData"} & readable.keys():
            values = readable.pop(section)
            assert values.keys() == expected.pop(section).keys()
            assert {value[:19] for value in values.values() if value} == {"ENC[AES256_GCM,data"}
        assert readable == expected | read_as_kubernetes(expected)
    text = b"".join(sealed).decode()
    assert [value for value in VALUES if value in text] == []


def read_as_kubernetes(document: dict[str, Any]) -> dict[str, Any]:
    """What YAML 1.2 calls a date is text."""
    found = {}
    if "date" in document.get("stringData", {}):
        found["stringData"] = document["stringData"] | {"date": "2026-01-31"}
    annotations = document["metadata"].get("annotations", {})
    if "date" in annotations:
        found["metadata"] = document["metadata"] | {"annotations": annotations | {"date": "2026-01-31"}}
    return found


def test_no_text_is_lost_on_the_way(sealer: Sealer):
    """go-yaml v3, in sops, writes some texts of several lines so that it reads null of them."""
    texts = {
        "tab": "\tx\ny\n",
        "space": " x\n\ty",
        "breaks": "\n\n",
        "marker": "a\n--- b\n...\n",
        "return": "a\r\nb\r",
        "long": "word " * 20_000,
        "lines": "  line of a key\n" * 5_000,
    }
    source = secret("a", **{key: json.dumps(text) for key, text in texts.items()})
    (opened,) = documents(sealer.opened(sealer.seal(source)))
    tab = {"tab": base64.b64encode(texts.pop("tab").encode()).decode()}
    assert (opened["stringData"], opened["data"]) == (texts, tab)


def test_an_unchanged_document_is_used_again_without_the_program(sealer: Sealer):
    first = sealer.seal(EVERYTHING)
    sealer.program = Path("/bin/false")
    sealer.configured()
    assert sealer.seal(EVERYTHING) == first
    assert sealer.seal(EVERYTHING.replace("\n", "\r\n")).replace(b"\r", b"") == first


def test_a_changed_value_changes_its_document_alone(sealer: Sealer):
    source = "---\n".join(secret(name, token="secret://shop/token", own=f"literal-{name}") for name in "abc")
    first = cut(sealer.seal(source))
    second = cut(sealer.seal(source.replace("literal-b", "literal-x")))
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, True]
    assert "literal-x" in sealer.opened(second[1])
    assert cut(sealer.seal(source.replace("literal-b", "literal-x"))) == second


def test_previous_may_be_a_folder_in_which_documents_have_moved(sealer: Sealer):
    source = [secret("a", x="literal-a"), secret("b", x="literal-b")]
    sealed = cut(sealer.seal("---\n".join(source)))
    folder = sealer.folder / "rendered" / "deep"
    folder.mkdir(parents=True)
    for name, data in (("x.yaml", sealed[0]), ("y.yml", b"---\n" + sealed[1])):
        (folder / name).write_bytes(data)
    sealer.program = Path("/bin/false")
    sealer.configured()
    sealer.previous = sealer.folder / "rendered"
    assert cut(sealer.attempt("---\n".join(reversed(source))).stdout) == sealed[::-1]


def test_another_recipient_or_digest_key_or_namespace_encrypts_everything_anew(sealer: Sealer):
    source = "---\n".join(secret(name, own=f"literal-{name}") for name in "ab")
    first = cut(sealer.seal(source))
    friend = x25519.Identity.generate()
    shared = cut(sealer.seal(source, age=f"{sealer.recipient},{friend.to_public()}"))
    assert [one == other for one, other in zip(first, shared, strict=True)] == [False, False]
    assert "literal-a" in sealer.opened(shared[0], str(friend))
    (sealer.folder / "key").write_bytes(os.urandom(40))
    rotated = cut(sealer.seal(source, age=f"{sealer.recipient},{friend.to_public()}"))
    assert [one == other for one, other in zip(shared, rotated, strict=True)] == [False, False]


def test_nothing_forged_is_used_again(sealer: Sealer):
    source = "---\n".join(secret(name, own="one-literal") for name in ("a", "b"))
    one, other = cut(sealer.seal(source))
    assert (one.split(b"\n")[0], len(one)) != (other.split(b"\n")[0], 0)
    (line, body), (strange_line, strange_body) = one.split(b"\n", 1), other.split(b"\n", 1)
    tag = line.rpartition(b".")[2]
    for forged in (
        line + b"\n" + strange_body.replace(b"name: b", b"name: a"),
        strange_line + b"\n" + body,
        line + b"\n" + body.replace(b"namespace: web", b"namespace: web\n    labels: {x: y}"),
        line + b"\n" + body + b"# more\n",
        line[:-1] + b"\n" + body,
        line.replace(tag, b"A" * 43) + b"\n" + body,
        line.replace(tag, b"!" * 43) + b"\n" + body,
        b"\n" + line + b"\n" + body,
        b"\xff\x00" + line + b"\n" + body,
    ):
        sealer.previous.write_bytes(forged)
        done = cut(sealer.attempt(source).stdout)[0]
        assert done not in {one, forged}
        assert "one-literal" in sealer.opened(done)
    sealer.previous.write_bytes(b"---\n" + one + b"---\n" + strange_line + b"\n" + body)
    assert cut(sealer.attempt(source).stdout)[0] == one


def test_no_value_is_where_others_could_see_it(sealer: Sealer):
    wrapper = sealer.folder / "sops"
    wrapper.write_text(RECORDING.format(folder=sealer.folder, program=sealer.sops))
    wrapper.chmod(0o755)
    sealer.program = wrapper
    (sealer.folder / ".sops.yaml").write_text("[no: configuration")
    before = {path.name for path in sealer.folder.iterdir()} | {"config.yaml", "out.yaml"}
    temporary = sealer.folder / "tmp"
    temporary.mkdir()
    sealer.seal(EVERYTHING, TMPDIR=str(temporary), SOPS_AGE_KEY=sealer.identity, SOPS_PGP_FP="0" * 40)
    records = [path.read_text() for path in sealer.folder.glob("record.*")]
    assert len(records) == 2
    told = "".join(records)
    assert [value for value in [*VALUES, sealer.identity, "0" * 40] if value in told] == []
    assert told.count("cwd: /\n") == 2
    assert "--filename-override=web/secret-db.yaml" in told
    assert list(temporary.iterdir()) == []
    left = {path.name for path in sealer.folder.iterdir() if not path.name.startswith("record.")}
    assert left == before | {"tmp"}


def test_a_missing_program_is_told_once(sealer: Sealer):
    sealer.program = Path("/nonexistent/sops")
    done = sealer.attempt("---\n".join(secret(name, own="hunter2hunter2") for name in "abc"))
    assert (done.returncode, done.stdout) == (6, b"")
    message = done.stderr.decode()
    assert "where: Secret web/a" in message
    assert "what:  the program sops cannot be started" in message
    assert "spec.sops.program" in message
    assert "hunter2" not in message


def test_without_a_program_on_the_path(sealer: Sealer):
    (sealer.folder / "config.yaml").write_text(CONFIG)
    done = sealer.attempt(secret("a", own="hunter2hunter2"), PATH=str(sealer.folder))
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"what:  the program sops is not installed" in done.stderr


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("exit 3", "sops cannot encrypt: it ended with the exit code 3"),
        ("cat", WRONG),
        ("true", "sops gave nothing"),
        ("kill -9 $$", "sops was ended by signal 9"),
        (
            "{sops} \"$@\" | sed 's/  own: ENC.*/  own: hunter2hunter2/'",
            WRONG,
        ),
        ("{sops} \"$@\" | sed 's/  own: ENC.*/  own: /'", WRONG),
        ("{sops} \"$@\" | sed 's/name: b/name: c/'", WRONG),
        ("{sops} \"$@\" | sed 's/kind: Secret/kind: ConfigMap/'", WRONG),
        ("{sops} \"$@\" | sed 's/mac: .*/mac: x/'", WRONG),
        ("echo '# hunter2hunter2'; {sops} \"$@\"", WRONG),
        ("{sops} \"$@\"; echo '---'; echo 'a: b'", WRONG),
        ("yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the encrypted Secret is larger than"),
        ("sleep 60", "sops had not ended when the run's deadline was over"),
    ],
)
def test_a_program_that_fails_for_one_of_three(sealer: Sealer, script: str, what: str):
    wrapper = sealer.folder / "sops"
    failing = script.replace("{sops}", str(sealer.sops))
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *secret-b.yaml*) {failing} ;; *) exec {sealer.sops} "$@" ;; esac\n')
    wrapper.chmod(0o755)
    sealer.program = wrapper
    config = sealer.configured()
    if "sleep" in script:
        config.write_text(config.read_text().replace('"spec": {', '"spec": {"limits": {"deadline": "3s"}, '))
    source = "---\n".join(secret(name, own="hunter2hunter2") for name in "abc")
    done = sealer.attempt(source)
    assert (done.returncode, done.stdout) == (6, b"")
    message = done.stderr.decode()
    assert what in message
    assert "where: Secret web/b\n" in message
    assert "hunter2" not in message


def test_a_list_that_holds_a_secret_is_taken_apart(sealer: Sealer):
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "x\ny\n", "b": "0755"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"t": "secret://shop/token"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "none"}, "type": "Opaque"},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "v"}, "spec": {"ports": [{"port": 80}], "x": []}},
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    secrets = "kind: SecretList\napiVersion: v1\nitems:\n- metadata: {name: told}\n  stringData: {t: hunter2hunter2}\n"
    untouched = json.dumps({"apiVersion": "v1", "kind": "List", "items": items[:1]}) + "\n"
    sealed = cut(sealer.seal(f"{listed}\n---\n{secrets}---\n{untouched}"))
    assert [documents(each.decode())[0] for each in (sealed[0], sealed[2], sealed[3])] == [
        items[0],
        items[2],
        items[3],
    ]
    expected: dict[str, Any] = items[1] | {"stringData": {"t": TOKEN}}
    assert documents(sealer.opened(sealed[1])) == [expected]
    (told,) = documents(sealer.opened(sealed[4]))
    assert (told["apiVersion"], told["kind"], told["stringData"]) == ("v1", "Secret", {"t": "hunter2hunter2"})
    assert sealed[5].decode() == untouched


def test_creation_rules_choose_the_key_by_namespace_and_name(sealer: Sealer):
    other = x25519.Identity.generate()
    rules = (
        "creation_rules:\n"
        f"- path_regex: ^web/secret-.*\\.yaml$\n  age: {sealer.recipient}\n"
        f"- path_regex: ^ops/\n  age: {other.to_public()}\n"
    )
    (sealer.folder / "platform").mkdir()
    path = sealer.folder / "platform" / ".sops.yaml"
    path.write_text(rules)
    sealer.configured(config=str(path))
    source = secret("a", x="literal-a") + "---\n" + secret("b", x="literal-b").replace("  namespace: web\n", "")
    keeping: list[str | Path] = ["--digest-key-file", sealer.folder / "key", "--previous", sealer.previous]
    done = sealer.run(source, *keeping, "--namespace", "ops")
    assert done.stderr == b""
    web, ops = cut(done.stdout)
    assert "literal-a" in sealer.opened(web)
    assert "literal-b" in sealer.opened(ops, str(other))
    sealer.previous.write_bytes(done.stdout)
    assert sealer.run(source, *keeping, "--namespace", "ops").stdout == done.stdout
    path.write_text(rules + "# another rule\n")
    assert sealer.run(source, *keeping, "--namespace", "ops").stdout != done.stdout
    failed = sealer.run(source, *keeping, "--namespace", "none")
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert b"no creation rule of the .sops.yaml fits the Secret" in failed.stderr
    assert b"where: Secret none/b" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "what", "why"),
    [
        ((), "the output sops has no key to encrypt with", "one in the working directory is not looked for"),
        (("--age", "{age}"), "the output sops would differ at each run", "there is no digest key"),
        (("--age", "{age}", "--digest-key-file", "key"), "the output sops would differ", "no earlier output is named"),
        (("--age", "{age}", "--previous", "x"), "the output sops would differ", "there is no digest key"),
        (("--age", "{age}", "--sops-config", "x"), "the output sops has keys and a .sops.yaml", ""),
        (("--sops-config", "x", "--unstable"), "the .sops.yaml cannot be read", "No such file or directory"),
        (("--age", "{age}", "--digest-key-file", "short"), "the digest key has not 32 to 4096 bytes", ""),
        (("--age", "{age}", "--digest-key-file", "none"), "the file of the digest key cannot be read", ""),
        (("--age", "age1nonsense", "--unstable"), "sops cannot encrypt", "an age recipient is malformed"),
        (("--age", "AGE-SECRET-KEY-1X", "--unstable"), "sops cannot encrypt", "an age recipient is malformed"),
    ],
)
def test_what_a_run_lacks_is_told_before_anything_is_written(
    sealer: Sealer, arguments: tuple[str, ...], what: str, why: str
):
    sealer.configured()
    (sealer.folder / ".sops.yaml").write_text(f"creation_rules: [{{age: {sealer.recipient}}}]\n")
    (sealer.folder / "short").write_bytes(b"short")
    done = sealer.run(secret("a", x="hunter2hunter2"), *(each.format(age=sealer.recipient) for each in arguments))
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"what:  {what}" in done.stderr.decode()
    assert why in done.stderr.decode()
    assert b"SECRET-KEY" not in done.stderr


def test_it_is_told_before_a_store_is_asked(sealer: Sealer):
    sealer.configured()
    (sealer.folder / "store.yaml").unlink()
    assert b"has no key to encrypt with" in sealer.run(secret("a", x="secret://shop/token")).stderr


def test_unstable_encrypts_anew_each_time(sealer: Sealer):
    sealer.configured()
    source = secret("a", x="literal-a")
    one, other = (sealer.run(source, "--unstable", SECRETWEAVE_AGE=sealer.recipient).stdout for _ in range(2))
    assert one != other
    assert b"secretweave.dev/reuse" not in one
    assert documents(sealer.opened(one)) == documents(sealer.opened(other)) == documents(source)


def test_a_value_outside_of_a_secret_is_refused_and_no_store_asked(sealer: Sealer):
    (sealer.folder / "store.yaml").unlink()
    source = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: secret://shop/token\n"
        "  b: x$(secret://shop/token)\n"
    )
    config = sealer.configured()
    allowed = '"spec": {"policy": {"values": [{"store": "shop", "kind": "ConfigMap", "field": "data.*"}]}, '
    config.write_text(config.read_text().replace('"spec": {', allowed))
    done = sealer.attempt(source)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode().partition("secretweave: 2 errors\n")[2] == (
        """\
1.
  where: stdin, document 1, line 5, ConfigMap c, data.a
  what:  a secret value outside of a Secret
  why:   the output sops encrypts Secrets alone: here the value would be readable to whoever reads the output
  fix:   put the reference into a Secret, and have the object name that (policy.values cannot allow it here)
2.
  where: stdin, document 1, line 6, ConfigMap c, data.b
  what:  a secret value outside of a Secret
  why:   the output sops encrypts Secrets alone: here the value would be readable to whoever reads the output
  fix:   put the reference into a Secret, and have the object name that (policy.values cannot allow it here)
nothing was written
"""
    )


def test_what_is_encrypted_already_passes(sealer: Sealer):
    sealed = sealer.seal(secret("a", x="literal-a", empty='""'))
    source = sealed + b"---\n" + secret("b", x="secret://shop/token").encode()
    again = cut(sealer.seal(source))
    assert again[0] == sealed
    assert TOKEN in sealer.opened(again[1])
    for broken in (
        re.sub(rb"(?m)^    x: ENC.*", b"    x: hunter2hunter2", sealed),
        re.sub(rb"(?m)^    x: ENC.*", rb"\g<0>\n    y: secret://shop/token", sealed),
        re.sub(rb"(?m)^    x: (ENC.*)", rb"    x: hunter2 \1", sealed),
        re.sub(rb"(?ms)^sops:.*", b"", sealed),
        re.sub(rb"(?m)^    mac: .*\n", b"", sealed),
    ):
        assert broken != sealed
        done = sealer.attempt(broken)
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"a Secret that is encrypted in part" in done.stderr
        assert b"hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("source", "code", "what"),
    [
        (secret("a", port="5432"), 3, "a value of a Secret that is no text"),
        (secret("a", mode="0755"), 3, "a number in a spelling"),
        (secret("a", on_="yes"), 3, "a value of a Secret that is no text"),
        (secret("a", x="[hunter2hunter2]"), 3, "a value of a Secret that is no text"),
        (secret("a", x="!!binary aHVudGVyMg=="), 3, "a YAML tag in a Secret"),
        (
            secret("a", x="hunter2hunter2").replace(
                "  namespace: web\n", "  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}\n"
            ),
            4,
            "a Secret whose values stand in an annotation as well",
        ),
        (
            secret("a", x="hunter2hunter2").replace("  namespace: web\n", '  labels: {data: "x"}\n'),
            6,
            "sops did not encrypt the Secret as it should",
        ),
        (
            "apiVersion: x/v1\nkind: Bundle\nitems: [{apiVersion: v1, kind: Secret, data: {x: aHVudGVyMg==}}]\n",
            3,
            "a Secret inside of an object that is no list",
        ),
    ],
)
def test_what_cannot_be_encrypted_is_refused(sealer: Sealer, source: str, code: int, what: str):
    done = sealer.attempt(f"{CONFIGMAP}---\n{source}")
    assert (done.returncode, done.stdout) == (code, b"")
    assert what in done.stderr.decode()
    assert b"hunter2" not in done.stderr


def test_a_long_stream_keeps_its_order(sealer: Sealer):
    """More than fits into what is kept in memory, and more Secrets than run at a time."""
    filler = CONFIGMAP + "".join(f"# {number:0200}\n" for number in range(4000))
    source = "---\n".join(f"{secret(f's{number}', x=f'literal-{number}')}---\n{filler}" for number in range(25))
    sealed = cut(sealer.seal(source))
    assert [each.decode() for each in sealed[1::2]] == [filler] * 25
    names = [re.search(rb"\n    name: (\w+)\n", each)[1].decode() for each in sealed[::2]]  # type: ignore[index] # each has one
    assert names == [f"s{number}" for number in range(25)]
    assert b"literal-" not in b"".join(sealed)
    assert cut(sealer.seal(source)) == sealed


def test_options_of_sealing_ask_for_its_output(sealer: Sealer):
    sealer.configured()
    done = sealer.run(secret("a", x="y"), "--unstable", output="secret")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the output secret encrypts nothing" in done.stderr
