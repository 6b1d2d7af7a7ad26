"""The repository's copy, which is hostile: nothing in it may lead out of it.

Argo CD checks symbolic links too, where its administrator has not turned that off; what reads the files here relies on
it as little as on anything else that the tenant sends.
"""

import os

from secretweave.errors import Faults, InputError, PolicyError, SecretweaveError, Where

ENTRIES_MAX = 200_000
DEPTH_MAX = 100
"""Folders in one another. Both bound what a repository can cost before anything of it is rendered."""


def root_of(folder: str, source_path: str) -> str:
    """The root of the repository, of which *folder* is the part *source_path*.

    Where the folder's path does not end so, only the folder itself is known to be the repository's. Argo CD's own part
    of the path ends in a random name, so no source path reaches above the root.
    """
    parts = [part for part in source_path.split("/") if part not in {"", "."}]
    have = folder.split("/")
    if source_path.startswith("/") or ".." in parts or not parts or have[-len(parts) :] != parts:
        return folder
    return "/".join(have[: -len(parts)]) or "/"


def holds(root: str, path: str) -> bool:
    """Is *path* the root or below it? Both absolute, without symbolic links."""
    return path == root or path.startswith(root.rstrip("/") + "/")


FIX = "name a file of the repository, relative to the app's folder"


def inside(path: str, root: str, field: str, fix: str = FIX) -> str:
    """A chosen path without symbolic links; *field*: what chose it. Raises PolicyError: it is not in the root."""
    if "\0" in path:
        raise PolicyError("a path holds a NUL character", where=Where(field=field), fix="take it out")
    real = os.path.realpath(path)
    if not holds(root, real):
        raise PolicyError(
            "a path leads out of the repository",
            where=Where(field=field),
            why="nothing outside of the repository may be read: it belongs to others",
            fix=fix,
        )
    return real


def check(root: str, folder: str) -> None:
    """Judges every entry of the repository. Raises Faults: of each that leads out of it or is of an unusual kind.

    Raises InputError: the app's folder is not in the repository, or there are more entries than anybody should need.
    """
    if not holds(root, folder):
        raise InputError("the app's folder is not in the repository", fix="correct spec.source.path")
    faults: list[SecretweaveError] = []
    count = 0
    waiting = [(root, 1)]
    while waiting:
        path, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise _too_much(f"folders {DEPTH_MAX} deep")
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_symlink():
                        if not holds(root, os.path.realpath(entry.path)):
                            faults.append(_leads_out(os.path.relpath(entry.path, root)))
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
                    elif not entry.is_file(follow_symlinks=False):
                        faults.append(_unusual(os.path.relpath(entry.path, root)))
        except OSError as error:
            faults.append(_unread(os.path.relpath(path, root), error))
        if count > ENTRIES_MAX:
            raise _too_much(f"{ENTRIES_MAX:,} files")
    if faults:
        raise Faults(sorted(faults, key=lambda fault: fault.where.source))


def _leads_out(name: str) -> PolicyError:
    return PolicyError(
        "a symbolic link leads out of the repository",
        where=Where(name),
        why="what is outside belongs to others",
        fix="replace the link by the file itself, or let it lead to a file of the repository",
    )


def _unusual(name: str) -> PolicyError:
    return PolicyError("neither a file, a folder nor a symbolic link", where=Where(name), fix="remove it")


def _unread(name: str, error: OSError) -> InputError:
    return InputError(f"a folder cannot be read: {error.strerror}", where=Where(name), fix="correct its permissions")


def _too_much(what: str) -> InputError:
    return InputError(
        f"the repository has more than {what}",
        fix="keep what the app needs in a repository of its own, "
        "or let the annotation argocd.argoproj.io/manifest-generate-paths name the folders that it needs",
    )
