import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import StoreConfig
from secretweave.stores import file, open_store
from secretweave.stores.base import Store
from tests.stores.contract import Opened, Secret, StoreContract, context, plain


class Warnings(list[str]):
    pass


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


def open_file(path: Path, warnings: Warnings, *, show: bool = True, **settings: Any) -> Store:
    config = StoreConfig("local", None, "file", file.Settings(str(path), **settings), default=False)
    return open_store(config, context(config, show=show, warn=warnings.append))


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def as_yaml(value: object) -> str:
    """A flow YAML spelling: JSON, but for bytes and for what YAML escapes otherwise."""
    if isinstance(value, bytes):
        return f'!!binary "{base64.b64encode(value).decode()}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(name)}: {as_yaml(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or value.isascii())


def entries(secrets: list[Secret]) -> dict[str, Any]:
    paths = [secret.path for secret in secrets]
    named: dict[str, Any] = {}
    for index, (path, value) in enumerate(secrets):
        number = paths[: index + 1].count(path)
        named[f"{path}@{number}" if paths.count(path) > 1 else path] = value
    return named


class TestYaml(StoreContract):
    lacks = frozenset({"metadata"})

    def versions(self, _store: Store, _path: str, /) -> list[str]:
        return ["1", "2"]

    @pytest.fixture
    def opened(self, tmp_path: Path, warnings: Warnings) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            lines = [f"{as_yaml(path)}: {as_yaml(value)}\n" for path, value in entries(secrets).items()]
            return open_file(written(tmp_path / "secrets.yaml", "".join(lines)), warnings)

        return opened


class TestJson(StoreContract):
    lacks = frozenset({"bytes", "metadata"})

    def versions(self, _store: Store, _path: str, /) -> list[str]:
        return ["1", "2"]

    @pytest.fixture
    def opened(self, tmp_path: Path, warnings: Warnings) -> Opened:
        return lambda secrets: open_file(written(tmp_path / "secrets.json", json.dumps(entries(secrets))), warnings)


@pytest.mark.parametrize(
    ("ref", "version", "value", "read"),
    [
        ("plain", None, b"as it is", ""),
        ("plain", "1", b"one", "1"),
        ("numbered", None, b"eleven", "11"),
        ("numbered", "9", b"nine", "9"),
        ("named", "blue", b"b", "blue"),
        ("user@example.com", None, b"mail", ""),
        ("flag", None, b"true", ""),
        ("port", None, b"5432", ""),
        ("pin", None, b"0755", ""),
        ("release", None, b"1.10", ""),
        ("hosts", None, b'["a","b"]', ""),
    ],
)
def test_versions_and_types(tmp_path: Path, warnings: Warnings, ref: str, version: str | None, value: bytes, read: str):
    text = """\
plain: as it is
plain@1: one
numbered@9: nine
numbered@11: eleven
named@blue: b
named@green: g
user@example.com: mail
flag: true
port: 5432
pin: 0755
release: 1.10
hosts: [a, b]
"""
    record = open_file(written(tmp_path / "s.yaml", text), warnings).fetch(ref, version)
    assert (plain(record), record.version) == (value, read)


@pytest.mark.parametrize(
    ("ref", "version", "show", "what", "why", "fix"),
    [
        ("app/d", None, True, "nothing is stored at `app/d`", "", "write `app/db`, if that is meant"),
        ("app/d", None, False, "nothing is stored at `app/d`", "", "correct the reference, or add the secret"),
        ("key", "3", True, "`key` has no version `3`", "its versions are: 1, 2", "correct the reference"),
        ("key", "3", False, "`key` has no version `3`", "", "correct the reference"),
        ("app/db", "3", True, "`app/db` has no version `3`", "it has no versions", "correct the reference"),
        ("named", None, True, "nothing is stored at `named`", "", "write `named@blue`, if that is meant"),
    ],
)
def test_not_found(
    tmp_path: Path,
    warnings: Warnings,
    ref: str,
    version: str | None,
    show: bool,
    what: str,
    why: str,
    fix: str,
):
    text = "app/db: x\nkey@1: a\nkey@2: b\nnamed@blue: c\n"
    with pytest.raises(NotFound) as caught:
        open_file(written(tmp_path / "s.yaml", text), warnings, show=show).fetch(ref, version)
    assert (caught.value.what, caught.value.why) == (what, why)
    assert caught.value.fix.startswith(fix)


def test_null_is_an_error_and_not_missing(tmp_path: Path, warnings: Warnings):
    with pytest.raises(StoreError, match="the entry is null") as caught:
        open_file(written(tmp_path / "s.yaml", "a:\nb: x\n"), warnings).fetch("a", None)
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize(
    ("name", "text", "what", "line"),
    [
        ("s.yaml", "- a\n- b\n", "not a mapping of paths to secrets", 0),
        ("s.yaml", "just text\n", "not a mapping of paths to secrets", 0),
        ("s.yaml", "a: 1\n---\nb: 2\n", "the file holds several documents", 0),
        ("s.yaml", "a: 1\nb: hunter2\na: 2\n", "a mapping has the same key twice", 3),
        ("s.yaml", "a: 1\nb: {c: hunter2, c: 4}\n", "a mapping has the same key twice", 2),
        ("s.yaml", "a: !!binary hunter2!\n", "a !!binary value is not base64", 1),
        ("s.yaml", b"a: \xff\n", "not UTF-8", 0),
        ("s.json", '{"a": "x",\n "b": hunter2}', "not JSON", 2),
        ("s.json", '{"a": "x", "a": "y"}', "a mapping has the same key twice", 0),
        ("s.json", '{"a": NaN}', "not JSON", 0),
        ("s.json", '["a"]', "not a mapping of paths to secrets", 0),
    ],
)
def test_a_file_that_is_no_file_of_secrets(
    tmp_path: Path, warnings: Warnings, name: str, text: str | bytes, what: str, line: int
):
    path = written(tmp_path / name, text)
    with pytest.raises(StoreError) as caught:
        open_file(path, warnings)
    assert (caught.value.what, caught.value.where.source, caught.value.where.line) == (what, str(path), line)
    assert "hunter2" not in repr(vars(caught.value))


def test_an_empty_file_holds_nothing(tmp_path: Path, warnings: Warnings):
    with pytest.raises(NotFound):
        open_file(written(tmp_path / "s.yaml", "# none yet\n"), warnings).fetch("a", None)


def test_the_format_can_be_named(tmp_path: Path, warnings: Warnings):
    path = written(tmp_path / "secrets", '{"a": "\\ud83d\\ude00"}')
    assert plain(open_file(path, warnings, format="json").fetch("a", None)) == b"\xf0\x9f\x98\x80"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, warnings: Warnings, mode: int):
    with pytest.raises(Denied, match="others than its owner may write the file"):
        open_file(written(tmp_path / "s.yaml", "a: x\n", mode), warnings)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o440, 0), (0o644, 1), (0o604, 1)])
def test_a_file_that_everyone_may_read_warns(tmp_path: Path, warnings: Warnings, mode: int, warned: int):
    open_file(written(tmp_path / "s.yaml", "a: x\n", mode), warnings)
    assert len(warnings) == warned


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path, warnings: Warnings):
    path = written(tmp_path / "s.yaml", "a: xxxxxxxx\n")
    open_file(path, warnings, size_limit=12)
    with pytest.raises(Unavailable, match="larger than 11 bytes"):
        open_file(path, warnings, size_limit=11)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path, warnings: Warnings):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unavailable, match="not a regular file"):
        open_file(tmp_path / "pipe", warnings)


def test_a_file_that_is_not_there(tmp_path: Path, warnings: Warnings):
    with pytest.raises(Unavailable, match="cannot be opened") as caught:
        open_file(tmp_path / "s.yaml", warnings)
    assert caught.value.why == "No such file or directory"
