"""The shipped plugin in the real argocd-cmp-server, called as the repo-server calls it: alone, and with the daemon."""

import base64
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hosts.argocd import (
    Caller,
    Checked,
    CmpServer,
    Link,
    Matched,
    Refused,
    Repository,
    cmp_server,
    environment,
    environment_of_details,
)
from tests.hosts.build import path_of
from tests.hosts.programs import need
from tests.servers.daemon import Daemon, daemon

SHIPPED = Path(__file__).parent.parent.parent / "argocd"
COMMANDS = Path(sys.executable).parent
PASSWORD = "hunter2-of-the-shop"
TOKENS = {f"app-{number:02}": f"t0ken-of-app-{number:02}" for number in range(20)}
OF_TENANT = {"team-a": "s3cret-of-tenant-a", "team-b": "s3cret-of-tenant-b"}
VALUES = (PASSWORD, *TOKENS.values(), *OF_TENANT.values())
STORES = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: {name}}}
spec: {{file: {{path: {path}}}}}
"""
POLICY = """\
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  policy:
    stores:
    - {store: shop, identities: [default]}
    - {store: hanging, identities: [default]}
    - {store: tenants, identities: [team-a], prefixes: [team-a]}
    - {store: tenants, identities: [team-b], prefixes: [team-b]}
    - {store: own, identities: [team-a, team-b], prefixes: ["{project}"]}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: "secret://shop/app/db#password"}
"""
WOVEN = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "db"},
    "stringData": {"password": PASSWORD},
}
CHART: Repository = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\n",
    "values.yaml": "replicas: 1\nhost: shop.example.com\n",
    "values-prod.yaml": "host: shop.prod.example.com\n",
    "templates/secret.yaml": SECRET,
    "templates/config.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-config", namespace: "{{ .Release.Namespace }}"}
data:
  host: {{ .Values.host }}
  replicas: "{{ .Values.replicas }}"
  kubernetes: {{ .Capabilities.KubeVersion.Version }}
  monitoring: "{{ .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}"
""",
}
KUSTOMIZATION: Repository = {
    "base/kustomization.yaml": "resources: [secret.yaml]\n",
    "base/secret.yaml": SECRET,
    "overlay/kustomization.yaml": "resources: [../base]\nnamePrefix: prod-\nnamespace: shop\n",
}
PLAIN: Repository = {"a.yaml": SECRET, "b.json": '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}'}


class Service(NamedTuple):
    """The server with the plugin, and who calls it."""

    caller: Caller
    server: CmpServer
    daemon: Daemon | None
    platform: Path
    """The folder of what the platform mounts into the sidecar."""
    hanging: socket.socket
    """Of a store that takes a connection and never answers."""

    def manifests(self, repository: Repository, path: str = ".", **app: Any) -> list[dict[str, Any]]:
        """As `environment` takes it of the Application."""
        found = self.caller.generate(repository, environment(path=path, **app), path)
        return [json.loads(text) for text in found]

    def refusal(self, repository: Repository, path: str = ".", **app: Any) -> str:
        """The text beside the Application in Argo CD's UI, which shows nothing of the sidecar."""
        with pytest.raises(Refused) as refused:
            self.caller.generate(repository, environment(path=path, **app), path)
        text = str(refused.value)
        assert not [value for value in VALUES if value in text or _encoded(value) in text]
        for hidden in (self.platform, self.server.folder, COMMANDS, path_of("helm3").parent):
            assert str(hidden) not in text
        assert "Traceback" not in text
        return text


def _encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _platform(folder: Path, hanging: int) -> dict[str, str]:
    """Makes what the platform mounts into the sidecar; gives what it sets there. *hanging*: such a store's port."""
    (folder / "config").mkdir(parents=True)
    (folder / "programs").mkdir()
    for name, program in (("helm", "helm3"), ("kustomize", "kustomize")):
        (folder / "programs" / name).symlink_to(path_of(program))
    secrets = {
        "shop": {"app/db": {"password": PASSWORD}} | {f"apps/{name}": token for name, token in TOKENS.items()},
        "tenants": {f"{tenant}/token": value for tenant, value in OF_TENANT.items()},
    }
    for name, content in secrets.items():
        (folder / "config" / f".{name}.json").write_text(json.dumps(content))
        (folder / "config" / f".{name}.json").chmod(0o600)
    stores = [STORES.format(name=name, path=f".{name}.json") for name in secrets]
    for tenant, value in OF_TENANT.items():
        (folder / "config" / f".of-{tenant}").mkdir(mode=0o700)
        (folder / "config" / f".of-{tenant}" / tenant).write_text(value)
        (folder / "config" / f".of-{tenant}" / tenant).chmod(0o600)
    stores.append(STORES.format(name="own", path='".of-{project}"'))
    stores.append(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: hanging}\n"
        f"spec: {{vault: {{url: 'http://127.0.0.1:{hanging}', path: secret}}}}\n"
    )
    (folder / "config" / "config.yaml").write_text("---\n".join([*stores, POLICY]))
    return {
        "PATH": f"{COMMANDS}{os.pathsep}{folder / 'programs'}{os.pathsep}{os.environ['PATH']}",
        "SECRETWEAVE_CONFIG": str(folder / "config"),
        "SECRETWEAVE_SOCKET": str(folder / "daemon" / "socket"),
        "VAULT_TOKEN": "of-the-store-that-hangs",
    }


@contextmanager
def _service(folder: Path, *, with_daemon: bool, plugin: str = "plugin.yaml") -> Iterator[Service]:
    platform = folder / "platform"
    text = (SHIPPED / plugin).read_text()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        environ = _platform(platform, hanging.getsockname()[1])
        with cmp_server(folder / "server", text, **environ) as server, server.caller() as caller:
            if not with_daemon:
                yield Service(caller, server, None, platform, hanging)
                return
            with daemon(platform, platform / "config", environ) as running:
                yield Service(caller, server, running, platform, hanging)


@pytest.fixture(scope="module", params=["alone", "daemon"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with _service(tmp_path_factory.mktemp("cmp"), with_daemon=request.param == "daemon") as found:
        yield found


@pytest.fixture
def helm() -> Path:
    return need("helm3")


@pytest.fixture
def kustomize() -> Path:
    return need("kustomize")


# What it renders


def test_a_chart_is_rendered_for_the_application_and_its_cluster(service: Service, helm: Path):
    found = service.manifests(
        {f"charts/{path}": content for path, content in CHART.items()},
        "charts",
        app="shop",
        namespace="prod",
        kube_version="1.33.2",
        api_versions=("v1", "monitoring.coreos.com/v1"),
    )
    assert sorted(found, key=lambda each: each["kind"]) == [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "shop-config", "namespace": "prod"},
            "data": {
                "host": "shop.example.com",
                "replicas": "1",
                "kubernetes": "v1.33.2",
                "monitoring": "true",
            },
        },
        WOVEN,
    ]


def test_a_release_of_an_application_in_another_namespace_has_its_short_name(service: Service, helm: Path):
    found = service.manifests(CHART, app="team-a-apps_shop")
    assert "shop-config" in [each["metadata"]["name"] for each in found]


def test_a_kustomization_is_built_with_its_base_beside_it(service: Service, kustomize: Path):
    assert service.manifests(KUSTOMIZATION, "overlay") == [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "prod-db", "namespace": "shop"},
            "stringData": {"password": PASSWORD},
        }
    ]


def test_a_plain_folder_is_taken_as_it_is(service: Service):
    assert service.manifests({**PLAIN, "README.md": "# shop\n"}) == [
        WOVEN,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}},
    ]


def test_an_application_at_the_root_of_its_repository(service: Service):
    assert service.manifests(PLAIN)[0] == WOVEN


def test_only_a_part_of_the_repository_is_sent(service: Service):
    """As with the annotation manifest-generate-paths: the path in the repository is not the one in the copy."""
    environ = environment(path="clusters/prod/shop")
    assert json.loads(service.caller.generate({"shop/a.yaml": SECRET}, environ, "shop")[0]) == WOVEN
    assert json.loads(service.caller.generate({"a.yaml": SECRET}, environ, ".")[0]) == WOVEN


# Parameters


def test_the_parameters_of_a_chart_are_announced(service: Service):
    found = service.caller.parameters(CHART, environment_of_details())
    assert found[:3] == [
        {
            "name": "type",
            "title": "Type",
            "tooltip": "helm, kustomize or plain; left out, what the folder holds decides",
            "item_type": "string",
            "collection_type": "string",
        },
        {
            "name": "release-name",
            "title": "Release name",
            "tooltip": "of the chart; left out, the Application's name",
            "item_type": "string",
            "collection_type": "string",
            "string": "shop",
        },
        {
            "name": "values-files",
            "title": "Values files",
            "tooltip": "relative to the app's folder, inside of the repository; a later one wins",
            "item_type": "string",
            "collection_type": "array",
        },
    ]
    assert [(each["name"], each["item_type"], each["collection_type"], each.get("string")) for each in found[3:]] == [
        ("values", "string", "string", None),
        ("helm-parameters", "string", "map", None),
        ("helm-string-parameters", "string", "map", None),
        ("kube-version", "string", "string", None),
        ("api-versions", "string", "array", None),
        ("include-crds", "boolean", "string", "true"),
        ("skip-tests", "boolean", "string", "false"),
        ("skip-schema-validation", "boolean", "string", "false"),
    ]


@pytest.mark.parametrize("repository", [KUSTOMIZATION, PLAIN])
def test_the_parameters_of_another_source_are_others(service: Service, repository: Repository):
    path = "overlay" if repository is KUSTOMIZATION else "."
    found = service.caller.parameters(repository, environment_of_details(path=path), path)
    assert [each["name"] for each in found] == (
        ["type", "kube-version", "api-versions", "enable-helm"]
        if repository is KUSTOMIZATION
        else ["type", "recurse", "include", "exclude"]
    )


def test_they_are_announced_while_an_application_is_made(service: Service):
    """It has no name then."""
    found = service.caller.parameters(CHART, environment_of_details(""))
    assert [each.get("string", "") for each in found[:2]] == ["", ""]
    assert len(found) == 11


def test_parameters_take_effect(service: Service, helm: Path):
    found = service.manifests(
        CHART,
        parameters=[
            {"name": "values-files", "array": ["values-prod.yaml"]},
            {"name": "helm-parameters", "map": {"replicas": "3"}},
        ],
    )
    (config,) = (each for each in found if each["kind"] == "ConfigMap")
    assert config["data"] | {"kubernetes": ""} == {
        "host": "shop.prod.example.com",
        "replicas": "3",
        "kubernetes": "",
        "monitoring": "false",
    }


# Whose source it is


def test_it_serves_who_names_it_alone(service: Service):
    assert service.caller.check() == Checked(discovery=False, git_credentials=False)
    assert service.caller.match({".secretweave": "", **PLAIN}, environment()) == Matched(False, False)


def test_with_the_other_file_it_serves_whose_folder_holds_the_marker(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cmp")
    with _service(folder, with_daemon=False, plugin="plugin-discover.yaml") as service:
        caller, environ = service.caller, environment(path="app", parameters=None)
        assert service.server.socket.name == "secretweave-discover.sock"
        assert caller.check() == Checked(discovery=True, git_credentials=False)
        marked = {"app/.secretweave": "", "app/a.yaml": SECRET}
        assert caller.match(marked, environ, "app") == Matched(True, True)
        assert json.loads(caller.generate(marked, environ, "app")[0]) == WOVEN
        for elsewhere in (".secretweave", "app/base/.secretweave", "other/.secretweave", "app/x.secretweave"):
            assert caller.match({elsewhere: "", "app/a.yaml": SECRET}, environ, "app") == Matched(False, True), (
                elsewhere
            )


# What the developer reads when it fails


def test_a_secret_that_is_not_there(service: Service):
    assert service.refusal({"a.yaml": SECRET.replace("app/db#password", "app/none")}) == (
        "error generating manifests: `secretweave argocd generate` failed exit status 6: secretweave: error\n"
        "  where: a.yaml, document 1, line 4, Secret shop/db, stringData.password\n"
        "  what:  shop:app/none: nothing is stored at `app/none`\n"
        "  fix:   correct the reference, or add the secret to the store's file\n"
        "nothing was written"
    )


def test_a_store_that_the_project_may_not_read(service: Service):
    assert service.refusal({"a.yaml": SECRET}, project="team-a") == (
        "error generating manifests: `secretweave argocd generate` failed exit status 4: secretweave: error\n"
        "  where: a.yaml, document 1, line 4, Secret shop/db, stringData.password\n"
        "  what:  the identity team-a may not read shop:app/db#password\n"
        "  why:   policy.stores of the configuration does not allow it\n"
        "  fix:   ask who owns the configuration\n"
        "nothing was written"
    )


def test_a_chart_that_cannot_be_rendered(service: Service, helm: Path):
    said = service.refusal({**CHART, "templates/bad.yaml": "{{ .Values.none.deeper }}"})
    assert said.startswith(
        "error generating manifests: `secretweave argocd generate` failed exit status 3: secretweave: error\n"
        "  what:  helm failed (exit code 1)\n"
        '  why:   Error: template: web/templates/bad.yaml:1:10: executing "web/templates/bad.yaml" at '
        "<.Values.none.deeper>: nil pointer evaluating interface {}.deeper"
    )
    assert said.endswith(
        "\n  fix:   correct what it complains of, in the repository or in the Application's parameters\n"
        "nothing was written"
    )


def test_a_parameter_that_is_unknown(service: Service):
    assert service.refusal(CHART, parameters=[{"name": "valuesfiles", "array": ["values-prod.yaml"]}]) == (
        "error generating manifests: `secretweave argocd init` failed exit status 2: secretweave: error\n"
        "  where: spec.source.plugin.parameters[0]\n"
        "  what:  there is no parameter valuesfiles\n"
        "  fix:   did you mean values-files?\n"
        "nothing was written"
    )


def test_a_values_file_that_is_not_there(service: Service, helm: Path):
    assert service.refusal(CHART, parameters=[{"name": "values-files", "array": ["values-none.yaml"]}]) == (
        "error generating manifests: `secretweave argocd generate` failed exit status 3: secretweave: error\n"
        "  where: values-files[0]\n"
        "  what:  there is no values file values-none.yaml\n"
        "  fix:   correct the name: it is relative to the app's folder\n"
        "nothing was written"
    )


def test_a_manifest_that_is_no_yaml(service: Service):
    assert service.refusal({"a.yaml": f"password: [{PASSWORD}\n"}) == (
        "error generating manifests: `secretweave argocd generate` failed exit status 3: secretweave: error\n"
        "  where: a.yaml, document 1, line 2\n"
        "  what:  not YAML: did not find expected ',' or ']'\n"
        "  fix:   correct it there, or in the line before\n"
        "nothing was written"
    )


@pytest.mark.parametrize(
    ("repository", "path"),
    [
        pytest.param({"README.md": "# shop\n"}, ".", id="no manifest in the folder"),
        pytest.param({"app/": "", "a.yaml": SECRET}, "app", id="an empty folder"),
        pytest.param({"a.yaml": "# nothing\n---\n---\n"}, ".", id="comments alone"),
        pytest.param(
            {"Chart.yaml": CHART["Chart.yaml"], "templates/a.yaml": "{{ if false }}a{{ end }}"}, ".", id="chart"
        ),
        pytest.param({"Chart.yaml": CHART["Chart.yaml"]}, ".", id="chart without templates"),
        pytest.param({"kustomization.yaml": "resources: []\n"}, ".", id="kustomization"),
        pytest.param({"kustomization.yaml": ""}, ".", id="empty kustomization"),
    ],
)
def test_nothing_is_never_a_success(service: Service, repository: Repository, path: str):
    if "Chart.yaml" in repository:
        need("helm3")
    if "kustomization.yaml" in repository:
        need("kustomize")
    text = service.refusal(repository, path)
    assert "`secretweave argocd generate` failed exit status 3: secretweave: error\n  what: " in text
    assert "\n  fix: " in text


# Size and numbers


def test_300_files(service: Service):
    names = [f"object-{number:03}" for number in range(300)]
    found = service.manifests({f"{name}.yaml": SECRET.replace("name: db", f"name: {name}") for name in names})
    assert found == [WOVEN | {"metadata": {"name": name}} for name in names]


def test_20_megabytes_of_output(service: Service, helm: Path):
    large = "{{ range until 200 }}apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large-{{ . }}}\n"
    large += 'data: {text: "{{ repeat 10000 "0123456789" }}"}\n---\n{{ end }}'
    found = service.manifests({**CHART, "templates/large.yaml": large})
    texts = [each["data"]["text"] for each in found if each["metadata"]["name"].startswith("large-")]
    assert (len(texts), set(texts)) == (200, {"0123456789" * 10000})
    assert WOVEN in found


def test_20_calls_at_a_time_are_not_mixed(service: Service, helm: Path):
    def repository(name: str) -> Repository:
        secret = SECRET.replace("app/db#password", f"apps/{name}").replace("name: db", f"name: {name}")
        return {"a.yaml": secret} if int(name[-2:]) % 2 else {**CHART, "templates/secret.yaml": secret}

    with ThreadPoolExecutor(len(TOKENS)) as pool:
        found = list(pool.map(lambda name: service.manifests(repository(name), app=name), TOKENS))
    secrets = [[each for each in manifests if each["kind"] == "Secret"] for manifests in found]
    assert secrets == [
        [WOVEN | {"metadata": {"name": name}, "stringData": {"password": token}}] for name, token in TOKENS.items()
    ]
    configs = [each["metadata"]["name"] for manifests in found for each in manifests if each["kind"] == "ConfigMap"]
    assert configs == [f"{name}-config" for name in TOKENS if not int(name[-2:]) % 2]


# Tenants


def _reads(reference: str) -> str:
    return SECRET.replace("secret://shop/app/db#password", reference)


@pytest.mark.parametrize("tenant", ["team-a", "team-b"])
def test_a_tenant_reads_what_is_its_own(service: Service, tenant: str):
    repository = {"a.yaml": _reads(f"secret://tenants/{tenant}/token"), "b.yaml": _reads(f"secret://own/{tenant}")}
    found = service.manifests(repository, project=tenant, namespace=tenant)
    assert [each["stringData"]["password"] for each in found] == [OF_TENANT[tenant]] * 2


PARAMETER = "spec.source.plugin.parameters[0]\n"
ONLY_A = ({"name": "include", "string": "a.yaml"},)
STOLEN = _reads("secret://tenants/team-b/token")
IN_STREAM = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: mine}
spec: SPEC
---
""" + _reads("secret://mine/team-b/token")


NOT_ALLOWED = "what:  the identity team-a may not read tenants:team-b/token\n"
UNKNOWN_STORE = "what:  no store is called `mine`\n"
DOTS = "what:  a ref with empty or dot segments: tenants:team-a/../team-b/token\n"


@pytest.mark.parametrize(
    "app",
    [
        {},
        {"namespace": "team-b"},
        {"app": "team-b_shop"},
        {"env": {"ARGOCD_APP_PROJECT_NAME": "team-b"}},
        {"env": {"X\nARGOCD_APP_PROJECT_NAME": "team-b"}},
        {"env": {"SECRETWEAVE_IDENTITY": "team-b", "IDENTITY": "team-b", "PROJECT": "team-b"}},
        {"env": {"SECRETWEAVE_CONFIG": ".", "CONFIG": "."}},
        {"parameters": [{"name": "helm-parameters", "map": {"ARGOCD_APP_PROJECT_NAME": "team-b"}}]},
    ],
    ids=str,
)
def test_a_tenant_cannot_say_that_it_is_another(service: Service, app: Mapping[str, Any]):
    repository = {"a.yaml": STOLEN, "config.yaml": POLICY.replace("team-b]", "team-a]")}
    said = service.refusal(repository, **{"project": "team-a", "namespace": "team-a", **app})
    assert NOT_ALLOWED in said or "what:  there is no setting " in said


@pytest.mark.parametrize("name", ["project", "identity", "ARGOCD_APP_PROJECT_NAME", "config", "allow-empty"])
def test_no_parameter_widens_what_a_tenant_may(service: Service, name: str):
    parameters = [{"name": name, "string": "team-b"}]
    said = service.refusal({"a.yaml": STOLEN}, project="team-a", parameters=parameters)
    assert f"`secretweave argocd init` failed exit status 2: secretweave: error\n  where: {PARAMETER}" in said
    assert f"what:  there is no parameter {name}\n" in said


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (_reads("secret://own/team-b"), "what:  own:team-b is under no prefix that may be read\n"),
        (STOLEN.replace("{name: db}", "{name: db, namespace: team-b}"), NOT_ALLOWED),
        (_reads("secret://tenants/team-a/../team-b/token"), DOTS),
        (_reads("secret://tenants/team-a/%2e%2e/team-b/token"), DOTS),
        (_reads("secret://tenants/team-a%2f..%2fteam-b/token"), DOTS),
        (IN_STREAM.replace("SPEC", "{file: {path: PLATFORM/config/.tenants.json}}"), UNKNOWN_STORE),
        (IN_STREAM.replace("SPEC", "{file: {path: own.json}}"), UNKNOWN_STORE),
        (IN_STREAM.replace("SPEC", "{env: {prefix: ''}}"), UNKNOWN_STORE),
    ],
    ids=[
        "own",
        "namespace",
        "dots",
        "escaped dots",
        "escaped slashes",
        "store of files",
        "store of its own",
        "variables",
    ],
)
def test_no_manifest_of_a_tenant_reads_what_is_anothers(service: Service, manifest: str, said: str):
    repository = {"a.yaml": manifest.replace("PLATFORM", str(service.platform)), "own.json": "{}"}
    assert said in service.refusal(repository, project="team-a", namespace="team-a", parameters=ONLY_A)


@pytest.mark.parametrize("target", ["../../../../platform/config/.tenants.json", "PLATFORM/config/.tenants.json"])
def test_a_link_leads_nowhere(service: Service, target: str):
    """Argo CD refuses the one and makes the other relative, so that nothing is there."""
    link = Link(target.replace("PLATFORM", str(service.platform)))
    with pytest.raises(Refused, match=r"illegal filepath in symlink|holds no \.yaml, \.yml or \.json that is chosen"):
        service.manifests({"a.yaml": link}, project="team-a")


@pytest.mark.parametrize(
    "file",
    [
        "../values.yaml",
        "../../../../platform/config/.tenants.json",
        "PLATFORM/config/.tenants.json",
        "file://PLATFORM/config/.tenants.json",
        "http://127.0.0.1:1/values.yaml",
        "secrets://values.yaml",
        "link.yaml",
    ],
)
@pytest.mark.parametrize("part", [False, True])
def test_a_values_file_is_one_of_the_repository(service: Service, helm: Path, file: str, part: bool):
    """*part*: only the app's folder is sent, though the Application is said to lie deep in its repository."""
    (service.server.folder / "work" / "_cmp_server" / "values.yaml").write_text(f"host: {OF_TENANT['team-b']}\n")
    named = file.replace("PLATFORM", str(service.platform))
    parameters = [{"name": "values-files", "array": [named]}]
    chart = {path: content for path, content in CHART.items() if path != "templates/secret.yaml"}
    if file == "link.yaml":
        chart[file] = Link("../values.yaml")
    environ = environment(path="clusters/prod/shop" if part else ".", project="team-a", parameters=parameters)
    with pytest.raises(Refused) as refused:
        service.caller.generate(chart, environ)
    assert OF_TENANT["team-b"] not in str(refused.value)


@pytest.mark.parametrize(
    "resource",
    [
        "../../values.yaml",
        "PLATFORM/config/.tenants.json",
        "https://127.0.0.1:PORT/base?ref=main",
        "http://127.0.0.1:PORT/base.yaml",
        "git::ssh://git@127.0.0.1:PORT/base",
        "git::ext::sh -c touch% PLATFORM/run",
        "ext::sh -c touch% PLATFORM/run",
        "PLATFORM/daemon/socket",
        "unix://PLATFORM/daemon/socket",
    ],
)
def test_a_kustomization_reaches_nothing_outside_of_the_repository(service: Service, kustomize: Path, resource: str):
    named = resource.replace("PLATFORM", str(service.platform)).replace("PORT", str(service.hanging.getsockname()[1]))
    kustomization = json.dumps({"resources": ["a.yaml", named]})
    said = service.refusal({"kustomization.yaml": kustomization, "a.yaml": SECRET})
    assert "failed exit status 4: secretweave: error\n  where: kustomization.yaml, line 1, resources[1]\n" in said
    service.hanging.settimeout(0)
    with pytest.raises(BlockingIOError):
        service.hanging.accept()
    assert not (service.platform / "run").exists()


@pytest.mark.parametrize(
    ("template", "loot"),
    [
        ('{{ .Files.Get "SOCKET" }}', ""),
        ('{{ .Files.Get "../../../../platform/daemon/socket" }}', ""),
        ('{{ (lookup "v1" "Secret" "" "") | toJson }}', "{}"),
        ('{{ getHostByName "localhost" }}', ""),
        ('{{ env "SECRETWEAVE_CONFIG" }}', None),
        ('{{ include "SOCKET" . }}', None),
    ],
)
def test_a_hostile_chart_gets_nothing(service: Service, helm: Path, template: str, loot: str | None):
    """*loot* None: it fails. By a chart's own means; what helm itself could do is for the sandbox, and tested there."""
    text = template.replace("SOCKET", str(service.platform / "daemon" / "socket"))
    chart = {
        "Chart.yaml": CHART["Chart.yaml"],
        "templates/a.yaml": f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: loot}}\ndata: {{loot: '{text}'}}\n",
    }
    if loot is None:
        assert "secretweave: " in service.refusal(chart, project="team-a")
    else:
        assert [each["data"] for each in service.manifests(chart, project="team-a")] == [{"loot": loot}]
    if service.daemon:
        assert service.daemon.events("refused") == service.daemon.events("crash") == []


# What is killed


SLOW = {"a.yaml": SECRET, "b.yaml": SECRET.replace("secret://shop/app/db#password", "secret://hanging/app/db")}


def _children(pid: int) -> list[int]:
    """The processes that run by a thread of it."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _awaited(hanging: socket.socket) -> socket.socket:
    """The connection of a run that now waits for the store that never answers."""
    hanging.settimeout(30)
    return hanging.accept()[0]


def test_a_plugin_that_is_killed_fails_and_the_next_one_works(service: Service):
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(service.refusal, SLOW)
        with _awaited(service.hanging):
            for child in _children(service.server.pid):
                os.kill(child, signal.SIGKILL)
            assert failed.result(30) == (
                "error generating manifests: `secretweave argocd generate` failed signal: killed"
            )
    assert service.manifests(PLAIN)[0] == WOVEN


@pytest.mark.parametrize("milliseconds", [40, 80, 120, 200, 300, 450])
def test_a_plugin_that_is_killed_at_any_time_gives_all_or_nothing(service: Service, milliseconds: int):
    names = [f"object-{number:03}" for number in range(300)]
    repository = {f"{name}.yaml": SECRET.replace("name: db", f"name: {name}") for name in names}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.manifests, repository)
        while not (children := _children(service.server.pid)) and not running.done():
            time.sleep(0.001)
        time.sleep(milliseconds / 1000)
        for child in {*children, *_children(service.server.pid)}:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with suppress(Refused):
            assert [each["metadata"]["name"] for each in running.result(60)] == names


def test_a_daemon_that_is_killed_fails_and_the_next_call_works_without_it(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cmp")
    with _service(folder, with_daemon=True) as service, ThreadPoolExecutor(1) as pool:
        assert service.daemon is not None
        failed = pool.submit(service.refusal, SLOW)
        with _awaited(service.hanging):
            service.daemon.end(signal.SIGKILL)
            assert failed.result(30) == (
                "error generating manifests: `secretweave argocd generate` failed exit status 1: secretweave: error\n"
                "  what:  the daemon ended in the midst of it\n"
                "  why:   it was stopped, or it was killed: perhaps for more memory than its container may have\n"
                "  fix:   refresh: Argo CD tries again by itself; else look at the daemon's log\n"
                "nothing was written"
            )
        assert (service.platform / "daemon" / "socket").exists()
        assert service.manifests(PLAIN)[0] == WOVEN


def _outcome(running: "Future[list[dict[str, Any]]]") -> int | str:
    """The number of manifests, or what happened."""
    try:
        return len(running.result(60))
    except Refused as refused:
        return str(refused).partition("what:  ")[2].partition("\n")[0]


@pytest.mark.parametrize("milliseconds", [100, 200, 300, 450])
def test_a_daemon_that_is_killed_at_any_time_gives_all_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, helm: Path, milliseconds: int
):
    large = "{{ range until 200 }}apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large-{{ . }}}\n"
    large += 'data: {text: "{{ repeat 10000 "0123456789" }}"}\n---\n{{ end }}'
    chart = {**CHART, "templates/large.yaml": large}
    with _service(tmp_path_factory.mktemp("cmp"), with_daemon=True) as service, ThreadPoolExecutor(1) as pool:
        assert service.daemon is not None
        running = pool.submit(service.manifests, chart)
        time.sleep(milliseconds / 1000)
        service.daemon.end(signal.SIGKILL)
        assert _outcome(running) in {202, "the daemon ended in the midst of it"}
        assert service.manifests(PLAIN)[0] == WOVEN


def test_with_the_daemon_or_without_it_the_manifests_are_the_same(tmp_path_factory: pytest.TempPathFactory, helm: Path):
    with _service(tmp_path_factory.mktemp("cmp"), with_daemon=True) as service:
        assert service.daemon is not None
        with_it = [service.caller.generate(each, environment()) for each in (CHART, PLAIN)]
        assert service.daemon.end() == 0
        assert [service.caller.generate(each, environment()) for each in (CHART, PLAIN)] == with_it
        assert [line["outcome"] for line in service.daemon.events("request")] == ["ok", "ok"]


def test_the_log_of_all_this_holds_no_value(service: Service):
    """The last of the module: the server logs what a plugin writes to stderr, and its command lines."""
    assert service.manifests(PLAIN)[0] == WOVEN
    logs = service.server.log.read_text() + (service.daemon.log.read_text() if service.daemon else "")
    assert "Plugin command successful" in logs
    assert not [value for value in VALUES if value in logs or _encoded(value) in logs]
