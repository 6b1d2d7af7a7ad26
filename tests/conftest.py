import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

GOLDEN = Path(__file__).parent / "golden"

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden cases' configuration beside secrets that nobody else can read, which a checkout cannot promise."""
    folder = tmp_path_factory.mktemp("golden")
    for name, mode in (("config.yaml", 0o644), ("secrets.yaml", 0o600), ("second.json", 0o600)):
        copy = folder / name
        copy.write_bytes((GOLDEN / name).read_bytes())
        copy.chmod(mode)
    return folder


@pytest.fixture
def secretweave(home: Path) -> Command:
    """Runs the real command; `SECRETWEAVE_CONFIG` names the golden cases' configuration."""

    def run(*arguments: str | Path, stdin: bytes = b"", **environ: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "secretweave", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(home / "config.yaml")} | environ,
        )

    return run
