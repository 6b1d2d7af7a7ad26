"""Golden files through the real command: tests/golden/<case>/input.yaml -> expected.yaml, or error.txt and nothing.

A case may bring a config.yaml and an `args` file of its own. After a change that is meant, `make golden` writes the
expected files anew; the diff is then read like code.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared configuration beside secrets that nobody else can read, which a checkout cannot promise."""
    folder = tmp_path_factory.mktemp("golden")
    for name, mode in (("config.yaml", 0o644), ("secrets.yaml", 0o600), ("second.json", 0o600)):
        copy = folder / name
        copy.write_bytes((GOLDEN / name).read_bytes())
        copy.chmod(mode)
    return folder


def settle(path: Path, got: bytes) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        if got:
            path.write_bytes(got)
        else:
            path.unlink(missing_ok=True)
    assert got == (path.read_bytes() if path.exists() else b"")


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, home: Path) -> None:
    folder = GOLDEN / case
    config = folder / "config.yaml"
    if config.exists():
        (home / f"{case}.yaml").write_bytes((home / "config.yaml").read_bytes() + b"---\n" + config.read_bytes())
    extra = (folder / "args").read_text().split() if (folder / "args").exists() else []
    done = subprocess.run(
        [sys.executable, "-m", "secretweave", "--config", home / (f"{case}.yaml" if config.exists() else "config.yaml")]
        + extra,
        input=(folder / "input.yaml").read_bytes(),
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    settle(folder / "expected.yaml", done.stdout)
    settle(folder / "error.txt", done.stderr.replace(str(home).encode(), b"HOME"))
    assert (done.returncode == 0) == bool(done.stdout)
