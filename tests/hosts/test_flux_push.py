"""`secretweave flux push` by the real command, into Debian's docker-registry, with real programs to render and seal."""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

from tests.hosts.programs import documents, need, values
from tests.servers.certificates import Authority
from tests.servers.registry import PASSWORD, USER, Pulled, Registry, running

pytestmark = pytest.mark.hosts

SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: shop}
stringData:
  token: secret://shop/app#token
"""
WOVEN = SECRET.replace("secret://shop/app#token", '"s3cr3t-t0ken"')
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\n"
CONFIGURATION = """\
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
metadata: {name: secretweave}
spec:
  sops: {program: SOPS}
  flux: {helm: {program: HELM}, kustomize: {program: KUSTOMIZE}}
---
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: secrets.yaml}}
"""
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


class Checkout:
    """A repository with a folder `app`, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.home = folder / "home"
        for each in (self.folder / ".git", self.folder / "app", self.home):
            each.mkdir(parents=True)
        identity = x25519.Identity.generate()
        self.identity, self.recipient = str(identity), str(identity.to_public())
        self.write("app/a.yaml", f"{SECRET}---\n{CONFIG_MAP}")
        text = CONFIGURATION.replace("SOPS", str(need("sops")))
        text = text.replace("HELM", str(need("helm3"))).replace("KUSTOMIZE", str(need("kustomize")))
        (self.home / "config.yaml").write_text(text)
        (self.home / "key").write_bytes(bytes(range(32)))
        self.secret("s3cr3t-t0ken")

    def secret(self, token: str) -> None:
        file = self.home / "secrets.yaml"
        file.write_text(f"app: {{token: {token}}}\n")
        file.chmod(0o600)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "secretweave", "flux", "push", *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "TMPDIR": str(self.home),
                "SECRETWEAVE_CONFIG": str(self.home / "config.yaml"),
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def push(self, registry: Registry, *arguments: str, path: str = "app", **environ: str) -> str:
        """The digest."""
        url = f"oci://{registry.address}/team/app:v1"
        done = self.run(url, "--path", path, *arguments, **environ)
        assert done.returncode == 0, done.stderr
        name, _, digest = done.stdout.strip().partition("@")
        assert name == f"{registry.address}/team/app"
        return digest

    def sealed(self, registry: Registry, *arguments: str, **environ: str) -> str:
        given = ("--age", self.recipient, "--digest-key-file", str(self.home / "key"))
        return self.push(registry, *given, *arguments, **environ)

    def login(self, address: str, password: str) -> None:
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        (self.home / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def pulled(registry: Registry) -> Pulled:
    return registry.pull("team/app", "v1")


def files(artifact: Pulled) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(artifact.layer), mode="r:gz") as archive:
        entries = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: file.read().decode() for name, file in entries.items() if file is not None}


def test_the_artifact_is_what_flux_pushes(checkout: Checkout, registry: Registry):
    given = ("--plaintext", "--source", "https://git.example.com/shop", "--revision", "main@sha1:0123abc")
    digest = checkout.push(registry, *given, "--annotation", "example.com/team=a,b", **EPOCH)
    artifact = pulled(registry)
    layer = hashlib.sha256(artifact.layer).hexdigest()
    config = json.dumps(artifact.config, separators=(",", ":")).encode()
    assert artifact.digest == digest
    assert artifact.manifest == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.flux.config.v1+json",
            "size": len(config),
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        },
        "layers": [
            {
                "mediaType": "application/vnd.cncf.flux.content.v1.tar+gzip",
                "size": len(artifact.layer),
                "digest": f"sha256:{layer}",
            }
        ],
        "annotations": {
            "example.com/team": "a,b",
            "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
            "org.opencontainers.image.revision": "main@sha1:0123abc",
            "org.opencontainers.image.source": "https://git.example.com/shop",
        },
    }
    unpacked = hashlib.sha256(gzip.decompress(artifact.layer)).hexdigest()
    assert artifact.config == {
        "architecture": "",
        "created": "2023-11-14T22:13:20Z",
        "history": [{"created": "0001-01-01T00:00:00Z"}],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{unpacked}"]},
        "config": {},
    }
    assert files(artifact) == {"shop_secret_login.yaml": WOVEN, "manifests.yaml": f"---\n{CONFIG_MAP}"}


def test_plaintext_is_a_flag_of_its_own_and_says_what_lies_where(checkout: Checkout, registry: Registry):
    url = f"oci://{registry.address}/team/app:v1"
    refused = checkout.run(url, "--path", "app")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the output sops has no key to encrypt with" in refused.stderr
    assert registry.is_empty()
    done = checkout.run(url, "--path", "app", "--plaintext")
    assert done.returncode == 0
    assert done.stderr == (
        f"secretweave: warning: Secrets are not encrypted: whoever may pull {registry.address}/team/app reads them, "
        "and so does who reaches the storage of the registry or of source-controller\n"
    )


def test_without_a_change_nothing_is_pushed(checkout: Checkout, registry: Registry):
    url = f"oci://{registry.address}/team/app:v1"
    first = checkout.push(registry, "--plaintext", "--created", "2026-01-02T03:04:05Z")
    before = sorted((path, path.stat().st_mtime_ns) for path in registry.folder.rglob("*") if path.name != "log")
    again = checkout.run(url, "--path", "app", "--plaintext")
    assert again.stdout == f"{registry.address}/team/app@{first}\n"
    assert "secretweave: nothing has changed, and nothing was pushed\n" in again.stderr
    assert before == sorted(
        (path, path.stat().st_mtime_ns) for path in registry.folder.rglob("*") if path.name != "log"
    )
    checkout.secret("another-t0ken")
    assert checkout.push(registry, "--plaintext", "--dry-run") != first
    assert pulled(registry).digest == first
    assert checkout.push(registry, "--plaintext") == pulled(registry).digest != first
    assert "another-t0ken" in files(pulled(registry))["shop_secret_login.yaml"]


def test_secrets_are_encrypted_and_ciphertext_stays(checkout: Checkout, registry: Registry):
    first = checkout.sealed(registry)
    content = files(pulled(registry))
    assert "s3cr3t-t0ken" not in "".join(content.values())
    sealed = content["shop_secret_login.yaml"]
    decrypted = subprocess.run(
        [need("sops"), "decrypt", "--input-type=yaml", "--output-type=yaml", "/dev/stdin"],
        input=sealed,
        env={"SOPS_AGE_KEY": checkout.identity, "HOME": str(checkout.home)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert values(documents(decrypted)[0]) == {"token": b"s3cr3t-t0ken"}
    assert checkout.sealed(registry) == first

    # Another part changes: the Secret's ciphertext is what it was.
    checkout.write("app/b.yaml", CONFIG_MAP.replace("name: c", "name: d"))
    assert checkout.sealed(registry) != first
    assert files(pulled(registry))["shop_secret_login.yaml"] == sealed
    checkout.secret("another-t0ken")
    checkout.sealed(registry)
    assert files(pulled(registry))["shop_secret_login.yaml"] != sealed
    # Neither in the temporary folder nor in what the registry keeps.
    kept = [path for folder in (checkout.home, registry.folder) for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in kept if b"-t0ken" in path.read_bytes()] == ["secrets.yaml"]


def test_what_the_tag_named_before_is_no_reason_to_fail(checkout: Checkout, registry: Registry):
    checkout.push(registry, "--plaintext")
    plain = pulled(registry).digest
    assert checkout.sealed(registry) != plain
    assert "s3cr3t-t0ken" not in files(pulled(registry))["shop_secret_login.yaml"]


def test_a_kustomization_takes_its_bases_from_the_repository(checkout: Checkout, registry: Registry):
    checkout.write("app/kustomization.yaml", "resources: [a.yaml]\n")
    checkout.write("prod/kustomization.yaml", "resources: [../app]\nnameSuffix: -prod\n")
    checkout.push(registry, "--plaintext", path="prod")
    assert list(files(pulled(registry))) == ["manifests.yaml", "shop_secret_login-prod.yaml"]


def test_a_chart(checkout: Checkout, registry: Registry):
    checkout.write("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")
    template = SECRET.replace("name: login", "name: {{ .Release.Name }}-{{ .Values.tier }}")
    checkout.write("chart/templates/secret.yaml", template)
    checkout.write("values.yaml", "tier: gold\n")
    given = ("--plaintext", "--release-name", "web", "--values", "values.yaml")
    checkout.push(registry, *given, path="chart")
    assert list(files(pulled(registry))) == ["shop_secret_web-gold.yaml"]


def test_a_fault_in_a_reference_leaves_the_tag_as_it_was(checkout: Checkout, registry: Registry):
    first = checkout.push(registry, "--plaintext")
    checkout.write("app/b.yaml", SECRET.replace("app#token", "none#token"))
    done = checkout.run(f"oci://{registry.address}/team/app:v1", "--path", "app", "--plaintext")
    assert (done.returncode, done.stdout) == (6, "")
    assert "b.yaml, document 1, line 5, Secret shop/login, stringData.token" in done.stderr
    assert pulled(registry).digest == first


def test_a_login_from_the_docker_config_over_tls(checkout: Checkout, tmp_path: Path):
    authority = Authority(tmp_path)
    trust = {"SSL_CERT_FILE": str(authority.certificate), "DOCKER_CONFIG": str(checkout.home)}
    (tmp_path / "registry").mkdir()
    with running(tmp_path / "registry", auth=True, tls=authority) as registry:
        url = f"oci://{registry.address}/team/app:v1"
        given = (url, "--path", "app", "--plaintext")
        stranger = checkout.run(*given)
        assert stranger.returncode == 6
        assert f"the certificate of the registry {registry.address} is not trusted" in stranger.stderr
        assert "SSL_CERT_FILE" in stranger.stderr
        anonymous = checkout.run(*given, **trust)
        assert anonymous.returncode == 6
        assert f"the registry {registry.address} wants a login" in anonymous.stderr
        checkout.login(registry.address, "wrong")
        wrong = checkout.run(*given, **trust)
        assert wrong.returncode == 6
        assert "the user or the password is wrong" in wrong.stderr
        assert "wrong:" not in wrong.stderr
        assert not (registry.folder / "data" / "docker").exists()
        checkout.login(registry.address, PASSWORD)
        assert checkout.push(registry, "--plaintext", **trust).startswith("sha256:")


def test_a_login_from_a_credential_helper(checkout: Checkout, tmp_path: Path):
    helper = tmp_path / "bin" / "docker-credential-tests"
    helper.parent.mkdir()
    login = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\n[ $1 = get ] && cat > '{tmp_path}/asked' && echo '{login}'\n")
    helper.chmod(0o755)
    (tmp_path / "registry").mkdir()
    with running(tmp_path / "registry", auth=True) as registry:
        (checkout.home / "config.json").write_text(json.dumps({"credHelpers": {registry.address: "tests"}}))
        environ = {"DOCKER_CONFIG": str(checkout.home), "PATH": f"{helper.parent}:{os.environ['PATH']}"}
        assert checkout.push(registry, "--plaintext", **environ).startswith("sha256:")
        assert (tmp_path / "asked").read_text() == registry.address
