"""The files of argocd/: what they say fits together, and says of the containers what the security model says of them.

That they are accepted and merged by a real API server is shown in tests/hosts/test_argocd_manifests.py.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from secretweave import __version__, config, pipeline
from secretweave.argocd import generate, parameters
from secretweave.config import Config, binding
from secretweave.errors import Faults, PolicyError
from secretweave.policy.settings import StoreRule

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
ARGOCD = ROOT / "argocd"
EXAMPLE = ARGOCD / "example"
FILES = sorted(ARGOCD.rglob("*.yaml"))
SIDECAR, DAEMON = "secretweave", "secretweave-daemon"
GENEROUS_SECONDS = 5
"""Between our deadline and Argo CD's: to start, to say what is wrong, and to be read."""
GRACE_SECONDS = 30
"""https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination"""


def documents(path: Path) -> list[dict[str, Any]]:
    found = YAML(typ="safe", pure=True).load_all(path.read_text())
    return [document for document in found if document is not None]


def document(*steps: str) -> dict[str, Any]:
    (found,) = documents(ARGOCD.joinpath(*steps))
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = document("component", "repo-server.yaml")["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (found,) = (each for each in pod()["containers"] if each["name"] == name)
    assert isinstance(found, dict)
    return found


def environment(name: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(name)["env"]}


def mounts(name: str) -> dict[str, str]:
    """The volume at each path."""
    return {each["mountPath"]: each["name"] for each in container(name)["volumeMounts"]}


def loaded(folder: Path) -> Config:
    return config.load(str(folder), {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ARGOCD)))
def test_every_file_is_manifests_under_a_comment_that_says_what_for(path: Path):
    assert path.read_text().startswith("# ")
    for each in documents(path):
        assert path.name in {"values.yaml", "removal.yaml"} or {"apiVersion", "kind"} <= set(each)


def test_the_containers_are_two_of_one_image_of_this_version():
    assert [each["name"] for each in pod()["containers"]] == [SIDECAR, DAEMON]
    assert {each["image"] for each in pod()["containers"]} == {f"secretweave:{__version__}"}


@pytest.mark.parametrize("name", [SIDECAR, DAEMON])
def test_a_container_is_confined(name: str):
    assert container(name)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 999,
        "runAsGroup": 999,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert set(container(name)["resources"]) == {"requests", "limits"}


def test_what_runs_beside_a_tenants_chart_has_no_credential_and_no_token():
    assert mounts(SIDECAR) == {
        "/var/run/argocd": "var-files",
        "/home/argocd/cmp-server/plugins": "plugins",
        "/home/argocd/cmp-server/config/plugin.yaml": "secretweave-plugin",
        "/etc/secretweave/config": "secretweave-config",
        "/var/run/secretweave": "secretweave-socket",
        "/tmp": "secretweave-tmp",
    }
    writable = [each["name"] for each in container(SIDECAR)["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["plugins", "secretweave-plugin", "secretweave-tmp"]
    assert "automountServiceAccountToken" not in pod()


def test_what_asks_the_stores_has_nothing_of_the_tenants():
    shared = set(mounts(SIDECAR).values()) & set(mounts(DAEMON).values())
    assert shared == {"secretweave-config", "secretweave-socket"}
    assert set(mounts(DAEMON).values()) - shared == {
        "secretweave-credentials",
        "secretweave-vault-token",
        "secretweave-api-token",
        "secretweave-daemon-tmp",
    }


def test_every_volume_is_mounted_and_every_mount_is_a_volume_or_argo_cds():
    volumes = {each["name"] for each in pod()["volumes"]}
    assert set(mounts(SIDECAR).values()) | set(mounts(DAEMON).values()) == volumes | {"var-files", "plugins"}


def test_both_containers_meet_at_the_socket():
    sockets = {environment(name)["SECRETWEAVE_SOCKET"] for name in (SIDECAR, DAEMON)}
    assert sockets == {generate.SOCKET}
    # A folder of its own below the mount, which the daemon makes: that of an emptyDir is open to everybody.
    assert Path(generate.SOCKET).parent.parent == Path("/var/run/secretweave")


def test_the_commands_are_those_of_the_command_line():
    assert container(SIDECAR)["command"] == ["/var/run/argocd/argocd-cmp-server"]
    assert "args" not in container(SIDECAR)
    assert container(DAEMON)["args"] == ["argocd", "serve"]
    probes = [container(DAEMON)[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "readiness", "liveness")]
    assert probes == [["secretweave", "argocd", "probe"]] * 3


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_argo_cd_waits_longer_than_secretweave_works():
    params = document("component", "timeouts.yaml")["data"]
    waits = [float(value) for key, value in params.items() if key.endswith(".timeout.seconds")]
    waits.append(seconds(environment(SIDECAR)["ARGOCD_EXEC_TIMEOUT"]))
    for folder in (ARGOCD / "config", EXAMPLE / "config"):
        limits = loaded(folder).settings.limits
        assert min(waits) >= limits.deadline + GENEROUS_SECONDS
    assert len(waits) == 4


def test_a_pod_that_ends_lets_the_daemon_finish():
    """Kubernetes' own grace, which is left as it is: a removal could not bring back what it was before."""
    assert "terminationGracePeriodSeconds" not in pod()
    for folder in (ARGOCD / "config", EXAMPLE / "config"):
        assert loaded(folder).settings.argocd.daemon.drain + GENEROUS_SECONDS <= GRACE_SECONDS


def test_the_configuration_that_is_shipped_refuses_all():
    shipped = loaded(ARGOCD / "config")
    assert shipped.stores == ()
    assert (shipped.settings.policy.stores, shipped.settings.policy.unruled_stores) == ((), "refuse")
    assert shipped.settings.report.show_key_names is False
    assert shipped.settings.credentials.from_ == "folder"


def test_the_files_of_the_configuration_are_all_generated():
    (plugin, configuration) = document("kustomization.yaml")["configMapGenerator"]
    assert plugin == {"name": "secretweave-plugin", "files": ["plugin.yaml"]}
    names = sorted(f"config/{path.name}" for path in (ARGOCD / "config").iterdir())
    assert configuration == {"name": "secretweave-config", "files": names}
    assert sorted(path.name for path in (EXAMPLE / "config").iterdir()) == [Path(name).name for name in names]


def test_the_example_binds_stores_to_the_project():
    example = loaded(EXAMPLE / "config")
    assert [(each.name, each.type) for each in example.stores] == [("vault", "vault"), ("cluster", "kubernetes")]
    vault: Any = example.stores[0].settings
    assert vault.auth.kubernetes.role == "argocd-{project}"
    assert example.settings.policy.stores[0] == StoreRule("vault", prefixes=("{project}",))
    assert example.settings.policy.unruled_stores == "refuse"
    bound = binding.bound(example, {"project": "team-b", "namespace": "team-b-shop"})
    vault = bound.stores[0].settings
    assert vault.auth.kubernetes.role == "argocd-team-b"
    assert bound.settings.policy.stores[0] == StoreRule("vault", prefixes=("team-b",))


@pytest.mark.parametrize(
    ("project", "namespace", "ref", "refused"),
    [
        ("team-a", "team-a-shop", "vault/team-a/shop", ""),
        ("team-b", "team-b-shop", "vault/team-a/shop", "vault:team-a/shop is under no prefix that may be read"),
        ("team-b", "team-a-shop", "vault/team-a/shop", "vault:team-a/shop is under no prefix that may be read"),
        ("team-a", "team-a-shop", "cluster/team-a-db", ""),
        ("team-a", "team-a-other", "cluster/team-a-db", "the destination namespace team-a-other may not read"),
        ("team-b", "team-a-shop", "cluster/team-a-db", "the identity team-b may not read cluster:team-a-db"),
    ],
)
def test_in_the_example_a_project_reads_its_own(project: str, namespace: str, ref: str, refused: str):
    bound = binding.bound(loaded(EXAMPLE / "config"), {"project": project, "namespace": namespace})
    manifest = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n  a: secret://{ref}\n"
    # As every manifest could claim.
    claimed = manifest.replace("name: a", "name: a, namespace: team-a-shop")
    for text in (manifest, claimed):
        run = pipeline.Run(namespace=namespace, identity=project, destination=namespace)
        try:
            pipeline.check([("stdin", BytesIO(text.encode()))], bound, run, pytest.fail)
        except Faults as faults:
            (fault,) = faults.faults
            assert isinstance(fault, PolicyError)
            assert fault.what.startswith(refused)
            assert refused
        else:
            assert not refused


def test_the_paths_that_the_example_names_are_mounted_in_the_daemon():
    example = loaded(EXAMPLE / "config")
    vault: Any = example.stores[0].settings
    token = Path(vault.auth.kubernetes.token_file)
    assert mounts(DAEMON)[str(token.parent)] == "secretweave-vault-token"
    credentials = Path(str(example.settings.credentials.folder)) / vault.tls.ca_secret_ref.name
    assert mounts(DAEMON)[str(credentials)] == "secretweave-credentials"
    (secret,) = (each["secret"] for each in pod()["volumes"] if each["name"] == "secretweave-credentials")
    assert secret == {"secretName": vault.tls.ca_secret_ref.name, "optional": True}


def test_a_token_is_for_vault_alone():
    (volume,) = (each for each in pod()["volumes"] if each["name"] == "secretweave-vault-token")
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 600}}
    ]


def test_the_rights_in_the_cluster_are_to_get_what_is_named():
    role, binding = documents(ARGOCD / "rbac-kubernetes-store.yaml")
    (store,) = (each for each in loaded(EXAMPLE / "config").stores if each.name == "cluster")
    settings: Any = store.settings
    assert role["metadata"]["namespace"] == settings.namespace == binding["metadata"]["namespace"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["team-a-db", "team-a-mail"],
            "verbs": ["get"],
        }
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "argocd-repo-server", "namespace": "argocd"}]


def test_the_example_application_is_the_projects():
    project, application = document("example", "project.yaml"), document("example", "application.yaml")
    source = application["spec"]["source"]
    assert application["spec"]["project"] == project["metadata"]["name"] == "team-a"
    assert source["repoURL"].startswith(project["spec"]["sourceRepos"][0].rstrip("*"))
    assert source["plugin"]["name"] == document("plugin.yaml")["metadata"]["name"]
    chosen = parameters.read({"ARGOCD_APP_PARAMETERS": json.dumps(source["plugin"]["parameters"])})
    assert chosen == {"values-files": ("values-production.yaml",), "helm-parameters": {"replicas": "3"}}
    (destination,) = project["spec"]["destinations"]
    assert fnmatch(application["spec"]["destination"]["namespace"], destination["namespace"])


class TestValuesOfTheHelmChart:
    """The same as the component, so that neither is a step behind the other."""

    @pytest.fixture
    def values(self) -> dict[str, Any]:
        return document("values.yaml")

    def test_the_containers_are_the_components(self, values: dict[str, Any]):
        assert values["repoServer"]["extraContainers"] == pod()["containers"]
        assert set(pod()) == {"containers", "volumes"}

    def test_the_volumes_are_the_components_but_for_the_plugins_which_the_chart_writes(self, values: dict[str, Any]):
        plugin, *others = values["repoServer"]["volumes"]
        assert others == pod()["volumes"][1:]
        assert plugin == {
            "name": "secretweave-plugin",
            "configMap": {"name": "argocd-cmp-cm", "items": [{"key": "secretweave.yaml", "path": "plugin.yaml"}]},
        }

    def test_the_plugin_is_the_one_in_the_image(self, values: dict[str, Any]):
        assert values["configs"]["cmp"] == {"create": True, "plugins": {"secretweave": document("plugin.yaml")["spec"]}}

    def test_the_configuration_is_the_shipped_one(self, values: dict[str, Any]):
        (config_map,) = values["extraObjects"]
        assert config_map["metadata"] == {"name": "secretweave-config"}
        assert config_map["data"] == {path.name: path.read_text() for path in sorted((ARGOCD / "config").iterdir())}

    def test_the_timeouts_are_the_components(self, values: dict[str, Any]):
        assert values["configs"]["params"] == document("component", "timeouts.yaml")["data"]

    def test_no_token_is_shown_to_every_container(self, values: dict[str, Any]):
        assert values["repoServer"]["automountServiceAccountToken"] is False

    def test_the_chart_finds_no_template_in_it(self):
        """It runs these values through its template engine."""
        assert "{{" not in (ARGOCD / "values.yaml").read_text()


def commands(path: Path) -> Iterator[str]:
    """The commands in a file's comment, one line each."""
    for line in path.read_text().replace("\\\n#", "").splitlines():
        found = re.fullmatch(r"#     ((?:kubectl|helm|vault) .*)", line)
        if found:
            yield found[1]


def test_no_command_in_a_comment_would_take_argo_cds_own_fields_out():
    """What is partly Argo CD's is patched: a `kubectl apply` of either kind is for what is ours as a whole."""
    told = [command for path in FILES for command in commands(path)]
    assert len(told) >= 8
    for command in told:
        assert ("component/" in command or "removal" in command) <= command.startswith("kubectl patch ")
        assert "--server-side" not in command


def test_what_is_patched_in_can_be_patched_out():
    removed = document("removal.yaml")["spec"]["template"]["spec"]
    for kind in ("containers", "volumes"):
        assert removed[kind] == [{"name": each["name"], "$patch": "delete"} for each in pod()[kind]]
