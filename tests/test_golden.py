"""Golden files through the real command: tests/golden/<case>/input.yaml -> expected.yaml, or error.txt and nothing.

A case may bring a config.yaml and an `args` file of its own. After a change that is meant, `make golden` writes the
expected files anew; the diff is then read like code.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import GOLDEN, Command

CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def settle(path: Path, got: bytes) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        if got:
            path.write_bytes(got)
        else:
            path.unlink(missing_ok=True)
    assert got == (path.read_bytes() if path.exists() else b"")


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, home: Path, secretweave: Command) -> None:
    folder = GOLDEN / case
    extra = (folder / "args").read_text().split() if (folder / "args").exists() else []
    config = home / "config.yaml"
    if (folder / "config.yaml").exists():
        config = home / f"{case}.yaml"
        config.write_bytes((home / "config.yaml").read_bytes() + b"---\n" + (folder / "config.yaml").read_bytes())
    done = secretweave("--config", config, *extra, stdin=(folder / "input.yaml").read_bytes())
    settle(folder / "expected.yaml", done.stdout)
    settle(folder / "error.txt", done.stderr.replace(str(home).encode(), b"HOME"))
    assert (done.returncode == 0) == bool(done.stdout)
