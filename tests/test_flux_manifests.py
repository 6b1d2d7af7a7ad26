"""The files of flux/: what they say fits together, and is what the controller does and the security model says.

That a real API server, kustomize and Helm take them is shown in tests/hosts/test_flux_manifests.py.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from secretweave import __version__, config, options, pipeline
from secretweave.config import Config, binding
from secretweave.errors import Faults, PolicyError
from secretweave.flux.controller import keys, reconcile, resource, run
from secretweave.flux.controller.published import Archive
from secretweave.flux.settings import Flux
from secretweave.policy.settings import StoreRule

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
FLUX = ROOT / "flux"
EXAMPLE = FLUX / "example"
SIZES = {"Mi": 20, "Gi": 30}

Manifest = dict[str, Any]


def documents(*steps: str) -> list[Manifest]:
    found = YAML(typ="safe", pure=True).load_all(FLUX.joinpath(*steps).read_text())
    return [document for document in found if document is not None]


def document(*steps: str) -> Manifest:
    (found,) = documents(*steps)
    return found


def pod() -> Manifest:
    spec: Manifest = document("deployment.yaml")["spec"]["template"]["spec"]
    return spec


def container() -> Manifest:
    (found,) = pod()["containers"]
    assert isinstance(found, dict)
    return found


def environment() -> dict[str, str]:
    return {each["name"]: each["value"] for each in container()["env"] if "value" in each}


def volumes() -> dict[str, Manifest]:
    return {each["name"]: each for each in pod()["volumes"]}


def loaded(folder: Path) -> Config:
    return config.load(str(folder), {})


def schema() -> Manifest:
    (version,) = document("crd", "secretweaves.yaml")["spec"]["versions"]
    found: Manifest = version["schema"]["openAPIV3Schema"]
    return found


def test_every_version_is_this_one():
    assert document("kustomization.yaml")["images"] == [{"name": "secretweave", "newTag": __version__}]
    chart = document("chart", "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


class TestThePod:
    def test_it_is_confined(self):
        assert pod()["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "runAsGroup": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container()["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container()["resources"]) == {"requests", "limits"}

    def test_no_secret_is_mounted(self):
        assert [sorted(set(each) - {"name"}) for each in volumes().values()] == [
            ["configMap"],
            ["emptyDir"],
            ["emptyDir"],
        ]

    def test_every_volume_is_mounted_where_the_controller_writes(self):
        mounts = {each["mountPath"]: each["name"] for each in container()["volumeMounts"]}
        folder = loaded(FLUX / "config").settings.flux.artifacts.folder
        assert mounts == {environment()["SECRETWEAVE_CONFIG"]: "config", folder: "data", environment()["TMPDIR"]: "tmp"}
        assert set(mounts.values()) == set(volumes())

    def test_what_it_is_told_are_options_of_the_command(self):
        assert container()["args"] == ["flux", "controller"]
        known = {name for option in options.CONTROLLER for name in option.environ}
        (mappings,) = (
            each["patch"] for each in document("secret-mappings", "kustomization.yaml")["patches"] if "patch" in each
        )
        (added,) = YAML(typ="safe", pure=True).load(mappings)
        for name in [*environment(), added["value"]["name"]]:
            assert name in known | {"TMPDIR"}

    def test_its_ports_are_the_controllers(self):
        settings = loaded(FLUX / "config").settings.flux
        assert settings == Flux()
        ports = {each["name"]: f":{each['containerPort']}" for each in container()["ports"]}
        assert ports == {
            "artifacts": settings.artifacts.address,
            "health": settings.health,
            "metrics": settings.metrics,
        }

    def test_others_reach_it_by_its_service(self):
        service = document("service.yaml")
        namespace = document("kustomization.yaml")["namespace"]
        url = f"http://{service['metadata']['name']}.{namespace}.svc.cluster.local"
        assert environment()["SECRETWEAVE_ARTIFACT_URL"] == url
        assert [(each["port"], each["targetPort"]) for each in service["spec"]["ports"]] == [(80, "artifacts")]
        labels = document("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == labels
        assert document("network-policy.yaml")["spec"]["podSelector"] == {"matchLabels": labels}

    def test_kubernetes_gives_it_longer_to_end_than_it_takes(self):
        assert pod()["terminationGracePeriodSeconds"] > run.DRAIN_SECONDS

    def test_its_folder_has_room_for_the_largest_sources(self):
        """One that is full is not an error of one object's: the Pod is evicted, and every tenant waits."""
        settings = Flux()
        size = volumes()["tmp"]["emptyDir"]["sizeLimit"]
        room = int(size[:-2]) << SIZES[size[-2:]]
        assert room > settings.workers * (settings.artifacts.archive_bytes + 2 * settings.artifacts.total_bytes)


class TestTheSchema:
    def test_it_is_of_the_controllers_kind(self):
        crd = document("crd", "secretweaves.yaml")["spec"]
        (version,) = crd["versions"]
        assert f"{crd['group']}/{version['name']}" == resource.API_VERSION
        assert (crd["names"]["kind"], crd["names"]["plural"]) == (resource.KIND, resource.PLURAL)

    def test_it_knows_the_same_sources_and_durations(self):
        spec = schema()["properties"]["spec"]["properties"]
        assert spec["sourceRef"]["properties"]["kind"]["enum"] == list(resource.SOURCES)
        for key in ("interval", "refreshInterval", "retryInterval", "timeout"):
            assert spec[key]["pattern"] == f"^{resource.DURATION.pattern}$"
        assert spec["keys"]["properties"]["rotateAfter"]["pattern"] == f"^{resource.DURATION.pattern}$"

    def test_its_defaults_are_the_controllers_own(self):
        """Which holds for objects of an older schema, too."""
        own: Manifest = {
            "sourceRef": {"kind": "Bucket", "name": "a"},
            "interval": "10m",
            "keys": {},
            "policy": {},
        }
        properties = schema()["properties"]["spec"]["properties"]
        given = own | {key: each["default"] for key, each in properties.items() if "default" in each}
        for key in ("keys", "policy"):
            given[key] = {
                name: each["default"] for name, each in properties[key]["properties"].items() if "default" in each
            }
        assert given["keys"]
        assert given["policy"]
        head = {"metadata": {"name": "shop", "namespace": "shop"}}
        assert resource.read(head | {"spec": given}) == resource.read(head | {"spec": own})

    def test_nothing_of_the_status_is_dropped(self):
        """What the schema does not know, the API server takes out: the status would never be as it was written."""
        status = schema()["properties"]["status"]["properties"]
        artifact = reconcile._artifact_status(Archive("sha256:0", "http://a/b", "b", 1), resource.stamp())  # noqa: SLF001 - what is written
        assert set(status["artifact"]["properties"]) == set(artifact)
        (condition,) = resource.conditions((), [resource.Condition("Ready", "True", "Succeeded", "")], 1, "")
        assert set(status["conditions"]["items"]["properties"]) == set(condition)
        assert status["conditions"]["items"]["properties"]["message"]["maxLength"] >= resource.MESSAGE_BYTES


def test_the_files_of_the_configuration_are_all_generated():
    (configuration,) = document("kustomization.yaml")["configMapGenerator"]
    names = sorted(f"config/{path.name}" for path in (FLUX / "config").iterdir())
    assert configuration == {"name": volumes()["config"]["configMap"]["name"], "files": names}
    assert sorted(path.name for path in (EXAMPLE / "config").iterdir()) == [Path(name).name for name in names]


def test_the_configuration_that_is_shipped_refuses_all():
    shipped = loaded(FLUX / "config")
    assert shipped.stores == ()
    assert (shipped.settings.policy.stores, shipped.settings.policy.unruled_stores) == ((), "refuse")
    assert shipped.settings.report.show_key_names is False
    assert shipped.settings.operator_namespace == document("kustomization.yaml")["namespace"]


def test_the_charts_configuration_is_the_shipped_one():
    values = document("chart", "values.yaml")["configuration"]
    # Left empty, it is the namespace of the release.
    assert values.pop("operatorNamespace") == ""
    shipped = document("config", "configuration.yaml")["spec"]
    assert shipped.pop("operatorNamespace") == "flux-system"
    assert values == shipped


class TestTheExample:
    def test_it_binds_stores_to_the_namespace(self):
        bound = binding.bound(loaded(EXAMPLE / "config"), {"project": "shop", "namespace": "shop"})
        assert bound.settings.policy.stores == (StoreRule("vault", prefixes=("tenants/shop",)),)
        assert bound.settings.policy.unruled_stores == "refuse"
        vault: Any = bound.stores[0].settings
        assert vault.auth.kubernetes.role == "flux-shop"

    @pytest.mark.parametrize(
        ("namespace", "refused"),
        [("shop", ""), ("other", "vault:tenants/shop/db#password is under no prefix that may be read")],
    )
    def test_a_namespace_reads_its_own(self, namespace: str, refused: str):
        bound = binding.bound(loaded(EXAMPLE / "config"), {"project": namespace, "namespace": namespace})
        # As every manifest could claim.
        manifest = b"""\
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop}
stringData:
  password: secret://vault/tenants/shop/db#password
"""
        about = pipeline.Run(namespace=namespace, identity=namespace, destination=namespace)
        try:
            pipeline.check([("stdin", BytesIO(manifest))], bound, about, pytest.fail)
        except Faults as faults:
            (fault,) = faults.faults
            assert isinstance(fault, PolicyError)
            assert refused
            assert fault.what.startswith(refused)
        else:
            assert not refused

    def test_one_leads_to_the_other(self):
        found = {each["kind"]: each for each in documents("example", "shop.yaml")}
        source, weave, applied = found["GitRepository"], found["SecretWeave"], found["Kustomization"]
        assert {each["metadata"]["namespace"] for each in found.values()} == {"shop"}
        spec = resource.read(weave)
        assert spec.source == resource.Source("GitRepository", "shop", source["metadata"]["name"])
        assert applied["spec"]["sourceRef"] == {"kind": "ExternalArtifact", "name": weave["metadata"]["name"]}
        # Of what is in another namespace by then the references would have been judged wrongly.
        assert applied["spec"]["targetNamespace"] == weave["metadata"]["namespace"]
        assert applied["spec"]["decryption"] == {
            "provider": "sops",
            "secretRef": {"name": f"{weave['metadata']['name']}-age"},
        }
        assert keys.ENTRY == "age.agekey"

    def test_tokens_of_the_one_service_account_may_be_had(self):
        found = {each["kind"]: each for each in documents("example", "shop.yaml")}
        account = resource.read(found["SecretWeave"]).account
        assert found["ServiceAccount"]["metadata"]["name"] == account
        assert found["Role"]["rules"] == [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"]}
        ]
        assert found["RoleBinding"]["subjects"] == documents("rbac.yaml")[2]["subjects"]
