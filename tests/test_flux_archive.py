"""The archive of an artifact, and how the woven stream lies in it."""

import gzip
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from secretweave.config.configuration import Limits
from secretweave.errors import Faults, InputError
from secretweave.flux import archive, layout

FILES = {"b.yaml": b"b: 1\n", "a.yaml": b"a: 1\n", "A.yaml": b"", "a-b.yaml": b"x" * 1000}
SECRET = b"apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\n"
CONFIG_MAP = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"


def test_the_same_files_give_the_same_bytes_on_every_python():
    packed = archive.packed(FILES)
    assert packed == archive.packed(dict(reversed(FILES.items())))
    assert packed[:10].hex() == "1f8b08000000000000ff"
    # Of what is in it: what a zlib makes of that may differ.
    assert (
        hashlib.sha256(gzip.decompress(packed)).hexdigest()
        == "22b2158ba15467d6edfb3970f541b9d7bc8f33e6a570ccb203b7ff2cbc4b46c6"
    )


def test_nobody_and_no_time_shows_in_it():
    with tarfile.open(fileobj=io.BytesIO(archive.packed(FILES))) as found:
        entries = found.getmembers()
    assert [entry.name for entry in entries] == ["A.yaml", "a-b.yaml", "a.yaml", "b.yaml"]
    told = {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode, e.type) for e in entries}
    assert told == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_the_program_tar_reads_it(tmp_path: Path):
    (tmp_path / "a.tgz").write_bytes(archive.packed(FILES))
    subprocess.run(["tar", "-xzf", "a.tgz"], cwd=tmp_path, check=True)
    (tmp_path / "a.tgz").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize(
    ("stream", "files"),
    [
        (CONFIG_MAP, {"manifests.yaml": CONFIG_MAP}),
        (SECRET % b"s", {"secret_s.yaml": SECRET % b"s"}),
        (SECRET % b"s, namespace: shop", {"shop_secret_s.yaml": SECRET % b"s, namespace: shop"}),
        (
            b"# a word\n---\n" + CONFIG_MAP + b"---\n# of the Secret\n" + SECRET % b"s" + b"---\n" + CONFIG_MAP,
            {
                "secret_s.yaml": b"# of the Secret\n" + SECRET % b"s",
                "manifests.yaml": b"# a word\n---\n" + CONFIG_MAP + b"---\n" + CONFIG_MAP,
            },
        ),
        (
            # Two of a name are somebody's mistake, which the cluster is to tell.
            b"---\n".join([SECRET % b"s", SECRET % b"s", SECRET % b"s-2"]),
            {"secret_s.yaml": SECRET % b"s", "secret_s_2.yaml": SECRET % b"s", "secret_s-2.yaml": SECRET % b"s-2"},
        ),
        (
            b'{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "j"}}',
            {"secret_j.yaml": b'{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "j"}}'},
        ),
        (
            b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n",
            {
                "manifests.yaml": b"apiVersion: v1\nkind: List\nitems:\n"
                b"- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n"
            },
        ),
        (
            (SECRET % b"s").replace(b"v1", b"example.com/v1"),
            {"manifests.yaml": (SECRET % b"s").replace(b"v1", b"example.com/v1")},
        ),
        (b"# nothing\n--- # at all\n\n---", {}),
        (b"", {}),
    ],
)
def test_the_files_of_a_stream(stream: bytes, files: dict[str, bytes]):
    assert layout.files([stream]) == files
    assert layout.files(stream[at : at + 7] for at in range(0, len(stream), 7)) == files
    assert layout.files(io.BytesIO(stream)) == files


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"A b", b"x" * 100, b"-rf", b".", b"''"])
def test_a_name_is_never_a_path(name: bytes):
    (file,) = layout.files([SECRET % (b"'" + name + b"'" if name != b"''" else name)])
    assert file == "secret_" + hashlib.sha256(b"secret\0" + name.strip(b"'")).hexdigest() + ".yaml"
    archive.packed({file: b""})


def test_what_cannot_be_read_is_refused_and_told_without_its_bytes():
    with pytest.raises(InputError) as caught:
        layout.files([b"---\n" + CONFIG_MAP + b"---\nkind: Secret\nstringData: {a: hunter2]}\n"])
    assert (caught.value.where.document, caught.value.where.line) == (2, 7)
    assert "hunter2" not in f"{caught.value.what} {caught.value.why} {caught.value.fix}"
    with pytest.raises(Faults):
        layout.files([b"kind: \xff\n"])
    with pytest.raises(InputError):
        layout.files([SECRET % b"s, labels: {a: {b: {c: d}}}"], Limits(depth=2))
