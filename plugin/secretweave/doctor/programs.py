"""helm and kustomize: whether they are there and new enough, and whether they can be confined."""

import re
import time
from collections.abc import Iterator

from secretweave.doctor.base import Case, Finding, judged
from secretweave.errors import SecretweaveError
from secretweave.sources import programs, sandbox
from secretweave.sources.programs import Call

SECONDS = 10.0
VERSION = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:\.[0-9]{1,4})?\S{0,40}")
KNOWN = (
    ("helm", ("version", "--short"), (3, 8)),
    ("kustomize", ("version",), (5, 0)),
)
"""Name, what tells its version, and the least that is supported: (major, minor)."""


def check(case: Case) -> Iterator[Finding]:
    if case.host == "daemon":
        return
    confined = False
    for name, arguments, least in KNOWN:
        settings = getattr(case.config.settings.argocd, name) if case.config else None
        try:
            path = programs.find(name, settings.program if settings else None, case.environ)
        except SecretweaveError as error:
            if case.host == "sidecar":
                yield from judged("fault", name, error)
            else:
                yield Finding("skipped", name, "it is not here; only `secretweave argocd` starts it")
            continue
        try:
            said = _run(path, arguments)
        except SecretweaveError as error:
            yield from judged("fault", name, error)
            continue
        confined = True
        yield judged_version(name, path, said, least)
    if case.host == "sidecar":
        yield from _confinement(confined=confined)


def _run(path: str, arguments: tuple[str, ...]) -> str:
    """What the program says, run as for an Application. Raises SecretweaveError."""
    call = Call(
        program=path,
        arguments=arguments,
        folder="/",
        # Without these helm looks for folders of its own in a home that there is not.
        environ={"HOME": "/nonexistent", "HELM_NO_PLUGINS": "1"},
        readable=(),
        writable=(),
        root="/",
        deadline=time.monotonic() + SECONDS,
        seconds=SECONDS,
        fix="use the image of secretweave, or a sound build of it",
    )
    text = b""
    with programs.started(call) as output:
        while data := output.read(4096):
            text = (text + data)[:4096]
    return text.decode(errors="replace")


def judged_version(name: str, path: str, said: str, least: tuple[int, int]) -> Finding:
    found = VERSION.search(said)
    if found is None:
        return Finding("warning", name, f"{path} does not tell its version", f"use {name} itself, not a script")
    if (int(found[1]), int(found[2])) < least:
        wanted = ".".join(map(str, least))
        return Finding("fault", name, f"{found[0]} at {path} is older than {wanted}", f"use {name} {wanted} or newer")
    return Finding("ok", name, f"{found[0]} at {path}")


def _confinement(*, confined: bool) -> Iterator[Finding]:
    abi = sandbox.landlock_abi()
    if not confined:
        yield Finding("skipped", "confinement", "no program was there to be confined")
    elif abi:
        yield Finding("ok", "confinement", f"programs run behind a seccomp filter and Landlock (version {abi})")
    else:
        yield Finding(
            "warning",
            "confinement",
            "programs run behind a seccomp filter, but this kernel has no Landlock: they may read this container's"
            " files, those of other Applications that are rendered at the same time among them",
            "use nodes with Linux 5.13 or newer and Landlock among their security modules (`lsm=landlock,...`)",
        )
