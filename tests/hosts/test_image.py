"""The image, as Kubernetes runs it: no root, no network, nothing that can be written.

Its Python is Debian 13's, not that of Python's own image: see `image`.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import image
from tests.hosts.argocd import Caller, environment
from tests.hosts.build import PROGRAMS
from tests.hosts.conftest import CONFIG, SECRETS
from tests.hosts.programs import absent, need, values

HELM = PROGRAMS["helm3"].version
KUSTOMIZE = PROGRAMS["kustomize"].version
SOPS = PROGRAMS["sops"].version

MANIFESTS = b"""\
apiVersion: v1
kind: Secret
metadata:
  name: db
stringData:
  url: postgres://$(secret://shop/database?encode=url#password)@db:5432  # kept
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mode}
data: {mode: "0755"}
"""
WOVEN = b"""\
apiVersion: v1
kind: Secret
metadata:
  name: db
stringData:
  url: "postgres://p%40ss%3A%20word%2F%271%27@db:5432"  # kept
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mode}
data: {mode: "0755"}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: "secret://shop/database#password"}
"""
SECONDS_MAX = 60
UNCOMPILED = """\
import os, sys
from secretweave import cli, commands, pipeline
from secretweave.stores import file, vault
import hvac
for module in list(sys.modules.values()):
    cached = getattr(module.__spec__, "cached", None)
    if cached and not os.path.exists(cached):
        print(module.__name__)
"""


@pytest.fixture(scope="session")
def name() -> str:
    reason = image.missing()
    if reason:
        absent(reason)
    return image.build()


@pytest.fixture
def mounted(tmp_path: Path) -> str:
    """The option that mounts a configuration with the file store `shop`, which only user 999 can read."""
    folder = tmp_path / "secretweave"
    folder.mkdir(mode=0o700)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "secrets.yaml").write_text(SECRETS)
    (folder / "secrets.yaml").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, 999, 999)
    return f"--volume={folder}:/etc/secretweave:ro"


def started(name: str, *arguments: str, entrypoint: str, options: tuple[str, ...] = ()) -> str:
    result = image.run_image(name, *arguments, options=(f"--entrypoint={entrypoint}", *options))
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_weaves_what_it_reads(name: str, mounted: str):
    result = image.run_image(name, options=(mounted,), stdin=MANIFESTS)
    assert result.stderr == b""
    assert result.stdout == WOVEN
    assert result.returncode == 0


def test_tells_what_is_wrong(name: str, mounted: str):
    manifests = b"apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {a: secret://shop/none#a}\n"
    result = image.run_image(name, options=(mounted,), stdin=manifests)
    assert (result.returncode, result.stdout) == (6, b"")
    assert b"none" in result.stderr


def test_holds_the_programs_that_the_tests_run(name: str):
    assert started(name, "version", "--template={{.Version}}", entrypoint="helm") == HELM
    assert started(name, "version", entrypoint="kustomize").strip() == KUSTOMIZE


@pytest.mark.parametrize("options", [(), ("--user=999",)])
def test_is_user_and_group_999(name: str, options: tuple[str, ...]):
    script = "import os, pwd; print(os.getuid(), os.getgid(), pwd.getpwuid(999).pw_name, os.path.expanduser('~'))"
    assert started(name, "-c", script, entrypoint="python", options=options) == "999 999 argocd /home/argocd\n"


def test_compiles_nothing_at_its_start(name: str):
    assert started(name, "-c", UNCOMPILED, entrypoint="python") == ""


def test_can_install_nothing(name: str):
    script = "from importlib.util import find_spec; print([find_spec(each) for each in ('pip', 'setuptools')])"
    assert started(name, "-c", script, entrypoint="python") == "[None, None]\n"


def test_holds_the_stores_that_were_asked_for(name: str):
    script = (
        "from importlib.util import find_spec; print([bool(find_spec(each)) for each in ('hvac', 'boto3', 'azure')])"
    )
    assert started(name, "-c", script, entrypoint="python") == "[True, False, False]\n"


def test_says_what_it_is_and_nothing_of_the_machine(name: str):
    found = image.inspected(name)
    config = found["Config"]
    assert config["User"] == "999:999"
    assert config["Entrypoint"] == ["secretweave"]
    assert config.get("Cmd") is None
    assert config["Env"] == [
        "PATH=/opt/secretweave/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    assert config["Labels"] == {
        "org.opencontainers.image.title": "secretweave",
        "org.opencontainers.image.description": "Replaces secret references in rendered Kubernetes manifests "
        "with Secrets from your stores",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": "https://github.com/secretweave/secretweave",
        "org.opencontainers.image.version": "1.2.3",
        "org.opencontainers.image.revision": "0123abc",
        "org.opencontainers.image.created": "2026-11-25T12:00:00Z",
    }
    assert not re.search("GOPROXY|GOSUMDB|PIP_", json.dumps(found["History"]))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("python", {"pkg:pypi/secretweave@", "pkg:pypi/hvac@", "pkg:pypi/ruamel.yaml@", "pkg:pypi/cryptography@"}),
        ("helm", {f"pkg:golang/helm.sh/helm/v3@{HELM}", "pkg:golang/k8s.io/client-go@", "pkg:golang/std@"}),
        (
            "kustomize",
            {f"pkg:golang/sigs.k8s.io/kustomize/kustomize/v5@{KUSTOMIZE}", "pkg:golang/sigs.k8s.io/kustomize/api@"},
        ),
        ("sops", {f"pkg:golang/github.com/getsops/sops/v3@{SOPS}", "pkg:golang/filippo.io/age@"}),
    ],
)
def test_lists_its_components(name: str, document: str, expected: set[str]):
    path = f"/usr/share/secretweave/sbom/{document}.cdx.json"
    found = json.loads(started(name, path, entrypoint="cat"))
    assert found["bomFormat"] == "CycloneDX"
    components = [*found["components"], found["metadata"].get("component", {})]
    purls = [each.get("purl", "") for each in components]
    assert [each for each in expected if not any(purl.startswith(each) for purl in purls)] == []


@pytest.fixture
def sidecar(name: str, mounted: str, tmp_path: Path) -> Iterator[Caller]:
    """As the repo-server's Pod has it: Argo CD's program from a volume, the plugin's file from the image."""
    folders = {"plugins": "/home/argocd/cmp-server/plugins", "tmp": "/tmp"}
    for each in folders:
        (tmp_path / each).mkdir()
        shutil.chown(tmp_path / each, 999, 999)
    server = "/var/run/argocd/argocd-cmp-server"
    mounts = [f"--volume={tmp_path / each}:{path}" for each, path in folders.items()]
    mounts += [mounted, f"--volume={need('argocd-cmp-server')}:{server}:ro"]
    container = f"secretweave-test-{os.urandom(4).hex()}"
    try:
        started(name, entrypoint=server, options=("--detach", f"--name={container}", *mounts))
        socket = tmp_path / "plugins" / "secretweave.sock"
        deadline = time.monotonic() + SECONDS_MAX
        while not socket.exists():
            assert time.monotonic() < deadline, image.podman("inspect", container).stdout
            time.sleep(0.05)
        with Caller(socket) as caller:
            yield caller
    finally:
        image.podman("rm", "--force", "--time=0", container)


@pytest.mark.parametrize(
    "repository",
    [
        {"secret.yaml": SECRET},
        {"secret.yaml": SECRET, "kustomization.yaml": "resources: [secret.yaml]\n"},
        {"templates/secret.yaml": SECRET, "Chart.yaml": "{apiVersion: v2, name: shop, version: 1.0.0}\n"},
    ],
    ids=["plain", "kustomize", "helm"],
)
def test_is_argo_cds_sidecar(sidecar: Caller, repository: dict[str, str]):
    (manifest,) = sidecar.generate(repository, environment())
    assert values(json.loads(manifest)) == {"password": b"p@ss: word/'1'"}


def test_the_plugins_file_is_the_one_of_the_sources(name: str):
    plugin = (image.REPOSITORY / "argocd" / "plugin.yaml").read_text()
    assert started(name, "/home/argocd/cmp-server/config/plugin.yaml", entrypoint="cat") == plugin


def test_by_default_the_image_holds_every_extra():
    dockerfile = (image.REPOSITORY / "Dockerfile").read_text()
    locks = (image.REPOSITORY / "plugin").glob("requirements-*.lock")
    (extras,) = re.findall('ARG EXTRAS="(.*)"', dockerfile)
    assert extras.split() == sorted(path.stem.removeprefix("requirements-") for path in locks)


def test_doctor_finds_in_it_what_the_sidecar_needs(name: str, mounted: str):
    done = image.run_image(name, "doctor", options=(mounted, "--env=ARGOCD_EXEC_TIMEOUT=60s"))
    lines = {tuple(line.split(maxsplit=2)) for line in done.stdout.decode().splitlines() if line[0] != " "}
    assert {
        ("ok", "filesystem", "the container's own is read-only"),
        ("ok", "plugin.yaml", "/home/argocd/cmp-server/config/plugin.yaml: secretweave"),
        ("ok", "helm", f"{HELM} at /usr/local/bin/helm"),
        ("ok", "kustomize", f"{KUSTOMIZE} at /usr/local/bin/kustomize"),
    } <= lines
    # Without Argo CD's volumes.
    assert done.returncode == 1
