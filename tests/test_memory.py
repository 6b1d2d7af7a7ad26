"""The bound of memory, on streams that are longer than it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.streams import STREAMS, write

MEASURE = Path(__file__).parent / "bench" / "measure.py"
PEAK_MAX = 64 * 1024
"""KiB."""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  a: secret://bench/path-1#password\n"


def peak(folder: Path, manifests: Path) -> int:
    (folder / "secrets.yaml").write_text("".join(f"path-{path}: {{password: value}}\n" for path in range(200)))
    (folder / "secrets.yaml").chmod(0o600)
    (folder / "config.yaml").write_text(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: bench}\n"
        "spec: {file: {path: secrets.yaml}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", MEASURE, "1", manifests, sys.executable, "-m", "secretweave"],
        env={"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(folder / "config.yaml")},
        capture_output=True,
        text=True,
        check=True,
    )
    *_, kibibytes, code = done.stdout.split()
    assert code == "0", done.stderr
    return int(kibibytes)


def test_of_a_stream_of_any_length(tmp_path: Path):
    (large,) = (stream for stream in STREAMS if stream.name == "large")
    with (tmp_path / "stream.yaml").open("wb") as out:
        write(large, "secretweave", out)
    assert peak(tmp_path, tmp_path / "stream.yaml") < PEAK_MAX


@pytest.mark.parametrize("more", ["  a comma, a colon: \"quoted\" and 'so on'\n", "# comment\n"])
def test_of_a_document_that_is_as_long_as_it_may_be(tmp_path: Path, more: str):
    text = f"{SECRET}  b: |\n    x\n" if more.startswith(" ") else SECRET
    more = f"  {more}" if more.startswith(" ") else more
    source = text + more * ((4 * 1024 * 1024 - len(text)) // len(more))
    (tmp_path / "stream.yaml").write_text(source)
    assert peak(tmp_path, tmp_path / "stream.yaml") < PEAK_MAX


def test_of_a_document_of_any_length_that_holds_nothing_of_ours(tmp_path: Path):
    (tmp_path / "stream.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n" + "  key: value\n" * 3_000_000
    )
    assert peak(tmp_path, tmp_path / "stream.yaml") < PEAK_MAX
