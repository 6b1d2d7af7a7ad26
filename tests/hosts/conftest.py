"""The real programs as fixtures."""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it ships no py.typed

from tests.hosts.cluster import cluster
from tests.hosts.flux_world import Upstream
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


TOGETHER = {
    "cluster of flux": ("flux_cluster", "flux_controller", "flux_direct_mode", "flux_sops_decryption"),
    "cluster": (
        "admission",
        "doctor_vault",
        "helm_install",
        "pipes",
        "secret_mappings",
        "store_kubernetes",
        "store_vault_login",
    ),
}
"""The modules that ask for `kubeconfig`: an API server takes ten seconds of a core to start, so they share two, not one
for each module. Flux's controllers, which watch all of a cluster, stay among themselves; the longest is alone."""
LONGEST = ("flux_e2e", "image", "faults_hosts", "plugin", "argocd_manifests", "admission", "flux_manifests")
"""What begins early, so that no worker has one of them to do when the others have ended. xdist knows numbers alone."""
GROUPS = {f"test_{name}.py": group for group, names in TOGETHER.items() for name in names}


class ByServer(LoadScopeScheduling):  # type: ignore[misc]  # the same
    """Each module on one worker, as its servers are. (xdist 3.8 forgets `xdist_group` under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0].rpartition("/")[2]
        if name == "test_faults_hosts.py" and "[" in nodeid:
            # The longest, and a server for each store: `[vault-nothing-listens]`, `[vault with a login-...]`.
            return f"{name} {nodeid.partition('[')[2].partition('-')[0]}"
        return GROUPS.get(name, name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer | None:
    """Of `--dist=loadgroup`."""
    if config.getvalue("dist") != "loadgroup":
        return None
    # In the order of the collection.
    config.option.loadscopereorder = False
    return ByServer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("hosts")
    ranks = {HERE / f"test_{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@contextmanager
def of_all_workers(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that the workers of this run share, one at a time; who finds it unmade makes it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared / name


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the plugin's folder as a clone has it, until it is installed: without an environment."""
    with of_all_workers(tmp_path_factory, "plugin") as folder:
        if not folder.exists():
            shutil.copytree(
                PLUGIN,
                folder.parent / "plugin-copied" / "secretweave",
                ignore=shutil.ignore_patterns(".venv*", "*.egg-info", "__pycache__"),
            )
            (folder.parent / "plugin-copied").rename(folder)
    return folder / "secretweave"


@pytest.fixture(scope="session")
def installed_helm4(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Path:
    """The data folder of a Helm 4 in which the plugin is installed, which takes half a minute of a core."""
    with of_all_workers(tmp_path_factory, "helm4") as data:
        if not (data / "done").exists():
            shutil.rmtree(data, ignore_errors=True)
            helm = Helm.isolated(need("helm4"), data, [])
            installed = helm.run("plugin", "install", str(plugin))
            assert installed.returncode == 0, installed.stderr
            (data / "done").touch()
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


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """What serves the archives of a SecretWeave's source."""
    found = Upstream()
    yield found
    found.end()
