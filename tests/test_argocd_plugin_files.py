"""The shipped ConfigManagementPlugin files: what Argo CD reads of them, and that the commands in them are ours.

https://github.com/argoproj/argo-cd/blob/v3.2.12/cmpserver/plugin/config.go
"""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

# What stands in YAML files; the commands that they name are tested everywhere.
pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent.parent / "argocd"
SPEC = {
    "init": {"command": ["secretweave", "argocd", "init"]},
    "generate": {"command": ["secretweave", "argocd", "generate"]},
    "parameters": {"dynamic": {"command": ["secretweave", "argocd", "parameters"]}},
    "preserveFileMode": False,
}


def _read(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((FOLDER / name).read_text())


def test_the_plugin_serves_those_who_name_it_and_looks_at_no_other_source():
    assert _read("plugin.yaml") == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ConfigManagementPlugin",
        "metadata": {"name": "secretweave"},
        "spec": SPEC,
    }


def test_the_other_file_is_the_same_but_for_its_name_and_the_marker():
    assert _read("plugin-discover.yaml") == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ConfigManagementPlugin",
        "metadata": {"name": "secretweave-discover"},
        "spec": SPEC | {"discover": {"fileName": ".secretweave"}},
    }


@pytest.mark.parametrize("command", ["init", "generate", "parameters"])
def test_the_command_is_one_of_ours(command: str):
    called = [sys.executable, "-m", "secretweave", "argocd", command, "--help"]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(called)}: {done.stderr}"
    assert f"secretweave argocd {command} [OPTIONS]" in done.stdout
