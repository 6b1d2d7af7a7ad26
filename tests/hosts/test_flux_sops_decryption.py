"""What the output `sops` is for: Flux's real kustomize-controller decrypts and applies such files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

from tests.hosts.flux import (
    Artifacts,
    Cluster,
    artifacts,
    install_crds,
    kustomization,
    kustomize_controller,
)
from tests.hosts.programs import need

VALUE = "hunter2 for the shop"
SECRET = """\
apiVersion: v1
kind: Secret
metadata:
  name: {name}
type: Opaque
stringData:
  password: {value}
  # A comment within.
  port: "5432"
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
data:
  mode: "0644"
"""
MARK = "# secretweave.dev/reuse: v1.0123456789abcdef.fedcba9876543210\n"
FIELDS = "^(data|stringData)$"


class Key(NamedTuple):
    identity: str
    recipient: str

    @classmethod
    def new(cls) -> "Key":
        made = x25519.Identity.generate()
        return cls(str(made), str(made.to_public()))


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path) -> Cluster:
    install_crds(kubeconfig)
    return Cluster(kubeconfig)


@pytest.fixture(scope="module", autouse=True)
def flux(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with kustomize_controller(tmp_path_factory.mktemp("flux"), cluster):
        yield


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Artifacts]:
    with artifacts(cluster) as found:
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace(f"sops-{os.urandom(4).hex()}")


@pytest.fixture
def keys(cluster: Cluster, namespace: str) -> tuple[Key, Key]:
    """The newest first, as the Secret `sops-age` of the namespace holds them."""
    found = Key.new(), Key.new()
    text = "".join(f"# public key: {each.recipient}\n{each.identity}\n" for each in found)
    cluster.apply("Secret", namespace, "sops-age", stringData={"age.agekey": text})
    return found


def encrypted(text: str, recipient: str, tmp_path: Path) -> str:
    """By the real program."""
    done = subprocess.run(
        [
            need("sops"),
            "encrypt",
            "--input-type=yaml",
            "--output-type=yaml",
            f"--age={recipient}",
            f"--encrypted-regex={FIELDS}",
            "/dev/stdin",
        ],
        input=text,
        env={"HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert VALUE not in done.stdout
    return done.stdout


def applied(cluster: Cluster, served: Artifacts, namespace: str, files: dict[str, str]) -> None:
    served.publish("ExternalArtifact", namespace, "shop", files)
    kustomization(cluster, namespace, "shop", source=("ExternalArtifact", "shop"), age="sops-age")


def test_a_secret_a_file_beside_plain_manifests(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    newest, before = keys
    files = {
        "kustomization.yaml": "resources: [manifests.yaml, shop_secret_a.yaml, shop_secret_b.yaml]\n",
        "manifests.yaml": CONFIG_MAP,
        "shop_secret_a.yaml": MARK + encrypted(SECRET.format(name="a", value=VALUE), newest.recipient, tmp_path),
        # Sealed before the last rotation.
        "shop_secret_b.yaml": encrypted(SECRET.format(name="b", value="other"), before.recipient, tmp_path),
    }
    applied(cluster, served, namespace, files)
    cluster.until_ready("Kustomization", namespace, "shop")
    assert cluster.values(namespace, "a") == {"password": VALUE, "port": "5432"}
    assert cluster.values(namespace, "b") == {"password": "other", "port": "5432"}
    assert cluster.get("ConfigMap", namespace, "web")["data"] == {"mode": "0644"}


def test_a_folder_without_a_kustomization_is_decrypted_too(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    sealed = MARK + encrypted(SECRET.format(name="a", value=VALUE), keys[0].recipient, tmp_path)
    applied(cluster, served, namespace, {"manifests.yaml": CONFIG_MAP, "a.yaml": sealed})
    cluster.until_ready("Kustomization", namespace, "shop")
    assert cluster.values(namespace, "a")["password"] == VALUE


def test_sealed_documents_of_one_stream(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    """What `secretweave --output sops > all.yaml` writes: each Secret has a `sops` of its own, the rest has none."""
    first, second = (
        MARK + encrypted(SECRET.format(name=name, value=VALUE), keys[0].recipient, tmp_path) for name in "ab"
    )
    applied(cluster, served, namespace, {"all.yaml": f"{first}---\n{CONFIG_MAP}---\n{second}"})
    cluster.until_ready("Kustomization", namespace, "shop")
    for name in "ab":
        assert cluster.values(namespace, name) == {"password": VALUE, "port": "5432"}


def test_kustomize_controller_does_not_verify_the_mac(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    """Upstream turns the check off, since kustomize changes what is encrypted (labels, namespaces).

    So integrity of what is not encrypted is that of the artifact: its digest. Each value has an authentication tag of
    its own, bound to its path, and a ciphertext that was moved or changed is refused.
    """
    sealed = encrypted(SECRET.format(name="a", value=VALUE), keys[0].recipient, tmp_path)
    applied(cluster, served, namespace, {"a.yaml": sealed.replace("type: Opaque", "type: shop.example/other")})
    cluster.until_ready("Kustomization", namespace, "shop")
    assert cluster.get("Secret", namespace, "a")["type"] == "shop.example/other"
    decrypted = subprocess.run(
        [need("sops"), "decrypt", "--input-type=yaml", "--output-type=yaml", "/dev/stdin"],
        input=sealed.replace("type: Opaque", "type: shop.example/other"),
        env={"HOME": str(tmp_path), "SOPS_AGE_KEY": keys[0].identity},
        capture_output=True,
        text=True,
        check=False,
    )
    assert decrypted.returncode == 51  # MacMismatch, https://github.com/getsops/sops/blob/main/cmd/sops/codes/codes.go


def test_a_moved_ciphertext_is_refused(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    sealed = encrypted(SECRET.format(name="a", value=VALUE), keys[0].recipient, tmp_path)
    applied(cluster, served, namespace, {"a.yaml": sealed.replace("    password:", "    moved:")})
    message = cluster.until_not_ready("Kustomization", namespace, "shop")
    assert "error decrypting sops tree" in message
    assert cluster.values(namespace, "a") == {}


def test_a_key_that_is_not_there_is_told_and_nothing_is_applied(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], tmp_path: Path
):
    stranger = Key.new()
    assert stranger not in keys
    sealed = encrypted(SECRET.format(name="a", value=VALUE), stranger.recipient, tmp_path)
    applied(cluster, served, namespace, {"a.yaml": sealed, "manifests.yaml": CONFIG_MAP})
    assert "cannot get sops data key" in cluster.until_not_ready("Kustomization", namespace, "shop")
    assert cluster.find("ConfigMap", namespace, "web") is None


STREAM = """\
apiVersion: v1
kind: Secret
metadata:
  name: app
stringData:
  password: secret://shop/token
  line: "user=web password=$(secret://shop/database#password)"
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
data:
  mode: "0644"
---
apiVersion: v1
kind: Secret
metadata:
  name: literal
data:
  password: aHVudGVyMg==
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web:1
          env:
            - name: TOKEN
              value: secret://shop/token
"""


def test_what_the_command_writes_is_applied(
    cluster: Cluster, served: Artifacts, namespace: str, keys: tuple[Key, Key], config: Path, tmp_path: Path
):
    with config.open("a") as file:
        file.write(f"""\
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  sops: {{age: [{keys[0].recipient}], program: {need("sops")}}}
""")
    done = subprocess.run(
        [sys.executable, "-m", "secretweave", "--output", "sops", "--unstable"],
        input=STREAM,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECRETWEAVE_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "t0k" not in done.stdout
    assert "aHVudGVyMg" not in done.stdout
    applied(cluster, served, namespace, {"all.yaml": done.stdout})
    cluster.until_ready("Kustomization", namespace, "shop")
    token = 't0k&n "quoted"'
    assert cluster.values(namespace, "app") == {
        "password": token,
        "line": "user=web password=p@ss: word/'1'",
    }
    assert cluster.values(namespace, "literal") == {"password": "hunter2"}
    (variable,) = cluster.get("Deployment", namespace, "web")["spec"]["template"]["spec"]["containers"][0]["env"]
    ref = variable["valueFrom"]["secretKeyRef"]
    assert cluster.values(namespace, ref["name"])[ref["key"]] == token
    assert cluster.get("ConfigMap", namespace, "web")["data"] == {"mode": "0644"}
