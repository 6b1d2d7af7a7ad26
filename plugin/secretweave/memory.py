"""Keeps the memory of this process, in which values lie, out of core files and from other processes of its user."""

import ctypes
import resource

PR_SET_DUMPABLE = 4
"""https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html"""


def protect() -> None:
    """No core dump, and no ptrace or /proc/PID/mem for who is not root. It cannot fail in a way worth a word."""
    # The hard limit too: no library raises it again.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core that is piped to a handler heeds no limit, only this.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
