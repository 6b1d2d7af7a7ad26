"""A folder of files as a store: a mounted Secret, a Secrets Store CSI volume, or a folder of those.

A file's path below the folder is the ref; that of a folder gives its files as fields. Names that begin with `..` are
the kubelet's own and no secrets; other hidden names are, such as `.dockerconfigjson`.

**Links.** The kubelet keeps the files in a folder `..2026_01_31_...`, to which `..data` points; each key is a link into
`..data`, and a renewed Secret is a new folder and a new `..data`
(https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go). So links are followed, within
the folder alone; the final path is then opened step by step without any link, so that nothing can be swapped in
between. To what `..data` points is found once: two keys of one Secret are never of two renewals.

**Modes.** A mounted Secret is a tmpfs of mode 1777, in which everything belongs to root: others may add to it, but
replace nothing, because of the sticky bit. So a folder that others may write is accepted with the sticky bit alone, and
in it counts only what belongs to root, to the folder's owner or to this process: whatever else somebody has put there
is refused. A file that others may write is refused everywhere. That all may read a file is told once, unless nobody
else can pass through the folder, or it lies in a mounted Secret: its mode 0644 is Kubernetes' default, and its readers
are those of the Pod.
"""

import errno
import os
import stat
from typing import NoReturn

from secretweave.errors import Denied, NotFound, StoreError, Unavailable, Where
from secretweave.model import Record, SecretFields, SecretValue
from secretweave.sdk import sops
from secretweave.settings import nearest
from secretweave.stores.base import Context

WRITABLE = 0o022
STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: a pipe must not hang the run before it is seen to be one."""
HINTS = 20
"""How many missing refs get the nearest one that is there."""
NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class FolderStore:
    concurrency = 1

    def __init__(self, path: str, size_limit: int, context: Context) -> None:
        """Raises StoreError: not there, no folder, or too open."""
        self._where = Where(path)
        self._size_limit = size_limit
        self._context = context
        self._warned = False
        self._hints = HINTS
        self._pinned: dict[str, str] = {}
        """A folder with `..data` -> where that pointed when it was first asked for."""
        try:
            self._root = os.path.realpath(path, strict=True)
            self._handle = os.open(self._root, STEP)
        except OSError as error:
            cls = Denied if isinstance(error, PermissionError) else Unavailable
            fix = "correct spec.file.path of the SecretStore, or the folder's mode"
            raise cls("the folder cannot be opened", where=self._where, why=error.strerror or "", fix=fix) from None
        status = os.fstat(self._handle)
        self._owners = {0, os.geteuid(), status.st_uid}
        self._passable = bool(status.st_mode & 0o001)
        """May others pass through it to what lies below?"""
        try:
            self._judge(status, shared=False)
        except StoreError:
            self.close()
            raise

    def fetch(self, ref: str, version: str | None) -> Record:
        if self._handle < 0:
            raise StoreError("the store is closed", fix="report it: this is a defect")
        parts = ref.split("/")
        if any(part in {"", "."} or part.startswith("..") or not _is_name(part) for part in parts):
            raise StoreError(
                "the ref is not the path of a file below the store's folder",
                fix="write it without a leading or doubled `/`, `.` and `..`",
            )
        try:
            record = self._record(parts)
        except FileNotFoundError:
            self._missing(ref, parts)
        if version:
            raise NotFound(
                f"`{ref}` has no version `{version}`",
                why="a folder keeps none",
                fix="remove the version from the reference",
            )
        return record

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _record(self, parts: list[str]) -> Record:
        path = self._path(parts)
        value = self._content(path, self._size_limit)
        if isinstance(value, bytes):
            return Record(SecretValue(value), "")
        fields: dict[str, str | bytes] = {}
        left = self._size_limit
        for name in value:
            try:
                content = self._content(self._path([*parts, name]), left)
            except FileNotFoundError:
                raise StoreError(
                    "a field is not there after all",
                    where=self._where,
                    why="the folder was changed while it was read, or a link in it leads nowhere",
                    fix="run again, or remove the link",
                ) from None
            if isinstance(content, bytes):
                fields[name] = _text(content)
                left -= len(content)
        return Record(SecretFields(fields), "")

    def _path(self, parts: list[str]) -> str:
        """Where a ref leads, all links followed."""
        path = self._inside(self._root)
        for part in parts:
            path = self._inside(self._resolved(os.path.join(path, part)))
        return path

    def _inside(self, folder: str) -> str:
        """Where the files of a folder are: there, or where its `..data` points."""
        data = os.path.join(folder, "..data")
        if folder not in self._pinned and os.path.islink(data):
            self._pinned[folder] = self._resolved(data)
        return self._pinned.get(folder, folder)

    def _resolved(self, path: str) -> str:
        real = os.path.realpath(path)
        if not real.startswith(os.path.join(self._root, "")):
            raise Denied(
                "a link leads out of the store's folder",
                where=self._where,
                fix="put the file itself there, or name its own folder in spec.file.path",
            )
        return real

    def _content(self, path: str, limit: int) -> bytes | list[str]:
        """What a file holds, or the names that a folder holds; *path* has no link in it. Raises FileNotFoundError."""
        handle = os.dup(self._handle)
        try:
            steps = path.removeprefix(os.path.join(self._root, "")).split("/")
            shared = bool(os.fstat(handle).st_mode & WRITABLE)
            for number, name in enumerate(steps, 1):
                fresh = os.open(name, STEP if number < len(steps) else READ, dir_fd=handle)
                os.close(handle)
                handle = fresh
                status = os.fstat(handle)
                self._judge(status, shared=shared)
                shared = bool(status.st_mode & WRITABLE)
            if stat.S_ISDIR(status.st_mode):
                return sorted(name for name in os.listdir(handle) if not name.startswith(".."))
            if status.st_mode & 0o004 and not any(name.startswith("..") for name in steps):
                self._warn()
            return self._read(handle, limit)
        except OSError as error:
            raise self._fault(error) from None
        finally:
            os.close(handle)

    def _read(self, handle: int, limit: int) -> bytes:
        with open(handle, "rb", closefd=False) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise StoreError(
                f"the secret is larger than {self._size_limit} bytes",
                where=self._where,
                fix="raise spec.file.sizeLimit",
            )
        sops.refuse_sealed(data, self._where)
        return data

    def _judge(self, status: os.stat_result, *, shared: bool) -> None:
        """Raises StoreError where others could have put it there. *shared*: they may write the folder that holds it."""
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            raise StoreError("neither a file nor a folder", where=self._where, fix="correct the reference")
        if shared and status.st_uid not in self._owners:
            raise Denied(
                "it lies in a folder that others may write, and belongs to another user",
                where=self._where,
                fix="let root, the owner of the store's folder or the user of this program own it",
            )
        if stat.S_ISDIR(status.st_mode):
            if status.st_mode & WRITABLE and not status.st_mode & stat.S_ISVTX:
                raise Denied(
                    "others than its owner may write the folder",
                    where=self._where,
                    fix="chmod go-w the folder; a shared one needs the sticky bit",
                )
        elif status.st_mode & WRITABLE:
            raise Denied("others than its owner may write the file", where=self._where, fix="chmod go-w the file")

    def _warn(self) -> None:
        if self._passable and not self._warned:
            self._warned = True
            self._context.warn(
                f"{self._where.source}: every user of this machine may read secrets in this folder; chmod o-rx it"
            )

    def _fault(self, error: OSError) -> OSError | StoreError:
        if error.errno in NOWHERE:
            return FileNotFoundError()
        if isinstance(error, PermissionError):
            return Denied(
                "the file cannot be opened", where=self._where, why="Permission denied", fix="correct its mode"
            )
        why = "a link leads in circles, or was changed meanwhile" if error.errno == errno.ELOOP else error.strerror
        return StoreError("the file cannot be read", where=self._where, why=why or "", fix="look after the folder")

    def _missing(self, ref: str, parts: list[str]) -> NoReturn:
        if not all(map(os.path.isdir, (self._root, *self._pinned.values()))):
            raise Unavailable(
                "the folder was replaced while it was read",
                where=self._where,
                why="a mounted Secret was renewed",
                fix="run again",
            )
        fix = ""
        if self._context.show_key_names and self._hints:
            self._hints -= 1
            try:
                names = [name for name in os.listdir(self._path(parts[:-1])) if not name.startswith("..")]
            except (OSError, StoreError):
                names = []
            near = nearest(parts[-1], names)
            fix = f"write `{'/'.join([*parts[:-1], near])}`, if that is meant" if near else ""
        raise NotFound(
            f"nothing is stored at `{ref}`", fix=fix or "correct the reference, or add the secret to the store's folder"
        )


def _is_name(part: str) -> bool:
    """Can a file be called so?"""
    try:
        return b"\0" not in part.encode()
    except UnicodeEncodeError:
        return False


def _text(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
