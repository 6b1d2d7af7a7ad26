"""Charts under Argo CD, by the real command with the real Helm 3: what may be chosen, and what may not be done."""

import io
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest
from pytest_subprocess import FakeProcess

from secretweave.argocd.app import App
from secretweave.argocd.settings import ArgoCD, Helm
from secretweave.sources.kinds import Job, helm
from tests.argocd_source import Source, array, config_map, mapping, names_below, text, unvisited
from tests.hosts.programs import documents, need
from tests.servers.certificates import Authority

pytestmark = pytest.mark.hosts

CHART = "apiVersion: v2\nname: shop\nversion: 1.0.0\n"
VALUES = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
data:
{{ .Values | toYaml | indent 2 }}
"""
HEAD = """\
---
# Source: shop/templates/values.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: shop
  namespace: shop-prod
data:
"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path).program("helm", need("helm3"))


@pytest.fixture
def chart(source: Source) -> Source:
    return source.write({"app/Chart.yaml": CHART, "app/templates/values.yaml": VALUES, "app/values.yaml": "a: chart\n"})


def test_a_chart(chart: Source):
    assert chart.rendered() == HEAD + "  a: chart\n"


def test_release_name(chart: Source):
    assert "  name: other\n  namespace: shop-prod\n" in chart.rendered(text("release-name", "other"))


def test_an_application_in_argo_cd_s_own_namespace(chart: Source):
    assert "  name: shop.v1\n" in chart.rendered(ARGOCD_APP_NAME="shop.v1")


def test_a_destination_without_a_namespace(chart: Source):
    assert "  namespace: default\n" in chart.rendered(ARGOCD_APP_NAMESPACE="")


@pytest.mark.parametrize("name", ["Shop", "-shop", "a" * 54, "a b", "--post-renderer=x"])
def test_a_release_s_name_that_is_none(chart: Source, name: str):
    told = chart.refused(text("release-name", name), code=2)
    assert "where: release-name\n  what:  the release's name is not one that Helm takes\n" in told
    assert name not in told


def test_what_wins_over_what(chart: Source):
    chart.write(
        {
            "app/one.yaml": "{a: one, b: one, c: one, d: one, e: one}\n",
            "common/two.yaml": "{b: two, c: two, d: two, e: two}\n",
        }
    )
    assert (
        chart.rendered(
            mapping("helm-string-parameters", {"e": "string"}),
            mapping("helm-parameters", {"d": "parameter", "e": "parameter"}),
            text("values", "c: inline\nd: inline\n"),
            array("values-files", "one.yaml", "../common/two.yaml"),
        )
        == HEAD + "  a: one\n  b: two\n  c: inline\n  d: parameter\n  e: string\n"
    )


def test_values_files_by_env(chart: Source):
    chart.write({"app/one.yaml": "a: one\n", "app/two.yaml": "b: two\n"})
    assert chart.rendered(ARGOCD_ENV_VALUES_FILES="one.yaml, two.yaml") == HEAD + "  a: one\n  b: two\n"


@pytest.mark.parametrize("name", ["a,b.yaml", 'a"b.yaml', "a:b.yaml", "a b.yaml", "-a.yaml", "é.yaml"])
def test_names_of_values_files(chart: Source, name: str):
    assert chart.write({f"app/{name}": "a: file\n"}).rendered(array("values-files", name)) == HEAD + "  a: file\n"


def test_parameters_are_typed_as_helm_types_them(chart: Source):
    chosen = {
        "yes": "true",
        "no": "FALSE",
        "a": "null",
        "number": "8080",
        "negative": "-1",
        "zero": "0",
        "octal": "0755",
        "version": "1.10",
        "exponent": "1e3",
        "hex": "0x1",
        "huge": "9223372036854775808",
        "empty": "",
        "text": 'a,b=c "d" \\ {e} \U0001f600',
        "nested.in.here": "x",
        "nested.in.there\\.too": "y",
        "with/slash": "z",
    }
    (found,) = documents(chart.rendered(mapping("helm-parameters", chosen)))
    assert found["data"] == {
        "yes": True,
        "no": False,
        "number": 8080,
        "negative": -1,
        "zero": 0,
        "octal": "0755",
        "version": "1.10",
        "exponent": "1e3",
        "hex": "0x1",
        "huge": "9223372036854775808",
        "empty": "",
        "text": 'a,b=c "d" \\ {e} \U0001f600',
        "nested": {"in": {"here": "x", "there.too": "y"}},
        "with/slash": "z",
    }


def test_characters_that_yaml_wants_escaped(chart: Source):
    chart.write({"app/templates/values.yaml": "a: {{ .Values.a | quote }}\n"})
    rendered = chart.rendered(mapping("helm-parameters", {"a": "\x01\n\x7f\x85\ufeff\ufffe"}))
    assert rendered.splitlines()[-1] == 'a: "\\x01\\n\\x7f\\u0085\\ufeff\\ufffe"'


def test_string_parameters_are_text(chart: Source):
    chosen = {"a": "true", "b": "7", "c": "null", "d": "{x,y}"}
    (found,) = documents(chart.rendered(mapping("helm-string-parameters", chosen)))
    assert found["data"] == chosen


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("a[0]", "the path of a value has an index"),
        ("a[0].b", "the path of a value has an index"),
        ("a..b", "the path of a value is malformed"),
        (".a", "the path of a value is malformed"),
        ("b.", "the path of a value is malformed"),
        ("", "the path of a value is malformed"),
        ("a\\", "the path of a value is malformed"),
        ("a.b.c", "a value is set in two ways"),
        ("a", "a value is set in two ways"),
    ],
)
def test_paths_of_parameters_that_are_none(chart: Source, path: str, what: str):
    told = chart.refused(mapping("helm-parameters", {"a.b": "1", path: "hunter2"}), code=2)
    assert f"where: helm-parameters\n  what:  {what}\n" in told
    assert "hunter2" not in told


def test_a_list_as_a_parameter(chart: Source):
    assert "what:  a value is a list\n" in chart.refused(mapping("helm-parameters", {"a": "{x,y}"}), code=2)


def test_values_that_are_no_yaml(chart: Source):
    told = chart.refused(text("values", "hunter2: [\n"), code=3)
    assert "what:  helm failed (exit code 1)\n" in told
    assert "the parameter values" in told
    assert "hunter2" not in told
    assert "/proc" not in told


def test_no_value_is_in_an_argument(source: Source, fp: FakeProcess):
    fp.register([fp.any()], stdout="a: b\n")
    source.write({"app/Chart.yaml": CHART})
    choices = {
        "values": "a: hunter2",
        "helm-parameters": {"a": "hunter2"},
        "helm-string-parameters": {"a": "hunter2"},
        "values-files": (),
    }
    app = App("shop", "default", None, "app", "", ())
    settings = ArgoCD(Helm(program=str(need("helm3"))))
    root, folder = str(source.repo), str(source.repo / "app")
    job = Job(app, choices, root, folder, settings, {}, time.monotonic() + 60, 60, print)
    ((name, _stream),) = helm.manifests(job)
    call = cast("list[str]", fp.calls[0])
    assert name == "helm template"
    assert call[1:4] == ["template", "shop", "."]
    assert [argument.partition("=")[0] for argument in call[4:]] == ["--include-crds", *["--values"] * 3]
    assert "hunter2" not in " ".join(call)


CAPABILITIES = """\
version: {{ .Capabilities.KubeVersion.Version }}
widget: {{ .Capabilities.APIVersions.Has "example.com/v1/Widget" }}
other: {{ .Capabilities.APIVersions.Has "example.com/v1/Other" }}
"""


def test_the_cluster_s_version_and_kinds(source: Source):
    source.write({"app/Chart.yaml": CHART, "app/templates/c.yaml": CAPABILITIES})
    head = "---\n# Source: shop/templates/c.yaml\n"
    assert source.rendered() == head + "version: v1.31.2\nwidget: true\nother: false\n"
    chosen = (text("kube-version", "v1.29"), array("api-versions", "example.com/v1/Other"))
    assert source.rendered(*chosen) == head + "version: v1.29\nwidget: false\nother: true\n"


def test_a_chart_that_wants_a_newer_cluster(source: Source):
    source.write({"app/Chart.yaml": CHART + 'kubeVersion: ">=1.32.0"\n'})
    assert "chart requires kubeVersion: >=1.32.0" in source.refused(code=3)


@pytest.mark.parametrize(
    "chosen", [text("kube-version", "1.x hunter2"), array("api-versions", "v1,--post-renderer hunter2")]
)
def test_malformed_capabilities(chart: Source, chosen: dict[str, object]):
    told = chart.refused(chosen, code=2)
    assert "malformed" in told
    assert "hunter2" not in told


def test_crds_and_tests(source: Source):
    source.write(
        {
            "app/Chart.yaml": CHART,
            "app/crds/crd.yaml": config_map("crd"),
            "app/templates/a.yaml": config_map("a"),
            "app/templates/test.yaml": config_map("test").replace(
                "  name", "  annotations: {helm.sh/hook: test}\n  name"
            ),
            "app/templates/hook.yaml": config_map("hook").replace(
                "  name", "  annotations: {helm.sh/hook: pre-install}\n  name"
            ),
        }
    )

    def names(*parameters: dict[str, object]) -> set[str]:
        return {each["metadata"]["name"] for each in documents(source.rendered(*parameters))}

    assert names() == {"crd", "a", "test", "hook"}
    assert names(text("include-crds", "false")) == {"a", "test", "hook"}
    assert names(text("skip-tests", "true")) == {"crd", "a", "hook"}


def test_the_values_schema(chart: Source):
    chart.write({"app/values.schema.json": '{"properties": {"a": {"type": "integer"}}}'})
    assert "values don't meet the specifications of the schema" in chart.refused(code=3)
    assert chart.rendered(text("skip-schema-validation", "true")) == HEAD + "  a: chart\n"


def test_three_hundred_templates(source: Source):
    source.write({"app/Chart.yaml": CHART})
    source.write({f"app/templates/{number:03}.yaml": config_map(f"n{number:03}") for number in range(300)})
    assert len(documents(source.rendered())) == 300


def test_nothing_is_left_behind(chart: Source):
    chart.rendered(text("values", "a: 1"))
    assert names_below(chart.folder / "tmp") == []
    assert names_below(chart.repo / "app") == ["Chart.yaml", "templates", "values.yaml"]


def test_a_template_that_fails(chart: Source):
    chart.write({"app/templates/values.yaml": "{{ required `a colour` .Values.colour }}"})
    told = chart.refused(code=3)
    assert "what:  helm failed (exit code 1)\n" in told
    assert "shop/templates/values.yaml:1:3" in told
    assert "a colour" in told
    assert str(chart.folder) not in told


def test_a_library(source: Source):
    source.write({"app/Chart.yaml": CHART + "type: library\n"})
    assert "library charts are not installable" in source.refused(code=3)


def test_a_chart_without_manifests(source: Source):
    source.write({"app/Chart.yaml": CHART, "app/templates/NOTES.txt": "hello\n"})
    assert "the input holds no manifest" in source.refused(code=3)


def test_no_helm(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    source = Source(tmp_path).write({"app/Chart.yaml": CHART})
    assert "the program helm is not installed" in source.refused(code=2)


# What a repository may not do.


@pytest.mark.parametrize(
    "name", ["../../secret.yaml", "/etc/passwd", "../../../../../../etc/passwd", "x/../../../secret.yaml"]
)
def test_values_files_above_the_root(chart: Source, name: str):
    chart.beside("secret.yaml", "a: hunter2\n")
    told = chart.refused(array("values-files", name), code=4)
    assert "where: values-files[0]\n  what:  a path leads out of the repository\n" in told
    assert "hunter2" not in told
    assert name not in told


def test_a_values_file_by_a_link_out(chart: Source):
    chart.link("app/mine.yaml", chart.beside("secret.yaml", "a: hunter2\n"))
    told = chart.refused(array("values-files", "mine.yaml"), code=4)
    assert "where: app/mine.yaml\n  what:  a symbolic link leads out of the repository\n" in told
    assert "hunter2" not in told


def test_remote_values_files(chart: Source):
    with unvisited() as port:
        told = chart.refused(array("values-files", f"http://127.0.0.1:{port}/values.yaml"), code=4)
    assert "where: values-files[0]\n  what:  a values file is remote\n" in told


def test_a_values_file_that_is_not_there(chart: Source):
    told = chart.refused(array("values-files", "values.yaml", "production.yaml"), code=3)
    assert "where: values-files[1]\n  what:  there is no values file production.yaml\n" in told


def test_a_values_file_of_another_app_s_folder_is_the_repository_s(chart: Source):
    chart.write({"other/values.yaml": "a: other\n"})
    assert chart.rendered(array("values-files", "../other/values.yaml")) == HEAD + "  a: other\n"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('.Files.Get "../../secret.yaml"', ""),
        ('.Files.Get "../other/secret.yaml"', ""),
        ('.Files.Get "/etc/passwd"', ""),
        ('.Files.Glob "../**" | len', "0"),
        ('.Files.Glob "/etc/**" | len', "0"),
        ('lookup "v1" "Secret" "kube-system" ""', "map[]"),
        ('getHostByName "localhost"', ""),
    ],
)
def test_functions_that_give_nothing(source: Source, expression: str, expected: str):
    source.beside("secret.yaml", "hunter2")
    source.write(
        {
            "other/secret.yaml": "hunter2",
            "app/Chart.yaml": CHART,
            "app/templates/a.yaml": f"a: {{{{ {expression} | quote }}}}\n",
        }
    )
    assert source.rendered() == f'---\n# Source: shop/templates/a.yaml\na: "{expected}"\n'


@pytest.mark.parametrize("function", ["env", "expandenv"])
def test_functions_that_are_none(source: Source, function: str):
    source.write({"app/Chart.yaml": CHART, "app/templates/a.yaml": f'a: {{{{ {function} "PATH" }}}}\n'})
    assert f'function "{function}" not defined' in source.refused(code=3)


def test_a_plugin_in_the_repository(chart: Source):
    ran = chart.folder / "tmp" / "ran"
    plugin = (
        f"name: evil\nversion: 1.0.0\ncommand: touch {ran}\ndownloaders:\n- command: touch {ran}\n  protocols: [evil]\n"
    )
    for folder in ("plugins", "helm/plugins", ".local/share/helm/plugins", "data/plugins"):
        chart.write({f"app/{folder}/evil/plugin.yaml": plugin})
    plugins = str(chart.repo / "app" / "plugins")
    assert chart.rendered(HELM_PLUGINS=plugins, HELM_DATA_HOME=plugins, HOME=str(chart.repo / "app")).startswith(HEAD)
    assert "a values file is remote" in chart.refused(array("values-files", "evil://x"), code=4)
    assert not ran.exists()


def test_a_schema_elsewhere(chart: Source):
    with unvisited() as port:
        chart.write({"app/values.schema.json": f'{{"$ref": "http://127.0.0.1:{port}/schema.json"}}'})
        assert "helm failed" in chart.refused(code=3)
    chart.write({"app/values.schema.json": '{"$ref": "file:///etc/passwd"}'})
    told = chart.refused(code=3)
    assert "root:" not in told


def test_a_link_to_a_file_of_the_sidecar_made_after_the_look(chart: Source):
    """Landlock, where the kernel has it, holds even if the look at the repository were passed."""
    from secretweave.sources import sandbox

    if not sandbox.landlock_abi():
        pytest.skip("the kernel has no Landlock")
    outside = chart.beside("secret.yaml", "hunter2")
    helm = need("helm3")
    (chart.repo / "app" / "secret.yaml").symlink_to(outside)
    chart.write({"app/templates/values.yaml": 'a: {{ .Files.Get "secret.yaml" }}\n'})
    with sandbox.confine([str(chart.repo)], [], executable=[str(helm)], network=False) as confinement:
        result = subprocess.run(
            [helm, "template", "shop", "."],
            cwd=chart.repo / "app",
            env={"HOME": "/"},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=confinement,
        )
    assert result.returncode == 1
    assert "permission denied" in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


# Dependencies.


def dependency(repository: str) -> str:
    return f'dependencies:\n- {{name: lib, version: 1.0.0, repository: "{repository}"}}\n'


def packed(name: str) -> bytes:
    """A chart as an archive."""
    files = {
        "Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: 1.0.0\n",
        "templates/a.yaml": config_map(f"{name}-of-{{{{ .Release.Name }}}}"),
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return data.getvalue()


def test_vendored_dependencies(chart: Source):
    chart.write({"app/Chart.yaml": CHART + dependency("https://charts.example.com"), "app/charts/.keep": ""})
    (chart.repo / "app" / "charts" / "lib-1.0.0.tgz").write_bytes(packed("lib"))
    assert "name: lib-of-shop" in chart.rendered()
    assert chart.rendered(command="init") == ""


@pytest.mark.parametrize("command", ["init", "generate"])
@pytest.mark.parametrize("scheme", ["http", "https", "oci"])
def test_dependencies_that_are_not_vendored(chart: Source, scheme: str, command: str):
    with unvisited() as port:
        chart.write({"app/Chart.yaml": CHART + dependency(f"{scheme}://127.0.0.1:{port}/charts")})
        assert chart.refused(code=3, command=command) == (
            "secretweave: error\n"
            "  where: Chart.yaml, dependencies\n"
            "  what:  the chart's folder charts lacks lib\n"
            "  why:   dependencies are not fetched, unless the platform allows the host that they come from\n"
            "  fix:   run `helm dependency update` and commit the folder charts; "
            "or ask the platform to add the host to spec.argocd.helm.repositoryHosts\n"
            "nothing was written\n"
        )


def test_dependencies_of_helm_2_charts(chart: Source):
    chart.write(
        {
            "app/Chart.yaml": CHART.replace("v2", "v1"),
            "app/requirements.yaml": dependency("https://charts.example.com"),
        }
    )
    assert "the chart's folder charts lacks lib" in chart.refused(code=3)


LOCAL = {"lib/Chart.yaml": "apiVersion: v2\nname: lib\nversion: 1.0.0\n", "lib/templates/a.yaml": config_map("lib")}


def test_a_dependency_in_the_repository(chart: Source):
    chart.write({**LOCAL, "app/Chart.yaml": CHART + dependency("file://../lib")})
    assert chart.rendered(command="init") == ""
    assert names_below(chart.repo / "app" / "charts") == ["lib-1.0.0.tgz"]
    assert "name: lib\n" in chart.rendered()


@pytest.mark.parametrize("path", ["../../lib", "/etc", "../../../../../../etc"])
def test_a_dependency_above_the_root(chart: Source, path: str):
    chart.beside("lib/Chart.yaml", LOCAL["lib/Chart.yaml"])
    chart.write({"app/Chart.yaml": CHART + dependency(f"file://{path}")})
    told = chart.refused(code=4, command="init")
    assert "where: Chart.yaml, dependencies, lib, repository\n  what:  a path leads out of the repository\n" in told


ALLOWED = {"helm": {"repositoryHosts": ["charts.example.com", "localhost:8443"]}}


@pytest.mark.parametrize(
    ("repository", "what"),
    [
        ("https://evil.example.com/x", "a dependency comes from a host that is not allowed"),
        ("oci://evil.example.com/x", "a dependency comes from a host that is not allowed"),
        ("https://charts.example.com:8443/x", "a dependency comes from a host that is not allowed"),
        ("https://localhost/x", "a dependency comes from a host that is not allowed"),
        ("http://charts.example.com/x", "a dependency's repository is not one that may be asked"),
        ("@charts", "a dependency's repository is not one that may be asked"),
        ("alias:charts", "a dependency's repository is not one that may be asked"),
        ("s3://charts.example.com/x", "a dependency's repository is not one that may be asked"),
        ("FILE://../lib", "a dependency's repository is not one that may be asked"),
        ("https://charts.example.com@evil.example.com/", "a dependency's repository is not one that may be asked"),
        ("https://user:hunter2@charts.example.com/", "a dependency's repository is not one that may be asked"),
        ("https://charts.example.com\\\\@evil.example.com/", "a dependency's repository is not one that may be asked"),
        ("https://charts.example.com#@evil.example.com/", "a dependency's repository is not one that may be asked"),
        ("file://../../lib", "a path leads out of the repository"),
    ],
)
def test_repositories_that_are_not_allowed(chart: Source, repository: str, what: str):
    chart.write({"app/Chart.yaml": CHART + dependency(repository), "app/Chart.lock": "dependencies: []\n"})
    told = chart.refused(code=4, command="init", settings=ALLOWED)
    assert f"where: Chart.yaml, dependencies, lib, repository\n  what:  {what}\n" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("key", ["repository", "Repository", "REPOSITORY", "repo\u017fitory"])
def test_a_lock_file_that_names_another_host(chart: Source, key: str):
    """Helm asks the lock file's repositories, and Go takes a key in any case."""
    lock = f'Dependencies:\n- {{name: lib, version: 1.0.0, {key}: "https://evil.example.com"}}\n'
    chart.write({"app/Chart.yaml": CHART + dependency("https://charts.example.com"), "app/Chart.lock": lock})
    told = chart.refused(code=4, command="init", settings=ALLOWED)
    assert "where: Chart.lock, dependencies, lib, repository\n" in told


def test_a_key_that_is_there_twice(chart: Source):
    chart.write({"app/Chart.yaml": CHART + dependency("https://charts.example.com") + "Dependencies: []\n"})
    assert "the same key twice" in chart.refused(code=3, command="init", settings=ALLOWED)


def test_no_lock_file(chart: Source):
    chart.write({"app/Chart.yaml": CHART + dependency("https://charts.example.com")})
    told = chart.refused(code=3, command="init", settings=ALLOWED)
    assert "what:  the chart has dependencies, but no Chart.lock\n" in told


@contextmanager
def repository(folder: Path) -> Iterator[tuple[int, Path, list[str]]]:
    """A chart repository on loopback: its port, who signs its certificate, and what was asked for."""
    authority = Authority(folder)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[self.path])

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = authority.issue("charts").server_context().wrap_socket(server.socket, server_side=True)
        port = server.server_port
        url = f"https://localhost:{port}/lib-1.0.0.tgz"
        index = f"apiVersion: v1\nentries: {{lib: [{{apiVersion: v2, name: lib, version: 1.0.0, urls: ['{url}']}}]}}\n"
        answers = {"/index.yaml": index.encode(), "/lib-1.0.0.tgz": packed("lib")}
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield port, authority.certificate, asked
        finally:
            server.shutdown()
            thread.join()


def locked(source: Source, port: int, environ: dict[str, str]) -> None:
    """Writes Chart.lock, as its developer would."""
    for command in (["repo", "add", "x", f"https://localhost:{port}"], ["dependency", "update", "."]):
        subprocess.run([need("helm3"), *command], cwd=source.repo / "app", env=environ, check=True, capture_output=True)
    (source.repo / "app" / "charts" / "lib-1.0.0.tgz").unlink()


def test_a_host_that_is_allowed(chart: Source):
    with repository(chart.folder) as (port, authority, asked):
        chart.write({"app/Chart.yaml": CHART + dependency(f"https://localhost:{port}")})
        trust = {"SSL_CERT_FILE": str(authority)}
        locked(chart, port, {"HOME": str(chart.folder / "developer"), "PATH": os.environ["PATH"], **trust})
        asked.clear()
        settings = {"helm": {"repositoryHosts": [f"localhost:{port}"]}}
        assert chart.rendered(command="init", settings=settings, **trust) == ""
        assert asked == ["/index.yaml", "/lib-1.0.0.tgz"]
        asked.clear()
        assert "name: lib-of-shop" in chart.rendered(settings=settings, **trust)
        assert asked == []
    assert names_below(chart.folder / "tmp") == []
