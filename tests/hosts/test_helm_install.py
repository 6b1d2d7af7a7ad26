"""`helm install` and `helm upgrade` with the post-renderer against a real API server, read back with kubectl."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosts.programs import Helm, Kubectl, values

CHART = str(Path(__file__).parent / "charts" / "shop")
PASSWORD = b"p@ss: word/'1'"
TOKEN = b't0k&n "quoted"'
SECONDS_MAX = 60


@pytest.fixture
def cluster(kubectl: Kubectl) -> tuple[str, ...]:
    return ("--kubeconfig", str(kubectl.kubeconfig), "--namespace", kubectl.namespace)


def generated(kubectl: Kubectl, workload: str) -> str:
    (name,) = (each for each in kubectl.names("secrets") if each.startswith(f"secret/{workload}-"))
    return name.removeprefix("secret/")


def test_install_and_upgrade(helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...], config: Path):
    installed = helm.weave("install", "demo", CHART, *cluster)
    assert installed.returncode == 0, installed.stderr
    assert values(kubectl.get("secret", "app")) == {"password": PASSWORD}
    assert values(kubectl.get("secret", "files")) == {
        "app.ini": b"[database]\nuser = app\npassword = " + PASSWORD + b"\n",
        "keystore": b"\x00\x01\x02\x03\xff",
    }
    for name, expected in (("mapped", {"TOKEN": TOKEN}), ("half", {"token": TOKEN}), ("cache", {"token": TOKEN})):
        assert values(kubectl.get("secret", name)) == expected

    (container,) = kubectl.get("deployment", "web")["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    reference = environment["PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert values(kubectl.get("secret", reference["name"]))[reference["key"]] == PASSWORD
    # Helm puts its own name over ours.
    assert kubectl.get("secret", reference["name"])["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert kubectl.get("configmap", "app")["data"]["mode"] == "0644"

    secrets = config.parent / "secrets.yaml"
    secrets.write_text(secrets.read_text().replace("p@ss: word", "rotated"))
    upgraded = helm.weave("upgrade", "demo", CHART, *cluster)
    assert upgraded.returncode == 0, upgraded.stderr
    assert values(kubectl.get("secret", "app")) == {"password": b"rotated/'1'"}
    assert generated(kubectl, "web") == reference["name"]
    assert values(kubectl.get("secret", reference["name"]))[reference["key"]] == b"rotated/'1'"

    assert helm.run("uninstall", "demo", *cluster).returncode == 0
    assert kubectl.names("secrets") == []


def test_a_rollback_runs_no_post_renderer(helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...], config: Path):
    """It brings back the values of then, which Helm keeps in its release: documented."""
    assert helm.weave("install", "demo", CHART, *cluster).returncode == 0
    secrets = config.parent / "secrets.yaml"
    secrets.write_text(secrets.read_text().replace("p@ss: word", "rotated"))
    assert helm.weave("upgrade", "demo", CHART, *cluster).returncode == 0
    secrets.unlink()
    assert helm.run("rollback", "demo", "1", *cluster).returncode == 0
    assert values(kubectl.get("secret", "app")) == {"password": PASSWORD}


@pytest.mark.parametrize(("fault", "told"), [("broken", "elsewhere"), ("missing", "gone")])
def test_a_failing_run_installs_nothing(helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...], fault: str, told: str):
    failed = helm.weave("install", "demo", CHART, *cluster, "--set", f"{fault}=true")
    assert failed.returncode == 1
    assert told in failed.stderr
    assert kubectl.names("secrets,configmaps,deployments") == []


def test_a_failing_upgrade_changes_nothing(helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...]):
    assert helm.weave("install", "demo", CHART, *cluster).returncode == 0
    before = kubectl.get("secret", "app")
    assert helm.weave("upgrade", "demo", CHART, *cluster, "--set", "broken=true").returncode == 1
    assert kubectl.get("secret", "app") == before


@pytest.mark.parametrize("where", ["client", "server"])
def test_a_dry_run_installs_nothing(helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...], where: str):
    woven = helm.weave("install", "demo", CHART, *cluster, f"--dry-run={where}", SECRETWEAVE_OUTPUT="redacted")
    assert woven.returncode == 0, woven.stderr
    assert "t0k&n" not in woven.stdout
    assert kubectl.names("secrets,configmaps,deployments") == []


def test_a_manifest_without_an_object_is_no_success(
    helm: Helm, kubectl: Kubectl, cluster: tuple[str, ...], tmp_path: Path
):
    """Helm 3 would take empty output for success and delete what the release had."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: empty\nversion: 0.1.0\n")
    (chart / "templates" / "nothing.yaml").write_text("# nothing\n")
    failed = helm.weave("install", "demo", str(chart), *cluster)
    assert failed.returncode == 1


@contextmanager
def installing(helm: Helm, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Helm at work, which waits for its hook."""
    with subprocess.Popen(
        [helm.path, "install", "demo", CHART, *arguments, *helm.post_renderer],
        env=helm.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_hook_finds_its_secret_in_the_cluster(helm4: Helm, kubectl: Kubectl, cluster: tuple[str, ...]):
    """Nothing runs Jobs here: the test ends the Job itself, when it has seen what a Pod of it would have read."""
    with installing(helm4, *cluster, "--set", "hook=true") as process:
        deadline = time.monotonic() + SECONDS_MAX
        while not kubectl.names("jobs") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        (container,) = kubectl.get("job", "migrate")["spec"]["template"]["spec"]["containers"]
        reference = container["env"][0]["valueFrom"]["secretKeyRef"]
        assert values(kubectl.get("secret", reference["name"])) == {reference["key"]: PASSWORD}
        assert kubectl.names("deployments") == []
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        done = [{"type": each, "status": "True"} for each in ("SuccessCriteriaMet", "Complete")]
        status = {"status": {"conditions": done, "startTime": now, "completionTime": now, "succeeded": 1}}
        patched = kubectl.run(
            "patch", "job", "migrate", "--subresource=status", "--type=merge", "--patch", json.dumps(status)
        )
        assert patched.returncode == 0, patched.stderr
        _, errors = process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == 0, errors
    assert kubectl.names("deployments") == ["deployment.apps/web"]
    assert generated(kubectl, "web") != reference["name"]
