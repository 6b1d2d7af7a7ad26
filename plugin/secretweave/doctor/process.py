"""This process: what runs, as whom, and whether its memory is its own."""

import ctypes
import os
import platform
import resource
from collections.abc import Iterator

from secretweave import __version__, memory
from secretweave.doctor.base import Case, Finding

PR_GET_DUMPABLE = 3
"""https://man7.org/linux/man-pages/man2/PR_GET_DUMPABLE.2const.html"""


def check(case: Case) -> Iterator[Finding]:
    uid = os.geteuid()
    yield Finding("ok", "program", f"secretweave {__version__}, Python {platform.python_version()}, user {uid}")
    if case.has_tenants and uid == 0:
        yield Finding(
            "warning",
            "user",
            "this container runs as root",
            "set runAsNonRoot: true and runAsUser: 999, Argo CD's own user, in its securityContext",
        )
    # As every run that reads a secret does it; this one may read the secret of --ref.
    memory.protect()
    dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    if dumpable or resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        yield Finding(
            "warning",
            "memory",
            "a core dump of this process can be written, or other processes of its user may read its memory",
            "allow prctl(PR_SET_DUMPABLE) and setrlimit in the container's seccomp profile: RuntimeDefault does",
        )
    else:
        yield Finding("ok", "memory", "no core dump, and no other process of this user may read it")
