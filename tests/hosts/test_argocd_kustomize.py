"""Kustomizations under Argo CD, by the real command with the real kustomize and Helm 3."""

import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secretweave.argocd.app import App
from secretweave.argocd.settings import ArgoCD, Helm, Kustomize
from secretweave.errors import InputError
from secretweave.reading import Readable
from secretweave.sources import sandbox
from secretweave.sources.kinds import Job, _kustomization, kustomize
from tests.argocd_source import Source, array, config_map, names_below, text, unvisited
from tests.hosts.programs import documents, need

pytestmark = pytest.mark.hosts

HELM = {"kustomize": {"helm": True}}
CHOSEN = text("enable-helm", "true")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    source = Source(tmp_path).program("kustomize", need("kustomize"))
    return source.write({"app/a.yaml": config_map("a")})


def kustomization(source: Source, fields: dict[str, Any], path: str = "app") -> Source:
    return source.write({f"{path}/kustomization.yaml": json.dumps(fields)})


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_kustomization(source: Source, name: str):
    source.write({f"app/{name}": "resources: [a.yaml]\nnamePrefix: x-\n"})
    assert source.rendered() == config_map("x-a")


def test_what_lies_in_the_repository(source: Source):
    kustomization(
        source,
        {
            "resources": ["a.yaml", "../base", "github.com"],
            "components": ["../component"],
            "configurations": ["names.yaml"],
            "patches": [
                {"path": "patch.yaml"},
                {"patch": "- {op: add, path: /data/q, value: w}", "target": {"name": "a"}},
            ],
            "configMapGenerator": [
                {"name": "made", "files": ["one.txt", "two=one.txt"], "envs": ["x.env"], "literals": ["l=http://x"]}
            ],
            "generatorOptions": {"disableNameSuffixHash": True},
            "replacements": [{"path": "replacement.yaml"}],
        },
    )
    source.write(
        {
            "base/kustomization.yaml": "resources: [b.yaml]\n",
            "base/b.yaml": config_map("b"),
            "component/kustomization.yaml": "kind: Component\n"
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nnameSuffix: -y\n",
            "app/github.com/kustomization.yaml": "resources: [c.yaml]\n",
            "app/github.com/c.yaml": config_map("c"),
            "app/names.yaml": "nameReference: []\n",
            "app/patch.yaml": config_map("a", {"patched": "yes-it-is"}),
            "app/one.txt": "1",
            "app/x.env": "e=2",
            "app/replacement.yaml": "source: {kind: ConfigMap, name: b, fieldPath: metadata.name}\n"
            "targets: [{select: {name: c}, fieldPaths: [data.b], options: {create: true}}]\n",
        }
    )
    assert {each["metadata"]["name"]: each.get("data") for each in documents(source.rendered())} == {
        "a-y": {"patched": "yes-it-is", "q": "w"},
        "b-y": None,
        "c-y": {"b": "b-y"},
        "made-y": {"one.txt": "1", "two": "1", "e": "2", "l": "http://x"},
    }


def test_three_hundred_files(source: Source):
    kustomization(source, {"resources": [f"{number:03}.yaml" for number in range(300)]})
    source.write({f"app/{number:03}.yaml": config_map(f"n{number:03}") for number in range(300)})
    assert len(documents(source.rendered())) == 300


def test_nothing_is_left_behind(source: Source):
    kustomization(source, {"resources": ["a.yaml"]}).rendered()
    assert names_below(source.folder / "tmp") == []


def test_a_kustomization_that_fails(source: Source):
    told = kustomization(source, {"resources": [], "namePrefix": ["no", "text"]}).refused(code=3)
    assert "what:  kustomize failed (exit code 1)\n" in told
    assert str(source.folder) not in told


def test_a_resource_that_is_not_there(source: Source):
    assert kustomization(source, {"resources": ["missing.yaml"]}).refused(code=3) == (
        "secretweave: error\n"
        "  where: app/kustomization.yaml, line 1, resources[0]\n"
        "  what:  there is no missing.yaml\n"
        "  fix:   correct the path: it is relative to the folder of the kustomization\n"
        "nothing was written\n"
    )


def test_a_kustomization_that_is_no_yaml(source: Source):
    told = source.write({"app/kustomization.yaml": "resources:\n- a\n b: [\n"}).refused(code=3)
    assert "where: app/kustomization.yaml, line " in told


# What a repository may not do.


@pytest.mark.parametrize(
    "base",
    [
        "https://127.0.0.1:{port}/base",
        "http://127.0.0.1:{port}/a.yaml",
        "HTTP://127.0.0.1:{port}/a.yaml",
        "git::http://127.0.0.1:{port}/x.git",
        "git::ext::sh -c 'touch ran'",
        "ext::sh -c 'touch ran'",
        "ssh://git@127.0.0.1:{port}/x.git",
        "git@127.0.0.1:x/y.git",
        "file:///etc",
        "github.com/kubernetes-sigs/kustomize//examples/helloWorld?ref=v1.0.6",
        "GitHub.com/kubernetes-sigs/kustomize",
        "git@github.com:kubernetes-sigs/kustomize",
        "gh:kubernetes-sigs/kustomize",
    ],
)
@pytest.mark.parametrize("field", ["resources", "bases", "components"])
def test_remote_bases(source: Source, field: str, base: str):
    with unvisited() as port:
        told = kustomization(source, {"namePrefix": "x-", field: [base.format(port=port)]}).refused(code=4)
    assert told == (
        "secretweave: error\n"
        f"  where: app/kustomization.yaml, line 1, {field}[0]\n"
        "  what:  a kustomization names something remote\n"
        "  why:   nothing is fetched while an app is rendered\n"
        "  fix:   vendor it: commit a copy to the repository, and name that\n"
        "nothing was written\n"
    )
    assert not (source.repo / "app" / "ran").exists()


REMOTE = "https://127.0.0.1:1/x.yaml"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"crds": [REMOTE]}, "crds[0]"),
        ({"configurations": [REMOTE]}, "configurations[0]"),
        ({"generators": [REMOTE]}, "generators[0]"),
        ({"transformers": [REMOTE]}, "transformers[0]"),
        ({"validators": [REMOTE]}, "validators[0]"),
        ({"patches": [{"path": REMOTE}]}, "patches[0]"),
        ({"patches": [REMOTE]}, "patches[0]"),
        ({"patchesStrategicMerge": [REMOTE]}, "patchesStrategicMerge[0]"),
        ({"patchesJson6902": [{"path": REMOTE}]}, "patchesJson6902[0]"),
        ({"replacements": [{"path": REMOTE}]}, "replacements[0]"),
        ({"openapi": {"path": REMOTE}}, "openapi.path"),
        ({"configMapGenerator": [{"name": "x", "files": [f"k={REMOTE}"]}]}, "configMapGenerator[0].files[0]"),
        ({"secretGenerator": [{"name": "x", "envs": [REMOTE]}]}, "secretGenerator[0].envs[0]"),
        ({"secretGenerator": [{"name": "x", "env": REMOTE}]}, "secretGenerator[0].env"),
        ({"RESOURCES": [REMOTE]}, "resources[0]"),
    ],
)
def test_what_else_may_be_remote(source: Source, fields: dict[str, Any], field: str):
    told = kustomization(source, fields).refused(code=4)
    assert f"where: app/kustomization.yaml, line 1, {field}\n  what:  a kustomization names something remote\n" in told


def test_a_remote_base_of_a_base(source: Source):
    kustomization(source, {"resources": ["../base", "../base"]})
    source.write({"base/kustomization.yml": f"resources:\n- {REMOTE}\n"})
    assert "where: base/kustomization.yml, line 2, resources[0]\n" in source.refused(code=4)


def test_every_fault_is_told(source: Source):
    told = kustomization(source, {"resources": [REMOTE, "../../x"], "crds": [REMOTE]}).refused(code=4)
    assert told.startswith("secretweave: 3 errors\n")


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": ["../../outside"]},
        {"resources": ["/etc"]},
        {"components": ["../../outside"]},
        {"configMapGenerator": [{"name": "x", "files": ["/etc/passwd"]}]},
        {"configMapGenerator": [{"name": "x", "files": ["p=../../outside/secret"]}]},
        {"secretGenerator": [{"name": "x", "envs": ["../../outside/secret"]}]},
        {"patches": [{"path": "../../outside/secret"}]},
        {"openapi": {"path": "/etc/passwd"}},
        {"helmGlobals": {"chartHome": "../../outside"}},
        {"helmGlobals": {"configHome": "/etc"}},
    ],
)
def test_paths_above_the_root(source: Source, fields: dict[str, Any]):
    source.beside("outside/secret", "a=hunter2")
    source.beside("outside/kustomization.yaml", "resources: []")
    told = kustomization(source, fields).refused(code=4)
    assert "what:  a path leads out of the repository\n" in told
    assert "hunter2" not in told


def test_a_generator_that_reads_another_app_s_folder(source: Source):
    """Kustomize's own load restrictor."""
    source.write({"other/secret": "hunter2"})
    kustomization(source, {"configMapGenerator": [{"name": "x", "files": ["../other/secret"]}]})
    told = source.refused(code=3)
    assert "is not in or below" in told
    assert "hunter2" not in told


def test_a_resource_that_is_a_link_out(source: Source):
    source.link("app/b.yaml", source.beside("secret.yaml", config_map("hunter2")))
    told = kustomization(source, {"resources": ["b.yaml"]}).refused(code=4)
    assert "where: app/b.yaml\n  what:  a symbolic link leads out of the repository\n" in told


def function(annotation: str, kind: str) -> str:
    body = {"exec": "exec: {path: ./run.sh}", "container": "container: {image: evil}"}[kind]
    return f"apiVersion: v1\nkind: Evil\nmetadata:\n  name: x\n  annotations:\n    {annotation}: '{body}'\n"


@pytest.mark.parametrize("field", ["generators", "transformers", "validators"])
@pytest.mark.parametrize("kind", ["exec", "container"])
def test_functions(source: Source, kind: str, field: str):
    ran = source.folder / "tmp" / "ran"
    source.write({"app/f.yaml": function("config.kubernetes.io/function", kind)})
    source.write({"app/run.sh": f"#!/bin/sh\ntouch {ran}\n"})
    (source.repo / "app" / "run.sh").chmod(0o755)
    told = kustomization(source, {"resources": ["a.yaml"], field: ["f.yaml"]}).refused(code=4)
    assert "where: app/f.yaml, line 1\n  what:  a function would be run\n" in told
    assert not ran.exists()


def test_a_function_in_line(source: Source):
    inline = function("config.k8s.io/function", "exec")
    told = kustomization(source, {"resources": ["a.yaml"], "transformers": [inline]}).refused(code=4)
    assert "where: app/kustomization.yaml, line 1, transformers[0]\n  what:  a function would be run\n" in told


def test_a_function_that_a_folder_holds(source: Source):
    source.write({"plugins/f.yaml": function("config.kubernetes.io/function", "exec")})
    kustomization(source, {"resources": ["f.yaml"]}, "plugins")
    told = kustomization(source, {"resources": ["a.yaml"], "generators": ["../plugins"]}).refused(code=4)
    assert "where: plugins/f.yaml, line 1\n  what:  a function would be run\n" in told


def test_plugins_of_old(source: Source):
    source.write({"app/p.yaml": "apiVersion: someteam.example.com/v1\nkind: SedTransformer\nmetadata: {name: x}\n"})
    told = kustomization(source, {"resources": ["a.yaml"], "transformers": ["p.yaml"]}).refused(code=4)
    assert "where: app/p.yaml, line 1\n  what:  a plugin would be run that is no part of kustomize\n" in told


def test_what_kustomize_has_built_in(source: Source):
    builtin = "apiVersion: builtin\nkind: PrefixTransformer\nmetadata: {name: x}\nprefix: p-\n"
    builtin += "fieldSpecs: [{path: metadata/name}]\n"
    assert kustomization(source, {"resources": ["a.yaml"], "transformers": [builtin]}).rendered() == config_map("p-a")


# Charts in a kustomization.


@pytest.fixture
def charts(source: Source) -> Source:
    return source.program("helm", need("helm3")).write(
        {
            "app/charts/lib/Chart.yaml": "apiVersion: v2\nname: lib\nversion: 1.0.0\n",
            "app/charts/lib/values.yaml": "a: chart\n",
            "app/charts/lib/templates/a.yaml": config_map(
                "{{ .Release.Name }}",
                {
                    "a": "{{ .Values.a }}",
                    "v": "{{ .Capabilities.KubeVersion.Version }}",
                    "w": '{{ .Capabilities.APIVersions.Has "example.com/v1/Widget" | quote }}',
                },
            ),
        }
    )


def test_a_vendored_chart(charts: Source):
    charts.write({"app/more.yaml": "a: file\n"})
    chart = {"name": "lib", "releaseName": "r", "additionalValuesFiles": ["more.yaml"]}
    kustomization(charts, {"helmCharts": [chart]})
    (found,) = documents(charts.rendered(CHOSEN, settings=HELM))
    assert found["metadata"] == {"name": "r"}
    assert found["data"] == {"a": "file", "v": "v1.31.2", "w": "true"}
    (found,) = documents(
        charts.rendered(CHOSEN, array("api-versions", "v1"), text("kube-version", "1.30"), settings=HELM)
    )
    assert found["data"] == {"a": "file", "v": "v1.30", "w": "false"}
    assert names_below(charts.folder / "tmp") == []


def test_a_chart_that_the_platform_does_not_allow(charts: Source):
    kustomization(charts, {"helmCharts": [{"name": "lib"}]})
    told = charts.refused(CHOSEN, code=4)
    assert "what:  the parameter enable-helm is not allowed here\n" in told
    assert "spec.argocd.kustomize.helm" in told
    told = charts.refused(code=4)
    assert "where: app/kustomization.yaml, line 1, helmCharts[0]\n" in told
    assert "spec.argocd.kustomize.helm" in told


def test_a_chart_that_is_not_chosen(charts: Source):
    kustomization(charts, {"helmCharts": [{"name": "lib"}]})
    assert "fix:   set the parameter enable-helm to true\n" in charts.refused(code=2, settings=HELM)


@pytest.mark.parametrize(
    "repository", ["http://127.0.0.1:{port}", "https://127.0.0.1:{port}", "oci://127.0.0.1:{port}/x"]
)
@pytest.mark.parametrize("field", ["helmCharts", "helmChartInflationGenerator"])
def test_a_remote_chart(charts: Source, field: str, repository: str):
    with unvisited() as port:
        names = ("name", "repo") if field == "helmCharts" else ("chartName", "chartRepoUrl")
        chart = dict(zip(names, ("other", repository.format(port=port)), strict=True))
        told = kustomization(charts, {field: [chart]}).refused(CHOSEN, code=4, settings=HELM)
    assert f"where: app/kustomization.yaml, line 1, {field}[0]\n  what:  a chart is remote\n" in told
    assert "commit the chart as charts/other, beside the kustomization\n" in told


def test_a_remote_chart_as_a_generator(charts: Source):
    generator = "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\nname: other\n"
    with unvisited() as port:
        kustomization(charts, {"generators": [generator + f"repo: http://127.0.0.1:{port}\n"]})
        told = charts.refused(CHOSEN, code=4, settings=HELM)
    assert "where: app/kustomization.yaml, line 1, generators[0]\n  what:  a chart is remote\n" in told


@pytest.mark.parametrize(
    "chart",
    [
        {"name": "../../../outside"},
        {"name": "lib", "valuesFile": "/etc/passwd"},
        {"name": "lib", "additionalValuesFiles": ["../../outside/secret"]},
    ],
)
def test_charts_and_values_above_the_root(charts: Source, chart: dict[str, Any]):
    charts.beside("outside/secret", "a: hunter2")
    told = kustomization(charts, {"helmCharts": [chart]}).refused(CHOSEN, code=4, settings=HELM)
    assert "what:  a path leads out of the repository\n" in told


def test_a_helm_of_the_repository_s_own(charts: Source):
    """Neither a plugin nor a program that a kustomization names is run."""
    ran = charts.folder / "tmp" / "ran"
    script = f"#!/bin/sh\ntouch {ran}\n"
    plugin = f"name: evil\nversion: 1.0.0\ncommand: touch {ran}\nhooks: {{install: touch {ran}}}\n"
    charts.write(
        {
            "app/helm": script,
            "app/plugins/evil/plugin.yaml": plugin,
            "app/home/.data/plugins/evil/plugin.yaml": plugin,
            "app/home/plugins/evil/plugin.yaml": plugin,
        }
    )
    (charts.repo / "app" / "helm").chmod(0o755)
    kustomization(
        charts,
        {
            "helmGlobals": {"configHome": "./home"},
            "helmCharts": [{"name": "lib", "releaseName": "r", "helmCommand": "./helm"}],
        },
    )
    assert "helmCommand" in charts.refused(CHOSEN, code=3, settings=HELM)
    kustomization(
        charts, {"helmChartInflationGenerator": [{"chartName": "lib", "helmBin": "./helm", "releaseName": "r"}]}
    )
    charts.run(CHOSEN, settings=HELM)
    kustomization(
        charts, {"helmGlobals": {"configHome": "./home"}, "helmCharts": [{"name": "lib", "releaseName": "r"}]}
    )
    charts.run(CHOSEN, settings=HELM)
    assert not ran.exists()


@pytest.mark.parametrize(
    "chart",
    [
        {"nameTemplate": "{{ env `SECRETWEAVE_CONFIG` }}-x"},
        {"nameTemplate": "{{ env `ARGOCD_APP_NAME` }}-x"},
        {"namespace": "--post-renderer=./helm"},
    ],
)
def test_what_is_put_into_helm_s_arguments(charts: Source, chart: dict[str, str]):
    ran = charts.folder / "tmp" / "ran"
    charts.write({"app/helm": f"#!/bin/sh\ntouch {ran}\n"})
    (charts.repo / "app" / "helm").chmod(0o755)
    kustomization(charts, {"helmCharts": [{"name": "lib", **chart}]})
    result = charts.run(CHOSEN, settings=HELM)
    assert not ran.exists()
    assert "team_shop" not in result.stdout
    assert str(charts.folder) not in result.stdout + result.stderr


def drain(stream: Readable) -> None:
    while stream.read(1 << 16):
        pass


@pytest.mark.parametrize("chart", [{"name": "lib", "releaseName": "--post-renderer=./helm"}, {"name": "--debug"}])
def test_options_of_helm_in_the_place_of_names(charts: Source, chart: dict[str, str]):
    told = kustomization(charts, {"helmCharts": [chart]}).refused(CHOSEN, code=4, settings=HELM)
    assert "where: app/kustomization.yaml, line 1, helmCharts[0]\n  what:  a name is an option of Helm\n" in told


# Without the look at what a kustomization names: kustomize's own defaults and the sandbox hold alone.


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"resources": ["http://127.0.0.1:{port}/a.yaml"]}, "socket: operation not permitted"),
        ({"resources": ["http://127.0.0.1:{port}/x.git"]}, "no 'git' program on path"),
        ({"resources": ["git::ext::sh -c 'touch {ran}'"]}, "no such file or directory"),
        ({"resources": ["file://{folder}/outside"]}, "no 'git' program on path"),
        ({"resources": ["{folder}/outside"]}, "cannot be absolute"),
        ({"resources": ["../../outside"]}, "unable to find one of 'kustomization.yaml'"),
        ({"openapi": {"path": "http://127.0.0.1:{port}/a.json"}}, "socket: operation not permitted"),
        (
            {"helmCharts": [{"name": "lib", "releaseName": "--post-renderer=./run.sh"}]},
            "releaseName must not start with '-'",
        ),
        ({"generators": ["exec.yaml"]}, "external plugins disabled"),
        ({"transformers": ["container.yaml"]}, "external plugins disabled"),
        ({"helmCharts": [{"name": "other", "repo": "http://127.0.0.1:{port}"}]}, "socket: operation not permitted"),
        ({"helmCharts": [{"name": "other", "repo": "oci://127.0.0.1:{port}/x"}]}, "socket: operation not permitted"),
        ({"helmCharts": [{"name": "lib", "valuesFile": "{folder}/outside/secret"}]}, "is not in or below"),
        ({"helmCharts": [{"name": "lib", "additionalValuesFiles": ["../../outside/secret"]}]}, "is not in or below"),
        (
            {"helmChartInflationGenerator": [{"chartName": "lib", "values": "{folder}/outside/secret"}]},
            "not in or below",
        ),
        (
            {
                "helmGlobals": {"chartHome": "../../outside"},
                "helmCharts": [{"name": "chart", "valuesFile": "values.yaml", "releaseName": "r"}],
            },
            # Helm cannot list that folder.
            "Chart.yaml file is missing",
        ),
    ],
)
def test_the_sandbox_alone(charts: Source, fields: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch):
    if not sandbox.landlock_abi():
        pytest.skip("the kernel has no Landlock")
    monkeypatch.setattr(_kustomization, "check", lambda *_arguments, **_named: None)
    ran = charts.folder / "tmp" / "ran"
    charts.beside("outside/secret", "a: hunter2")
    charts.beside("outside/kustomization.yaml", "resources: [hunter2.yaml]")
    charts.beside("outside/hunter2.yaml", config_map("hunter2"))
    charts.beside("outside/chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")
    charts.beside("outside/chart/templates/a.yaml", config_map("hunter2"))
    charts.write(
        {f"app/{kind}.yaml": function("config.kubernetes.io/function", kind) for kind in ("exec", "container")}
    )
    charts.write({"app/run.sh": f"#!/bin/sh\ntouch {ran}\n", "app/values.yaml": "{}\n"})
    (charts.repo / "app" / "run.sh").chmod(0o755)
    with unvisited() as port:
        made = json.dumps(fields).replace("{port}", str(port)).replace("{folder}", str(charts.folder))
        charts.write({"app/kustomization.yaml": made.replace("{ran}", str(ran))})
        settings = ArgoCD(Helm(program=str(need("helm3"))), Kustomize(program=str(need("kustomize")), helm=True))
        app = App("shop", "default", None, "app", "1.31.2", ())
        root, folder = os.path.realpath(charts.repo), os.path.realpath(charts.repo / "app")
        job = Job(app, {"enable-helm": True}, root, folder, settings, {}, time.monotonic() + 60, 60, print)
        with closing(kustomize.manifests(job)) as made_of:
            _, stream = next(made_of)
            with pytest.raises(InputError) as caught:
                drain(stream)
    assert caught.value.what == f"{need('kustomize').name} failed (exit code 1)"
    assert why in caught.value.why
    assert "hunter2" not in caught.value.why.replace("hunter2.yaml", "")
    assert not ran.exists()
