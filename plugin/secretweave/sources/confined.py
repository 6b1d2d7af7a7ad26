"""Confines itself and becomes a program: what `programs` starts in a process that has threads, as a script.

Its arguments: the number of the process that starts it; the numbers of three open files: where to tell what went wrong,
the seccomp filter, Landlock's ruleset (-1: none); the program and its arguments.
"""

import os
import resource
import signal
import sys

UNCONFINED = b"unconfined"
"""Told when the kernel refuses. Else the number of the error of exec is told, or nothing: that is the program now."""

MEMORY_MAX = 512 << 20
"""Bytes that the program may have. One object's source must not end the process that serves all: since Kubernetes 1.28
the kernel ends a whole container where it has too little memory."""


def become(parent: int, told: int, seccomp: int, landlock: int, arguments: list[str]) -> None:
    """Returns when that has failed."""
    from secretweave.sources import sandbox

    for file in (told, seccomp, landlock):
        if file >= 0:
            os.set_inheritable(file, False)
    try:
        with open(seccomp, "rb") as stream:
            stream.seek(0)
            confinement = sandbox.received(stream.read(), landlock if landlock >= 0 else None, parent)
        # The interpreter ignores these, and a program inherits that.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        most = MEMORY_MAX if most == resource.RLIM_INFINITY else min(most, MEMORY_MAX)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        confinement()
    except OSError:
        os.write(told, UNCONFINED)
        return
    try:
        os.execve(arguments[0], arguments, os.environ)  # noqa: S606 - its parent names the program
    except OSError as error:
        os.write(told, str(error.errno).encode())


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    numbers = [int(each) for each in sys.argv[1:5]]
    become(numbers[0], numbers[1], numbers[2], numbers[3], sys.argv[5:])
