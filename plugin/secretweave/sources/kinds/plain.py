"""Manifests as they lie in the folder, chosen and ordered as Argo CD's own directory source does; without jsonnet.

https://argo-cd.readthedocs.io/en/stable/user-guide/directory/
"""

import os
import re
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

from secretweave.errors import ConfigError, InputError, Where
from secretweave.reading import Readable
from secretweave.sources import tree
from secretweave.sources.kinds import Job

MARKERS = ()
SUFFIXES = (".yaml", ".yml", ".json")
SKIP = b"+argocd:skip-file-rendering"
"""A file that holds it anywhere is none of the app's."""
GLOB_MAX = 4096
PATTERNS_MAX = 256
"""Into which the braces of one glob may unfold."""
BRACES = r"\{([^{}]*)\}"


def manifests(job: Job) -> Generator[tuple[str, Readable], None, None]:
    """Raises InputError: there is none; ConfigError: a glob that is none."""
    found = False
    include, exclude = (
        _glob(job.choices[name], name) if name in job.choices else None for name in ("include", "exclude")
    )
    for path in _paths(job.folder, recurse=job.choices.get("recurse", False)):
        name = os.path.relpath(path, job.folder)
        if (exclude and exclude(name)) or (include and not include(name)):
            continue
        real = tree.inside(path, job.root, name)
        if not os.path.isfile(real):
            # A link to a folder, as in Argo CD itself.
            continue
        try:
            with open(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
                if not _is_marked(stream):
                    found = True
                    yield name, stream
        except OSError as error:
            raise InputError(
                f"the file cannot be read: {error.strerror}", where=Where(name), fix="correct its permissions"
            ) from None
    if not found:
        raise InputError(
            f"the app's folder {os.path.relpath(job.folder, job.root)} holds no .yaml, .yml or .json that is chosen",
            why="an app without manifests would have all that it has in the cluster deleted",
            fix=job.host.no_manifests,
        )


def _is_marked(stream: BinaryIO) -> bool:
    end = b""
    while piece := stream.read(1 << 20):
        if SKIP in end + piece:
            return True
        end = piece[-len(SKIP) :]
    stream.seek(0)
    return False


def _paths(folder: str, *, recurse: bool) -> Iterator[str]:
    """In the order of Go's filepath.Walk: a folder's entries by name, folders among files."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            if recurse:
                yield from _paths(entry.path, recurse=True)
        elif entry.name.endswith(SUFFIXES):
            yield entry.path


def _glob(text: str, field: str) -> Callable[[str], object]:
    """As https://github.com/gobwas/glob without separators, which Argo CD uses: `*` and `**` match slashes too."""
    from fnmatch import translate

    # A backslash takes the next character as it is, which fnmatch writes as a class of one.
    text = re.sub(r"\\(.)", lambda match: f"[{match[1]}]" if match[1] not in "{}," else match[0], text, flags=re.DOTALL)
    if len(text) > GLOB_MAX:
        raise ConfigError(f"the glob {field} is longer than {GLOB_MAX} characters", fix="shorten it")
    patterns = [text]
    while any(re.search(BRACES, pattern) for pattern in patterns):
        folded, patterns = patterns, []
        for pattern in folded:
            patterns += _unfolded(pattern)
            if len(patterns) > PATTERNS_MAX:
                raise ConfigError(
                    f"the glob {field} unfolds into more than {PATTERNS_MAX} patterns", fix="use fewer braces in it"
                )
    # fnmatch's own groups never try a match twice: no glob takes long.
    return re.compile("|".join(map(translate, patterns))).match


def _unfolded(pattern: str) -> list[str]:
    match = re.search(BRACES, pattern)
    if match is None:
        return [pattern]
    return [pattern[: match.start()] + choice + pattern[match.end() :] for choice in match[1].split(",")]
