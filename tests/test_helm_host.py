"""A process whose stderr its parent drops, as Helm 4 does, tells the person through the parent's own stderr."""

import subprocess
import sys
from pathlib import Path

import pytest

from secretweave.hosts import helm

TEXT = "three faults\n"
CHILD = f"import os; from secretweave.hosts import helm; print(helm.tell({TEXT!r}, os.environ), end='')"
PARENT = f"""\
import subprocess, sys
child = subprocess.run([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
sys.stderr.write("Helm's own line\\n")
sys.stdout.buffer.write(child.stdout + child.stderr)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "plugin.yaml").write_text("apiVersion: v1\nname: a\ntype: postrenderer/v1\n")
    return {"HELM_PLUGIN_NAME": "a", "HELM_PLUGIN_DIR": str(tmp_path)}


def run(mode: str, log: Path, environment: dict[str, str]) -> str:
    """What the child says of itself; what it tells goes to the parent's stderr, the log."""
    with log.open(mode) as stderr:
        return subprocess.run(
            [sys.executable, "-c", PARENT],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=True,
            start_new_session=True,
        ).stdout


def test_a_log_that_grows_at_its_end_holds_both(tmp_path: Path, environment: dict[str, str]):
    assert run("a", tmp_path / "log", environment) == "True"
    assert (tmp_path / "log").read_text() == TEXT + "Helm's own line\n"


def test_a_log_that_helm_writes_on_at_its_own_place_holds_both(tmp_path: Path, environment: dict[str, str]):
    assert run("w", tmp_path / "log", environment) == "True"
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line.strip()]
    assert lines == ["Helm's own line", TEXT.rstrip()]


def test_a_pipe_holds_both(environment: dict[str, str]):
    told = subprocess.run(
        [sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert (told.stdout, told.stderr) == ("True", TEXT + "Helm's own line\n")


def test_nothing_is_told_to_who_wants_to_hear_nothing(environment: dict[str, str]):
    assert run("w", Path("/dev/null"), environment) == "False"


@pytest.mark.parametrize("manifest", ["type: cli/v1\n", "name: postrenderer/v1\n", None])
def test_the_environment_of_another_plugin_counts_for_nothing(tmp_path: Path, manifest: str | None):
    if manifest is not None:
        (tmp_path / "plugin.yaml").write_text(manifest)
    assert not helm.tell(TEXT, {"HELM_PLUGIN_NAME": "a", "HELM_PLUGIN_DIR": str(tmp_path)})


def test_without_helm_4_nothing_is_told():
    assert not helm.tell(TEXT, {})
