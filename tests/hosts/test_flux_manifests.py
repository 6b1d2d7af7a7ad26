"""flux/ against a real API server: the schema, what the controller may, the chart by the real Helm, the example."""

import copy
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretweave import __version__
from tests.hosts.cluster import cluster
from tests.hosts.flux import install_crds
from tests.hosts.programs import Helm, Kubectl, Result, documents, need

ROOT = Path(__file__).parents[2]
FLUX = ROOT / "flux"
CHART = FLUX / "chart"
ACCOUNT = "system:serviceaccount:flux-system:secretweave"
SPEC: dict[str, Any] = {"sourceRef": {"kind": "GitRepository", "name": "shop"}, "interval": "10m"}

SECONDS_MAX = 30
"""Until the API server goes by a rule that it has."""

Manifest = dict[str, Any]


def built(folder: Path) -> str:
    """As kustomize builds it."""
    done = subprocess.run([need("kustomize"), "build", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_component(folder: Path, name: str) -> str:
    """The component beside the whole, as the comment in it says."""
    link = folder / "flux"
    link.symlink_to(FLUX)
    (folder / "kustomization.yaml").write_text(f"resources: [flux]\ncomponents: [flux/{name}]\n")
    return built(folder)


@pytest.fixture(scope="module")
def with_mappings(tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_component(tmp_path_factory.mktemp("mappings"), "secret-mappings")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Of a cluster of this module's own, with Flux's schemas, in which flux/ is installed."""
    with cluster(tmp_path_factory.mktemp("cluster")) as kubeconfig:
        kubectl = Kubectl(need("kubectl"), kubeconfig, "flux-system")
        install_crds(kubeconfig)
        for namespace in ("flux-system", "shop"):
            assert kubectl.run("create", "namespace", namespace).returncode == 0
        applied = kubectl.run("apply", "--server-side", f"--kustomize={FLUX}")
        assert applied.returncode == 0, applied.stderr
        established = kubectl.run("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        assert established.returncode == 0, established.stderr
        yield kubectl


def weave(spec: Manifest, name: str = "shop") -> str:
    head = {"apiVersion": "flux.secretweave.dev/v1alpha1", "kind": "SecretWeave"}
    return json.dumps({**head, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})


def tried(admin: Kubectl, spec: Manifest) -> Result:
    return admin.run(
        "create", "--namespace=shop", "--dry-run=server", "--output=json", "--filename=-", text=weave(spec)
    )


def test_what_is_left_out_has_a_value(admin: Kubectl):
    done = tried(admin, SPEC | {"keys": {}})
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)["spec"]
    assert {key: spec[key] for key in ("path", "output", "timeout", "suspend")} == {
        "path": "./",
        "output": "sops",
        "timeout": "1m",
        "suspend": False,
    }
    assert spec["keys"] == {"rotateAfter": "2160h"}


@pytest.mark.parametrize(
    "more",
    [
        {"refreshInterval": "1m30s", "retryInterval": "500ms", "timeout": "1.5h"},
        {"sourceRef": {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "name": "a.b"}},
        {"sourceRef": {"kind": "Bucket", "name": "shop", "namespace": "other"}},
        {"sourceRef": {"kind": "ExternalArtifact", "name": "shop", "namespace": "other"}},
        {"sourceRef": {"kind": "ExternalArtifact", "name": "shop-source"}},
        {"output": "secret", "policy": {"values": "refuse"}, "stores": ["vault"], "serviceAccountName": "shop"},
        {"keys": {"secretRef": {"name": "sops-age"}, "age": ["age1" + "q" * 58]}},
    ],
    ids=["durations", "oci", "bucket", "artifact-elsewhere", "artifact", "plaintext", "keys"],
)
def test_specs_that_are_taken(admin: Kubectl, more: Manifest):
    done = tried(admin, SPEC | more)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"interval": "10"}, "spec.interval"),
        ({"interval": "1d"}, "spec.interval"),
        ({"refreshInterval": "-1m"}, "spec.refreshInterval"),
        ({"sourceRef": {"kind": "HelmChart", "name": "shop"}}, "spec.sourceRef.kind"),
        ({"sourceRef": {"kind": "GitRepository"}}, "spec.sourceRef.name"),
        ({"sourceRef": {"kind": "GitRepository", "name": "Shop"}}, "spec.sourceRef.name"),
        ({"output": "plain"}, "spec.output"),
        ({"output": "secret", "keys": {"rotateAfter": "1h"}}, "keys are for the output sops"),
        ({"policy": {"values": "allow"}}, "spec.policy.values"),
        ({"keys": {"age": ["AGE-SECRET-KEY-1"]}}, "spec.keys.age"),
        ({"stores": "vault"}, "spec.stores"),
        ({"pathh": "./"}, "pathh"),
        ({"sourceRef": {"kind": "ExternalArtifact", "name": "shop"}}, "what comes of the object itself"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_specs_that_are_refused(admin: Kubectl, more: Manifest, told: str):
    done = tried(admin, SPEC | more)
    assert done.returncode != 0
    assert told in done.stderr


def test_what_kubectl_shows(admin: Kubectl):
    created = admin.run("create", "--namespace=shop", "--filename=-", text=weave(SPEC, "shown"))
    assert created.returncode == 0, created.stderr
    conditions = [
        {
            "type": "Ready",
            "status": "False",
            "reason": "StoreFailed",
            "message": "the store is down",
            "lastTransitionTime": "2026-01-31T12:00:00Z",
            "observedGeneration": 1,
        }
    ]
    status = {
        "conditions": conditions,
        "lastSourceRevision": "main@sha1:1",
        "artifact": {
            "url": "http://secretweave/2.tar.gz",
            "path": "2.tar.gz",
            "revision": "latest@sha256:2",
            "digest": "sha256:2",
            "size": 3,
            "lastUpdateTime": "2026-01-31T12:00:00Z",
        },
    }
    patch = ("patch", "sw", "shown", "--namespace=shop", "--subresource=status", "--type=merge", "--patch")
    patched = admin.run(*patch, json.dumps({"status": status}))
    assert patched.returncode == 0, patched.stderr
    # Were a field taken out of it, the controller would write it again and again.
    shown = json.loads(admin.run("get", "sw", "shown", "--namespace=shop", "--output=json").stdout)
    assert shown["status"] == status
    wide = admin.run("get", "sw", "shown", "--namespace=shop", "--output=wide").stdout.splitlines()
    assert wide[0].split() == ["NAME", "AGE", "READY", "STATUS", "SOURCE", "ARTIFACT", "SUSPENDED"]
    assert wide[1].split()[2:] == ["False", "the", "store", "is", "down", "main@sha1:1", "latest@sha256:2", "false"]


def may(admin: Kubectl, verb: str, resource: str, *more: str, namespace: str = "shop") -> bool:
    asked = admin.run("auth", "can-i", verb, resource, f"--as={ACCOUNT}", f"--namespace={namespace}", *more)
    assert asked.stdout.strip() in {"yes", "no"}, asked.stderr
    return asked.stdout.strip() == "yes"


def test_what_the_controller_may(admin: Kubectl):
    for verb in ("get", "list", "watch"):
        for kind in ("gitrepositories", "ocirepositories", "buckets", "externalartifacts"):
            assert may(admin, verb, f"{kind}.source.toolkit.fluxcd.io"), (verb, kind)
        assert may(admin, verb, "secretweaves.flux.secretweave.dev")
    for verb in ("create", "patch"):
        assert may(admin, verb, "externalartifacts.source.toolkit.fluxcd.io")
    assert may(admin, "patch", "externalartifacts.source.toolkit.fluxcd.io", "--subresource=status")
    assert may(admin, "patch", "secretweaves.flux.secretweave.dev", "--subresource=status")
    for verb in ("get", "create", "update"):
        assert may(admin, verb, "secrets")
    assert may(admin, "create", "events.events.k8s.io")
    for verb in ("get", "update"):
        assert may(admin, verb, "leases.coordination.k8s.io/secretweave", namespace="flux-system")


def test_what_the_controller_may_not(admin: Kubectl):
    """Of what is near to it; to make tokens of any ServiceAccount would be to be anybody."""
    for verb in ("list", "watch", "delete", "patch"):
        assert not may(admin, verb, "secrets"), verb
    for verb in ("create", "update", "patch", "delete"):
        assert not may(admin, verb, "secretweaves.flux.secretweave.dev"), verb
    assert not may(admin, "create", "serviceaccounts", "--subresource=token")
    assert not may(admin, "get", "pods")
    assert not may(admin, "update", "leases.coordination.k8s.io/kustomize-controller", namespace="flux-system")
    assert not may(admin, "get", "leases.coordination.k8s.io/secretweave")


def until_may(admin: Kubectl, verb: str, resource: str, *, namespace: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not may(admin, verb, resource, namespace=namespace):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def secrets_by_namespace(admin: Kubectl, tmp_path: Path) -> Iterator[list[str]]:
    """The component installed; gives the commands that its comment tells. Afterwards all is as it was."""
    changed = admin.run("apply", "--server-side", "--filename=-", text=with_component(tmp_path, "secrets-by-namespace"))
    assert changed.returncode == 0, changed.stderr
    comment = (FLUX / "secrets-by-namespace" / "kustomization.yaml").read_text().replace("\\\n#", "")
    yield [line.removeprefix("#     kubectl ") for line in comment.splitlines() if "     kubectl " in line]
    for namespace in ("shop", "other", "flux-system"):
        admin.run("delete", f"--namespace={namespace}", "rolebinding,role", "secretweave-secrets", "--ignore-not-found")
    admin.run("delete", "clusterrole", "secretweave-secrets")
    restored = admin.run("apply", "--server-side", f"--kustomize={FLUX}")
    assert restored.returncode == 0, restored.stderr
    until_may(admin, "get", "secrets", namespace="default")


def test_rights_on_secrets_may_be_given_by_namespace(admin: Kubectl, secrets_by_namespace: list[str]):
    assert admin.run("create", "namespace", "other").returncode == 0
    whole, role, binding = secrets_by_namespace
    for command in (whole, role.replace("shop", "other"), binding.replace("shop", "other")):
        created = admin.run(*command.split())
        assert created.returncode == 0, created.stderr
    for namespace in ("shop", "flux-system"):
        for verb in ("get", "create", "update"):
            until_may(admin, verb, "secrets", namespace=namespace)
        assert not may(admin, "list", "secrets", namespace=namespace)
    until_may(admin, "get", "secrets/sops-age", namespace="other")
    for namespace in ("other", "default"):
        for verb in ("get", "create", "update", "list"):
            assert not may(admin, verb, "secrets", namespace=namespace), (namespace, verb)
    assert may(admin, "patch", "externalartifacts.source.toolkit.fluxcd.io", namespace="default")


def test_the_pod_may_run_where_pods_are_restricted(admin: Kubectl):
    assert admin.run("create", "namespace", "restricted").returncode == 0
    label = "pod-security.kubernetes.io/enforce=restricted"
    assert admin.run("label", "namespace", "restricted", label).returncode == 0
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "restricted"}}
    pod = head | {"spec": admin.get("deployment", "secretweave")["spec"]["template"]["spec"]}
    create = ("create", "--namespace=restricted", "--dry-run=server", "--filename=-")
    taken = admin.run(*create, text=json.dumps(pod))
    assert taken.returncode == 0, taken.stderr
    # It is looked at.
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in admin.run(*create, text=json.dumps(pod)).stderr


def test_a_repository_of_flux_gets_the_feature_gate_and_the_controller(tmp_path: Path):
    shutil.copytree(FLUX, tmp_path / "secretweave")
    shutil.copy(FLUX / "example" / "flux-system" / "kustomization.yaml", tmp_path)
    # What of the files of `flux bootstrap` matters here.
    (tmp_path / "gotk-components.yaml").write_text("""\
apiVersion: apps/v1
kind: Deployment
metadata: {name: kustomize-controller, namespace: flux-system}
spec: {template: {spec: {containers: [{name: manager, image: kustomize-controller, args: [--log-level=info]}]}}}
""")
    (tmp_path / "gotk-sync.yaml").write_text("""\
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
""")
    found = by_name(built(tmp_path))
    (manager,) = found["Deployment", "kustomize-controller"]["spec"]["template"]["spec"]["containers"]
    assert manager["args"] == ["--log-level=info", "--feature-gates=ExternalArtifact=true"]
    (ours,) = found["Deployment", "secretweave"]["spec"]["template"]["spec"]["containers"]
    assert ours["image"] == f"YOUR-REGISTRY/secretweave:{__version__}"


def test_the_feature_gate_is_set_by_hand(admin: Kubectl):
    created = admin.run(
        "create", "deployment", "kustomize-controller", "--image=a", "--dry-run=client", "--output=json"
    )
    deployment = json.loads(created.stdout)
    deployment["spec"]["template"]["spec"]["containers"][0]["args"] = ["--log-level=info"]
    assert admin.run("create", "--filename=-", text=json.dumps(deployment)).returncode == 0
    comment = (FLUX / "example" / "flux-system" / "kustomization.yaml").read_text()
    text = "\n".join(line.removeprefix("#     ") for line in comment.splitlines() if line.startswith("#     "))
    _kubectl, *command = shlex.split(text)
    patched = admin.run(*command)
    assert patched.returncode == 0, patched.stderr
    (container,) = admin.get("deployment", "kustomize-controller")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--log-level=info", "--feature-gates=ExternalArtifact=true"]


def test_direct_mode_may_more_only_with_its_component(admin: Kubectl, with_mappings: str):
    added = [each for each in documents(with_mappings) if each["metadata"]["name"] == "secretweave-secret-mappings"]
    assert [each["kind"] for each in added] == ["ClusterRole", "ClusterRoleBinding"]
    (deployment,) = (each for each in documents(with_mappings) if each["kind"] == "Deployment")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "SECRETWEAVE_SECRET_MAPPINGS", "value": "true"} in environment
    applied = admin.run("apply", "--server-side", "--dry-run=server", "--filename=-", text=with_mappings)
    assert applied.returncode == 0, applied.stderr


def test_the_example_is_valid(admin: Kubectl):
    example = FLUX / "example" / "shop.yaml"
    applied = admin.run("apply", "--server-side", "--dry-run=server", "--namespace=shop", f"--filename={example}")
    assert applied.returncode == 0, applied.stderr


@pytest.mark.parametrize("folder", [FLUX / "config", FLUX / "example" / "config"], ids=["shipped", "example"])
def test_the_configuration_is_valid(secretweave_check: Any, folder: Path):
    done = secretweave_check(folder)
    assert (done.returncode, done.stdout) == (0, b"0 references, no fault\n"), done.stderr


@pytest.fixture
def secretweave_check() -> Any:
    import sys

    command = Path(sys.executable).parent / "secretweave"
    config_map = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n"

    def run(folder: Path) -> subprocess.CompletedProcess[bytes]:
        arguments = [str(command), "check", f"--config={folder}", "--namespace=shop"]
        return subprocess.run(arguments, input=config_map, capture_output=True, check=False)

    return run


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Helm:
    return Helm.isolated(need(request.param), tmp_path, [])


def template(helm: Helm, *options: str) -> str:
    done = helm.run("template", "secretweave", str(CHART), "--namespace=flux-system", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_name(text: str) -> dict[tuple[str, str], Manifest]:
    return {(each["kind"], each["metadata"]["name"]): each for each in documents(text)}


def bare(found: Manifest) -> Manifest:
    """Without what Helm's objects have besides: labels, annotations, and a namespace that Helm gives as it applies."""
    found = copy.deepcopy(found)
    metadata = found["metadata"]
    for key in ("labels", "annotations", "namespace", "creationTimestamp"):
        metadata.pop(key, None)
    if found["kind"] == "ConfigMap":
        del found["data"]
    return found


def test_the_chart_makes_what_kustomize_makes(helm: Helm):
    ours, charts = by_name(built(FLUX)), by_name(template(helm))
    (container,) = charts["Deployment", "secretweave"]["spec"]["template"]["spec"]["containers"]
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    assert container["image"] == f"secretweave:{__version__}"
    assert {key: bare(each) for key, each in charts.items()} == {key: bare(each) for key, each in ours.items()}


@pytest.mark.parametrize(
    ("value", "component"),
    [
        ("secretMappings.enabled=true", "secret-mappings"),
        ("persistence.enabled=true", "persistence"),
        ("secrets.everyNamespace=false", "secrets-by-namespace"),
    ],
)
def test_the_chart_makes_of_a_value_what_kustomize_makes_of_a_component(
    helm: Helm, tmp_path: Path, value: str, component: str
):
    charts = by_name(template(helm, f"--set={value}"))
    (container,) = charts["Deployment", "secretweave"]["spec"]["template"]["spec"]["containers"]
    del container["imagePullPolicy"]
    ours = by_name(with_component(tmp_path, component))
    assert {key: bare(each) for key, each in charts.items()} == {key: bare(each) for key, each in ours.items()}


def test_the_charts_schema_is_the_other_ones(helm: Helm):
    crd = by_name(template(helm))["CustomResourceDefinition", "secretweaves.flux.secretweave.dev"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert (CHART / "files" / "secretweaves.yaml").read_bytes() == (FLUX / "crd" / "secretweaves.yaml").read_bytes()
    assert ("CustomResourceDefinition", crd["metadata"]["name"]) not in by_name(
        template(helm, "--set=crds.install=false")
    )


def test_the_chart_is_linted(helm: Helm):
    done = helm.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("option", ["replicas=-1", "artifactUrl=ftp://a", "imagee.tag=1", "stores[0].kind=SecretStore"])
def test_values_that_are_refused(helm: Helm, option: str):
    done = helm.run("template", str(CHART), f"--set={option}")
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_stores_and_rules_of_the_values_are_the_configuration(helm: Helm, secretweave_check: Any, tmp_path: Path):
    example = FLUX / "example" / "config"
    (store,) = documents((example / "stores.yaml").read_text())
    (configuration,) = documents((example / "configuration.yaml").read_text())
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"stores": [store], "configuration": configuration["spec"]}))
    data = by_name(template(helm, f"--values={values}"))["ConfigMap", "secretweave-config"]["data"]
    folder = tmp_path / "config"
    folder.mkdir()
    for name, text in data.items():
        (folder / name).write_text(text)
    done = secretweave_check(folder)
    assert (done.returncode, done.stdout) == (0, b"0 references, no fault\n"), done.stderr
    assert documents(data["stores.yaml"]) == [store]


def test_the_chart_is_installed(helm: Helm, admin: Kubectl):
    """With the schemas of humanitec.io, which the cluster has not; again, and they are the release's own."""
    release = f"secretweave-{helm.major}"
    namespace = f"flux-{helm.major}"
    assert admin.run("create", "namespace", namespace).returncode == 0
    options = ("--set=crds.install=false,humanitecCrds.install=true", f"--kubeconfig={admin.kubeconfig}")
    for role in ("clusterrole", "clusterrolebinding"):
        admin.run("delete", role, "secretweave-flux")
    done = helm.run("install", release, str(CHART), f"--namespace={namespace}", *options)
    assert done.returncode == 0, done.stderr
    again = helm.run("upgrade", release, str(CHART), f"--namespace={namespace}", *options)
    assert again.returncode == 0, again.stderr
    for plural in ("secretstores", "secretmappings"):
        assert admin.run("get", "crd", f"{plural}.humanitec.io").returncode == 0
    gone = helm.run("uninstall", release, f"--namespace={namespace}", f"--kubeconfig={admin.kubeconfig}")
    assert gone.returncode == 0, gone.stderr
    assert admin.run("get", "crd", "secretstores.humanitec.io").returncode == 0
    applied = admin.run("apply", "--server-side", "--force-conflicts", f"--kustomize={FLUX}")
    assert applied.returncode == 0, applied.stderr
