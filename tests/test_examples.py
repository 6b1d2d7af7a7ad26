"""Every folder of examples/ with an input.yaml, run through the real command.

`expected.yaml` is what comes out; without it the run must fail with nothing on stdout. `stderr.txt` is what a person
reads; without it there must be nothing to read. The file of secrets is copied, because its mode must be private.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The same command and the same paths through it as the golden cases, which run everywhere.
pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parent.parent / "examples"
CASES = sorted(path.parent for path in EXAMPLES.glob("*/input.yaml"))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_example(case: Path, tmp_path: Path):
    work = tmp_path / case.name
    shutil.copytree(case, work)
    (tmp_path / "secrets.yaml").write_bytes((EXAMPLES / "secrets.yaml").read_bytes())
    (tmp_path / "secrets.yaml").chmod(0o600)
    result = subprocess.run(
        [sys.executable, "-m", "secretweave"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECRETWEAVE_CONFIG": str(work / "config.yaml")},
        input=(case / "input.yaml").read_text(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stderr == read(case / "stderr.txt")
    assert result.stdout == read(case / "expected.yaml")
    assert (result.returncode == 0) == (case / "expected.yaml").exists()


def test_the_cases_were_found():
    assert len(CASES) >= 10


def test_every_case_says_what_it_expects():
    for case in CASES:
        assert (case / "expected.yaml").exists() or (case / "stderr.txt").exists(), case.name


def test_the_demo_shows_no_value():
    done = subprocess.run(
        [EXAMPLES / "shop" / "demo.sh"],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "10 objects" in done.stdout
    assert "Secrets came out" in done.stdout
    for value in ("p@ss", "demo-session-key", "demo-mail", "demo&", 'demo"', "bm90IGEg"):
        assert value not in done.stdout + done.stderr
