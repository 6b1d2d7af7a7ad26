"""`file`: secrets from a local file, plain or encrypted by SOPS, or from a folder of files: the embedded store.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: local}
    spec:
      file:
        path: secrets.yaml      # or a folder; relative to the configuration file
        format: yaml            # or json, dotenv, folder; by default as the path ends
        sizeLimit: 16MiB
        sops:                   # only for an encrypted file, and there too only where the defaults do not fit
          program: /usr/local/bin/sops
          ageKeySecretRef: {name: sops-age, key: age.agekey}

**yaml, json.** One mapping from a secret's path to its value, or to the values of its fields:

    app/token: s3cr3t           # one value
    app/tls.key: !!binary AAEC  # bytes
    app/db:                     # fields
      user: web
      port: 5432                # keeps its type
    app/key@1: first            # the same path in two versions
    app/key@2: second

`ref` is the path, `#KEY` a field. A version is written behind the path, not as a member of the value: so every word
stays free for a field, and JSON and YAML spell it alike. Without a version a reference means the entry without `@`;
where there is none, the highest of its versions that are whole numbers. A path that itself holds `@` is found as it is
written.

**dotenv.** Lines of `NAME=value`; `ref` is the name, the value is text. There are no fields and no versions. Programs
differ in how they read quotes, comments and `${...}` there: what two of them read differently is refused, with the
line, and secretweave.stores._dotenv says what is left.

**folder.** Each file below it is a secret: a mounted Secret, a Secrets Store CSI volume, or a folder of those.

    secrets/tls.key             ref `tls.key`: the file, byte for byte; a line break at its end belongs to it
    secrets/db/password         ref `db/password`; or ref `db` with `#password`: the files of a folder are its fields

There are no versions. secretweave.stores._folder says which links and modes are accepted.

**SOPS.** A YAML, JSON or dotenv file that SOPS encrypted (https://getsops.io/docs/) is recognized by its metadata and
decrypted by the program `sops` 3.9 or newer: with age, PGP, AWS KMS, GCP KMS, Azure Key Vault, Huawei Cloud KMS and
Vault's transit engine, by the credentials in the environment as secretweave.sdk.sops lists it. The plaintext comes
through a pipe and is nowhere on a disk; a file whose MAC does not match is refused; a value that is still encrypted is
never given out. SOPS' binary and INI files are not supported. What SOPS reads as a number it stores as one: `pin: 0755`
without quotes has become 493 when it was encrypted. The least permission needed is that to decrypt with the file's key
(kms:Decrypt, cloudkms.cryptoKeyVersions.useToDecrypt, keys/decrypt, update on transit/decrypt/KEY). The file names its
key services, and thereby where the credentials are shown (SOPS_HC_VAULT_ALLOWLIST limits Vault's): it has to be the
platform's, as its mode says.

A file is read once, when the store is opened; a folder's file when it is asked for. Who else can write one decides what
reaches the cluster, so one that its group or others may write is refused; one that others may read is used with a
warning, except where it is encrypted, or in a mounted Secret (it holds `..data`), whose mode 0644 is Kubernetes'
default and whose readers are those of the Pod.
"""

import os
import re
import stat
from typing import Any, Literal, NamedTuple, NoReturn

from secretweave.errors import Denied, InputError, NotFound, StoreError, Unavailable, Where
from secretweave.forms import FilePath, Size
from secretweave.model import Record, SecretFields, SecretValue
from secretweave.settings import nearest
from secretweave.stores.base import Context, SecretKeyRef, Store

LOCAL = True


class Sops(NamedTuple):
    """How a file that SOPS encrypted is decrypted."""

    program: FilePath | None = None
    """The `sops` program. Left out: the first one on the PATH."""
    age_key_file: FilePath | None = None
    """A file of age identities. Left out: where sops itself looks, such as SOPS_AGE_KEY_FILE."""
    age_key_secret_ref: SecretKeyRef | None = None
    """A credential Secret whose value is the age identities."""


class Settings(NamedTuple):
    path: FilePath
    """The file or folder; a relative path is relative to the folder of the configuration file."""
    format: Literal["yaml", "json", "dotenv", "folder"] | None = None
    """By default `folder` for a folder, `json` for a path that ends in `.json`, `dotenv` for one that ends in `.env` or
    whose name begins with `.env.`, else `yaml`."""
    size_limit: Size = 16 << 20
    """A larger file is refused, encrypted or decrypted; in a folder, a larger secret, its fields together."""
    sops: Sops = Sops()


SEALED = b"ENC[AES256_GCM,"
"""How every value begins that SOPS encrypted, the MAC of its metadata included."""
HINTS = 20
"""How many missing refs get the nearest one that is there: each is looked for among all."""


def connect(settings: Settings, context: Context) -> Store:
    """Reads the file. Raises StoreError: not there, no file of secrets, too open, too large, or not to be decrypted."""
    form = settings.format or _format(settings.path)
    if form == "folder":
        from secretweave.stores import _folder

        return _folder.FolderStore(settings.path, settings.size_limit, context)
    data, is_open = _read(settings)
    sealed = False
    try:
        sealed = SEALED in data and _is_sealed(data, form)
        if sealed:
            data = _decrypted(data, form, settings, context)
        entries = _parsed(data, form, by_sops=sealed)
    except InputError as error:
        # A line of what was decrypted is none of the file.
        where = Where(settings.path, line=0 if sealed else error.where.line)
        raise StoreError(error.what, where=where, why=error.why, fix=error.fix) from None
    if is_open and not sealed:
        context.warn(f"{settings.path}: every user of this machine may read this file of secrets; chmod o-r")
    if SEALED in data:
        from secretweave.sdk import sops

        sops.refuse_sealed(entries, Where(settings.path))
    return FileStore(entries, show_names=context.show_key_names)


def _format(path: str) -> str:
    if os.path.isdir(path):
        return "folder"
    name = os.path.basename(path)
    if name.endswith(".json"):
        return "json"
    is_dotenv = name.endswith(".env") or (name.startswith(".env.") and not name.endswith((".yaml", ".yml")))
    return "dotenv" if is_dotenv else "yaml"


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
        return Record(SecretFields(value) if isinstance(value, dict) else _blob(value), found)

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


def _read(settings: Settings) -> tuple[bytes, bool]:
    """The file's bytes, and whether everybody may read them. Raises StoreError."""
    try:
        # O_NONBLOCK: a pipe under this name must not hang the run before it is seen to be one.
        handle = os.open(settings.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        cls = Denied if isinstance(error, PermissionError) else Unavailable
        fix = "correct spec.file.path of the SecretStore, or the file's mode"
        raise cls("the file cannot be opened", where=Where(settings.path), why=error.strerror or "", fix=fix) from None
    where = Where(settings.path)
    try:
        # Before it becomes a file of Python's, which a folder cannot.
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable("not a regular file", where=where, fix="correct spec.file.path of the SecretStore")
        if status.st_mode & 0o022:
            raise Denied("others than its owner may write the file", where=where, fix="chmod go-w the file")
        mounted = os.path.islink(os.path.join(os.path.dirname(settings.path), "..data"))
        with open(handle, "rb", closefd=False) as file:
            data = file.read(settings.size_limit + 1)
    finally:
        os.close(handle)
    if len(data) > settings.size_limit:
        raise Unavailable(
            f"the file is larger than {settings.size_limit} bytes", where=where, fix="raise spec.file.sizeLimit"
        )
    return data, bool(status.st_mode & 0o004) and not mounted


def _is_sealed(data: bytes, form: str) -> bool:
    """Does it have SOPS' metadata? Raises InputError."""
    if form == "dotenv":
        return re.search(rb"^sops_mac=", data, re.MULTILINE) is not None
    metadata = _parsed(data, form).get("sops")
    return isinstance(metadata, dict) and "mac" in metadata


def _decrypted(data: bytes, form: str, settings: Settings, context: Context) -> bytes:
    from secretweave.sdk import sops

    ours = {}
    if settings.sops.age_key_file is not None:
        ours["SOPS_AGE_KEY_FILE"] = settings.sops.age_key_file
    if settings.sops.age_key_secret_ref is not None:
        ours["SOPS_AGE_KEY"] = context.credential(settings.sops.age_key_secret_ref)
    call = sops.Call(settings.sops.program, context.environ, ours, context.limits.deadline, settings.size_limit)
    try:
        return sops.decrypt(data, form, call)
    except StoreError as error:
        raise error.at(Where(settings.path)) from None


def _parsed(data: bytes, form: str, *, by_sops: bool = False) -> dict[str, Any]:
    """The entries of a file. Raises InputError."""
    if form == "dotenv":
        from secretweave.stores import _dotenv

        return _dotenv.parse(data, by_sops=by_sops)
    return _json(data) if form == "json" else _yaml(data)


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
