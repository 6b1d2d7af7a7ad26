"""Helm and kubectl, each with an environment of its own.

A program that is not built skips its tests, or fails them with SECRETWEAVE_REQUIRE_HOSTS=1.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from ruamel.yaml import YAML

from tests.hosts.build import path_of

Result = subprocess.CompletedProcess[str]
SECONDS_MAX = 120


def absent(message: str) -> NoReturn:
    """Ends a test that needs what is not here."""
    if os.environ.get("SECRETWEAVE_REQUIRE_HOSTS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def need(name: str) -> Path:
    """Where a program of build.py lies."""
    path = path_of(name)
    if not path.exists():
        absent(f"{name} is not built: make test-hosts")
    return path


def pipe(name: str, *arguments: str, text: str) -> str:
    """What a program of build.py makes of the text."""
    return subprocess.run([need(name), *arguments], input=text, check=True, capture_output=True, text=True).stdout


def documents(text: str) -> list[dict[str, Any]]:
    """The objects of a stream of manifests."""
    return [document for document in YAML(typ="safe", pure=True).load_all(text) if document is not None]


def named(text: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents(text) if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def values(secret: dict[str, Any]) -> dict[str, bytes]:
    """What a Pod would see of a Secret."""
    found = {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}
    return found | {key: value.encode() for key, value in secret.get("stringData", {}).items()}


class Helm(NamedTuple):
    path: Path
    environment: dict[str, str]
    post_renderer: list[str]

    @classmethod
    def isolated(cls, path: Path, folder: Path, post_renderer: list[str], **environment: str) -> "Helm":
        """A Helm that keeps what it keeps in *folder* and sees nothing of this machine's."""
        environment |= {f"HELM_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return cls(path, {"PATH": os.environ["PATH"], "HOME": str(folder)} | environment, post_renderer)

    @property
    def major(self) -> int:
        return int(self.path.name.removeprefix("helm-v")[0])

    def run(self, *arguments: str, **environment: str) -> Result:
        return subprocess.run(
            [self.path, *arguments],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )

    def weave(self, *arguments: str, **environment: str) -> Result:
        """The command with the post-renderer."""
        return self.run(*arguments, *self.post_renderer, **environment)


class Kubectl(NamedTuple):
    path: Path
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, text: str | None = None) -> Result:
        return subprocess.run(
            [self.path, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.kubeconfig.parent)},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found = self.run("get", kind, name, "--output=json")
        assert found.returncode == 0, found.stderr
        value: dict[str, Any] = json.loads(found.stdout)
        return value

    def names(self, kind: str) -> list[str]:
        return self.run("get", kind, "--output=name").stdout.split()
