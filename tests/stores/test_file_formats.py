"""The file store's dotenv and folders, and what it does around SOPS; the real SOPS: tests/hosts/test_store_sops.py."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from secretweave import select
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import SecretValue, StoreConfig
from secretweave.stores import file, open_store
from secretweave.stores.base import Store
from tests.stores.contract import BINARY, Opened, Secret, StoreContract, context, plain

Warn = Callable[[str], None]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")


def open_file(
    path: Path,
    environ: Mapping[str, str] | None = None,
    *,
    warn: Warn = pytest.fail,
    show: bool = True,
    seconds: float = 30,
    **settings: Any,
) -> Store:
    config = StoreConfig("local", None, "file", file.Settings(str(path), **settings), default=False)
    return open_store(config, context(config, environ, show=show, warn=warn, seconds=seconds))


def written(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def as_dotenv(value: object) -> str:
    assert isinstance(value, str)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class TestDotenv(StoreContract):
    lacks = frozenset({"bytes", "metadata", "typed fields", "versions"})

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            if any(not isinstance(secret.value, str) for secret in secrets):
                pytest.skip("dotenv has no fields")
            lines = [f"{secret.path.replace('-', '_')}={as_dotenv(secret.value)}\n" for secret in secrets]
            return Underscored(open_file(written(tmp_path / ".env", "".join(lines))))

        return opened


class Underscored:
    """A store whose names have `_` where the contract's have `-`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.concurrency = store.concurrency
        self.close = store.close

    def fetch(self, ref: str, version: str | None) -> Any:
        return self.store.fetch(ref.replace("-", "_"), version)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ("A=two words", "two words"),
        ("A=postgres://u:p@h/db?x=1&y=2", "postgres://u:p@h/db?x=1&y=2"),
        ("A=pa$$word$(x)", "pa$$word$(x)"),
        ('A=it\'s "so"', 'it\'s "so"'),
        ("A=C:\\temp", "C:\\temp"),
        ("A=Grüße \u2028 \x85.", "Grüße \u2028 \x85."),
        ("A=windows\r", "windows"),
        ("  export A=exported", "exported"),
        ("A=''", ""),
        ("A='  # ${B} \\n \"x\" '", '  # ${B} \\n "x" '),
        ("A='x' # told", "x"),
        ('A=""', ""),
        ('A="  a\\nb\\t\\"c\\" \\\\d # "  ', '  a\nb\t"c" \\d # '),
        ('A="\\\\n"', "\\n"),
        ('A="it\'s" # "so"', "it's"),
        ("\ufeffA=marked", "marked"),
    ],
)
def test_a_dotenv_line(tmp_path: Path, line: str, value: str):
    store = open_file(written(tmp_path / "app.env", f"{line}\n# B=1\n\n \t\n"))
    record = store.fetch("A", None)
    assert (plain(record).decode(), record.version) == (value, "")
    with pytest.raises(NotFound):
        store.fetch("B", None)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("hunter2", "not a line of `NAME=value`"),
        ("A", "not a line of `NAME=value`"),
        ("A =hunter2", "not a line of `NAME=value`"),
        ("1A=hunter2", "not a line of `NAME=value`"),
        ("A: hunter2", "not a line of `NAME=value`"),
        ("A=hunter2\rB=c", "not a line of `NAME=value`"),
        ("A= hunter2", "white space around an unquoted value"),
        ("A=hunter2 ", "white space around an unquoted value"),
        ("A=hunter2\u00a0", "white space around an unquoted value"),
        ("A=hunter2 # comment", "`#`, or a back quote at the start, in an unquoted value"),
        ("A=hunter#2", "`#`, or a back quote at the start, in an unquoted value"),
        ("A=`hunter2`", "`#`, or a back quote at the start, in an unquoted value"),
        ("A=hunter\\n2", "`\\n`, or `\\` at the end, in an unquoted value"),
        ("A=hunter2\\", "`\\n`, or `\\` at the end, in an unquoted value"),
        ("A=hunter2${B}", "`${` in a value"),
        ('A="hunter2${B}"', "`${` in a value"),
        ('A="hunter2\\\\${B}"', "`${` in a value"),
        ('A="hunter2', "a quoted value does not end with its quote on the same line"),
        ('A="hunter2\\"', "a quoted value does not end with its quote on the same line"),
        ("A='hunter2", "a quoted value does not end with its quote on the same line"),
        ("A='hun'ter2", "a quoted value does not end with its quote on the same line"),
        ("A='hunter2'#x", "a quoted value does not end with its quote on the same line"),
        ("A='hunter2\\'", "a double or last backslash in single quotes"),
        ("A='hunter\\\\2'", "a double or last backslash in single quotes"),
        ('A="hunter2\\x41"', "an unknown escape in double quotes"),
        ('A="hunter2\\$"', "an unknown escape in double quotes"),
        ("B=1\nB=hunter2", "a name stands in the file twice"),
    ],
)
def test_a_dotenv_line_that_is_read_differently_elsewhere_is_refused(tmp_path: Path, line: str, what: str):
    path = written(tmp_path / "app.env", f"# secrets\n{line}\n")
    with pytest.raises(StoreError) as caught:
        open_file(path)
    assert (caught.value.what, caught.value.where.line) == (what, 2 + line.count("\n"))
    assert caught.value.fix
    assert "hunter" not in repr(vars(caught.value))


def test_a_dotenv_file_that_is_not_utf_8_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="not UTF-8"):
        open_file(written(tmp_path / "app.env", b"A=\xff\n"))


def test_a_dotenv_name_has_no_versions(tmp_path: Path):
    with pytest.raises(NotFound, match="`A` has no version `1`"):
        open_file(written(tmp_path / "app.env", "A=x\n")).fetch("A", "1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secrets.yaml", "a: x\n"),
        ("secrets.yml", "a: x\n"),
        ("secrets", "a: x\n"),
        (".env.yaml", "a: x\n"),
        ("secrets.json", '{"a": "x"}'),
        (".env.json", '{"a": "x"}'),
        (".env", "a=x\n"),
        ("app.env", "a=x\n"),
        (".env.production", "a=x\n"),
        ("folder/a", "x"),
    ],
)
def test_the_format_is_told_by_the_path(tmp_path: Path, name: str, text: str):
    path = written(tmp_path / name, text)
    assert plain(open_file(tmp_path / "folder" if name == "folder/a" else path).fetch("a", None)) == b"x"


@pytest.mark.parametrize(
    ("form", "content", "cls", "what"),
    [
        ("folder", "file", Unavailable, "the folder cannot be opened"),
        ("yaml", "folder", Unavailable, "not a regular file"),
        ("dotenv", "folder", Unavailable, "not a regular file"),
        ("folder", "nothing", Unavailable, "the folder cannot be opened"),
    ],
)
def test_a_path_that_is_not_of_its_format(tmp_path: Path, form: str, content: str, cls: type[StoreError], what: str):
    path = tmp_path / "secrets"
    if content == "file":
        written(path, "x")
    elif content == "folder":
        path.mkdir(0o700)
    with pytest.raises(cls, match=what) as caught:
        open_file(path, format=form)
    assert caught.value.where.source == str(path)


class TestFolder(StoreContract):
    lacks = frozenset({"metadata", "typed fields", "versions"})

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            for path, value in secrets:
                if isinstance(value, Mapping):
                    if any("/" in name for name in value):
                        pytest.skip("a file's name has no slash")
                    for name, member in value.items():
                        written(tmp_path / path / name, member)
                else:
                    written(tmp_path / path, value)
            return open_file(tmp_path)

        return opened

    def test_no_value_shows_in_an_error(self, opened: Opened):
        """As in the contract, but for `db/password`, which is a secret of its own here."""
        store = opened([Secret("app-token", "hunter2"), Secret("db", {"password": "hunter2"})])
        with pytest.raises(NotFound) as caught:
            store.fetch("db/passwort", None)
        assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


def mounted(folder: Path, keys: Mapping[str, str | bytes], stamp: str = "..2026_01_31_12_00_00.1234567") -> Path:
    """A Secret as the kubelet mounts it: its atomic writer's folders, links and modes."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o1777)
    (folder / stamp).mkdir()
    for key, value in keys.items():
        written(folder / stamp / key, value, 0o644)
        for parent in [*(folder / stamp / key).parents][:-1]:
            if parent.is_relative_to(folder / stamp):
                parent.chmod(0o755)
        top = key.partition("/")[0]
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    (folder / "..data_tmp").symlink_to(stamp)
    (folder / "..data_tmp").rename(folder / "..data")
    return folder


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ("tls.key", b"-----BEGIN-----\n\n"),
        (".dockerconfigjson", b"{}"),
        ("keystore", BINARY),
        ("empty", b""),
        ("deep/down/it", b"is"),
        ("deep/down", {"it": "is"}),
    ],
)
def test_a_mounted_secret_is_read_without_a_warning(tmp_path: Path, ref: str, value: object):
    keys: dict[str, str | bytes] = {
        "tls.key": "-----BEGIN-----\n\n",
        ".dockerconfigjson": "{}",
        "keystore": BINARY,
        "empty": "",
        "deep/down/it": "is",
    }
    tmp_path.chmod(0o755)
    record = open_file(mounted(tmp_path / "secret", keys)).fetch(ref, None)
    assert (plain(record), record.version) == (value, "")


def test_mounted_secrets_in_one_folder_are_told_by_their_folders_names(tmp_path: Path):
    tmp_path.chmod(0o755)
    mounted(tmp_path / "db", {"user": "web", "keystore": b"\xff\x00"})
    mounted(tmp_path / "queue", {"token": "s"})
    store = open_file(tmp_path)
    assert plain(store.fetch("db", None)) == {"user": "web", "keystore": b"\xff\x00"}
    assert plain(store.fetch("queue/token", None)) == b"s"
    assert select.pick(store.fetch("db", None), "user", show_names=True) == SecretValue(b"web")
    with pytest.raises(NotFound, match="no field"):
        select.pick(store.fetch("db", None), "password", show_names=True)


def test_two_keys_of_a_mounted_secret_are_never_of_two_renewals(tmp_path: Path):
    folder = mounted(tmp_path / "secret", {"user": "old", "password": "old"})
    store = open_file(folder)
    assert plain(store.fetch("user", None)) == b"old"
    mounted(folder, {"user": "new", "password": "new"}, "..2026_01_31_13_00_00.7654321")
    assert plain(store.fetch("password", None)) == b"old"
    assert plain(open_file(folder).fetch("password", None)) == b"new"


def test_a_renewed_secret_whose_old_files_are_gone_is_no_missing_one(tmp_path: Path):
    folder = mounted(tmp_path / "secret", {"user": "old", "password": "old"})
    store = open_file(folder)
    store.fetch("user", None)
    mounted(folder, {"user": "new", "password": "new"}, "..2026_01_31_13_00_00.7654321")
    subprocess.run(["rm", "-r", folder / "..2026_01_31_12_00_00.1234567"], check=True)
    with pytest.raises(Unavailable, match="the folder was replaced while it was read"):
        store.fetch("password", None)


def test_a_folder_that_is_gone_is_no_missing_secret(tmp_path: Path):
    written(tmp_path / "secret" / "a", "x")
    store = open_file(tmp_path / "secret")
    subprocess.run(["rm", "-r", tmp_path / "secret"], check=True)
    with pytest.raises(Unavailable, match="the folder was replaced while it was read"):
        store.fetch("a", None)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../outside",
        "inside/../../outside",
        "inside/..",
        "./inside",
        "inside//a",
        "inside/",
        "..data/a",
        "..2026_01_31_12_00_00.1234567/a",
        "inside/a\0",
        "inside/\udcff",
    ],
)
def test_a_ref_cannot_leave_the_folder(tmp_path: Path, ref: str):
    written(tmp_path / "outside", "hunter2")
    written(tmp_path / "store" / "inside" / "a", "x")
    with pytest.raises(StoreError, match="the ref is not the path of a file") as caught:
        open_file(tmp_path / "store").fetch(ref, None)
    assert not isinstance(caught.value, NotFound), "a default would then stand for it"


@pytest.mark.parametrize(
    ("link", "target", "ref"),
    [
        ("store/a", "../outside", "a"),
        ("store/a", "{root}/outside", "a"),
        ("store/a", "../folder", "a/b"),
        ("store/a", "../folder", "a"),
        ("store/a", "..", "a/outside"),
        ("store/a", "../store2/b", "a"),
        ("store/..data", "../folder", "b"),
        ("store/a", ".", "a"),
        ("store/db/a", "../../outside", "db"),
    ],
)
def test_a_link_cannot_leave_the_folder(tmp_path: Path, link: str, target: str, ref: str):
    for name in ("outside", "folder/b", "store2/b", "store/db/c"):
        written(tmp_path / name, "hunter2")
    (tmp_path / link).symlink_to(target.format(root=tmp_path))
    with pytest.raises(Denied, match="a link leads out of the store's folder") as caught:
        open_file(tmp_path / "store").fetch(ref, None)
    assert "hunter2" not in repr(vars(caught.value))


def test_a_link_within_the_folder_is_followed(tmp_path: Path):
    written(tmp_path / "db" / "password", "x")
    (tmp_path / "shared").symlink_to("db")
    (tmp_path / "alias").symlink_to(tmp_path / "shared" / "password")
    store = open_file(tmp_path)
    assert plain(store.fetch("alias", None)) == b"x"
    assert plain(store.fetch("shared", None)) == {"password": "x"}


@pytest.mark.parametrize(
    ("make", "cls", "what"),
    [
        (lambda path: path.symlink_to("a"), StoreError, "the file cannot be read"),
        (os.mkfifo, StoreError, "neither a file nor a folder"),
        (lambda path: path.symlink_to("gone"), NotFound, "nothing is stored at `a`"),
    ],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], cls: type[StoreError], what: str):
    make(tmp_path / "a")
    with pytest.raises(StoreError, match=what) as caught:
        open_file(tmp_path).fetch("a", None)
    assert type(caught.value) is cls


def test_a_field_that_is_not_there_after_all_is_no_missing_secret(tmp_path: Path):
    written(tmp_path / "db" / "user", "x")
    (tmp_path / "db" / "password").symlink_to("gone")
    with pytest.raises(StoreError, match="a field is not there after all") as caught:
        open_file(tmp_path).fetch("db", None)
    assert not isinstance(caught.value, NotFound)


def test_folders_in_a_folder_are_no_fields(tmp_path: Path):
    written(tmp_path / "db" / "user", "x")
    written(tmp_path / "db" / "old" / "user", "y")
    assert plain(open_file(tmp_path).fetch("db", None)) == {"user": "x"}


@pytest.mark.parametrize(
    ("ref", "version", "show", "what", "fix"),
    [
        ("db/usr", None, True, "nothing is stored at `db/usr`", "write `db/user`, if that is meant"),
        ("db/usr", None, False, "nothing is stored at `db/usr`", "correct the reference, or add the secret"),
        ("dbs/user", None, True, "nothing is stored at `dbs/user`", "correct the reference, or add the secret"),
        ("db/user/name", None, True, "nothing is stored at `db/user/name`", "correct the reference"),
        ("x" * 300, None, True, "nothing is stored at `x", "correct the reference"),
        ("db/user", "2", True, "`db/user` has no version `2`", "remove the version"),
    ],
)
def test_not_found_in_a_folder(tmp_path: Path, ref: str, version: str | None, show: bool, what: str, fix: str):
    written(tmp_path / "db" / "user", "x")
    with pytest.raises(NotFound) as caught:
        open_file(tmp_path, show=show).fetch(ref, version)
    assert caught.value.what.startswith(what)
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(
    ("name", "mode", "what"),
    [
        (".", 0o777, "others than its owner may write the folder"),
        (".", 0o770, "others than its owner may write the folder"),
        ("db", 0o757, "others than its owner may write the folder"),
        ("db/user", 0o666, "others than its owner may write the file"),
        ("db/user", 0o660, "others than its owner may write the file"),
    ],
)
def test_what_others_may_write_in_a_folder_is_refused(tmp_path: Path, name: str, mode: int, what: str):
    written(tmp_path / "store" / "db" / "user", "x")
    (tmp_path / "store" / name).chmod(mode)
    with pytest.raises(Denied, match=what):
        open_file(tmp_path / "store").fetch("db/user", None)


@as_root
@pytest.mark.parametrize("planted", ["token", "..2026_01_31_12_00_00.1234567", "folder"])
def test_what_somebody_else_put_into_a_shared_folder_is_refused(tmp_path: Path, planted: str):
    store = mounted(tmp_path / "secret", {"user": "x"})
    written(store / "token", "x", 0o644)
    written(store / "folder" / "token", "x", 0o644)
    os.chown(store / planted, 12345, 12345)
    ref = {"token": "token", "folder": "folder/token"}.get(planted, "user")
    # Beside the kubelet's folder: what lies in it is only found where there is no `..data`.
    if planted != "..2026_01_31_12_00_00.1234567":
        (store / "..data").unlink()
    with pytest.raises(Denied, match="it lies in a folder that others may write, and belongs to another user"):
        open_file(store).fetch(ref, None)


@as_root
def test_a_folder_and_its_files_may_belong_to_anybody_if_nobody_else_may_write_there(tmp_path: Path):
    written(tmp_path / "store" / "token", "x")
    for path in (tmp_path / "store", tmp_path / "store" / "token"):
        os.chown(path, 12345, 12345)
    assert plain(open_file(tmp_path / "store").fetch("token", None)) == b"x"


@not_as_root
def test_a_file_in_a_folder_that_may_not_be_read(tmp_path: Path):
    written(tmp_path / "token", "x", 0)
    with pytest.raises(Denied, match="the file cannot be opened"):
        open_file(tmp_path).fetch("token", None)


@pytest.mark.parametrize(("folder", "mode", "warned"), [(0o755, 0o644, 1), (0o700, 0o644, 0), (0o755, 0o640, 0)])
def test_a_folder_that_everyone_may_read_warns_once(tmp_path: Path, folder: int, mode: int, warned: int):
    for name in ("a", "b"):
        written(tmp_path / name, "x", mode)
    tmp_path.chmod(folder)
    warnings: list[str] = []
    store = open_file(tmp_path, warn=warnings.append)
    assert [plain(store.fetch(name, None)) for name in ("a", "b")] == [b"x", b"x"]
    assert len(warnings) == warned


def test_a_file_in_a_mounted_secret_does_not_warn(tmp_path: Path):
    folder = mounted(tmp_path / "secret", {"secrets.yaml": "a: x\n"})
    assert stat.S_IMODE((folder / "secrets.yaml").stat().st_mode) == 0o644
    assert plain(open_file(folder / "secrets.yaml").fetch("a", None)) == b"x"


def test_a_secret_beyond_the_limit_is_refused_in_a_folder(tmp_path: Path):
    written(tmp_path / "db" / "a", "xxxx")
    written(tmp_path / "db" / "b", "xxxx")
    for limit, ref in ((3, "db/a"), (7, "db")):
        with pytest.raises(StoreError, match=f"the secret is larger than {limit} bytes"):
            open_file(tmp_path, size_limit=limit).fetch(ref, None)
    assert plain(open_file(tmp_path, size_limit=8).fetch("db", None)) == {"a": "xxxx", "b": "xxxx"}


def test_no_file_stays_open(tmp_path: Path):
    written(tmp_path / "db" / "a", "x")
    before = len(os.listdir("/proc/self/fd"))
    store = open_file(tmp_path)
    for ref in ("db", "db/a", "gone", "db/gone/a"):
        try:
            store.fetch(ref, None)
        except NotFound:
            continue
    store.close()
    tmp_path.chmod(0o777)
    with pytest.raises(Denied):
        open_file(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


# A value and metadata as SOPS writes them; no key opens them.
IV = "u5kLQRWrzbjhjhFkHPu0fnsVn9KXcFIuCTnNXqDDwh0="
SEALED = f"ENC[AES256_GCM,data:VTE/aQ==,iv:{IV},tag:9f1/qzOrvPHDkT7BbL3hMw==,type:str]"
METADATA = {"mac": SEALED, "lastmodified": "2026-01-31T12:00:00Z", "version": "3.13.3", "age": []}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.yaml", f"app/token: {SEALED}\n"),
        ("s.yaml", f"app: {{deep: [a, {{b: '{SEALED}'}}]}}\nsops: {{lastmodified: never}}\n"),
        ("s.yaml", f"app: |\n  token: {SEALED}\n"),
        ("s.json", json.dumps({"app": {"token": SEALED}})),
        (".env", f"TOKEN={SEALED}\n"),
    ],
)
def test_a_value_that_is_still_encrypted_is_never_used(tmp_path: Path, name: str, text: str):
    with pytest.raises(StoreError, match="a value is encrypted by SOPS") as caught:
        open_file(written(tmp_path / name, text))
    assert caught.value.where.source == str(tmp_path / name)
    assert not isinstance(caught.value, NotFound)


def test_a_file_of_a_folder_that_is_encrypted_is_never_used(tmp_path: Path):
    written(tmp_path / "token", SEALED)
    written(tmp_path / "whole", json.dumps({"token": SEALED, "sops": METADATA}))
    written(tmp_path / "binary", b"\xff" + SEALED.encode())
    for ref in ("token", "whole", "binary"):
        with pytest.raises(StoreError, match="a value is encrypted by SOPS"):
            open_file(tmp_path).fetch(ref, None)


def test_what_only_looks_encrypted_does_not_matter(tmp_path: Path):
    text = f"# old: {SEALED}\na: so does ENC[AES256_GCM, begin\nsops: {{version: 1}}\n"
    store = open_file(written(tmp_path / "s.yaml", text))
    assert plain(store.fetch("a", None)) == b"so does ENC[AES256_GCM, begin"
    assert plain(store.fetch("sops", None)) == {"version": 1}


def sealed_file(folder: Path, name: str = "s.yaml") -> Path:
    text = json.dumps({"token": SEALED, "sops": METADATA})
    if name.endswith(".env"):
        text = f"TOKEN={SEALED}\nsops_version=3.13.3\nsops_mac={SEALED}\nsops_age__list_0__map_enc=a\\nb\\n\n"
    return written(folder / name, text)


def program(folder: Path, script: str, name: str = "sops") -> Path:
    """A program in SOPS' place that has one of the faults a program can have."""
    return written(folder / name, f"#!/bin/sh\n{script}\n", 0o755)


def test_a_machine_without_sops_is_told_what_to_install(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "sops").mkdir()
    for environ in ({}, {"PATH": f"{tmp_path / 'empty'}:{tmp_path}"}):
        with pytest.raises(StoreError, match="the program sops is not installed") as caught:
            open_file(sealed_file(tmp_path), environ)
        assert "install sops 3.9 or newer (https://github.com/getsops/sops/releases)" in caught.value.fix


def test_a_relative_folder_of_the_path_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path, "echo token: planted")
    monkeypatch.chdir(tmp_path)
    for path in (".", "", f":{tmp_path / 'gone'}:"):
        with pytest.raises(StoreError, match="the program sops is not installed"):
            open_file(sealed_file(tmp_path), {"PATH": path})


@pytest.mark.parametrize(("mode", "text"), [(0o755, b"no program"), (0o644, b"#!/bin/sh\n"), (None, b"")])
def test_a_program_that_cannot_be_started(tmp_path: Path, mode: int | None, text: bytes):
    if mode is not None:
        written(tmp_path / "sops", text, mode)
    with pytest.raises(StoreError, match="the program sops cannot be started"):
        open_file(sealed_file(tmp_path), sops=file.Sops(program=str(tmp_path / "sops")))


def test_a_program_that_hangs_is_stopped_at_the_deadline_with_all_that_it_started(tmp_path: Path):
    program(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/child; echo token: half; sleep 1000")
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="sops had not ended when the run's deadline was over"):
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"}, seconds=0.5)
    assert time.monotonic() - begin < 5
    assert_ends(int((tmp_path / "child").read_text()))


def test_no_program_is_started_after_the_deadline(tmp_path: Path):
    program(tmp_path, f"touch {tmp_path}/started; echo token: x")
    with pytest.raises(Unavailable, match="sops had not ended when the run's deadline was over"):
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"}, seconds=0)
    assert not (tmp_path / "started").exists()


def test_a_program_that_closes_its_output_and_hangs_is_stopped(tmp_path: Path):
    program(tmp_path, f"echo $$ >{tmp_path}/child; echo token: x; exec >&- 2>&-; sleep 1000")
    with pytest.raises(Unavailable, match="sops had not ended"):
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"}, seconds=0.5)
    assert_ends(int((tmp_path / "child").read_text()))


def test_what_a_program_left_behind_does_not_keep_its_output_open_for_ever(tmp_path: Path):
    program(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/child; echo token: x; exit 0")
    with pytest.raises(Unavailable, match="sops had not ended"):
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"}, seconds=0.5)
    assert_ends(int((tmp_path / "child").read_text()))


def assert_ends(number: int) -> None:
    """The process is gone, or dead and only not yet waited for."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state in "ZX":
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_a_program_that_writes_without_end_is_stopped(tmp_path: Path):
    program(tmp_path, "yes token")
    with pytest.raises(StoreError, match="the decrypted file is larger than 100000 bytes"):
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"}, size_limit=100_000)


def test_a_program_that_complains_without_end_does_not_stop_the_run(tmp_path: Path):
    program(tmp_path, "head -c 3000000 /dev/zero >&2; echo token: x")
    store = open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert plain(store.fetch("token", None)) == b"x"


@pytest.mark.parametrize(
    ("script", "cls", "what", "why"),
    [
        (":", StoreError, "sops gave nothing", "the program is not SOPS"),
        ("echo token: hunter2; exit 1", StoreError, "sops ended with the exit code 1", "older than 3.9"),
        ("echo hunter2 >&2; exit 100", StoreError, "sops ended with the exit code 100", "older than 3.9"),
        ("echo hunter2 >&2; exit 5", StoreError, "sops ended with the exit code 5", ""),
        ("kill -9 $$", StoreError, f"sops was ended by signal {signal.SIGKILL}", "another program or the kernel"),
        ("echo hunter2 >&2; exit 51", StoreError, "the file's MAC does not match", "changed by other means"),
        ("echo hunter2 >&2; exit 52", StoreError, "the file's MAC does not match", "changed by other means"),
        ("echo hunter2 >&2; exit 25", StoreError, "a value of the file cannot be decrypted", "moved, renamed"),
        ("echo hunter2 >&2; exit 128", Denied, "the file's data key cannot be had", "none of the keys"),
        ("echo '- hunter2'", StoreError, "not a mapping of paths to secrets", ""),
        ("echo 'a: 1'; echo 'a: hunter2'", StoreError, "a mapping has the same key twice", ""),
        (f"echo 'token: {SEALED}'", StoreError, "a value is encrypted by SOPS", "metadata"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, script: str, cls: type[StoreError], what: str, why: str):
    program(tmp_path, script)
    path = sealed_file(tmp_path)
    with pytest.raises(StoreError, match=re.escape(what)) as caught:
        open_file(path, {"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert type(caught.value) is cls
    assert why in caught.value.why
    assert caught.value.fix
    assert (caught.value.where.source, caught.value.where.line) == (str(path), 0)
    assert "hunter2" not in repr(vars(caught.value))


# What sops 3.13.3 says of a key that it cannot use, line breaks and all.
NO_CREDENTIALS = """\
    - | failed to decrypt sops data key with AWS KMS: operation
      | error KMS: Decrypt, get identity: get credentials: failed to
      | refresh cached credentials, no EC2 IMDS role found,
      | operation error ec2imds: GetMetadata, http response error
      | StatusCode: 403, request to EC2 IMDS failed
"""
NO_CREDENTIALS_GCP = """\
    - | cannot create GCP KMS service: credentials: could not find
      | default credentials. See
      | https://cloud.google.com/docs/authentication/external/set-up-adc
      | for more information
"""
REFUSED = """\
    - | failed to decrypt sops data key from Vault transit backend
      | 'transit/decrypt/k': Error making API request.
      | URL: PUT https://vault.example.com/v1/transit/decrypt/k
      | Code: 403. Errors:
      | * permission denied
"""
DOWN = """\
    - | failed to decrypt sops data key with Azure Key Vault key
      | 'https://127.0.0.1:1/keys/k/1': Post
      | "https://127.0.0.1:1/keys/k/1/decrypt?api-version=2025-07-01":
      | dial tcp 127.0.0.1:1: connect: connection
      | refused
"""
STRANGER = """\
    - | failed to create reader for decrypting sops data key with
      | age: identity did not match any of the recipients: incorrect
      | identity for recipient block. Errors while loading age
      | identities: $HOME is not defined.
"""
NO_IDENTITY = """\
    - | failed to load age identities. Errors while loading age
      | identities: failed to open SOPS_AGE_KEY_FILE file: open
      | /root/keys.txt: permission denied
"""
NO_PGP = """\
    - | could not decrypt data key with PGP key:
      | github.com/ProtonMail/go-crypto/openpgp error: could not
      | load secring: open /gnupg/pubring.gpg: no such file or
      | directory; GnuPG binary error: failed to decrypt sops data
      | key with pgp: gpg: decryption failed: No secret key
"""


@pytest.mark.parametrize(
    ("keys", "cls", "why"),
    [
        ([NO_CREDENTIALS], Denied, "there are no credentials for a key service that the file names"),
        ([NO_CREDENTIALS_GCP], Denied, "there are no credentials for a key service that the file names"),
        ([REFUSED], Denied, "a key service refuses the identity"),
        ([DOWN], Unavailable, "a key service that the file names does not answer"),
        ([STRANGER], Denied, "none of the age identities at hand is one that the file was encrypted for"),
        ([NO_IDENTITY], Denied, "there is no age identity, or it cannot be read"),
        ([NO_PGP], Denied, "the PGP key is not at hand or needs a passphrase, or gpg is not installed"),
        (
            [STRANGER, DOWN, STRANGER],
            Unavailable,
            (
                "a key service that the file names does not answer; "
                "none of the age identities at hand is one that the file was encrypted for"
            ),
        ),
        ([], Denied, "none of the keys that the file names could be used"),
    ],
)
def test_why_no_key_of_a_file_could_be_used(tmp_path: Path, keys: list[str], cls: type[StoreError], why: str):
    message = "Failed to get the data key required to decrypt the SOPS file.\n\nGroup 0: FAILED\n"
    message += "\n".join(f"  the key's name: FAILED\n{key}" for key in keys)
    written(tmp_path / "message", message)
    program(tmp_path, f"cat {tmp_path}/message >&2; exit 128")
    with pytest.raises(StoreError, match="the file's data key cannot be had") as caught:
        open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert (type(caught.value), caught.value.why) == (cls, why)
    assert caught.value.fix
    assert not [word for word in ("127.0.0.1", "example.com", "/root", "transit") if word in repr(vars(caught.value))]


def test_what_the_program_is_called_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The environment that is the platform's, of it what decryption needs; no terminal; the bytes that were judged."""
    monkeypatch.setenv("SOPS_AGE_KEY", "of another environment")
    monkeypatch.setenv("AWS_PROFILE", "of another environment")
    told = tmp_path / "told"
    steps = ("env", 'echo "PWD $(pwd) ARGS $*"', "cut -d ' ' -f 6 /proc/self/stat", "cat /dev/stdin")
    program(tmp_path, f"{{ {'; '.join(steps)}; }} >{told}; echo token: x")
    passed = {
        "SOPS_AGE_KEY": "AGE-1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
        "AZURE_CLIENT_ID": "a",
        "GOOGLE_APPLICATION_CREDENTIALS": "/g",
        "VAULT_TOKEN": "v",
        "HOME": "/home/argocd",
        "GNUPGHOME": "/gnupg",
        "XDG_CONFIG_HOME": "/config",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "no_proxy": "*",
        "SSL_CERT_FILE": "/ca.crt",
    }
    kept = {
        "ARGOCD_ENV_SOPS_AGE_KEY": "planted",
        "ARGOCD_ENV_AWS_PROFILE": "planted",
        "PARAM_X": "planted",
        "LD_PRELOAD": "/planted.so",
        "APP_SECRET": "planted",
        "SECRETWEAVE_CREDENTIAL_A_B": "planted",
    }
    store = open_file(sealed_file(tmp_path), {"PATH": f"{tmp_path}:.::/bin:/usr/bin", **passed, **kept})
    assert plain(store.fetch("token", None)) == b"x"
    text = told.read_text()
    environ = dict(line.split("=", 1) for line in text[: text.index("PWD /")].splitlines())
    for shells in ("PWD", "OLDPWD", "SHLVL", "_"):
        environ.pop(shells, None)
    assert environ == {"PATH": f"{tmp_path}:/bin:/usr/bin", **passed}
    assert "PWD / ARGS decrypt --input-type yaml --output-type yaml /dev/stdin\n" in text
    assert int(text.split("/dev/stdin\n", 1)[1].split("\n", 1)[0]) != os.getsid(0)
    assert text.endswith(json.dumps({"token": SEALED, "sops": METADATA}))


@pytest.mark.parametrize(("name", "form"), [("s.yaml", "yaml"), ("s.json", "json"), (".env", "dotenv")])
def test_a_file_is_decrypted_in_its_own_format(tmp_path: Path, name: str, form: str):
    program(tmp_path, 'case "$*" in *dotenv*) echo "token=$5";; *) echo "{\\"token\\": \\"$5\\"}";; esac')
    store = open_file(sealed_file(tmp_path, name), {"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert plain(store.fetch("token", None)) == form.encode()


def test_a_file_that_is_not_encrypted_needs_no_sops(tmp_path: Path):
    store = open_file(written(tmp_path / "s.yaml", "sops: {mac: aa}\nother: x\n"), sops=file.Sops(program="/gone"))
    assert plain(store.fetch("sops", None)) == {"mac": "aa"}
