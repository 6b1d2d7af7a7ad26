"""`file`: secrets from one local file, the embedded store.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: local}
    spec:
      file:
        path: secrets.yaml      # relative to the configuration file
        format: yaml            # or json; by default as the path ends
        sizeLimit: 16MiB

The file is one mapping from a secret's path to its value, or to the values of its fields:

    app/token: s3cr3t           # one value
    app/tls.key: !!binary AAEC  # bytes
    app/db:                     # fields
      user: web
      port: 5432                # keeps its type
    app/key@1: first            # the same path in two versions
    app/key@2: second

A version is written behind the path, not as a member of the value: so every word stays free for a field, and JSON and
YAML spell it alike. Without a version a reference means the entry without `@`; where there is none, the highest of its
versions that are whole numbers. A path that itself holds `@` is found as it is written.

The file is read once. Who else can write it decides what reaches the cluster, so one that its group or others may write
is refused; one that others may read is used with a warning.
"""

import os
import re
import stat
from typing import Any, Literal, NamedTuple, NoReturn

from secretweave.errors import Denied, InputError, NotFound, StoreError, Unavailable, Where
from secretweave.model import Record, SecretValue
from secretweave.settings import FilePath, Size, nearest
from secretweave.stores.base import Context, Store


class Settings(NamedTuple):
    path: FilePath
    """The file; a relative path is relative to the folder of the configuration file."""
    format: Literal["yaml", "json"] | None = None
    """By default json for a path that ends in `.json`, else yaml."""
    size_limit: Size = 16 << 20
    """A larger file is refused."""


def connect(settings: Settings, context: Context) -> Store:
    """Reads the file. Raises StoreError: not there, not a file of secrets, too open or too large."""
    data = _read(settings, context)
    form = settings.format or ("json" if settings.path.endswith(".json") else "yaml")
    try:
        entries = _json(data) if form == "json" else _yaml(data)
    except InputError as error:
        where = Where(settings.path, line=error.where.line)
        raise StoreError(error.what, where=where, why=error.why, fix=error.fix) from None
    return FileStore(entries, show_names=context.show_key_names)


HINTS = 20
"""How many missing refs get the nearest one that is there: each is looked for among all."""


class FileStore:
    concurrency = 1

    def __init__(self, entries: dict[str, Any], *, show_names: bool) -> None:
        self._entries = entries
        self._closed = False
        self._show_names = show_names
        self._hints = HINTS
        self._versions: dict[str, list[str]] = {}
        for name in entries:
            for at in re.finditer("@", name):
                self._versions.setdefault(name[: at.start()], []).append(name[at.end() :])

    def fetch(self, ref: str, version: str | None) -> Record:
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")
        name, found = ref, version or ""
        if version:
            name = f"{ref}@{version}"
        elif ref not in self._entries:
            numbers = [
                int(number) for number in self._versions.get(ref, ()) if re.fullmatch(r"0|[1-9][0-9]{0,17}", number)
            ]
            if numbers:
                found = str(max(numbers))
                name = f"{ref}@{found}"
        if name not in self._entries:
            self._missing(ref, version)
        value = self._entries[name]
        if value is None:
            raise StoreError("the entry is null", fix="give it a value, or remove it")
        return Record(value if isinstance(value, dict) else _blob(value), found)

    def close(self) -> None:
        self._entries = {}
        self._versions = {}
        self._closed = True

    def _missing(self, ref: str, version: str | None) -> NoReturn:
        versions = self._versions.get(ref, ())
        there = version and (ref in self._entries or versions)
        why = fix = ""
        if there and self._show_names:
            why = "its versions are: " + ", ".join(sorted(versions)) if versions else "it has no versions"
        elif self._show_names and self._hints:
            self._hints -= 1
            near = nearest(ref, self._entries)
            fix = f"write `{near}`, if that is meant" if near else ""
        what = f"`{ref}` has no version `{version}`" if there else f"nothing is stored at `{ref}`"
        raise NotFound(what, why=why, fix=fix or "correct the reference, or add the secret to the store's file")


def _read(settings: Settings, context: Context) -> bytes:
    try:
        # O_NONBLOCK: a pipe under this name must not hang the run before it is seen to be one.
        handle = os.open(settings.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        cls = Denied if isinstance(error, PermissionError) else Unavailable
        fix = "correct spec.file.path of the SecretStore, or the file's mode"
        raise cls("the file cannot be opened", where=Where(settings.path), why=error.strerror or "", fix=fix) from None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        where = Where(settings.path)
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable("not a regular file", where=where, fix="correct spec.file.path of the SecretStore")
        if status.st_mode & 0o022:
            raise Denied("others than its owner may write the file", where=where, fix="chmod go-w the file")
        if status.st_mode & 0o004:
            context.warn(f"{settings.path}: every user of this machine may read this file of secrets; chmod o-r")
        data = file.read(settings.size_limit + 1)
    if len(data) > settings.size_limit:
        raise Unavailable(
            f"the file is larger than {settings.size_limit} bytes", where=where, fix="raise spec.file.sizeLimit"
        )
    return data


def _yaml(data: bytes) -> dict[str, Any]:
    from secretweave import yamltree

    roots = yamltree.load(data)
    if len(roots) > 1:
        raise InputError("the file holds several documents", fix="write one mapping")
    try:
        entries = yamltree.plain(roots[0]) if roots else {}
    except InputError as error:
        # Its place may name a key, and the names in this file are not for every eye.
        raise InputError(error.what, where=Where(line=error.where.line), why=error.why, fix=error.fix) from None
    return _entries({} if entries is None else entries)


def _json(data: bytes) -> dict[str, Any]:
    import json

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise InputError("a mapping has the same key twice", fix="keep one of them")
        return dict(pairs)

    def refuse(_word: str) -> NoReturn:
        raise ValueError

    try:
        return _entries(json.loads(data, object_pairs_hook=members, parse_constant=refuse))
    except (ValueError, RecursionError) as error:
        raise InputError("not JSON", where=Where(line=getattr(error, "lineno", 0)), fix="correct the file") from None


def _entries(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("not a mapping of paths to secrets", fix="write `path: value` or `path: {field: value}`")
    return value


def _blob(value: Any) -> SecretValue:
    from secretweave.select import text

    return SecretValue(text(value))
