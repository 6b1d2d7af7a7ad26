"""Finds and reads the files of a configuration.

Never from the working directory by itself: under Argo CD that folder belongs to the tenant. In order:

1. the path given (`--config`), else `SECRETWEAVE_CONFIG`: it must exist;
2. the user's folder `$XDG_CONFIG_HOME/secretweave`, else `~/.config/secretweave`
   (https://specifications.freedesktop.org/basedir-spec/latest/: a relative XDG_CONFIG_HOME is ignored);
3. `/etc/secretweave`.

Of 2 and 3 the first counts that holds a file `config.yaml` or a folder `config.d`; if it holds both, both are read.

A folder is read by the names of its files, in the order of their bytes. Names that begin with a dot are skipped,
because a mounted ConfigMap has `..data`; sub-folders are not entered. A file with another ending than .yaml, .yml or
.json is an error rather than skipped: what it held might have been a restriction.
"""

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from secretweave import yamltree
from secretweave.errors import ConfigError, InputError, SecretweaveError, Where
from secretweave.yamltree import Node

SYSTEM_FOLDER = "/etc/secretweave"
ENDINGS = (".yaml", ".yml", ".json")


class Source(NamedTuple):
    """One file of a configuration and its documents."""

    path: str
    documents: tuple[Node, ...]


def read(path: str | None, environ: Mapping[str, str], faults: list[SecretweaveError]) -> tuple[Source, ...]:
    """The configuration's files in load order; none if no configuration is there. What is wrong goes into *faults*."""
    given = path if path is not None else environ.get("SECRETWEAVE_CONFIG") or None
    if given is not None:
        # Where both say the same, the variable is what was set: the command line hands on what the environment says.
        by_variable = given == environ.get("SECRETWEAVE_CONFIG")
        paths = _files(given, faults, "SECRETWEAVE_CONFIG" if by_variable else "--config")
    else:
        paths = next(filter(None, (_found(folder, faults) for folder in folders(environ))), [])
    sources = (_source(each, faults) for each in paths)
    return tuple(source for source in sources if source is not None)


def folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where a configuration is looked for when none is named."""
    user = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(user):
        home = environ.get("HOME", "")
        user = os.path.join(home, ".config") if os.path.isabs(home) else ""
    return (os.path.join(user, "secretweave"), SYSTEM_FOLDER) if user else (SYSTEM_FOLDER,)


def _found(folder: str, faults: list[SecretweaveError]) -> list[str]:
    candidates = (os.path.join(folder, "config.yaml"), os.path.join(folder, "config.d"))
    return [file for path in candidates if os.path.lexists(path) for file in _files(path, faults, "")]


def _files(path: str, faults: list[SecretweaveError], named_by: str) -> list[str]:
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return [path]
        names = sorted(os.fsencode(name) for name in os.listdir(path))
    except OSError as error:
        fix = f"correct {named_by}" if named_by else "correct the file, or name another with --config"
        faults.append(_unreadable(path, error, fix))
        return []
    files = []
    for name in map(os.fsdecode, names):
        file = os.path.join(path, name)
        if name.startswith(".") or os.path.isdir(file):
            continue
        if name.endswith(ENDINGS):
            files.append(file)
        else:
            fix = "name it .yaml, .yml or .json, or let its name begin with a dot"
            faults.append(ConfigError("not a YAML file by its name", where=Where(file), fix=fix))
    if not files and named_by:
        faults.append(ConfigError("the folder holds no configuration", where=Where(path), fix=f"correct {named_by}"))
    return files


def _source(path: str, faults: list[SecretweaveError]) -> Source | None:
    try:
        with open(path, "rb") as file:
            data = file.read()
        return Source(path, tuple(yamltree.load(data)))
    except OSError as error:
        faults.append(_unreadable(path, error, "correct its path or its mode"))
    except InputError as error:
        where = error.where._replace(source=path)
        faults.append(ConfigError(error.what, where=where, why=error.why, fix=error.fix))
    return None


def _unreadable(path: str, error: OSError, fix: str) -> ConfigError:
    return ConfigError("the configuration cannot be read", where=Where(path), why=error.strerror or "", fix=fix)
