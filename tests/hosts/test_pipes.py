"""README's pipes of shell, run by the real kubectl and Helm: kubectl, Kustomize, helm template."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts.programs import Kubectl, Result, need, values

PASSWORD = b"p@ss: word/'1'"
KUSTOMIZATION = """\
resources: [secret.yaml, configmap.yaml]
namePrefix: shop-
secretGenerator:
- name: generated
  literals: ["password=secret://shop/database#password"]
  files: [app.ini]
replacements:
- source: {kind: ConfigMap, name: settings, fieldPath: data.host}
  targets:
  - select: {kind: Secret, name: db}
    fieldPaths: [stringData.url]
    options: {delimiter: "@", index: 1}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData:
  password: secret://shop/database#password
  url: postgres://app:$(secret://shop/database?encode=url#password)@HOST
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {host: "db.shop:5432"}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION)
    (folder / "secret.yaml").write_text(SECRET)
    (folder / "configmap.yaml").write_text(CONFIG_MAP)
    (folder / "app.ini").write_text("[db]\npassword = $(secret://shop/database#password)\n")
    return folder


def shell(line: str, kubectl: Kubectl, config: Path) -> Result:
    """The line, in which `kubectl`, `helm` and `secretweave` are the real ones."""
    folder = config.parent / "bin"
    folder.mkdir()
    arguments = f"--kubeconfig={kubectl.kubeconfig} --namespace={kubectl.namespace}"
    (folder / "kubectl").write_text(f'#!/bin/sh\nexec {kubectl.path} {arguments} "$@"\n')
    (folder / "kubectl").chmod(0o755)
    (folder / "helm").symlink_to(need("helm4"))
    (folder / "secretweave").symlink_to(Path(sys.executable).parent / "secretweave")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "SECRETWEAVE_CONFIG": str(config)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_kustomize(overlay: Path, kubectl: Kubectl, config: Path):
    done = shell(f"kubectl kustomize {overlay} | secretweave | kubectl apply -f -", kubectl, config)
    assert done.returncode == 0, done.stderr
    assert values(kubectl.get("secret", "shop-db")) == {
        "password": PASSWORD,
        "url": b"postgres://app:p%40ss%3A%20word%2F%271%27@db.shop:5432",
    }
    (generated,) = (name for name in kubectl.names("secrets") if name.startswith("secret/shop-generated-"))
    assert values(kubectl.get("secret", generated.removeprefix("secret/"))) == {
        "password": PASSWORD,
        "app.ini": b"[db]\npassword = " + PASSWORD + b"\n",
    }


def test_a_folder_of_manifests(overlay: Path, kubectl: Kubectl, config: Path):
    (overlay / "kustomization.yaml").unlink()
    done = shell(f"secretweave render {overlay} | kubectl apply -f -", kubectl, config)
    assert done.returncode == 0, done.stderr
    assert values(kubectl.get("secret", "db"))["password"] == PASSWORD
    assert kubectl.get("configmap", "settings")["data"] == {"host": "db.shop:5432"}


def test_the_chart_of_the_example(kubectl: Kubectl, tmp_path: Path):
    example = Path(__file__).parent.parent.parent / "examples" / "shop"
    for name in ("config.yaml", "secrets.yaml"):
        (tmp_path / name).write_bytes((example / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    line = f"cd {example} && helm template shop ./chart | secretweave --namespace=shop | kubectl apply -f -"
    done = shell(line, kubectl, tmp_path / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert len(kubectl.names("secrets")) > 3


def test_a_failing_run_applies_nothing(overlay: Path, kubectl: Kubectl, config: Path):
    (overlay / "secret.yaml").write_text(SECRET.replace("database#", "none#"))
    done = shell(f"kubectl kustomize {overlay} | secretweave | kubectl apply -f -", kubectl, config)
    assert done.returncode != 0
    assert "no objects passed to apply" in done.stderr
    assert kubectl.names("secrets") == []
