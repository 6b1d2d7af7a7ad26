"""`secretweave doctor` with the real things: a Vault, a Kubernetes API, helm, kustomize and argocd-cmp-server."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from secretweave.sources import sandbox
from tests.hosts.argocd import cmp_server
from tests.hosts.programs import Kubectl, need
from tests.hosts.vault import VaultServer

pytest_plugins = ["tests.hosts.vault_fixtures"]

Doctor = Callable[..., str]

STORE = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: shop}}
spec:
  vault:
    url: {url}
    path: shop
    auth: {auth}
    tls: {{caFile: {ca}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  credentials: {{from: environment}}
  limits: {{deadline: 8s, request: 4s}}
"""
APP_ROLE = "{{appRole: {{path: shop-approle, roleID: {id}, secretIDSecretRef: {{name: vault, key: secret-id}}}}}}"


@pytest.fixture
def doctor(server: VaultServer, tmp_path: Path) -> Doctor:
    """What it says of the store and the ref."""

    def run(*arguments: str, auth: str = "{}", url: str = "", **environ: str) -> str:
        config = tmp_path / "config.yaml"
        config.write_text(STORE.format(url=url or server.address, auth=auth, ca=server.ca))
        told = said(config, *arguments, **environ)
        assert "hunter2" not in told
        assert "5432" not in told
        return told[re.search("^.*store shop", told, re.MULTILINE).start() :]  # type: ignore[union-attr]  # it is there

    return run


def said(config: Path, *arguments: str, **environ: str) -> str:
    """With one space between words."""
    config.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "secretweave", "doctor", "--config", str(config), *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": os.environ["PATH"]} | environ,
        timeout=60,
    )
    assert not done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == (1 if any(line.startswith("fault") for line in lines) else 0)
    return "\n".join(lines)


def role(server: VaultServer, name: str) -> dict[str, str]:
    """Arguments by which the store logs in."""
    made = server.create_approle(name, ["shop"], path="shop-approle")
    return {"auth": APP_ROLE.format(id=made.role_id), "SECRETWEAVE_CREDENTIAL_VAULT_SECRET_ID": made.secret_id}


def test_a_login_that_works(doctor: Doctor, server: VaultServer):
    assert doctor(**role(server, "doctor")) == "ok store shop vault: it answers, and knows who asks\nall is well"
    assert not any("/data/" in path for path in server.stats().paths), "a secret was read"


def test_the_token_of_a_login_is_revoked(doctor: Doctor, server: VaultServer):
    doctor(**role(server, "doctor-end"))
    assert server.stats().paths["POST /v1/auth/token/revoke-self"] == 1


def test_a_token_that_may_not_look_at_itself_is_known_all_the_same(doctor: Doctor, server: VaultServer):
    made = server.write("auth/token/create", {"policies": ["shop"], "no_default_policy": True})
    token = made["auth"]["client_token"]
    assert doctor(VAULT_TOKEN=token).startswith("ok store shop vault: it answers, and knows who asks")


def test_a_secret_that_may_be_read_is_told_by_its_version_alone(doctor: Doctor, server: VaultServer):
    told = doctor("--ref", "secret://shop/app/db#port", **role(server, "doctor-reads"))
    assert told.splitlines()[1:] == ["ok ref shop:app/db#port can be read, version 1", "all is well"]


def test_a_secret_that_is_not_there(doctor: Doctor, server: VaultServer):
    told = doctor("--ref", "shop:app/dbx", **role(server, "doctor-misses"))
    assert told == (
        "ok store shop vault: it answers, and knows who asks\n"
        "fault ref shop:app/dbx: nothing is stored at `shop/data/app/dbx`\n"
        "fix: correct the ref, or store the secret in Vault\n"
        "1 fault"
    )


def test_a_secret_that_may_not_be_read(doctor: Doctor, server: VaultServer):
    server.policy("doctor-other", 'path "shop/data/other/*" { capabilities = ["read"] }')
    token = server.create_token(["doctor-other"])
    assert doctor("--ref", "shop:app/db", VAULT_TOKEN=token) == (
        "ok store shop vault: it answers, and knows who asks\n"
        "fault ref shop:app/db: Vault does not let it be read (no policy of the token of VAULT_TOKEN allows it)\n"
        'fix: add to a policy: path "shop/data/PATH" { capabilities = ["read"] }\n'
        "1 fault"
    )


def test_a_role_that_is_not_there(doctor: Doctor):
    auth = APP_ROLE.format(id="59d6d1ca")
    assert doctor("--ref", "shop:app/db", auth=auth, SECRETWEAVE_CREDENTIAL_VAULT_SECRET_ID="hunter2") == (
        "fault store shop Vault refuses the login (the AppRole at auth/shop-approle is not there, or its credentials or"
        " conditions (addresses, audience, claims) do not fit)\n"
        "fix: correct spec.vault.auth of the SecretStore, or the role in Vault\n"
        "skipped ref shop:app/db: its store has the fault that is told above\n"
        "1 fault"
    )


def test_a_token_that_vault_does_not_know(doctor: Doctor):
    assert doctor(VAULT_TOKEN="hvs.hunter2").startswith(
        "fault store shop Vault does not know the token (the token of VAULT_TOKEN has expired"
    )


def test_no_token_at_all(doctor: Doctor):
    assert doctor().startswith("fault store shop Vault wants a token, and there is none")


def test_a_sealed_vault(doctor: Doctor, server: VaultServer):
    server.answer(503)
    told = doctor(VAULT_TOKEN=server.token)
    assert told.startswith(f"fault store shop Vault at {server.address} does not answer (it is sealed)\nfix: unseal it")


def test_a_vault_that_is_not_there(doctor: Doctor, server: VaultServer):
    told = doctor(url="https://127.0.0.1:1", VAULT_TOKEN=server.token)
    assert told.startswith(
        "fault store shop Vault at https://127.0.0.1:1 does not answer (nothing listens there)\n"
        "fix: correct spec.vault.url, or start Vault"
    )


def test_a_vault_that_hangs_costs_no_more_than_its_time(doctor: Doctor, server: VaultServer):
    server.latency(20_000)
    told = doctor(VAULT_TOKEN=server.token)
    # Which of the two limits is met first is a matter of milliseconds.
    by_itself = f"Vault at {server.address} does not answer (nothing came in time)"
    assert told.startswith((f"fault store shop {by_itself}", "fault store shop it did not answer within 4 s"))


CLUSTER = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: cluster}
spec: {kubernetes: {namespace: NAMESPACE, kubeconfig: kubeconfig}}
"""


def test_kubernetes_by_what_it_denies(kubectl: Kubectl, tmp_path: Path):
    made = kubectl.run("create", "serviceaccount", "nobody")
    assert made.returncode == 0, made.stderr
    token = kubectl.run("create", "token", "nobody").stdout.strip()
    config = tmp_path / "config.yaml"
    config.write_text(CLUSTER.replace("NAMESPACE", kubectl.namespace))
    yaml = YAML(typ="safe", pure=True)
    access = yaml.load(kubectl.kubeconfig.read_text())
    access["clusters"][0]["cluster"].pop("certificate-authority", None)
    access["clusters"][0]["cluster"] |= {"certificate-authority": str(kubectl.kubeconfig.parent / "apiserver.crt")}
    access["clusters"][0]["cluster"].pop("insecure-skip-tls-verify", None)

    def told(*arguments: str, **user: str) -> str:
        access["users"][0]["user"] = user
        with (tmp_path / "kubeconfig").open("w") as file:
            yaml.dump(access, file)
        (tmp_path / "kubeconfig").chmod(0o600)
        found = said(config, *arguments)
        return found[found.index(" store cluster") :]

    assert told(token=token).startswith(" store cluster kubernetes: it answers, and knows who asks\nall is well")
    assert "ref cluster:db: the API server denies reading Secrets in the namespace" in told(
        "--ref", "cluster:db", token=token
    )
    assert told(token="hunter2").startswith(" store cluster the API server does not accept the credentials")
    assert told().startswith(" store cluster the API server does not accept the credentials"), "nobody is not known"


def test_the_real_programs_in_the_sidecar(tmp_path: Path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, program in (("helm", "helm3"), ("kustomize", "kustomize")):
        (bin_folder / name).symlink_to(need(program))
    (bin_folder / "secretweave").write_text("#!/bin/sh\nexit 1\n")
    (bin_folder / "secretweave").chmod(0o755)
    config = tmp_path / "config.yaml"
    config.write_text("")
    plugin = (Path(__file__).parents[2] / "argocd" / "plugin.yaml").read_text()
    with cmp_server(tmp_path / "cmp", plugin, PATH=str(bin_folder)):
        told = said(config, PATH=str(bin_folder), ARGOCD_PLUGINSOCKFILEPATH=str(tmp_path / "cmp" / "plugins"))
    lines = told.splitlines()
    assert "ok cmp-server it serves the plugin secretweave" in lines
    assert f"ok plugin.yaml {tmp_path}/cmp/config/plugin.yaml: secretweave" in lines
    assert re.search(rf"^ok helm v3\.22\S* at {bin_folder}/helm$", told, re.MULTILINE)
    assert re.search(rf"^ok kustomize v5\.\S+ at {bin_folder}/kustomize$", told, re.MULTILINE)
    abi = sandbox.landlock_abi()
    confined = f"ok confinement programs run behind a seccomp filter and Landlock (version {abi})"
    assert confined in lines if abi else "warning confinement programs run behind a seccomp filter, but" in told


def test_programs_that_are_none(tmp_path: Path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    # A script would need an interpreter, which the confinement does not let it start.
    (bin_folder / "helm").symlink_to("/bin/false")
    (bin_folder / "kustomize").symlink_to("/bin/true")
    config = tmp_path / "config.yaml"
    config.write_text("")
    told = said(config, PATH=str(bin_folder), ARGOCD_EXEC_TIMEOUT="60s")
    assert "fault helm helm failed (exit code 1)" in told
    assert f"warning kustomize {bin_folder}/kustomize does not tell its version" in told
