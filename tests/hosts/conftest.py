"""The real programs as fixtures."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import cluster
from tests.hosts.programs import Helm, Kubectl, need
from tests.hosts.vault import VaultServer
from tests.hosts.vault import vault as start_vault

HERE = Path(__file__).parent
PLUGIN = HERE.parent.parent / "plugin"
SECRETS = """\
token: t0k&n "quoted"
database: {password: "p@ss: word/'1'"}
keystore: !!binary AAECA/8=
"""
CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata:
  name: shop
  labels:
    app.humanitec.io/default-store: "true"
spec:
  file:
    path: secrets.yaml
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("hosts")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the plugin's folder as a clone has it: without an environment."""
    folder = tmp_path_factory.mktemp("plugin") / "secretweave"
    shutil.copytree(PLUGIN, folder, ignore=shutil.ignore_patterns(".venv*", "*.egg-info", "__pycache__"))
    return folder


@pytest.fixture(scope="session")
def installed_helm4(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Path:
    """The data folder of a Helm 4 in which the plugin is installed."""
    data = tmp_path_factory.mktemp("helm4")
    helm = Helm.isolated(need("helm4"), data, [])
    installed = helm.run("plugin", "install", str(plugin))
    assert installed.returncode == 0, installed.stderr
    return data


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with the file store `shop`."""
    (tmp_path / "secrets.yaml").write_text(SECRETS)
    (tmp_path / "secrets.yaml").chmod(0o600)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


@pytest.fixture
def helm3(tmp_path: Path, config: Path) -> Helm:
    """Helm 3, which starts the installed command."""
    command = Path(sys.executable).parent / "secretweave"
    return Helm.isolated(
        need("helm3"), tmp_path / "helm3", ["--post-renderer", str(command)], SECRETWEAVE_CONFIG=str(config)
    )


@pytest.fixture
def helm4(installed_helm4: Path, config: Path) -> Helm:
    """Helm 4 with the plugin."""
    return Helm.isolated(
        need("helm4"), installed_helm4, ["--post-renderer", "secretweave"], SECRETWEAVE_CONFIG=str(config)
    )


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    found: Helm = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with cluster(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
def kubectl(kubeconfig: Path, request: pytest.FixtureRequest) -> Kubectl:
    """kubectl in a namespace of the test's own."""
    found = Kubectl(need("kubectl"), kubeconfig, f"test-{os.urandom(4).hex()}")
    created = found.run("create", "namespace", found.namespace)
    assert created.returncode == 0, created.stderr
    return found


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    """A Vault over TLS that the tests share: each makes engines and policies of its own names."""
    with start_vault(tmp_path_factory.mktemp("vault")) as server:
        yield server
