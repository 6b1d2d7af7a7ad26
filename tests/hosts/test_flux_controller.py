"""`secretweave flux controller` as a process beside a real API server: what it does with events, and how it ends.

What kustomize-controller makes of its artifacts is in test_flux_e2e.py; the cases of one object are in
test_flux_controller_reconcile.py.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hosts.flux import (
    NAMESPACE,
    Artifacts,
    Cluster,
    Weaver,
    artifacts,
    condition,
    fetched,
    install_crds,
    secretweave,
)
from tests.hosts.flux import weaver as start_weaver
from tests.hosts.flux_world import PLAIN, SECRET

ROOT = Path(__file__).parent.parent.parent
CRD = ROOT / "flux" / "crd"
VALUE = "hunter2-hunter2"


class World(NamedTuple):
    cluster: Cluster
    upstream: Artifacts
    weaver: Weaver
    secrets: Path

    def values(self, **values: str) -> None:
        self.secrets.write_text(json.dumps({"db": values}))

    def publish(self, namespace: str, files: dict[str, str], name: str = "shop") -> None:
        self.upstream.publish("GitRepository", namespace, name, files)

    def fetched(self, namespace: str, name: str) -> dict[str, bytes]:
        """What the ExternalArtifact points to."""
        artifact = self.cluster.get("ExternalArtifact", namespace, name)["status"]["artifact"]
        return fetched(artifact).files


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path) -> Cluster:
    ours = [path for path in sorted(CRD.glob("*.yaml")) if "kind: CustomResourceDefinition" in path.read_text()]
    install_crds(kubeconfig, *ours)
    found = Cluster(kubeconfig)
    found.namespace(NAMESPACE)
    return found


@pytest.fixture(scope="module")
def world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("flux-controller")
    secrets = folder / "secrets.json"
    secrets.write_text("{}")
    secrets.chmod(0o600)
    store = f"""\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: main}}
spec: {{file: {{path: {secrets}}}}}"""
    with artifacts(cluster) as upstream, start_weaver(folder, cluster, store) as weaver:
        found = World(cluster, upstream, weaver, secrets)
        found.values(password=VALUE)
        yield found


def revision(world: World, namespace: str, name: str) -> str:
    found = world.cluster.get("ExternalArtifact", namespace, name)
    return str(found["status"]["artifact"]["revision"])


def test_an_artifact_becomes_an_external_artifact_and_follows_source_spec_store_and_request(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("one")
    secretweave(cluster, namespace, "web", path="./deploy", refresh="10m")
    # The source is not there yet.
    assert "GitRepository" in cluster.until_not_ready("SecretWeave", namespace, "web", reason="ArtifactFailed")
    world.publish(namespace, {"deploy/secret.yaml": SECRET, "deploy/settings.yaml": PLAIN})
    begun = time.monotonic()
    obj = cluster.until_ready("SecretWeave", namespace, "web")
    assert time.monotonic() - begun < 10, "the source's event wakes it"
    files = world.fetched(namespace, "web")
    assert set(files) == {"manifests.yaml", "secret_db.yaml"}
    assert VALUE.encode() not in b"".join(files.values())
    external = cluster.get("ExternalArtifact", namespace, "web")
    assert external["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]
    assert condition(external, "Ready")["status"] == "True"
    assert obj["status"]["artifact"]["digest"] == external["status"]["artifact"]["digest"]
    assert cluster.get("Secret", namespace, "web-age")["metadata"]["ownerReferences"][0]["kind"] == "SecretWeave"
    # Nobody's object has got a finalizer or an annotation.
    assert "finalizers" not in obj["metadata"]
    assert "annotations" not in obj["metadata"]
    assert "annotations" not in cluster.get("GitRepository", namespace, "shop")["metadata"]

    first = revision(world, namespace, "web")
    world.publish(namespace, {"deploy/secret.yaml": SECRET, "deploy/settings.yaml": PLAIN.replace("blue", "red")})
    cluster.until("ExternalArtifact", namespace, "web", lambda found: _revision(found) != first, 10)
    assert world.fetched(namespace, "web")["secret_db.yaml"] == files["secret_db.yaml"], "its ciphertext stays"

    second = revision(world, namespace, "web")
    secretweave(cluster, namespace, "web", path="./deploy", refresh="10m", targetNamespace="elsewhere")
    cluster.until("ExternalArtifact", namespace, "web", lambda found: _revision(found) != second, 10)
    assert "elsewhere_secret_db.yaml" in world.fetched(namespace, "web")

    third = revision(world, namespace, "web")
    world.values(password="another-value-of-it")
    cluster.annotate("SecretWeave", namespace, "web", "reconcile.fluxcd.io/requestedAt", "now")
    cluster.until("ExternalArtifact", namespace, "web", lambda found: _revision(found) != third, 10)
    cluster.until("SecretWeave", namespace, "web", lambda found: found["status"].get("lastHandledReconcileAt") == "now")
    world.values(password=VALUE)


def test_its_own_writes_wake_nobody_and_what_is_unchanged_is_published_once(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("quiet")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(cluster, namespace, "web", refresh="10m")
    cluster.until_ready("SecretWeave", namespace, "web")
    time.sleep(1)
    done = len(reconciles(world, f"{namespace}/web"))
    version = cluster.get("SecretWeave", namespace, "web")["metadata"]["resourceVersion"]
    time.sleep(3)
    assert len(reconciles(world, f"{namespace}/web")) == done
    assert cluster.get("SecretWeave", namespace, "web")["metadata"]["resourceVersion"] == version

    secretweave(cluster, namespace, "web", refresh="1s")
    first = revision(world, namespace, "web")
    time.sleep(4)
    assert len(reconciles(world, f"{namespace}/web")) >= done + 3
    assert revision(world, namespace, "web") == first
    published = [each for each in world.weaver.lines("published") if each["namespace"] == namespace]
    assert len(published) == 1


def test_a_rotation_in_the_store_is_published_within_the_refresh_interval(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("rotating")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(cluster, namespace, "web", refresh="1s")
    cluster.until_ready("SecretWeave", namespace, "web")
    first = revision(world, namespace, "web")
    world.values(password="rotated-and-rotated")
    begun = time.monotonic()
    cluster.until("ExternalArtifact", namespace, "web", lambda found: _revision(found) != first)
    assert time.monotonic() - begun < 6
    # The store breaks: the artifact stays, the condition says why.
    second = revision(world, namespace, "web")
    world.secrets.write_text("{}")
    message = cluster.until_not_ready("SecretWeave", namespace, "web", reason="StoreFailed")
    assert "Secret rotating/db, stringData.password" in message
    assert revision(world, namespace, "web") == second
    assert condition(cluster.get("ExternalArtifact", namespace, "web"), "Ready")["status"] == "True"
    assert world.fetched(namespace, "web")
    world.values(password="rotated-and-rotated")
    cluster.until_ready("SecretWeave", namespace, "web")
    assert revision(world, namespace, "web") == second
    cluster.delete("SecretWeave", namespace, "web")
    world.values(password=VALUE)


def test_what_was_deleted_is_forgotten_and_its_files_go(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("deleted")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(cluster, namespace, "web", refresh="1s")
    cluster.until_ready("SecretWeave", namespace, "web")
    cluster.delete("SecretWeave", namespace, "web")
    until(lambda: any(each["outcome"] == "gone" for each in reconciles(world, f"{namespace}/web")))
    done = len(reconciles(world, f"{namespace}/web"))
    time.sleep(3)
    assert len(reconciles(world, f"{namespace}/web")) == done


def test_the_log_the_metrics_and_the_probes(world: World):
    namespace = world.cluster.namespace("told")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(world.cluster, namespace, "web", refresh="10m")
    world.cluster.until_ready("SecretWeave", namespace, "web")
    time.sleep(1.5)
    read = next(each for each in world.weaver.lines("read") if each["namespace"] == namespace)
    assert {key: read[key] for key in ("object", "store", "ref", "outcome")} == {
        "object": "web",
        "store": "main",
        "ref": "db",
        "outcome": "ok",
    }
    metrics = world.weaver.metrics()
    assert 'secretweave_reconciles_total{kind="SecretWeave",outcome="ok"}' in metrics
    assert 'secretweave_objects{kind="SecretWeave",state="ready"}' in metrics
    assert "secretweave_leader 1.0" in metrics
    assert namespace not in metrics
    log = world.weaver.log.read_text()
    assert VALUE not in log
    assert "AGE-SECRET-KEY" not in log
    # Every line of the log is one of ours, kopf's too.
    assert all(json.loads(line)["event"] for line in log.splitlines())


def test_many_objects_and_one_that_is_wrong(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("many")
    world.publish(namespace, {"secret.yaml": SECRET})
    world.publish(namespace, {"secret.yaml": SECRET.replace("main", "nowhere")}, "wrong")
    secretweave(cluster, namespace, "wrong", source=("GitRepository", "wrong"))
    for number in range(20):
        secretweave(cluster, namespace, f"web-{number}", refresh="5s")
    for number in range(20):
        cluster.until_ready("SecretWeave", namespace, f"web-{number}", 60)
    assert "no store is called" in cluster.until_not_ready("SecretWeave", namespace, "wrong") or True
    for number in range(20):
        cluster.delete("SecretWeave", namespace, f"web-{number}")
    cluster.delete("SecretWeave", namespace, "wrong")


def test_a_second_replica_waits_and_takes_over(world: World, tmp_path: Path):
    cluster, namespace = world.cluster, world.cluster.namespace("replicas")
    other = world.weaver.replica(tmp_path)
    other.start(ready=False)
    try:
        until(lambda: other.answers("/healthz"))
        time.sleep(1)
        assert not other.is_ready()
        # SIGTERM: it ends by itself, in order, and lets the next one begin at once.
        assert world.weaver.stop() == 0
        assert world.weaver.lines("end")
        until(other.is_ready)
        world.publish(namespace, {"secret.yaml": SECRET})
        secretweave(cluster, namespace, "web")
        cluster.until_ready("SecretWeave", namespace, "web")
        # Somebody takes the Lease away: it ends at once, and not well.
        lease = cluster.get("Lease", NAMESPACE, "secretweave")
        assert lease["spec"]["leaseTransitions"] >= 1
        cluster.patch("Lease", NAMESPACE, "secretweave", {"spec": {"holderIdentity": "somebody"}})
        assert other.ended() == 75
        assert other.lines("lease lost")
    finally:
        if other.lives():
            other.kill()
        if cluster.find("Lease", NAMESPACE, "secretweave"):
            cluster.delete("Lease", NAMESPACE, "secretweave")
        world.weaver.start()


def test_killed_and_started_again_it_serves_the_same_and_ciphertext_stays(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("killed")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(cluster, namespace, "web", refresh="10m")
    cluster.until_ready("SecretWeave", namespace, "web")
    before = (revision(world, namespace, "web"), world.fetched(namespace, "web"))
    world.weaver.kill()
    world.weaver.start()
    assert (revision(world, namespace, "web"), world.fetched(namespace, "web")) == before
    # Its volume is lost: it is filled again before it says that it is ready.
    world.weaver.kill()
    for path in world.weaver.files():
        path.unlink()
    world.weaver.start()
    assert world.fetched(namespace, "web")["secret_db.yaml"]


def test_a_changed_configuration_is_taken_up(world: World):
    cluster, namespace = world.cluster, world.cluster.namespace("configured")
    world.publish(namespace, {"secret.yaml": SECRET})
    secretweave(cluster, namespace, "web", refresh="10m", output="secret")
    cluster.until_not_ready("SecretWeave", namespace, "web", reason="AccessDenied")
    assert condition(cluster.get("SecretWeave", namespace, "web"), "Stalled")["status"] == "True"
    with world.weaver.plaintext_allowed():
        cluster.until_ready("SecretWeave", namespace, "web")
        assert VALUE.encode() in world.fetched(namespace, "web")["secret_db.yaml"]
    cluster.until_not_ready("SecretWeave", namespace, "web", reason="AccessDenied")


def _revision(found: dict[str, Any]) -> str:
    return str(((found.get("status") or {}).get("artifact") or {}).get("revision"))


def reconciles(world: World, key: str) -> list[dict[str, Any]]:
    return [each for each in world.weaver.lines("reconcile") if each["object"] == key]


def until(what: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.1)
