"""examples/admission on a real API server: what it refuses, what it lets through, and how large an object may be."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.programs import Helm, Kubectl, Result, need

HERE = Path(__file__).parent
POLICY = HERE.parent.parent / "examples" / "admission" / "validating-admission-policy.yaml"
CHART = HERE / "charts" / "shop"
SECONDS_MAX = 60
REFERENCE = "secret://shop/database#password"
REFUSED = "holds a secret reference (secret://...) that was not replaced"
MEBIBYTE = 1024 * 1024
MANIFEST_SPARE = 4096
"""What of an object is not its one value."""

Manifest = dict[str, Any]


def config_map(**data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def secret(field: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, field: data}


def pod(**container: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {
            "containers": [
                {"name": "a", "image": "b:1", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}} | container
            ]
        },
    }


def cron_job(value: str) -> Manifest:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1", "args": [value]}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "a"},
        "spec": {"schedule": "0 5 * * *", "jobTemplate": {"spec": {"template": template}}},
    }


def widget(spec: Any) -> Manifest:
    return {"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec}


def labelled(manifest: Manifest) -> Manifest:
    return manifest | {"metadata": {"name": "a", "labels": {"secretweave.dev/literal": "true"}}}


@pytest.fixture(scope="module")
def guarded(kubeconfig: Path) -> Iterator[Kubectl]:
    admin = Kubectl(need("kubectl"), kubeconfig, "default")
    for file in (CHART / "crds" / "widgets.yaml", POLICY):
        assert admin.run("apply", "--filename", str(file)).returncode == 0
    deadline = time.monotonic() + SECONDS_MAX
    while (
        create(admin, config_map(a=REFERENCE)).returncode == 0 or create(admin, widget({})).returncode
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield admin
    assert admin.run("delete", "--filename", str(POLICY)).returncode == 0


def create(admin: Kubectl, manifest: Manifest) -> Result:
    return admin.run("create", "--dry-run=server", "--filename=-", text=json.dumps(manifest))


@pytest.mark.parametrize(
    "manifest",
    [
        secret("stringData", password=REFERENCE),
        secret("stringData", url=f"postgres://app:$({REFERENCE})@db"),
        secret("stringData", file=f"x{REFERENCE}"),
        secret("stringData", file=f"xx{REFERENCE}"),
        secret("data", once="c2VjcmV0Oi8vc2hvcC9hCg=="),
        config_map(a=f"token={REFERENCE}"),
        pod(env=[{"name": "A", "value": REFERENCE}]),
        pod(args=["--password", REFERENCE]),
        cron_job(f"--password=$({REFERENCE})"),
        widget({"a": {"b": [{"c": {"d": {"e": [1, None, 1.5, True, REFERENCE]}}}]}}),
        config_map() | {"metadata": {"name": "a", "annotations": {"a": REFERENCE}}},
        config_map() | {"binaryData": {"a": "c2VjcmV0Oi8vc2hvcC9hCg=="}},
    ],
)
def test_refused(guarded: Kubectl, manifest: Manifest):
    refused = create(guarded, manifest)
    assert refused.returncode == 1
    assert REFUSED in refused.stderr
    assert REFERENCE not in refused.stderr


@pytest.mark.parametrize(
    "manifest",
    [
        secret("stringData", password="hunter2", url="postgres://app:hunter2@db"),
        config_map(a="secret:/ /shop", b="secrets://"),
        pod(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c"}}}]),
        cron_job("--all"),
        widget({"a": {"b": [{"c": {"d": {"e": [1, None, 1.5, True, "text"]}}}]}}),
        labelled(config_map(a=f"write {REFERENCE}")),
        config_map(a="x" * (MEBIBYTE - MANIFEST_SPARE)),
        config_map(**{f"key-{number}": "x" for number in range(30000)}),
        secret("stringData", a="x" * (MEBIBYTE - MANIFEST_SPARE)),
        widget({"a": [{"b": "x" * 20, "c": number} for number in range(20000)]}),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}},
    ],
    ids=range(11),
)
def test_let_through(guarded: Kubectl, manifest: Manifest):
    assert create(guarded, manifest).stderr == ""


def test_a_reference_at_the_end_of_a_large_object_is_refused(guarded: Kubectl):
    text = "x" * (MEBIBYTE - MANIFEST_SPARE) + REFERENCE
    assert REFUSED in create(guarded, config_map(a=text)).stderr
    assert REFUSED in create(guarded, secret("stringData", a=text)).stderr


def test_what_is_being_deleted_can_lose_its_finalizers(guarded: Kubectl, kubectl: Kubectl):
    """An object from before the policy must not be in the way of its namespace's end."""
    stuck = labelled(config_map(a=REFERENCE))
    stuck["metadata"]["finalizers"] = ["shop.example.com/wait"]
    assert kubectl.run("create", "--filename=-", text=json.dumps(stuck)).returncode == 0
    assert kubectl.run("label", "configmap", "a", "secretweave.dev/literal-").returncode == 1
    assert kubectl.run("delete", "configmap", "a", "--wait=false").returncode == 0
    patch = ("patch", "configmap", "a", "--type=json", "--patch")
    removed = '[{"op": "remove", "path": "/metadata/finalizers"}, {"op": "remove", "path": "/metadata/labels"}]'
    assert kubectl.run(*patch, removed).returncode == 0
    assert kubectl.names("configmap") == []


def test_a_forgotten_post_renderer_is_refused(guarded: Kubectl, helm: Helm, kubectl: Kubectl):
    cluster = ("--kubeconfig", str(kubectl.kubeconfig), "--namespace", kubectl.namespace, "--skip-crds")
    forgotten = helm.run("install", "demo", str(CHART), *cluster, "--set", "mapping=false")
    assert forgotten.returncode == 1
    assert REFUSED in forgotten.stderr
    assert helm.run("uninstall", "demo", *cluster[:4]).returncode == 0
    woven = helm.weave("install", "demo", str(CHART), *cluster)
    assert woven.returncode == 0, woven.stderr


def test_a_hook_that_helm_3_did_not_post_render_is_refused(guarded: Kubectl, helm3: Helm, kubectl: Kubectl):
    cluster = ("--kubeconfig", str(kubectl.kubeconfig), "--namespace", kubectl.namespace, "--skip-crds")
    woven = helm3.weave("install", "demo", str(CHART), *cluster, "--set", "hook=true")
    assert woven.returncode == 1
    assert REFUSED in woven.stderr
