"""How the woven stream lies in an artifact: each Secret in a file of its own, all else in one.

SOPS' metadata, and what says that ciphertext may be used again, belong to one Secret each: in a file of its own a
person can hand it to `sops`, and what changed is seen by the files' names. There is no kustomization.yaml:
kustomize-controller generates one that names every file.

https://fluxcd.io/flux/components/kustomize/kustomizations/#generating-a-kustomizationyaml-file
"""

import hashlib
import re
from collections.abc import Iterable, Iterator

from secretweave.config.configuration import Limits
from secretweave.errors import Faults, SecretweaveError, Where
from secretweave.reading import Pieces
from secretweave.reading.manifests import Document, Interest, Reader
from secretweave.reading.spool import Spool
from secretweave.scan.objects import Object, walk
from secretweave.sealing.manifest import is_secret
from secretweave.yamltree import Reading, parse

REST = "manifests.yaml"
SOURCE = "woven manifests"
NAME_MAX = 90
"""Characters of a file's name without its ending: a header of ustar has 100 bytes for it, and a number may follow."""
SAFE = re.compile(r"[a-z0-9][a-z0-9.-]*")
EMPTY = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n|---[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*(?:#[^\n]*|---[ \t]*)?")
"""Nothing but comments and document markers."""
ANY_LENGTH = 1 << 62


def files(stream: Iterable[bytes], limits: Limits | None = None) -> dict[str, bytes]:
    """The files of an artifact, by name: `NAMESPACE_secret_NAME.yaml` for a Secret that names its namespace,
    `secret_NAME.yaml` for another one, and `manifests.yaml` in the stream's order, where there is anything else.

    *stream*: woven and sealed, in pieces of any size. Its documents' bytes stay as they are. All of it is in memory,
    and nowhere else: it may hold values. Raises InputError, or Faults of several.
    """
    limits = limits or Limits()
    found: dict[str, bytes] = {}
    rest: list[bytes] = []
    faults: list[SecretweaveError] = []
    position = 0
    with Spool(memory=ANY_LENGTH) as spool:
        interest = Interest((), lambda _, kind: kind == "Secret")
        for document in Reader([(SOURCE, Pieces(stream))], spool, interest, ANY_LENGTH, faults):
            name = _name(document, limits)
            if name is not None:
                found[_free(name, found)] = document.data
                rest.append(spool.read(position, document.begin))
                position = document.end
        if faults:
            raise Faults(faults)
        rest.append(spool.read(position, spool.size))
    others = b"".join(rest)
    if not EMPTY.fullmatch(others):
        found[REST] = others
    return found


def _name(document: Document, limits: Limits) -> str | None:
    """Of a Secret's file, without its ending; None: the document is none."""
    try:
        root = parse(document.data, Reading(depth=limits.depth, nodes=limits.nodes)).root
        obj = next(walk(root, None), None) if root is not None else None
    except SecretweaveError as fault:
        line = document.line + max(fault.where.line, 1)
        raise fault.at(Where(document.source, document.index, line)) from None
    if obj is None or not is_secret(obj):
        return None
    return "_".join(_parts(obj))


def _parts(obj: Object) -> Iterator[str]:
    names = [obj.namespace, "secret", obj.name] if obj.namespace else ["secret", obj.name]
    whole = "_".join(names)
    if len(whole) <= NAME_MAX and all(SAFE.fullmatch(name) for name in names):
        yield from names
    else:
        yield from ("secret", hashlib.sha256("\0".join(names).encode()).hexdigest())


def _free(name: str, taken: dict[str, bytes]) -> str:
    """No name of Kubernetes has an underscore, so a number after one makes no other Secret's name."""
    file, number = f"{name}.yaml", 1
    while file in taken:
        number += 1
        file = f"{name}_{number}.yaml"
    return file
