"""The plugin's folder: what its install hook makes, how its launcher finds Python, and what Helm 3 makes of it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

import secretweave
from tests.hosts.programs import Helm, need

CHART = str(Path(__file__).parent / "charts" / "shop")
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"
TOOLS = ("sh", "dirname", "readlink", "rm", "env", "cat")


def path_with(folder: Path, programs: Iterable[tuple[str, Path | str | None]]) -> str:
    """A PATH that holds nothing but these."""
    folder.mkdir()
    for name, target in [*((tool, shutil.which(tool)) for tool in TOOLS), *programs]:
        assert target
        (folder / name).symlink_to(target)
    return str(folder)


def launch(launcher: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [launcher],
        env={"PATH": os.environ["PATH"]} | environment,
        input=CONFIG_MAP,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_plugin_has_the_version_of_the_package(plugin: Path):
    assert f"\nversion: {secretweave.__version__}\n" in (plugin / "plugin.yaml").read_text()


def pinned(lines: Iterable[str]) -> set[str]:
    """Each `name==version`, the name as PEP 503 normalizes it."""
    pins = (line.split()[0].partition("==") for line in lines if "==" in line)
    return {f"{re.sub(r'[-_.]+', '-', name.partition('[')[0]).lower()}=={version}" for name, _, version in pins}


def environment(plugin: Path) -> set[str]:
    """What is in the environment of a plugin."""
    python = plugin / ".venv" / "bin" / "python"
    listed = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    return pinned(listed.splitlines())


def test_the_installed_plugin_has_an_environment_of_its_own(helm4: Helm, plugin: Path):
    locks = (path.read_text().splitlines() for path in plugin.glob("requirements*.lock"))
    found = environment(plugin)
    assert found <= pinned(line for lock in locks for line in lock)
    assert {"hvac", "boto3", "azure-identity", "google-cloud-secret-manager", "kubernetes"} <= {
        each.partition("==")[0] for each in found
    }
    assert (plugin / "secretweave" / "__pycache__").is_dir()


class Bare(NamedTuple):
    """Installed by Helm 4, without an SDK."""

    helm4: Helm
    helm3: Path
    """On the PATH as `helm`."""
    folder: Path
    installed: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def bare(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    home = tmp_path_factory.mktemp("bare")
    helm4 = Helm.isolated(need("helm4"), home / "helm", [])
    (home / "path").mkdir()
    helm3 = home / "path" / "helm"
    helm3.symlink_to(need("helm3"))
    folder = home / "secretweave"
    shutil.copytree(plugin, folder, ignore=shutil.ignore_patterns(".venv*"))
    path = f"{home / 'path'}:{os.environ['PATH']}"
    installed = helm4.run("plugin", "install", str(folder), PATH=path, SECRETWEAVE_EXTRAS="")
    assert installed.returncode == 0, installed.stderr
    return Bare(helm4, helm3, folder, installed)


def install(plugin: Path, folder: Path, extras: str) -> subprocess.CompletedProcess[str]:
    """A copy of the plugin with an environment of these extras; to compile their packages would take longest."""
    shutil.copytree(plugin, folder, ignore=shutil.ignore_patterns(".venv*"))
    environ = os.environ | {"SECRETWEAVE_EXTRAS": extras, "PIP_NO_COMPILE": "1"}
    return subprocess.run([folder / "bin" / "install"], env=environ, capture_output=True, text=True, check=False)


def test_an_environment_without_an_sdk_says_which_extra_to_install(plugin: Path, bare: Bare, tmp_path: Path):
    assert environment(bare.folder) <= pinned((plugin / "requirements.lock").read_text().splitlines())
    config = tmp_path / "config.yaml"
    config.write_text((Path(__file__).parents[2] / "examples" / "stores" / "aws.yaml").read_text())
    done = subprocess.run(
        [bare.folder / "bin" / "secretweave"],
        env={"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(config)},
        input=CONFIG_MAP.replace("ConfigMap", "Secret") + "stringData: {a: secret://aws/db}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert "the Python package botocore is not installed" in done.stderr
    assert "pip install 'secretweave[aws]'; for the Helm plugin: SECRETWEAVE_EXTRAS=aws" in done.stderr


def test_the_extras_of_the_environment_can_be_named(plugin: Path, tmp_path: Path):
    # Of two the ones that are installed soonest.
    installed = install(plugin, tmp_path / "plugin", "vault azure")
    assert installed.returncode == 0, installed.stderr
    names = {each.partition("==")[0] for each in environment(tmp_path / "plugin")}
    assert {"hvac", "azure-identity"} <= names
    assert not {"boto3", "google-cloud-secret-manager", "kubernetes"} & names
    wrong = install(plugin, tmp_path / "wrong", "vault azur")
    assert wrong.returncode == 1
    assert "SECRETWEAVE_EXTRAS names azur, which is none of aws, azure, gcp, kubernetes and vault" in wrong.stderr


def test_the_launcher_works_by_path_and_through_links(helm4: Helm, plugin: Path, tmp_path: Path):
    (tmp_path / "folder").symlink_to(plugin)
    (tmp_path / "launcher").symlink_to(plugin / "bin" / "secretweave")
    for launcher in (plugin / "bin/secretweave", tmp_path / "folder/bin/secretweave", tmp_path / "launcher"):
        assert launch(launcher).stdout == CONFIG_MAP


def test_without_an_environment_the_launcher_takes_the_command_of_the_path(plugin: Path, tmp_path: Path):
    launcher = shutil.copy(plugin / "bin" / "secretweave", tmp_path / "launcher")
    path = path_with(tmp_path / "path", [("secretweave", launcher)])
    found = launch(Path(launcher), PATH=path)
    assert (found.returncode, found.stdout) == (1, "")
    assert "its Python environment is missing" in found.stderr
    (tmp_path / "path" / "secretweave").unlink()
    (tmp_path / "path" / "secretweave").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "path" / "secretweave").chmod(0o755)
    assert launch(Path(launcher), PATH=path).stdout == CONFIG_MAP


def test_an_install_without_a_fitting_python_says_so(plugin: Path, tmp_path: Path):
    folder = tmp_path / "secretweave"
    shutil.copytree(plugin, folder, ignore=shutil.ignore_patterns(".venv*"))
    helm = Helm.isolated(need("helm4"), tmp_path / "helm4", ["--post-renderer", "secretweave"])
    path = path_with(tmp_path / "path", [])
    installed = helm.run("plugin", "install", str(folder), PATH=path)
    assert installed.returncode == 1
    assert "secretweave: the plugin cannot be used: it needs python3 3.11, 3.12 or 3.13" in installed.stderr
    # Helm 4 keeps the plugin: a render tells it again, through Helm's own stderr.
    render = helm.weave("template", "demo", CHART, PATH=path)
    assert render.returncode == 1
    assert f"secretweave: its Python environment is missing: run {helm.environment['HELM_DATA_HOME']}" in render.stderr


def test_an_install_whose_requirements_are_not_the_locked_ones_fails(plugin: Path, tmp_path: Path):
    folder = tmp_path / "secretweave"
    shutil.copytree(plugin, folder, ignore=shutil.ignore_patterns(".venv*"))
    (folder / "requirements.lock").write_text(f"click==8.1.8 --hash=sha256:{'0' * 64}\n")
    helm = Helm.isolated(need("helm4"), tmp_path / "helm4", [])
    installed = helm.run("plugin", "install", str(folder))
    assert installed.returncode == 1
    assert "its locked requirements could not be installed" in installed.stderr
    assert not list(folder.glob(".venv*"))


def test_arguments_reach_the_command(helm4: Helm):
    woven = helm4.weave("template", "demo", CHART, "--post-renderer-args=--output=redacted")
    assert woven.returncode == 0
    assert "p@ss" not in woven.stdout


@pytest.fixture
def helm_3_in_the_folder_of_helm_4(helm3: Helm, installed_helm4: Path) -> Helm:
    return helm3._replace(
        environment=helm3.environment
        | {"HELM_DATA_HOME": Helm.isolated(Path(), installed_helm4, []).environment["HELM_DATA_HOME"]}
    )


def test_helm_3_loads_no_plugin_where_a_plugin_of_helm_4_is(helm_3_in_the_folder_of_helm_4: Helm):
    """Why the documentation tells to keep the two apart."""
    helm = helm_3_in_the_folder_of_helm_4
    listed = helm.run("plugin", "list")
    assert listed.returncode == 1
    assert 'unknown field "apiVersion"' in listed.stderr
    # It renders all the same, with a complaint.
    render = helm.weave("template", "demo", CHART)
    assert render.returncode == 0
    assert "failed to load plugins" in render.stderr


def test_an_install_warns_of_a_helm_3_that_reads_the_same_folder(bare: Bare):
    plugins = f"{bare.helm4.environment['HELM_DATA_HOME']}/plugins"
    assert f"warning: {bare.helm3} is Helm 3 and reads {plugins} too" in bare.installed.stderr


def test_helm_3_refuses_to_install_the_plugin(plugin: Path, helm3: Helm):
    """It leaves a link behind, which makes each later call complain: the documentation tells how to take it away."""
    installed = helm3.run("plugin", "install", str(plugin))
    assert installed.returncode == 1
    assert 'unknown field "apiVersion"' in installed.stderr
    link = Path(helm3.environment["HELM_DATA_HOME"]) / "plugins" / "secretweave"
    assert link.is_symlink()
    link.unlink()
    assert helm3.run("plugin", "list").returncode == 0


def test_the_namespace_is_given_as_an_argument(helm: Helm, config: Path):
    """Neither Helm tells a post-renderer the release's namespace: a store of one namespace is not read without it."""
    config.write_text(config.read_text().replace("  name: shop\n", "  name: shop\n  namespace: prod\n"))
    refused = helm.weave("template", "demo", CHART, "--namespace", "prod")
    assert refused.returncode == 1
    assert "--post-renderer-args" in refused.stderr
    woven = helm.weave("template", "demo", CHART, "--namespace", "prod", "--post-renderer-args=--namespace=prod")
    assert woven.returncode == 0, woven.stderr
