"""Helm 4 lets programs choose how hooks reach a post-renderer (its command line has no such option)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.programs import named, need, values

CHART = Path(__file__).parent / "charts" / "shop"
PASSWORD = b"p@ss: word/'1'"
REFERENCE = "secret://shop/database#password"


def render(strategy: str, config: Path) -> str:
    command = Path(sys.executable).parent / "secretweave"
    return subprocess.run(
        [need("strategy"), strategy, CHART, command],
        env=os.environ | {"SECRETWEAVE_CONFIG": str(config)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def hook_environment(text: str) -> dict[str, Any]:
    (container,) = named(text, "Job", "migrate")["spec"]["template"]["spec"]["containers"]
    item: dict[str, Any]
    (item,) = container["env"]
    return item


@pytest.mark.parametrize("strategy", ["combined", "separate"])
def test_hooks_and_the_rest_are_woven_in_one_run_or_in_two(config: Path, strategy: str):
    text = render(strategy, config)
    reference = hook_environment(text)["valueFrom"]["secretKeyRef"]
    assert values(named(text, "Secret", reference["name"])) == {reference["key"]: PASSWORD}
    assert values(named(text, "Secret", "app")) == {"password": PASSWORD}
    assert "generated-by-postrender" not in text


def test_without_hooks_they_stay_as_they_are(config: Path):
    text = render("nohooks", config)
    assert hook_environment(text) == {"name": "PASSWORD", "value": REFERENCE}
    assert values(named(text, "Secret", "app")) == {"password": PASSWORD}
