"""The file store on what the real `sops` encrypted."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.stores import file, open_store
from secretweave.stores.base import SecretKeyRef, Store
from tests.hosts.programs import need
from tests.stores.contract import Opened, Secret, StoreContract, context, plain

KEY = SecretKeyRef("sops-age", "age.agekey")


class Sops:
    """The program, and a folder with an age identity for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = need("sops")
        identity = x25519.Identity.generate()
        self.identity = str(identity)
        self.recipient = str(identity.to_public())
        self.stranger = str(x25519.Identity.generate())

    def encrypted(self, name: str, text: str, *arguments: str, **environ: str) -> Path:
        """The file *name* with the encrypted text; by the age identity, where no argument names another key."""
        form = {".json": "json", ".env": "dotenv"}.get(Path(f"x{name}").suffix, "yaml")
        keys = [] if any(each in {"--kms", "--pgp"} for each in arguments) else ["--age", self.recipient]
        done = subprocess.run(
            [self.program, "encrypt", "--input-type", form, "--output-type", form, *keys, *arguments, "/dev/stdin"],
            input=text.encode(),
            env={"HOME": str(self.folder), **environ},
            cwd=self.folder,
            capture_output=True,
            check=True,
        )
        assert b"hunter2" not in done.stdout
        return self.written(name, done.stdout)

    def written(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def opened(
        self,
        path: Path,
        environ: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
        **settings: Any,
    ) -> Store:
        """The store on a file; *key*: the age identities in the credential Secret, which the store then names."""
        sops = file.Sops(program=str(self.program), age_key_secret_ref=KEY if key else None, **settings)
        config = StoreConfig("sealed", None, "file", file.Settings(str(path), sops=sops), default=False)
        return open_store(config, context(config, environ, credentials={KEY: key} if key else None))


@pytest.fixture
def sops(tmp_path: Path) -> Sops:
    return Sops(tmp_path)


def entries(secrets: list[Secret]) -> dict[str, Any]:
    paths = [secret.path for secret in secrets]
    return {
        f"{path}@{paths[: index + 1].count(path)}" if paths.count(path) > 1 else path: value
        for index, (path, value) in enumerate(secrets)
    }


def as_yaml(value: object) -> str:
    if isinstance(value, bytes):
        return f'!!binary "{base64.b64encode(value).decode()}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {as_yaml(member)}" for name, member in value.items()) + "}"
    if isinstance(value, str):
        # JSON's two halves of a character are two characters of YAML.
        return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", json.dumps(value, ensure_ascii=False))
    return json.dumps(value)


class TestYaml(StoreContract):
    lacks = frozenset({"metadata"})

    def versions(self, _store: Store, _path: str, /) -> list[str]:
        return ["1", "2"]

    @pytest.fixture
    def opened(self, sops: Sops) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            # SOPS encrypts no file without a value.
            text = as_yaml(entries(secrets) or {"unused": "x"})
            return sops.opened(sops.encrypted("secrets.yaml", text), key=sops.identity)

        return opened


class TestJson(StoreContract):
    lacks = frozenset({"bytes", "metadata"})

    def versions(self, _store: Store, _path: str, /) -> list[str]:
        return ["1", "2"]

    @pytest.fixture
    def opened(self, sops: Sops) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            text = json.dumps(entries(secrets) or {"unused": "x"})
            return sops.opened(sops.encrypted("secrets.json", text), key=sops.identity)

        return opened


@pytest.mark.parametrize("line", ["A=plain", "A=", "A='C:\\new'", 'A="a\\nb \\"c\\" \\\\n"', "A=it's", "A=Grüße"])
def test_a_dotenv_file_reads_as_if_it_were_plain(sops: Sops, line: str):
    text = f"# a comment\n{line}\nOTHER=x\n"
    read = sops.opened(sops.encrypted(".env", text), key=sops.identity).fetch("A", None)
    assert read == sops.opened(sops.written("plain.env", text.encode())).fetch("A", None)


def test_a_line_break_that_sops_wrote_into_dotenv_is_one(sops: Sops):
    path = sops.encrypted(".env", "KEY=-----BEGIN-----\\nhunter2\\n-----END-----\\n\n")
    read = plain(sops.opened(path, key=sops.identity).fetch("KEY", None))
    assert read == b"-----BEGIN-----\nhunter2\n-----END-----\n"


@pytest.mark.parametrize(
    ("spelled", "read"),
    [
        ("0755", b"493"),
        ('"0755"', b"0755"),
        ("1.10", b"1.1"),
        ("'1.10'", b"1.10"),
        ("on", b"on"),
        ("true", b"true"),
        ("5432", b"5432"),
        ("2026-01-31", b"2026-01-31T00:00:00Z"),
        ("|\n  two\n  lines\n", b"two\nlines\n"),
    ],
)
def test_a_value_is_what_sops_read_when_it_was_encrypted(sops: Sops, spelled: str, read: bytes):
    path = sops.encrypted("s.yaml", f"a: {spelled}\n")
    assert plain(sops.opened(path, key=sops.identity).fetch("a", None)) == read


@pytest.mark.parametrize("arguments", [("--unencrypted-suffix", "_open"), ("--encrypted-regex", "^password")])
def test_what_is_not_encrypted_in_an_encrypted_file_is_read_too(sops: Sops, arguments: tuple[str, ...]):
    path = sops.encrypted("s.yaml", "db:\n  password: hunter2\n  host_open: db.example.com\n", *arguments)
    read = plain(sops.opened(path, key=sops.identity).fetch("db", None))
    assert read == {"password": "hunter2", "host_open": "db.example.com"}


@pytest.mark.parametrize("where", ["secret", "file", "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "XDG_CONFIG_HOME", "HOME"])
def test_the_age_identity_is_found(sops: Sops, where: str):
    path = sops.encrypted("s.yaml", "a: hunter2\n")
    keys = sops.folder / "keys.txt"
    for each in (keys, sops.folder / "sops/age/keys.txt", sops.folder / ".config/sops/age/keys.txt"):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text(f"# created: today\n{sops.identity}\n")
    store = {
        "secret": lambda: sops.opened(path, key=sops.identity),
        "file": lambda: sops.opened(path, age_key_file=str(keys)),
        "SOPS_AGE_KEY": lambda: sops.opened(path, {where: sops.identity}),
        "SOPS_AGE_KEY_FILE": lambda: sops.opened(path, {where: str(keys)}),
        "XDG_CONFIG_HOME": lambda: sops.opened(path, {where: str(sops.folder)}),
        "HOME": lambda: sops.opened(path, {where: str(sops.folder)}),
    }[where]()
    assert plain(store.fetch("a", None)) == b"hunter2"


def test_a_tenants_identity_and_configuration_are_not_looked_at(sops: Sops, monkeypatch: pytest.MonkeyPatch):
    """Not what Argo CD passes on of an Application, and nothing in the working directory, which is its repository."""
    path = sops.encrypted("s.yaml", "a: hunter2\n")
    (sops.folder / ".sops.yaml").write_text("[this: is no configuration")
    monkeypatch.chdir(sops.folder)
    monkeypatch.setenv("SOPS_AGE_KEY", sops.identity)
    with pytest.raises(Denied):
        sops.opened(path, {"ARGOCD_ENV_SOPS_AGE_KEY": sops.identity})
    assert plain(sops.opened(path, key=sops.identity).fetch("a", None)) == b"hunter2"


def damaged(text: str) -> str:
    return re.sub(r"(?m)^(a: ENC\[AES256_GCM,data:)(.)", lambda found: found[1] + "BA"[found[2] == "B"], text)


def exchanged(text: str) -> str:
    """Both values are SOPS' own, each in the other's place."""
    first, second = re.findall(r"(?m)^[ab]: (ENC.*)$", text)
    return text.replace(first, "\0").replace(second, first).replace("\0", second)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text.replace("c_unencrypted: open", "c_unencrypted: hunter2"), "the file's MAC does not match"),
        (lambda text: text + "d_unencrypted: hunter2\n", "the file's MAC does not match"),
        (lambda text: re.sub(r"(?m)^b: .*\n", "", text), "the file's MAC does not match"),
        (lambda text: re.sub(r"(?m)^(    mac: ENC\[AES256_GCM,data:)....", r"\1AAAA", text), "the file's MAC does not"),
        (lambda text: re.sub(r"(?m)^    mac: .*$", '    mac: ""', text), "the file's MAC does not match"),
        (lambda text: re.sub(r'(lastmodified: "20)..', r"\g<1>99", text), "the file's MAC does not match"),
        (damaged, "a value of the file cannot be decrypted"),
        (exchanged, "a value of the file cannot be decrypted"),
        (
            lambda text: re.sub(r"(?ms)^sops:.*", "", text),
            "a value is encrypted by SOPS, and is not part of a SOPS file",
        ),
        (lambda text: re.sub(r"(?m)^    mac: .*\n", "", text), "a value is encrypted by SOPS, and is not part of a"),
        (lambda text: re.sub(r"(?ms)^    age:.*?(^    lastm)", r"\1", text), "sops ended with the exit code 1"),
        (lambda text: re.sub(r"(?m)^(            )\w.*$", r"\1AAAA", text), "the file's data key cannot be had"),
        (lambda text: f"{text}---\nsecond: hunter2\n", "the file holds several documents"),
    ],
)
def test_a_damaged_file_gives_nothing(sops: Sops, change: Callable[[str], str], what: str):
    path = sops.encrypted("s.yaml", "a: hunter2\nb: hunter2, too\nc_unencrypted: open\n")
    assert plain(sops.opened(path, key=sops.identity).fetch("c_unencrypted", None)) == b"open"
    text = path.read_text()
    assert change(text) != text
    sops.written("s.yaml", change(text).encode())
    with pytest.raises(StoreError, match=what) as caught:
        sops.opened(path, key=sops.identity)
    assert not isinstance(caught.value, NotFound)
    assert "hunter2" not in repr(vars(caught.value))


@pytest.mark.parametrize(
    ("key", "environ", "why"),
    [
        ("stranger", {}, "none of the age identities at hand is one that the file was encrypted for"),
        ("garbage", {}, "there is no age identity, or it cannot be read"),
        ("", {}, "there is no age identity, or it cannot be read"),
        ("", {"SOPS_AGE_KEY_FILE": "/nonexistent/keys.txt"}, "there is no age identity, or it cannot be read"),
        ("", {"HOME": "/nonexistent"}, "there is no age identity, or it cannot be read"),
    ],
)
def test_without_the_right_age_identity_it_is_denied(sops: Sops, key: str, environ: dict[str, str], why: str):
    path = sops.encrypted("s.yaml", "a: hunter2\n")
    given = {"stranger": sops.stranger, "garbage": "AGE-SECRET-KEY-GARBAGE"}.get(key)
    with pytest.raises(Denied, match="the file's data key cannot be had") as caught:
        sops.opened(path, environ, key=given)
    assert caught.value.why == why
    assert "ageKeyFile" in caught.value.fix
    told = repr(vars(caught.value))
    assert not [secret for secret in (sops.stranger, sops.recipient, "GARBAGE", "hunter2") if secret in told]


class KmsAnswers(BaseHTTPRequestHandler):
    """AWS KMS as its API reference has it: https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html.

    It seals nothing: a ciphertext is the plaintext behind a mark.
    """

    refuses = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = 200, {"KeyId": asked["KeyId"]}
        if self.refuses:
            status, answer = 400, {"__type": self.refuses, "message": "hunter2"}
        elif self.headers["X-Amz-Target"] == "TrentService.Encrypt":
            answer["CiphertextBlob"] = base64.b64encode(b"kms" + base64.b64decode(asked["Plaintext"])).decode()
        else:
            assert self.headers["X-Amz-Target"] == "TrentService.Decrypt"
            assert "Credential=AKIAPLATFORM/" in self.headers["Authorization"]
            answer["Plaintext"] = base64.b64encode(base64.b64decode(asked["CiphertextBlob"])[3:]).decode()
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """The log is not the test's."""


@pytest.fixture
def kms() -> Iterator[tuple[ThreadingHTTPServer, dict[str, str]]]:
    """(AWS KMS on loopback, the platform's environment for it)"""

    class Answers(KmsAnswers):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield (
        server,
        {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIAPLATFORM",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    server.shutdown()
    server.server_close()


ARN = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"


def test_a_file_is_decrypted_by_aws_kms_with_the_platforms_identity(sops: Sops, kms: tuple[Any, dict[str, str]]):
    _, environ = kms
    path = sops.encrypted("s.yaml", "a: hunter2\n", "--kms", ARN, **environ)
    assert plain(sops.opened(path, environ).fetch("a", None)) == b"hunter2"


@pytest.mark.parametrize(
    ("fault", "cls", "why"),
    [
        ("AccessDeniedException", Denied, "a key service refuses the identity"),
        ("down", Unavailable, "a key service that the file names does not answer"),
        ("anonymous", Denied, "there are no credentials for a key service that the file names"),
        ("NotFoundException", Denied, "none of the keys that the file names could be used"),
    ],
)
def test_a_fault_of_a_key_service(
    sops: Sops, kms: tuple[Any, dict[str, str]], fault: str, cls: type[StoreError], why: str
):
    server, environ = kms
    path = sops.encrypted("s.yaml", "a: hunter2\n", "--kms", ARN, **environ | {"AWS_MAX_ATTEMPTS": "3"})
    if fault == "down":
        server.shutdown()
        server.server_close()
    elif fault == "anonymous":
        environ = {name: value for name, value in environ.items() if "KEY" not in name}
    else:
        server.RequestHandlerClass.refuses = fault
    with pytest.raises(StoreError, match="the file's data key cannot be had") as caught:
        sops.opened(path, environ)
    assert (type(caught.value), caught.value.why) == (cls, why)
    assert not [word for word in ("hunter2", "arn:", "127.0.0.1") if word in repr(vars(caught.value))]


def test_of_several_keys_the_key_service_is_told_first(sops: Sops, kms: tuple[Any, dict[str, str]]):
    server, environ = kms
    path = sops.encrypted("s.yaml", "a: hunter2\n", "--kms", ARN, "--age", sops.recipient, **environ)
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable) as caught:
        sops.opened(path, environ, key=sops.stranger)
    assert caught.value.why == (
        "a key service that the file names does not answer; "
        "none of the age identities at hand is one that the file was encrypted for"
    )
    assert plain(sops.opened(path, environ, key=sops.identity).fetch("a", None)) == b"hunter2"


CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: sealed}
spec:
  file: {path: s.yaml, sops: {ageKeyFile: keys.txt}}
"""
MANIFEST = """\
apiVersion: v1
kind: Secret
metadata: {name: web}
stringData:
  password: secret://sealed/app/db#password
"""


@pytest.mark.parametrize("right", [True, False])
def test_the_command_weaves_from_an_encrypted_file(sops: Sops, right: bool):
    sops.encrypted("s.yaml", "app/db: {password: hunter2}\n")
    (sops.folder / "keys.txt").write_text(sops.identity if right else sops.stranger)
    (sops.folder / "config.yaml").write_text(CONFIG)
    (sops.folder / "sops").symlink_to(sops.program)
    done = subprocess.run(
        [sys.executable, "-m", "secretweave"],
        input=MANIFEST,
        env={"PATH": f"{sops.folder}:{os.environ['PATH']}", "SECRETWEAVE_CONFIG": str(sops.folder / "config.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
    if right:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == MANIFEST.replace("secret://sealed/app/db#password", '"hunter2"')
    else:
        assert (done.returncode, done.stdout) == (6, "")
        assert "the file's data key cannot be had" in done.stderr
        assert "AGE-SECRET-KEY" not in done.stderr


def test_an_encrypted_file_may_be_read_by_everybody(sops: Sops):
    """It lies in Git; the context of the tests fails on a warning."""
    path = sops.encrypted("secrets.yaml", "token: hunter2\n")
    path.chmod(0o644)
    assert plain(sops.opened(path, key=sops.identity).fetch("token", None)) == b"hunter2"
