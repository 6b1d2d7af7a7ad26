"""argocd/ against a real API server, with Argo CD's own manifests and schemas, of the version that the tests build."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hosts.build import HERE as HOSTS
from tests.hosts.build import use_go
from tests.hosts.cluster import cluster
from tests.hosts.programs import Kubectl, Result, absent, documents, need

ARGOCD = HOSTS.parent.parent / "argocd"
MODULE = "github.com/argoproj/argo-cd/v3"
OURS = ["secretweave", "secretweave-daemon"]
SERVICE_ACCOUNT = "system:serviceaccount:argocd:argocd-repo-server"
SERVER_SIDE = ("apply", "--server-side", "--force-conflicts")
PATCH = ("patch", "deployment", "argocd-repo-server", "--patch-file")
SECONDS_MAX = 60
"""Until the API server serves a new kind."""

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def manifests() -> Path:
    """Argo CD's folder of manifests, out of the module that the CMP server is built from: go.sum verifies it."""
    need("kube-apiserver")
    use_go()
    folder = HOSTS / "go" / "argocd-cmp-server"
    download = ["go", "mod", "download", "-json", MODULE]
    done = subprocess.run(download, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        absent(f"Argo CD's module cannot be downloaded: {done.stderr}")
    return Path(json.loads(done.stdout)["Dir"]) / "manifests"


def objects(text: str) -> dict[tuple[str, str], str]:
    """The objects of a stream by kind and name, as text: to parse Argo CD's schemas takes longer than to apply them."""
    kind, name = (
        re.compile(r"^kind: (.*)$", re.MULTILINE),
        re.compile(r"^metadata:\n(?:  .*\n)*?  name: (.*)$", re.MULTILINE),
    )
    found = {}
    for each in text.split("\n---\n"):
        kinds, metadata = kind.search(each), name.search(each)
        assert kinds
        assert metadata
        found[kinds[1], metadata[1]] = each
    return found


class Upstream(NamedTuple):
    """What of Argo CD's install.yaml matters here."""

    crds: str
    rest: str


@pytest.fixture(scope="session")
def upstream(manifests: Path) -> Upstream:
    found = objects((manifests / "install.yaml").read_text())
    repo_server = found["Deployment", "argocd-repo-server"]
    crds = [text for (kind, _), text in found.items() if kind == "CustomResourceDefinition"]
    rest = [found["ConfigMap", "argocd-cmd-params-cm"], found["NetworkPolicy", "argocd-repo-server-network-policy"]]
    return Upstream("\n---\n".join(crds), "\n---\n".join([*rest, repo_server]))


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of this module's own: CRDs are cluster-wide, and the namespace is called argocd."""
    with cluster(tmp_path_factory.mktemp("cluster")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(scope="module")
def crds(apiserver: Path, upstream: Upstream) -> Path:
    """The API server, once it knows Argo CD's kinds."""
    kubectl = Kubectl(need("kubectl"), apiserver, "argocd")
    done(kubectl.run("create", "namespace", "argocd"))
    done(kubectl.run(*SERVER_SIDE, "--filename=-", text=upstream.crds))
    deadline = time.monotonic() + SECONDS_MAX
    while kubectl.run("get", "applications,appprojects").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return apiserver


@pytest.fixture(params=[("apply",), SERVER_SIDE], ids=["client-side", "server-side"])
def how(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The two ways to install and upgrade Argo CD that its documentation gives: until 3.2, and from 3.3 on."""
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture
def kubectl(crds: Path, upstream: Upstream, how: tuple[str, ...]) -> Iterator[Kubectl]:
    """A namespace `argocd` in which Argo CD was installed."""
    found = Kubectl(need("kubectl"), crds, "argocd")
    done(found.run(*how, "--filename=-", text=upstream.rest))
    yield found
    done(found.run("delete", "deployment,configmap,networkpolicy", "--all"))


def done(result: Result) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def add(kubectl: Kubectl) -> str:
    """As argocd/kustomization.yaml tells it."""
    return done(kubectl.run("apply", "-k", str(ARGOCD))) + done(
        kubectl.run(*PATCH, str(ARGOCD / "component" / "repo-server.yaml"))
    )


def pod(kubectl: Kubectl) -> Manifest:
    spec: Manifest = kubectl.get("deployment", "argocd-repo-server")["spec"]["template"]["spec"]
    return spec


def names(items: list[Manifest]) -> list[str]:
    return [each["name"] for each in items]


def test_two_commands_add_the_containers_and_leave_argo_cds_as_they_were(kubectl: Kubectl):
    before = pod(kubectl)
    add(kubectl)
    after = pod(kubectl)
    assert sorted(names(after["containers"])) == ["argocd-repo-server", *OURS]
    assert (
        after
        | {
            "containers": [each for each in after["containers"] if each["name"] not in OURS],
            "volumes": [each for each in after["volumes"] if not each["name"].startswith("secretweave-")],
        }
        == before
    )
    plugin, configuration = (kubectl.get("configmap", f"secretweave-{name}") for name in ("plugin", "config"))
    assert plugin["data"] == {"plugin.yaml": (ARGOCD / "plugin.yaml").read_text()}
    assert sorted(configuration["data"]) == ["configuration.yaml", "stores.yaml"]


def test_a_second_time_they_change_nothing(kubectl: Kubectl):
    add(kubectl)
    before = pod(kubectl)
    assert add(kubectl).splitlines() == [
        "configmap/secretweave-config unchanged",
        "configmap/secretweave-plugin unchanged",
        "deployment.apps/argocd-repo-server patched (no change)",
    ]
    assert pod(kubectl) == before


def test_an_upgrade_of_argo_cd_leaves_ours_in(kubectl: Kubectl, upstream: Upstream, how: tuple[str, ...]):
    add(kubectl)
    before = pod(kubectl)
    done(kubectl.run(*how, "--filename=-", text=upstream.rest.replace("/argocd:v", "/argocd:newer-v")))
    after = pod(kubectl)
    assert [each["image"].partition(":newer-v")[1] for each in after["containers"]].count(":newer-v") == 1
    for name in OURS:
        assert [each for each in after["containers"] if each["name"] == name] == [
            each for each in before["containers"] if each["name"] == name
        ]
    assert names(after["volumes"]) == names(before["volumes"])


def test_two_commands_take_it_out_without_a_trace(kubectl: Kubectl):
    before, config_maps = pod(kubectl), kubectl.names("configmap")
    add(kubectl)
    done(kubectl.run(*PATCH, str(ARGOCD / "removal.yaml")))
    done(kubectl.run("delete", "-k", str(ARGOCD)))
    assert (pod(kubectl), kubectl.names("configmap")) == (before, config_maps)


def test_the_timeouts_are_set_beside_what_the_platform_has_set(kubectl: Kubectl):
    own = '{"data": {"server.insecure": "true"}}'
    patch = ("patch", "configmap", "argocd-cmd-params-cm")
    done(kubectl.run(*patch, "--patch", own))
    done(kubectl.run(*patch, "--patch-file", str(ARGOCD / "component" / "timeouts.yaml")))
    found = kubectl.get("configmap", "argocd-cmd-params-cm")["data"]
    assert (found["server.insecure"], found["controller.repo.server.timeout.seconds"]) == ("true", "60")


def test_to_apply_the_patch_would_take_out_what_the_platform_has_set(crds: Path):
    """Why it is patched, whoever the manager of the fields is. Should this fail, kubectl has learnt better."""
    kubectl = Kubectl(need("kubectl"), crds, "argocd")
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cmd-params-cm"}, "data": {"a": "b"}}
    done(kubectl.run("apply", "--filename=-", text=json.dumps(own)))
    timeouts = str(ARGOCD / "component" / "timeouts.yaml")
    done(kubectl.run("apply", "--server-side", "--field-manager=secretweave", "--filename", timeouts))
    found = kubectl.get("configmap", "argocd-cmd-params-cm")["data"]
    done(kubectl.run("delete", "configmap", "--all"))
    assert "a" not in found


@pytest.fixture
def kustomization(tmp_path: Path, manifests: Path) -> Path:
    """A kustomization of Argo CD, with a copy of ours beside it, as component/kustomization.yaml tells it."""
    shutil.copytree(ARGOCD, tmp_path / "secretweave")
    shutil.copy(manifests / "install.yaml", tmp_path)
    text = (ARGOCD / "component" / "kustomization.yaml").read_text()
    told = [line.removeprefix("#     ") for line in text.splitlines() if line.startswith("#     ")]
    (tmp_path / "kustomization.yaml").write_text("\n".join(["namespace: argocd", *told, ""]))
    return tmp_path


def test_as_a_component_it_makes_the_same_pod(kubectl: Kubectl, kustomization: Path):
    built = objects(done(kubectl.run("kustomize", str(kustomization))))
    assert {("ConfigMap", "secretweave-plugin"), ("ConfigMap", "secretweave-config")} <= set(built)
    (timeouts,) = documents(built["ConfigMap", "argocd-cmd-params-cm"])
    assert timeouts["data"]["server.repo.server.timeout.seconds"] == "60"
    deployment = built["Deployment", "argocd-repo-server"]
    assert deployment.count("YOUR-REGISTRY/secretweave:") == len(OURS)
    text = deployment.replace("YOUR-REGISTRY/secretweave:", "secretweave:")
    dry_run = ("apply", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-")
    spec = json.loads(done(kubectl.run(*dry_run, text=text)))["spec"]["template"]["spec"]
    add(kubectl)
    patched = pod(kubectl)
    for kind in ("containers", "volumes"):
        assert by_name(spec.pop(kind)) == by_name(patched.pop(kind))
    assert spec == patched


def by_name(items: list[Manifest]) -> dict[str, Manifest]:
    found = {each["name"]: each for each in items}
    assert len(found) == len(items)
    return found


@pytest.mark.parametrize("name", ["project.yaml", "application.yaml"])
def test_the_example_fits_argo_cds_schemas(crds: Path, name: str):
    kubectl = Kubectl(need("kubectl"), crds, "argocd")
    path = str(ARGOCD / "example" / name)
    assert "created (server dry run)" in done(
        kubectl.run("apply", "--dry-run=server", "--validate=strict", "--filename", path)
    )


def test_the_network_policy_stands_beside_argo_cds_own(kubectl: Kubectl):
    before = kubectl.get("networkpolicy", "argocd-repo-server-network-policy")
    done(kubectl.run("apply", "--validate=strict", "--filename", str(ARGOCD / "network-policy.yaml")))
    ours = kubectl.get("networkpolicy", "secretweave-repo-server-egress")
    assert ours["spec"]["policyTypes"] == ["Egress"]
    assert ours["spec"]["podSelector"] == before["spec"]["podSelector"]
    assert kubectl.get("networkpolicy", "argocd-repo-server-network-policy") == before


def rights(kubectl: Kubectl) -> set[str]:
    """What the repo-server's account may do in the namespace: resources, URLs, names, verbs."""
    listed = done(kubectl.run("auth", "can-i", "--list", "--no-headers", f"--as={SERVICE_ACCOUNT}"))
    return {" ".join(line.split()) for line in listed.splitlines()}


def test_the_repo_servers_account_may_get_the_named_secrets_and_nothing_else(crds: Path):
    kubectl = Kubectl(need("kubectl"), crds, "shop-secrets")
    everybodys = rights(kubectl)
    done(kubectl.run("create", "namespace", "shop-secrets"))
    done(kubectl.run("apply", "--validate=strict", "--filename", str(ARGOCD / "rbac-kubernetes-store.yaml")))
    deadline = time.monotonic() + SECONDS_MAX
    while rights(kubectl) == everybodys and time.monotonic() < deadline:
        time.sleep(0.2)
    assert rights(kubectl) - everybodys == {"secrets [] [team-a-db] [get]", "secrets [] [team-a-mail] [get]"}
    assert rights(Kubectl(kubectl.path, kubectl.kubeconfig, "argocd")) == everybodys
    for secret, answer in (("team-a-db", "yes"), ("other", "no")):
        asked = kubectl.run("auth", "can-i", "get", f"secret/{secret}", f"--as={SERVICE_ACCOUNT}")
        assert asked.stdout.strip() == answer
