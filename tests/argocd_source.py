"""A source of an Application in a repository's copy, and the command on it as argocd-cmp-server runs it."""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Result = subprocess.CompletedProcess[str]
SECONDS_MAX = 120
CONFIGURATION = "apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec: "


class Source(NamedTuple):
    folder: Path
    """Holds `repo`, the repository's copy, and what is beside it."""

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    def write(self, files: Mapping[str, str]) -> "Source":
        """By their paths in the repository."""
        for name, text in files.items():
            path = self.repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def link(self, name: str, target: str | Path) -> "Source":
        (self.repo / name).symlink_to(target)
        return self

    def beside(self, name: str, text: str) -> Path:
        """A file that is not the repository's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name: str, path: Path) -> "Source":
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / name).symlink_to(path)
        return self

    def run(
        self,
        *parameters: Mapping[str, Any],
        command: str = "generate",
        path: str = "app",
        settings: Mapping[str, Any] | None = None,
        **environ: str,
    ) -> Result:
        """*settings*: `spec.argocd` of the sidecar's configuration."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        configuration = self.beside("config/config.yaml", CONFIGURATION + json.dumps({"argocd": settings or {}}))
        given = {
            "PATH": str(self.folder / "bin"),
            "TMPDIR": str(self.folder / "tmp"),
            "SECRETWEAVE_CONFIG": str(configuration),
            "SECRETWEAVE_SOCKET": str(self.folder / "no-daemon"),
            "ARGOCD_APP_NAME": "team_shop",
            "ARGOCD_APP_PROJECT_NAME": "default",
            "ARGOCD_APP_NAMESPACE": "shop-prod",
            "ARGOCD_APP_SOURCE_PATH": path,
            "KUBE_VERSION": "1.31.2",
            "KUBE_API_VERSIONS": "v1,apps/v1,example.com/v1/Widget",
            "ARGOCD_APP_PARAMETERS": json.dumps(parameters) if parameters else "null",
        }
        return subprocess.run(
            [sys.executable, "-m", "secretweave", "argocd", command],
            cwd=self.repo / path,
            env=given | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )

    def rendered(self, *parameters: Mapping[str, Any], **options: Any) -> str:
        result = self.run(*parameters, **options)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def refused(self, *parameters: Mapping[str, Any], code: int, **options: Any) -> str:
        """What it says of itself."""
        result = self.run(*parameters, **options)
        assert (result.returncode, result.stdout) == (code, ""), result.stderr
        return result.stderr


def text(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string": value}


def array(name: str, *items: str) -> dict[str, Any]:
    return {"name": name, "array": items}


def mapping(name: str, items: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "map": items}


def config_map(name: str, data: Mapping[str, str] | None = None) -> str:
    lines = "".join(f"  {key}: {value}\n" for key, value in (data or {}).items())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n" + (f"data:\n{lines}" if lines else "")


@contextmanager
def unvisited() -> Iterator[int]:
    """The port of a server on loopback that nobody may have tried to reach in the meantime."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
        assert select.select([server], [], [], 0)[0] == []


def names_below(folder: Path) -> Sequence[str]:
    return sorted(os.listdir(folder))
