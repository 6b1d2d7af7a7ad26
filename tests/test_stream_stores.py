"""SecretStores among the manifests: whose they are, who may use them, and whether they leave."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command

STORE = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata:
  name: {name}{more}
spec:
  {spec}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata:
  name: web
  namespace: shop
stringData:
  token: secret://{store}/app/token
"""
VAULT = "vault: {url: https://127.0.0.1:1, path: secret, auth: {}}"
SETTINGS = """\
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  secretStores: {{inStream: {use}, output: {output}}}
---
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: local}}
spec: {{file: {{path: secrets.yaml}}}}
"""


def store(name: str, spec: str = VAULT, more: str = "") -> str:
    return STORE.format(name=name, spec=spec, more=more)


@pytest.fixture
def configured(tmp_path: Path, forked: Command) -> "Configured":
    return Configured(tmp_path, forked)


class Configured:
    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        self.command = command
        (folder / "secrets.yaml").write_text("app/token: t0ken\n")
        (folder / "secrets.yaml").chmod(0o600)

    def run(self, *documents: str, use: str = "use", output: str = "keep", plan: bool = False, namespace: str = ""):
        (self.folder / "config.yaml").write_text(SETTINGS.format(use=use, output=output))
        arguments = [*(["plan", "--format=json"] if plan else []), "--config", self.folder / "config.yaml"]
        arguments += ["--namespace", namespace] if namespace else []
        return self.command(*arguments, stdin="---\n".join(documents).encode())

    def stores(self, *documents: str, namespace: str = "") -> list[str]:
        done = self.run(*documents, plan=True, namespace=namespace)
        assert done.returncode == 0, done.stderr
        return [row["store"] for row in json.loads(done.stdout)]

    def told(self, *documents: str, use: str = "use") -> str:
        done = self.run(*documents, use=use)
        assert (done.stdout, done.returncode != 0) == (b"", True)
        return str(done.stderr.decode())


def test_by_default_they_are_manifests_like_any_other(configured: Configured):
    manifests = (store("prod"), SECRET.format(store="local"))
    done = configured.run(*manifests, use="ignore")
    assert done.stdout.decode() == "---\n".join(manifests).replace("secret://local/app/token", '"t0ken"')
    assert "no store is called `prod`" in configured.told(store("prod"), SECRET.format(store="prod"), use="ignore")


def test_one_that_may_be_used_serves_references_before_and_behind_it(configured: Configured):
    secret = SECRET.format(store="prod")
    assert configured.stores(secret, store("prod"), secret) == ["prod", "prod"]


@pytest.mark.parametrize(
    ("more", "namespace", "found"),
    [
        ("\n  namespace: shop", "", ["shop/prod"]),
        ("", "shop", ["shop/prod"]),
        ("\n  namespace: humanitec-operator-system", "", ["humanitec-operator-system/prod"]),
    ],
)
def test_its_namespace_says_whom_it_serves(configured: Configured, more: str, namespace: str, found: list[str]):
    assert configured.stores(store("prod", more=more), SECRET.format(store="prod"), namespace=namespace) == found


def test_one_of_another_namespace_is_not_found(configured: Configured):
    said = configured.told(store("prod", more="\n  namespace: other"), SECRET.format(store="prod"))
    assert "no store is called `prod` for the namespace `shop`" in said


def test_a_default_label_counts_on_a_cluster_wide_one_only(configured: Configured):
    label = '\n  labels: {app.humanitec.io/default-store: "true"}'
    assert configured.stores(store("prod", more=label), SECRET.format(store="")) == ["prod"]
    said = configured.told(store("prod", more=f"\n  namespace: shop{label}"), SECRET.format(store=""))
    assert "no store is the default" in said


def test_one_of_another_group_or_version_is_no_store_of_ours(configured: Configured):
    for version in ("external-secrets.io/v1", "humanitec.io/v1beta1"):
        other = store("prod").replace("humanitec.io/v1alpha1", version)
        assert "no store is called `prod`" in configured.told(other, SECRET.format(store="prod"))


def test_items_of_a_list_count(configured: Configured):
    item = {
        "apiVersion": "humanitec.io/v1alpha1",
        "kind": "SecretStore",
        "metadata": {"name": "prod"},
        "spec": {"vault": {"url": "https://127.0.0.1:1", "path": "secret", "auth": {}}},
    }
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [item]}) + "\n"
    assert configured.stores(listed, SECRET.format(store="prod")) == ["prod"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (store("local"), "a second SecretStore local"),
        (store("prod") + "---\n" + store("prod"), "a second SecretStore prod"),
        (store("prod", "file: {path: secrets.yaml}"), "a manifest may not name a file of this machine"),
        (store("prod", "env: {prefix: APP_}"), "a SecretStore of the manifests may not be of the type env"),
        (store("prod", "vault: {url: https://127.0.0.1:1, tokn: x}"), "unknown key `tokn`"),
        (store("prod", "vault: {auth: {tokenFile: /etc/passwd}}"), "a manifest may not name a file of this machine"),
    ],
)
def test_what_a_manifest_may_not(configured: Configured, document: str, said: str):
    assert said in configured.told(document, SECRET.format(store="local"))


def test_a_fault_is_told_with_its_line_in_the_stream(configured: Configured):
    said = configured.told(SECRET.format(store="local"), store("prod", "vault: {tokn: x}"))
    assert "stdin, document 2, line 14, SecretStore prod, spec.vault\n" in said


@pytest.mark.parametrize("use", ["use", "ignore"])
def test_they_can_be_left_out_of_the_output(configured: Configured, use: str):
    secret = SECRET.format(store="local")
    done = configured.run(secret, store("prod"), secret, use=use, output="drop")
    assert done.stdout.decode() == f"{secret}---\n{secret}".replace("secret://local/app/token", '"t0ken"')


def test_one_left_out_of_a_list_leaves_the_list(configured: Configured):
    listed = """\
apiVersion: v1
kind: List
items:
- apiVersion: humanitec.io/v1alpha1
  kind: SecretStore
  metadata: {name: prod}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
"""
    done = configured.run(listed, use="ignore", output="drop")
    assert done.stdout.decode() == (
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n"
    )
