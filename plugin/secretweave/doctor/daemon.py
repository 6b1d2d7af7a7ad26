"""`secretweave argocd serve`: its socket, who may come to it, and whether it answers."""

import os
import stat
import time
from collections.abc import Iterator

from secretweave.doctor.base import Case, Finding, judged
from secretweave.errors import SecretweaveError

SUBJECT = "daemon"


def check(case: Case) -> Iterator[Finding]:
    if not case.has_tenants:
        return
    from secretweave.argocd import generate
    from secretweave.argocd.daemon import client

    path = generate.socket_of(case.environ)
    try:
        about = os.lstat(path)
    except OSError as error:
        # Said to be there, its absence is a failure; else each Application is woven alone, which works.
        expected = "SECRETWEAVE_SOCKET" in case.environ
        yield Finding(
            "fault" if expected else "warning",
            SUBJECT,
            f"there is no socket at {path} ({error.strerror}): each Application logs in to its stores by itself",
            "start `secretweave argocd serve` in a container that shares this folder, and look at its log",
        )
        return
    if not stat.S_ISSOCK(about.st_mode):
        yield Finding("fault", SUBJECT, f"{path} is no socket", "correct SECRETWEAVE_SOCKET")
        return
    open_to = [
        name
        for name, mode in (("the socket", about.st_mode), ("its folder", os.stat(os.path.dirname(path)).st_mode))
        if stat.S_IMODE(mode) & 0o077
    ]
    if about.st_uid != os.geteuid():
        yield Finding(
            "fault",
            SUBJECT,
            f"the socket belongs to user {about.st_uid}, and this is user {os.geteuid()}",
            "set the same runAsUser for both containers",
        )
        return
    if open_to:
        yield Finding(
            "fault",
            SUBJECT,
            f"{' and '.join(open_to)} can be reached by other users: who connects asks in any project's name",
            "let `secretweave argocd serve` make the folder itself, below the volume's mount",
        )
    begin = time.monotonic()
    try:
        # It refuses a version other than its own.
        client.ping(path)
    except SecretweaveError as error:
        yield from judged("fault", SUBJECT, error)
        return
    yield Finding("ok", SUBJECT, f"it answers at {path}, in {(time.monotonic() - begin) * 1000:.0f} ms")
