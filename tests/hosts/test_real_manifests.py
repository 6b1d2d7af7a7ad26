"""The manifests that the world installs hold no reference: they leave as the bytes they came in."""

import subprocess
import sys

from tests.hosts.manifests import manifests
from tests.hosts.programs import absent


def test_they_pass_byte_identical():
    try:
        paths = list(manifests())
    except (OSError, subprocess.CalledProcessError):
        absent("Go cannot fetch the manifests")
    assert sum(path.stat().st_size for path in paths) > 20_000_000
    for path in paths:
        with path.open("rb") as file:
            result = subprocess.run(
                [sys.executable, "-m", "secretweave"],
                env={"HOME": "/nowhere"},
                stdin=file,
                capture_output=True,
                check=False,
            )
        assert (path, result.returncode, result.stderr) == (path, 0, b"")
        assert result.stdout == path.read_bytes(), path
