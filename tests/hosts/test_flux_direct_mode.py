"""Direct mode by the real command: `secretweave flux controller --secret-mappings` beside a real API server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import free_ports
from tests.hosts.flux import NAMESPACE, Cluster, install_crds
from tests.hosts.programs import Kubectl, need

pytestmark = pytest.mark.hosts

FLUX = Path(__file__).parents[2] / "flux"
EVENTUALLY = 40.0
"""Seconds: kopf asks again after up to some 20 s for a kind that it was not allowed to watch."""
MAPPING = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretMapping
metadata: {{name: {name}, namespace: shop}}
spec:
  secretName: {target}
  secretData:
    - {{secretKey: {key}, secretStoreName: {store}, remoteRef: {{key: {ref}, version: ""}}}}
"""


class Direct:
    def __init__(self, folder: Path, kubectl: Kubectl, cluster: Cluster) -> None:
        self.kubectl, self.cluster, self.folder = kubectl, cluster, folder
        self.log = folder / "controller.log"
        self._process: subprocess.Popen[bytes] | None = None
        artifacts, health, metrics = free_ports(3)
        self.store(token="hunter2-hunter2")
        (folder / "config.yaml").write_text(f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: main}}
spec: {{file: {{path: {folder}/secrets.json}}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  operatorNamespace: {NAMESPACE}
  flux:
    artifacts: {{folder: {folder}/volume, address: "127.0.0.1:{artifacts}", url: "http://127.0.0.1:{artifacts}"}}
    health: 127.0.0.1:{health}
    metrics: 127.0.0.1:{metrics}
""")
        (folder / "kubeconfig").write_text(f"""\
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{cluster.address}", certificate-authority: {cluster.ca}}}}}]
users: [{{name: secretweave, user: {{token: {self.ran("-n", NAMESPACE, "create", "token", "secretweave").strip()}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: secretweave}}}}]
current-context: test
""")
        (folder / "kubeconfig").chmod(0o600)

    def ran(self, *arguments: str, text: str | None = None) -> str:
        done = self.kubectl.run(*arguments, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def store(self, **values: str) -> None:
        (self.folder / "secrets.json").write_text(json.dumps(values))
        (self.folder / "secrets.json").chmod(0o600)

    def map(
        self, name: str, *, target: str = "login", key: str = "TOKEN", store: str = "main", ref: str = "token"
    ) -> None:
        text = MAPPING.format(name=name, target=target, key=key, store=store, ref=ref)
        self.ran("apply", "--filename=-", text=text)

    def ask(self, name: str) -> None:
        self.ran(
            "annotate", "--overwrite", "secretmapping", name, f"reconcile.fluxcd.io/requestedAt={time.monotonic_ns()}"
        )

    def told(self, name: str, reason: str) -> str:
        """The event's note, once there is one."""
        deadline = time.monotonic() + EVENTUALLY
        while time.monotonic() < deadline:
            for each in self.cluster.list("Event", "shop"):
                if each["regarding"]["name"] == name and each["reason"] == reason:
                    return str(each["note"])
            time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-4000:])

    def start(self) -> None:
        environ = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "RUNTIME_NAMESPACE": NAMESPACE,
            "SECRETWEAVE_CONFIG": str(self.folder / "config.yaml"),
        }
        (self.folder / "sops").symlink_to(need("sops"))
        (self.folder / "kustomize").symlink_to(need("kustomize"))
        command = [sys.executable, "-m", "secretweave", "flux", "controller", "--secret-mappings"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def direct(tmp_path: Path, kubeconfig: Path) -> Iterator[Direct]:
    install_crds(kubeconfig, FLUX / "crd" / "secretweaves.yaml")
    cluster = Cluster(kubeconfig)
    for namespace in (NAMESPACE, "shop"):
        cluster.namespace(namespace)
    if cluster.find("Lease", NAMESPACE, "secretweave"):
        cluster.delete("Lease", NAMESPACE, "secretweave")
    kubectl = Kubectl(need("kubectl"), kubeconfig, NAMESPACE)
    for file in (FLUX / "rbac.yaml", FLUX / "secret-mappings" / "rbac.yaml"):
        done = kubectl.run("apply", "--server-side", "--force-conflicts", f"--filename={file}")
        assert done.returncode == 0, done.stderr
    # The kinds as the chart installs them where nobody else has.
    template = ["template", "x", str(FLUX / "chart"), "--namespace", NAMESPACE, "--show-only", "templates/crds.yaml"]
    chart = subprocess.run(
        [need("helm3"), *template, "--set", "secretMappings.enabled=true,humanitecCrds.install=true"],
        capture_output=True,
        text=True,
        check=True,
    )
    done = kubectl.run("apply", "--server-side", "--force-conflicts", "--filename=-", text=chart.stdout)
    assert done.returncode == 0, done.stderr
    done = kubectl.run("wait", "--for=condition=Established", "crd/secretmappings.humanitec.io", "--timeout=60s")
    assert done.returncode == 0, done.stderr
    found = Direct(tmp_path, Kubectl(kubectl.path, kubeconfig, "shop"), cluster)
    found.start()
    try:
        yield found
    finally:
        found.stop()
        found.kubectl.run("delete", "secretmappings", "--all")


def test_a_mapping_becomes_a_secret_that_is_rotated_shared_and_deleted(direct: Direct):
    cluster = direct.cluster
    direct.map("one")
    cluster.until_values("shop", "login", {"TOKEN": "hunter2-hunter2"}, EVENTUALLY)
    (owner,) = cluster.get("Secret", "shop", "login")["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("SecretMapping", "one")
    assert direct.told("one", "Applied") == "made the Secret login: keys TOKEN"

    direct.store(token="rotated-rotated", other="another-value")
    # What was read serves for some seconds (flux.shareSeconds).
    time.sleep(6)
    direct.ask("one")
    cluster.until_values("shop", "login", {"TOKEN": "rotated-rotated"}, EVENTUALLY)

    direct.map("two", key="OTHER", ref="other")
    cluster.until_values("shop", "login", {"TOKEN": "rotated-rotated", "OTHER": "another-value"}, EVENTUALLY)

    # One that is wrong changes nothing, and says in its first line what is wrong.
    direct.map("three", target="elsewhere", store="mian")
    first = direct.told("three", "ReferenceInvalid").splitlines()[0]
    assert first.endswith("no store is called `mian`")
    assert cluster.find("Secret", "shop", "elsewhere") is None

    direct.ran("delete", "secretmapping", "one")
    cluster.until_values("shop", "login", {"OTHER": "another-value"}, EVENTUALLY)
    direct.ran("delete", "secretmapping", "two")
    deadline = time.monotonic() + EVENTUALLY
    while cluster.find("Secret", "shop", "login") is not None:
        assert time.monotonic() < deadline, direct.log.read_text()[-4000:]
        time.sleep(0.2)
    log = direct.log.read_text()
    assert not [value for value in ("hunter2-hunter2", "rotated-rotated", "another-value") if value in log]
