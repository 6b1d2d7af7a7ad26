"""The install manifests that ship in published Go modules: fetched by Go into its module cache, never committed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.hosts.build import use_go

MODULES = {
    "github.com/argoproj/argo-cd/v3@v3.2.12": ("manifests/**/*.yaml",),
    "github.com/cert-manager/cert-manager@v1.20.2": ("deploy/crds/*.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.92.1": (
        "bundle.yaml",
        "example/**/*.yaml",
        "jsonnet/prometheus-operator/*.json",
    ),
}
BYTES_MIN = 10_000
"""The smaller ones are as the documents of the larger ones."""


def fetch(module: str) -> Path:
    """The module's folder. Raises CalledProcessError where it cannot be fetched."""
    use_go()
    answer = subprocess.run(["go", "mod", "download", "-json", module], check=True, capture_output=True, cwd="/").stdout
    return Path(json.loads(answer)["Dir"])


def manifests() -> Iterator[Path]:
    for module, patterns in MODULES.items():
        folder = fetch(module)
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                if path.stat().st_size >= BYTES_MIN:
                    yield path
