"""The process around a run: how long it waits, how it is stopped, and what of its memory others can see."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIG = """\
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  limits: {deadline: 500ms}
"""
START = [sys.executable, "-m", "secretweave"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECRETWEAVE_CONFIG": str(tmp_path / "config.yaml")}


def test_an_input_that_does_not_end_in_time_is_an_error(environ: dict[str, str]):
    with subprocess.Popen(
        START, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"kind: ConfigMap\n")
        process.stdin.flush()
        out, said = process.stdout, process.stderr
        assert out is not None
        assert said is not None
        assert (out.read(), process.wait(timeout=20)) == (b"", 3)
        assert b"the input had not ended when the run's deadline of 0.5 s was over" in said.read()


def test_an_input_that_comes_piece_by_piece_is_read_to_its_end(environ: dict[str, str]):
    environ.pop("SECRETWEAVE_CONFIG")
    with subprocess.Popen(START, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for piece in (b"a: ", b"1\n", b"---\n", b"b: 2\n"):
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(0.05)
        process.stdin.close()
        assert process.stdout.read() == b"a: 1\n---\nb: 2\n"


PROBE = """
import ctypes, os, resource, sys
from secretweave import memory
memory.protect()
PR_GET_DUMPABLE = 3
print(*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
sys.stdout.flush()
os.abort()
"""


def test_the_process_leaves_no_core_and_shows_its_memory_to_nobody(tmp_path: Path):
    """What is not dumpable, the kernel lets nobody but root look into."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == ["0", "0", "0"], done.stderr
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []
