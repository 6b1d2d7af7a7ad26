"""The archives that are published, on a volume, and who may fetch them.

    FOLDER/NAMESPACE/NAME/SHA256.tar.gz      what http://.../secretweave/NAMESPACE/NAME/SHA256.tar.gz gives

The volume is all the state there is: after a restart the same is served at once. An archive is whole on the volume
before anything points to it. One that is replaced stays for a while, for who has read of it and comes to fetch it: its
file has the time at which it was replaced.
"""

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from secretweave.errors import ConfigError, SecretweaveError
from secretweave.flux.controller.queue import Key
from secretweave.service.serving import Answer

KEPT_SECONDS = 60.0
"""How long an archive stays after another one took its place."""
KEPT_MOST = 10
"""However often it is replaced."""
PREFIX = "secretweave"
PATH = re.compile(rf"/{PREFIX}/([a-z0-9][-a-z0-9]{{0,62}})/([a-z0-9][-.a-z0-9]{{0,252}})/([0-9a-f]{{64}})\.tar\.gz")
FILE = re.compile(r"([0-9a-f]{64})\.tar\.gz")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UNFINISHED = ".unfinished-"
NOWHERE = Answer(404, b"nothing is here\n")


class Archive(NamedTuple):
    digest: str
    """`sha256:` and hex."""
    url: str
    path: str
    """The same, without the server."""
    size: int

    @property
    def revision(self) -> str:
        return f"latest@{self.digest}"


class Published:
    """Many threads may use it; for one object one at a time."""

    def __init__(self, folder: str, url: str) -> None:
        """*url*: of the server, as others reach it. Raises ConfigError: the folder cannot be written to."""
        import threading

        self._folder = folder
        self._url = url.rstrip("/")
        self._lock = threading.Lock()
        """Between who takes up an archive that is there and who removes what was replaced."""
        self._current: dict[Key, str] = {}
        """What of each object is published, as far as was told since the start."""
        self._taken: dict[Key, str] = {}
        """What was put since, and nothing points to yet."""
        try:
            os.makedirs(folder, exist_ok=True)
            probe = os.path.join(folder, f"{UNFINISHED}{os.getpid()}")
            with open(probe, "wb"):
                pass
            with suppress(FileNotFoundError):
                # Another replica's, which in its own Pod has the same number.
                os.unlink(probe)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                # What is there is served, and swept.
                return
            raise ConfigError(
                "the folder of flux.artifacts.folder cannot be written to",
                why=error.strerror or "",
                fix="mount a volume there that this user may write to",
            ) from None

    def archive(self, key: Key, digest: str) -> Archive | None:
        """The one of that digest, if the volume has it."""
        path = self.file(key, digest)
        # It comes from a status, which others may write, too.
        if not DIGEST.fullmatch(digest):
            return None
        with suppress(OSError):
            return self._archive(key, digest, os.path.getsize(path))
        return None

    def file(self, key: Key, digest: str) -> str:
        """Where it would lie."""
        return os.path.join(self._place(key), _name(digest))

    def put(self, key: Key, data: bytes) -> Archive:
        """Writes it, whole and for good, before anybody can see it. Raises SecretweaveError: there is no room.

        One that is there is not written again: a full volume hinders nothing that is unchanged. `tidy` is to follow,
        whatever becomes of it.
        """
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = self.file(key, digest)
        folder = os.path.dirname(path)
        unfinished = os.path.join(folder, f"{UNFINISHED}{os.path.basename(path)}")
        with self._lock:
            self._taken[key] = digest
            if _holds(path, data):
                if key not in self._current:
                    # Who sweeps may not know its object yet.
                    _touch(path)
                return self._archive(key, digest, len(data))
        try:
            os.makedirs(folder, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(unfinished, path)
            _sync(folder)
        except OSError as error:
            with suppress(OSError):
                os.unlink(unfinished)
            raise SecretweaveError(
                "the artifact cannot be written to the controller's volume",
                why=error.strerror or "",
                fix="give the volume more room",
            ) from None
        return self._archive(key, digest, len(data))

    def tidy(self, key: Key, current: str) -> None:
        """Removes what was replaced long ago; *current*: the digest that is published."""
        with self._lock:
            before = self._current.get(key)
            if before is None:
                # Which of them was published until now is not known.
                folder = self._place(key)
                for _, name in _files(folder):
                    _touch(os.path.join(folder, name))
            elif before != current:
                _touch(self.file(key, before))
            self._taken.pop(key, None)
            self._current[key] = current
            self._tidy(key)

    def expire(self, known: Iterable[Key]) -> None:
        """Removes what was replaced since: an object may not have another turn for hours, and its archive may be
        plaintext.
        """
        alive = set(known)
        for key in list(self._current):
            with self._lock:
                if key in alive:
                    self._tidy(key)
                else:
                    del self._current[key]

    def sweep(self, known: Iterable[Key]) -> None:
        """Removes what belongs to no object any more, and what a crash has left; at a time when nothing is written."""
        alive = {(key.namespace, key.name) for key in known}
        for namespace in _folders(self._folder):
            inside = os.path.join(self._folder, namespace)
            for name in _folders(inside):
                is_alive = (namespace, name) in alive
                folder = os.path.join(inside, name)
                with self._lock:
                    for modified, file in _files(folder, None):
                        is_left = not is_alive or file.startswith(UNFINISHED)
                        if is_left and time.time() - modified > KEPT_SECONDS:
                            with suppress(OSError):
                                os.unlink(os.path.join(folder, file))
                if not is_alive:
                    with suppress(OSError):
                        os.rmdir(folder)
            with suppress(OSError):
                os.rmdir(inside)

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """To a GET: one archive by its exact path, or nothing."""
        match = PATH.fullmatch(path)
        if match is None or ".." in match[2]:
            return NOWHERE
        namespace, name, sha256 = match.groups()
        about = (("Content-Type", "application/gzip"), ("ETag", f'"{sha256}"'), ("Cache-Control", "no-store"))
        try:
            handle = os.open(self.file(Key(namespace, name), sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return NOWHERE
        file = os.fdopen(handle, "rb")
        if f'"{sha256}"' in headers.get("if-none-match", ""):
            file.close()
            return Answer(304, headers=about)
        return Answer(200, file, os.fstat(handle).st_size, about)

    def _tidy(self, key: Key) -> None:
        folder = self._place(key)
        wanted = {_name(each) for each in (self._current[key], self._taken.get(key, ""))}
        old = sorted((each for each in _files(folder) if each[1] not in wanted), reverse=True)
        for number, (since, name) in enumerate(old):
            if number >= KEPT_MOST or time.time() - since > KEPT_SECONDS:
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))

    def _place(self, key: Key) -> str:
        return os.path.join(self._folder, key.namespace, key.name)

    def _archive(self, key: Key, digest: str, size: int) -> Archive:
        path = f"{PREFIX}/{key.namespace}/{key.name}/{_name(digest)}"
        return Archive(digest, f"{self._url}/{path}", path, size)


def _name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}.tar.gz"


def _holds(path: str, data: bytes) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size == len(data) and file.read() == data
    return False


def _touch(path: str) -> None:
    with suppress(OSError):
        os.utime(path)


def _files(folder: str, form: "re.Pattern[str] | None" = FILE) -> list[tuple[float, str]]:
    """(when it was written or replaced, name) of each."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and (form is None or form.fullmatch(entry.name)):
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    return found


def _folders(folder: str) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        # A volume has a lost+found.
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name != "lost+found"]
    return []


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
