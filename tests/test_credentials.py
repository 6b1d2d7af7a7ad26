"""Credential Secrets from a folder and the environment; those of a cluster are in hosts/test_store_kubernetes.py."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from secretweave import credentials
from secretweave.errors import Denied, NotFound, StoreError
from secretweave.stores.base import Limits, SecretKeyRef

VALUE = "hunter2-hunter2"
NAMESPACE = "humanitec-operator-system"
Read = Callable[[str, str], str]


def reader(source: str, *, environ: Mapping[str, str] | None = None, namespace: str = NAMESPACE, **more: Any) -> Read:
    settings = {"folder": None, "kubeconfig": None, "kube_context": None} | more
    limits = Limits(time.monotonic() + 30)
    read = credentials.reader(source, namespace, environ=environ or {}, limits=limits, warn=pytest.fail, **settings)
    return lambda name, key: read(SecretKeyRef(name, key))


def mounted(folder: Path, **files: str | bytes) -> Path:
    """A Secret as the kubelet mounts it: links into a folder that is replaced as a whole; `.` is written `_dot_`."""
    data = folder / "..2026_01_01_00_00_00.1"
    data.mkdir(parents=True)
    folder.joinpath("..data").symlink_to(data.name)
    for name, content in files.items():
        key = name.replace("_dot_", ".")
        (data / key).write_bytes(content.encode() if isinstance(content, str) else content)
        (data / key).chmod(0o644)
        (folder / key).symlink_to(f"..data/{key}")
    return folder


def told(error: StoreError) -> str:
    return f"{error.what} {error.where} {error.why} {error.fix}"


def test_a_mounted_secret_is_found_by_name(tmp_path: Path):
    mounted(tmp_path / "vault-token", token=VALUE, ca_dot_crt="pem")
    read = reader("folder", folder=str(tmp_path))
    assert read("vault-token", "token") == VALUE
    assert read("vault-token", "ca.crt") == "pem"


def test_the_folder_of_the_namespace_comes_first_and_then_decides(tmp_path: Path):
    mounted(tmp_path / "aws", id="shared", secret="shared")
    mounted(tmp_path / NAMESPACE / "aws", id="own")
    read = reader("folder", folder=str(tmp_path))
    assert read("aws", "id") == "own"
    with pytest.raises(StoreError, match="the credential Secret `aws` has no key `secret`"):
        read("aws", "secret")
    assert reader("folder", folder=str(tmp_path), namespace="shop")("aws", "id") == "shared"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("token\n", "token"),
        ("token\r\n", "token"),
        ("token\n\n", "token"),
        (" token ", " token "),
        ("-----BEGIN-----\nx\n-----END-----\n", "-----BEGIN-----\nx\n-----END-----"),
        ("pässword", "pässword"),
    ],
)
def test_line_ends_at_the_end_are_dropped_and_nothing_else(tmp_path: Path, content: str, text: str):
    mounted(tmp_path / "a", key=content)
    assert reader("folder", folder=str(tmp_path))("a", "key") == text
    assert reader("environment", environ={"SECRETWEAVE_CREDENTIAL_A_KEY": content})("a", "key") == text


@pytest.mark.parametrize(
    ("name", "key", "what"),
    [
        ("absent", "token", "no credential Secret `absent` is in the folder of credentials"),
        ("vault", "absent", "the credential Secret `vault` has no key `absent`"),
        ("vault", "binary", "the key `binary` of the credential Secret `vault` is not text"),
        ("vault", "empty", "the key `empty` of the credential Secret `vault` is empty"),
        ("vault", "newline", "the key `newline` of the credential Secret `vault` is empty"),
        ("vault", "large", "the file is larger than 1048576 bytes"),
        ("vault", "folder", "the credential is not a regular file"),
        ("vault", "pipe", "the credential is not a regular file"),
        ("file", "token", "no credential Secret `file` is in the folder of credentials"),
    ],
)
def test_what_cannot_be_used_is_told_without_its_content(tmp_path: Path, name: str, key: str, what: str):
    folder = mounted(tmp_path / "vault", binary=b"\xff" + VALUE.encode(), empty="", newline="\n", large="x" * (1 << 21))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe", 0o600)
    (tmp_path / "file").write_text(VALUE)
    with pytest.raises(StoreError, match=what) as caught:
        reader("folder", folder=str(tmp_path))(name, key)
    assert not isinstance(caught.value, NotFound), "a default would stand for a store without its credentials"
    assert VALUE not in told(caught.value)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path):
    folder = mounted(tmp_path / "vault", token=VALUE)
    (folder / "..data" / "token").chmod(0o664)
    with pytest.raises(Denied, match="others than its owner may write the file"):
        reader("folder", folder=str(tmp_path))("vault", "token")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_denied(tmp_path: Path):
    folder = mounted(tmp_path / "vault", token=VALUE)
    (folder / "..data" / "token").chmod(0)
    with pytest.raises(Denied, match="cannot be opened"):
        reader("folder", folder=str(tmp_path))("vault", "token")


def test_links_in_a_circle_are_denied(tmp_path: Path):
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "token").symlink_to("token")
    with pytest.raises(Denied, match="cannot be opened"):
        reader("folder", folder=str(tmp_path))("vault", "token")


ATTACKS = (
    "",
    ".",
    "..",
    "../outside",
    "/etc/passwd",
    "..data",
    "a/b",
    "a/../b",
    "a\\b",
    "a\x00b",
    "a\n",
    "a b",
    "a" * 254,
)


@pytest.mark.parametrize("source", ["folder", "environment", "cluster"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, source: str, attack: str):
    folder = tmp_path / "credentials"
    mounted(folder / "a", a=VALUE)
    (tmp_path / "outside").write_text(VALUE)
    more: dict[str, Any] = {"folder": str(folder), "kubeconfig": str(tmp_path / "absent")}
    for name, key, namespace in ((attack, "a", NAMESPACE), ("a", attack, NAMESPACE), ("a", "a", attack)):
        with pytest.raises(StoreError, match="is not one that Kubernetes allows"):
            reader(source, namespace=namespace, **more)(name, key)


def test_the_environment_is_asked_by_a_name_in_capitals():
    environ = {"SECRETWEAVE_CREDENTIAL_VAULT_TOKEN_TOKEN_TXT": VALUE, "token": "x", "TOKEN_TXT": "x"}
    read = reader("environment", environ=environ)
    assert read("vault-token", "token.txt") == VALUE
    assert read("vault", "token_token.txt") == VALUE, "as the docstring says: they share a variable"


def test_the_environment_is_the_one_that_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRETWEAVE_CREDENTIAL_A_KEY", VALUE)
    with pytest.raises(StoreError, match="in the environment") as caught:
        reader("environment")("a", "key")
    assert caught.value.why == "SECRETWEAVE_CREDENTIAL_A_KEY is not set"


@pytest.mark.parametrize(("value", "what"), [("", "is empty"), ("\udcff", "is not text")])
def test_a_variable_that_is_empty_or_not_text_is_told(value: str, what: str):
    with pytest.raises(StoreError, match=what):
        reader("environment", environ={"SECRETWEAVE_CREDENTIAL_A_KEY": value})("a", "key")


def test_without_a_folder_the_setting_is_asked_for():
    with pytest.raises(StoreError, match="no folder of credentials is set"):
        reader("folder")


def test_no_cluster_is_told_as_a_fault_of_the_credential(tmp_path: Path):
    with pytest.raises(StoreError, match="the credential Secret `a`: no Kubernetes cluster is configured"):
        reader("cluster", kubeconfig=str(tmp_path / "absent"))("a", "key")
