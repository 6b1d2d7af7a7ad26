import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers.forking import Forking
from tests.servers.forking import forking as start_forking
from tests.sizes import examples

settings.register_profile("sized", examples(100))
settings.load_profile("sized")

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


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    with start_forking() as found:
        yield found


@pytest.fixture
def forked(home: Path, forking: Forking) -> Command:
    """As `secretweave`, in a process that is forked instead of started: for tables of many runs."""

    def run(*arguments: str | Path, stdin: bytes = b"", **environ: str) -> "subprocess.CompletedProcess[bytes]":
        given = {"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(home / "config.yaml")} | environ
        return forking.run([str(each) for each in arguments], given, stdin)

    return run
