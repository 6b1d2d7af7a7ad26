"""`secretweave argocd generate|init|parameters|probe` with plain files: what they do with Argo CD's variables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLED = {"ARGOCD_APP_NAME": "argocd_shop", "ARGOCD_APP_PROJECT_NAME": "team-a", "ARGOCD_APP_NAMESPACE": "shop"}
CONFIG = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: .secrets.yaml}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec: {policy: {stores: [{store: shop, prefixes: ["{project}"]}]}}
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData:\n  password: secret://shop/%s/db#password\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "config.yaml").write_text(CONFIG)
    (tmp_path / "platform" / ".secrets.yaml").write_text("team-a/db: {password: of-a}\nteam-b/db: {password: of-b}\n")
    (tmp_path / "platform" / ".secrets.yaml").chmod(0o600)
    (tmp_path / "_cmp_server" / "copy" / "apps" / "shop").mkdir(parents=True)
    (tmp_path / "_cmp_server" / "copy" / "apps" / "shop" / "db.yaml").write_text(SECRET % "team-a")
    return tmp_path / "_cmp_server" / "copy"


def run(
    command: str, repository: Path, path: str = "apps/shop", environ: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    folder = repository / path
    called = CALLED | {"ARGOCD_APP_SOURCE_PATH": path} if environ is None else environ
    return subprocess.run(
        [sys.executable, "-m", "secretweave", "argocd", command],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "SECRETWEAVE_CONFIG": str(repository.parent.parent / "platform"),
            "SECRETWEAVE_SOCKET": str(repository.parent.parent / "no-socket"),
            "ARGOCD_CMP_WORKDIR": str(repository.parent.parent),
            **called,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_project_reads_what_is_its_own(repository: Path):
    done = run("generate", repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == SECRET.replace("secret://shop/%s/db#password", '"of-a"')


def test_a_project_reads_nothing_of_another(repository: Path):
    (repository / "apps" / "shop" / "db.yaml").write_text(SECRET % "team-b")
    done = run("generate", repository)
    assert (done.returncode, done.stdout) == (4, "")
    assert "what:  shop:team-b/db#password is under no prefix that may be read" in done.stderr
    assert "of-b" not in done.stderr


def test_variables_of_the_tenant_change_nothing_of_who_asks(repository: Path):
    (repository / "apps" / "shop" / "db.yaml").write_text(SECRET % "team-b")
    called = CALLED | {"ARGOCD_APP_SOURCE_PATH": "apps/shop", "PARAM_PROJECT": "team-b", "PROJECT": "team-b"}
    assert run("generate", repository, environ=called).returncode == 4


@pytest.mark.parametrize("name", ["ARGOCD_APP_PROJECT_NAME", "SECRETWEAVE_CONFIG", "SECRETWEAVE_IDENTITY", "HELM_ARGS"])
def test_variables_of_the_tenant_that_set_nothing_are_refused(name: str, repository: Path):
    called = CALLED | {"ARGOCD_APP_SOURCE_PATH": "apps/shop", f"ARGOCD_ENV_{name}": "team-b"}
    done = run("generate", repository, environ=called)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"what:  there is no setting {name}\n" in done.stderr


def test_an_app_folder_that_leads_out_of_the_repository_is_refused(repository: Path):
    outside = repository.parent.parent / "outside" / "apps" / "shop"
    outside.mkdir(parents=True)
    (outside / "db.yaml").write_text(SECRET % "team-a")
    (repository / "linked").mkdir()
    (repository / "linked" / "shop").symlink_to(outside)
    done = run("generate", repository, "linked/shop")
    assert (done.returncode, done.stdout) == (3, "")
    assert "what:  the app's folder is not in the repository" in done.stderr


def test_a_chart_whose_file_is_misspelt_is_not_taken_for_manifests(repository: Path):
    (repository / "apps" / "shop" / "chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 1.0.0\n")
    done = run("generate", repository)
    assert (done.returncode, done.stdout) == (3, "")
    assert "what:  the folder holds a file chart.yaml, which is not called Chart.yaml\n" in done.stderr


def test_a_type_that_the_folder_is_not_of(repository: Path):
    called = CALLED | {"ARGOCD_APP_SOURCE_PATH": "apps/shop", "ARGOCD_ENV_TYPE": "kustomize"}
    done = run("generate", repository, environ=called)
    assert "what:  the parameter type is kustomize, and the folder holds no kustomization.yaml\n" in done.stderr


def test_the_folder_of_all_copies_is_no_repository(repository: Path):
    reaching = CALLED | {"ARGOCD_APP_SOURCE_PATH": "copy/apps/shop"}
    done = run("generate", repository, environ=reaching)
    assert (done.returncode, done.stdout) == (3, "")
    assert "what:  the app's folder is not in the repository" in done.stderr


def test_a_parameter_for_another_type_of_source_is_told(repository: Path):
    parameters = json.dumps([{"name": "values-files", "array": ["values.yaml"]}])
    called = CALLED | {"ARGOCD_APP_SOURCE_PATH": "apps/shop", "ARGOCD_APP_PARAMETERS": parameters}
    done = run("generate", repository, environ=called)
    assert done.returncode == 0
    expected = "the parameter values-files is for sources of another type: it has no effect"
    assert done.stderr == f"secretweave: warning: {expected}\n"


@pytest.mark.parametrize("command", ["generate", "init"])
def test_outside_of_argo_cd_it_says_what_is_missing(command: str, repository: Path):
    done = run(command, repository, environ={"ARGOCD_APP_NAME": "shop"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "what:  ARGOCD_APP_PROJECT_NAME is not set, or is malformed" in done.stderr


def test_init_has_nothing_to_do_for_plain_files_and_reads_no_configuration(repository: Path):
    (repository.parent.parent / "platform" / "config.yaml").write_text("broken: [")
    done = run("init", repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_parameters_are_announced_before_there_is_an_application(repository: Path):
    done = run("parameters", repository, environ={"ARGOCD_APP_NAME": "", "ARGOCD_APP_PARAMETERS": "null"})
    assert [each["name"] for each in json.loads(done.stdout)] == ["type", "recurse", "include", "exclude"]


def test_parameters_heed_the_type_that_is_chosen(repository: Path):
    chosen = {"ARGOCD_APP_PARAMETERS": json.dumps([{"name": "type", "string": "kustomize"}])}
    done = run("parameters", repository, environ=chosen)
    assert "enable-helm" in [each["name"] for each in json.loads(done.stdout)]


def test_a_probe_without_a_daemon_fails(repository: Path):
    done = run("probe", repository)
    assert (done.returncode, "no daemon listens at the socket" in done.stderr) == (1, True)
