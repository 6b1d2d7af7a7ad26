"""What the archive of a Flux source may hold, and what becomes of it."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import InputError, PolicyError, SecretweaveError
from secretweave.flux.settings import Artifacts
from secretweave.flux.unpack import unpack

LIMITS = Artifacts(total_bytes=1 << 20, file_bytes=1 << 16, entries=50)


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.type = kind
    found.linkname = link
    found.size = len(data)
    found.mode = 0o4777
    found.uid = found.gid = 12345
    return found, data


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT, **options: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers=options.get("pax_headers")) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def packed(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    return gzip.compress(tar(*members, form=form))


def below(folder: Path) -> dict[str, bytes | None]:
    """Each file's content, None for a folder; nothing may be anything else."""
    found: dict[str, bytes | None] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISDIR(mode) or stat.S_ISREG(mode)
        assert stat.S_IMODE(mode) == (0o700 if path.is_dir() else 0o600)
        found[path.relative_to(folder).as_posix()] = None if path.is_dir() else path.read_bytes()
    return found


def unpacked(data: bytes, folder: Path, limits: Artifacts = LIMITS) -> dict[str, bytes | None]:
    folder.mkdir(exist_ok=True)
    unpack(io.BytesIO(data), str(folder), limits)
    return below(folder)


def refused(data: bytes, folder: Path, limits: Artifacts = LIMITS) -> SecretweaveError:
    folder /= "only"
    folder.mkdir()
    with pytest.raises(SecretweaveError) as caught:
        unpacked(data, folder / "root", limits)
    below(folder / "root")
    assert os.listdir(folder) == ["root"]
    shutil.rmtree(folder)
    return caught.value


FORMS = pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@FORMS
def test_files_and_folders(tmp_path: Path, form: int):
    found = unpacked(
        packed(
            member(".", kind=tarfile.DIRTYPE),
            member("./apps", kind=tarfile.DIRTYPE),
            member("apps/shop/a.yaml", b"a: 1\n"),
            member("./apps//shop/./b.yaml", b"b" * 1000),
            member("empty.yaml"),
            member("exactly", b"x" * 512),
            member("a..b/..c/d..", b"1"),
            member("apps/", kind=tarfile.DIRTYPE),
            form=form,
        ),
        tmp_path,
    )
    assert found == {
        "apps": None,
        "apps/shop": None,
        "apps/shop/a.yaml": b"a: 1\n",
        "apps/shop/b.yaml": b"b" * 1000,
        "empty.yaml": b"",
        "exactly": b"x" * 512,
        "a..b": None,
        "a..b/..c": None,
        "a..b/..c/d..": b"1",
    }


LONG = "/".join(["d" * 60] * 4) + "/" + "n" * 90 + "é.yaml"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, form: int):
    assert unpacked(packed(member(LONG, b"1"), member("b", b"2"), form=form), tmp_path)[LONG] == b"1"
    assert (tmp_path / "b").read_bytes() == b"2"


def test_a_prefix_of_ustar(tmp_path: Path):
    name = "d" * 90 + "/" + "n" * 90
    assert unpacked(packed(member(name, b"1"), form=tarfile.USTAR_FORMAT), tmp_path)[name] == b"1"


@FORMS
def test_names_that_are_odd(tmp_path: Path, form: int):
    """As Git lets them be: a folder of macOS has a file `Icon\\r`."""
    names = ["Icon\r", "new\nline", "\udcff\udcfe", "a b", "-rf", "é", "Aa", "aA", "*", "~"]
    assert set(unpacked(packed(*(member(name) for name in names), form=form), tmp_path)) == set(names)


def test_links_are_left_out(tmp_path: Path):
    found = unpacked(
        packed(
            member("a", kind=tarfile.SYMTYPE, link="/etc"),
            member("b", kind=tarfile.SYMTYPE, link="c"),
            member("a/passwd", b"mine"),
            member("long", kind=tarfile.SYMTYPE, link="x/" * 200),
        ),
        tmp_path,
    )
    assert found == {"a": None, "a/passwd": b"mine"}


def test_what_git_archive_writes_first(tmp_path: Path):
    data = tar(member("a", b"1"), pax_headers={"comment": "0123456789abcdef0123456789abcdef01234567"})
    assert unpacked(gzip.compress(data), tmp_path) == {"a": b"1"}


def test_other_headers_of_an_entry(tmp_path: Path):
    info, data = member("a", b"1")
    info.pax_headers = {"mtime": "1.5", "SCHILY.xattr.user.x": "y=z\nw", "uname": "é"}
    assert unpacked(packed((info, data)), tmp_path) == {"a": b"1"}


def test_an_old_folder_and_an_old_file(tmp_path: Path):
    old = (member("d/", kind=tarfile.AREGTYPE), member("d/a", b"1", kind=tarfile.AREGTYPE))
    assert unpacked(packed(*old), tmp_path) == {"d": None, "d/a": b"1"}


def test_several_gzip_members(tmp_path: Path):
    data = tar(member("a", b"1" * 2000), member("b", b"2"))
    pieces = (data[start : start + 700] for start in range(0, len(data), 700))
    assert unpacked(b"".join(map(gzip.compress, pieces)), tmp_path) == {"a": b"1" * 2000, "b": b"2"}


def test_an_archive_of_nothing(tmp_path: Path):
    assert unpacked(packed(), tmp_path) == {}


# What would lie elsewhere.


@FORMS
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize(
    "name", ["/a", "//a", "..", "../a", "a/../b", "a/..", "./../a", "a\\b", "..\\a", "C:\\a", "/", "a/../../root/b"]
)
def test_paths_that_lead_out(tmp_path: Path, name: str, kind: bytes, form: int):
    fault = refused(packed(member("first"), member(name, kind=kind), form=form), tmp_path)
    assert (type(fault), fault.what) == (PolicyError, "a path in the source's archive leads out of it, or may")


def test_a_path_of_a_pax_header(tmp_path: Path):
    for path in ("../a", "/a", "a\0b"):
        info, data = member("harmless", b"1")
        info.pax_headers = {"path": path}
        assert isinstance(refused(packed((info, data)), tmp_path), PolicyError)


UNUSUAL = {
    "a hard link": tarfile.LNKTYPE,
    "a device": tarfile.CHRTYPE,
    "a pipe": tarfile.FIFOTYPE,
    "a sparse file": tarfile.GNUTYPE_SPARSE,
    "of an unknown kind": b"V",
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_entries_of_other_kinds(tmp_path: Path, what: str):
    fault = refused(packed(member("a"), member("x", kind=UNUSUAL[what], link="a")), tmp_path)
    assert (type(fault), fault.what) == (PolicyError, f"an entry of the source's archive is {what}")


def test_a_sparse_file_of_pax(tmp_path: Path):
    info, data = member("GNUSparseFile.0/a", b"1\n0\n1\n" + b"\0" * 506 + b"x")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    fault = refused(packed((info, data)), tmp_path)
    assert (type(fault), fault.what) == (PolicyError, "an entry of the source's archive is a sparse file")


@pytest.mark.parametrize(
    "members",
    [
        (member("a", b"1"), member("a", b"2")),
        (member("a", b"1"), member("./a", b"1")),
        (member("a"), member("a/b")),
        (member("a/b"), member("a")),
        (member("a"), member("a", kind=tarfile.DIRTYPE)),
        (member("a", kind=tarfile.DIRTYPE), member("a")),
    ],
)
def test_entries_that_come_twice(tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]):
    fault = refused(packed(*members), tmp_path)
    assert isinstance(fault, InputError)
    assert fault.what == "an entry of the source's archive comes twice, or is both a file and a folder"


def test_a_folder_that_is_not_empty(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "beside").write_text("hunter2")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "beside")
    with pytest.raises(InputError, match="comes twice"):
        unpack(io.BytesIO(packed(member("a", b"1"))), str(tmp_path / "root"), LIMITS)
    with pytest.raises(InputError, match="comes twice"):
        unpack(io.BytesIO(packed(member("a/b", b"1"))), str(tmp_path / "root"), LIMITS)
    assert (tmp_path / "beside").read_text() == "hunter2"


# What is too large.


def test_a_file_that_is_too_large(tmp_path: Path):
    fault = refused(packed(member("a", b"x" * 65537)), tmp_path)
    assert (fault.what, str(fault.where)) == ("the source holds a file of more than 65,536 bytes", "a")
    assert "spec.flux.artifacts.fileBytes" in fault.fix
    assert unpacked(packed(member("b", b"x" * 65536)), tmp_path / "root")["b"] == b"x" * 65536


def test_a_bomb(tmp_path: Path):
    fault = refused(packed(*(member(f"{number}", b"\0" * 65536) for number in range(16))), tmp_path)
    assert fault.what == "the source holds more than 1,048,576 bytes"


def test_a_bomb_behind_the_end(tmp_path: Path):
    assert "more than" in refused(gzip.compress(tar(member("a")) + bytes(1 << 20)), tmp_path).what


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_too_many_entries(tmp_path: Path, kind: bytes):
    unpacked(packed(*(member(f"{number}", kind=kind) for number in range(50))), tmp_path / "fits")
    fault = refused(packed(*(member(f"{number}", kind=kind) for number in range(51))), tmp_path)
    assert fault.what == "the source holds more than 50 files and folders"


def test_folders_that_are_implied_count(tmp_path: Path):
    assert "more than 50 files" in refused(packed(*(member(f"{number}/a/b") for number in range(17))), tmp_path).what


def test_a_depth(tmp_path: Path):
    limits = LIMITS._replace(entries=1000)
    assert len(unpacked(packed(member("/".join("d" * 64))), tmp_path / "fits", limits)) == 64
    assert "more than 64 folders" in refused(packed(member("/".join("d" * 65))), tmp_path, limits).what


def test_a_path_that_is_too_long(tmp_path: Path):
    assert "longer than 1024 bytes" in refused(packed(member("/".join(["d" * 100] * 11))), tmp_path).what
    assert "shorter names" in refused(packed(member("n" * 300)), tmp_path).fix


def raw(name: bytes = b"a", size: bytes = b"0", kind: bytes = b"0", data: bytes = b"") -> bytes:
    """An entry, as an attacker writes it."""
    head = name.ljust(100, b"\0") + b"0000644\0" * 3 + size.rjust(11, b"0") + b"\0" + b"0" * 11 + b"\0" + b" " * 8
    head = (head + kind).ljust(257, b"\0") + b"ustar\x0000"
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:] + data.ljust(-(-len(data) // 512) * 512, b"\0")


END = bytes(1024)


def pax(text: bytes, kind: bytes = b"x") -> bytes:
    return raw(b"pax", b"%o" % len(text), kind, text)


def test_the_raw_entry_of_these_tests(tmp_path: Path):
    assert unpacked(gzip.compress(raw(size=b"1", data=b"1") + END), tmp_path) == {"a": b"1"}


def test_a_size_in_base_256(tmp_path: Path):
    head = bytearray(raw(data=b"1"))
    head[124:136] = b"\x80" + bytes(10) + b"\1"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    assert unpacked(gzip.compress(bytes(head) + END), tmp_path) == {"a": b"1"}


def test_a_size_of_a_pax_header(tmp_path: Path):
    assert unpacked(gzip.compress(pax(b"9 size=3\n") + raw(data=b"123") + END), tmp_path) == {"a": b"123"}


LONG_PAX = b"1048600 path=" + b"a" * (1048600 - 14) + b"\n"
MALFORMED = {
    "nothing": b"",
    "no gzip": tar(member("a")),
    "text": b"apiVersion: v1\n",
    "cut in the gzip header": packed(member("a"))[:5],
    "cut": packed(member("a", b"x" * 5000))[:-30],
    "cut before its checksum": packed(member("a"))[:-4],
    "a wrong checksum": packed(member("a"))[:-8] + bytes(8),
    "behind the gzip": packed(member("a")) + b"x",
    "zeros behind the gzip": packed(member("a")) + bytes(512),
    "a zip": b"PK\3\4" + bytes(100),
    "zlib, not gzip": zlib.compress(tar(member("a"))),
    "an empty tar": gzip.compress(b""),
    "no end": gzip.compress(raw()),
    "cut in a header": gzip.compress(raw()[:300]),
    "cut in a content": gzip.compress(raw(size=b"2000", data=b"x" * 512)),
    "behind the end": gzip.compress(raw() + END + raw(b"b")),
    "behind a single block": gzip.compress(raw() + bytes(512) + raw(b"b") + END),
    "checksum of a header": gzip.compress(b"b" + raw()[1:] + END),
    "size that is none": gzip.compress(raw(size=b"9") + END),
    "size with a sign": gzip.compress(raw(size=b"-1") + END),
    "a negative size in base 256": gzip.compress(raw().replace(b"00000000000\0", b"\xff" * 12, 1) + END),
    "a folder with a content": gzip.compress(raw(kind=b"5", size=b"1", data=b"1") + END),
    "a link with a content": gzip.compress(raw(kind=b"2", size=b"1", data=b"1") + END),
    "a file called like a folder": gzip.compress(raw(b"a/") + END),
    "a file called like the root": gzip.compress(raw(b".") + END),
    "pax without a length": gzip.compress(pax(b"path=b\n") + raw() + END),
    "pax with a short length": gzip.compress(pax(b"3 path=b\n") + raw() + END),
    "pax with a long length": gzip.compress(pax(b"99 path=b\n") + raw() + END),
    "pax without a line break": gzip.compress(pax(b"9 path=bc") + raw() + END),
    "pax without =": gzip.compress(pax(b"9 pathbc\n") + raw() + END),
    "pax with a size that is none": gzip.compress(pax(b"10 size=-1\n") + raw() + END),
    "pax at the end": gzip.compress(pax(b"9 path=b\n") + END),
    "pax twice": gzip.compress(pax(b"10 path=b\n") * 2 + raw() + END),
    "pax too long": gzip.compress(pax(LONG_PAX) + raw() + END),
    "pax for all": gzip.compress(pax(b"10 path=b\n", b"g") + raw() + END),
    "a long name twice": gzip.compress(raw(kind=b"L", size=b"1", data=b"x") * 2 + raw() + END),
    "ten thousand long names": gzip.compress(raw(kind=b"L", size=b"1", data=b"x") * 999 + raw() + END),
    "too many gzip members": packed(member("a")) + gzip.compress(b"") * 200,
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_archives(tmp_path: Path, what: str):
    fault = refused(MALFORMED[what], tmp_path, LIMITS._replace(total_bytes=4 << 20))
    assert (type(fault), fault.what) == (InputError, "the source's archive cannot be read")
    assert fault.why
    assert "flux reconcile source" in fault.fix


def test_names_in_errors_are_on_one_line(tmp_path: Path):
    fault = refused(packed(member("../\x1b[31m\n\udcff" + "x" * 300)), tmp_path)
    assert str(fault.where) == "..." + "x" * 200
    fault = refused(packed(member("../a\x1b\n\udcffé")), tmp_path)
    assert str(fault.where) == "../a???é"


SEGMENTS = st.text(st.sampled_from("ab./\\\n\r\0é~-"), max_size=12) | st.text(max_size=8)


@given(st.lists(st.tuples(SEGMENTS, st.sampled_from([b"0", b"5", b"2"])), max_size=6))
def test_nothing_ever_lies_elsewhere(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]]):
    folder = tmp_path_factory.mktemp("any")
    (folder / "root").mkdir()
    data = b"".join(raw(name.encode(errors="surrogatepass")[:99], kind=kind) for name, kind in entries) + END
    # What was unpacked until then is judged all the same.
    with suppress(InputError, PolicyError):
        unpack(io.BytesIO(gzip.compress(data)), str(folder / "root"), LIMITS)
    assert os.listdir(folder) == ["root"]
    below(folder / "root")


@given(st.binary(max_size=3000))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    folder = tmp_path_factory.mktemp("any")
    for each in (data, gzip.compress(data), gzip.compress(raw() + data)):
        with pytest.raises((InputError, PolicyError)):
            unpack(io.BytesIO(each), str(folder), LIMITS)
        (folder / "a").unlink(missing_ok=True)


FILES = st.dictionaries(
    st.text(st.characters(exclude_characters="/\\\0", codec="utf-8"), min_size=1, max_size=60).filter(
        lambda name: name not in {".", ".."}
    ),
    st.binary(max_size=2000),
    max_size=8,
)


@given(FILES, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_was_packed_comes_out(tmp_path_factory: pytest.TempPathFactory, files: Mapping[str, bytes], form: int):
    folder = tmp_path_factory.mktemp("any")
    assert unpacked(packed(*(member(*each) for each in files.items()), form=form), folder) == files
