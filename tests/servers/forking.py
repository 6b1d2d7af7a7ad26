"""The command in a process of its own that is forked and not started, at a tenth of the cost: for tables of many runs.

Another process, which has imported the command and done nothing else, forks for each run. From there on all is as in a
process that was started: descriptors, environment, working directory, `__main__.main` to its end, exit code. What
depends on the start itself (imports, locale, signals, limits, PYTHON... variables) is tested by `conftest.secretweave`,
and so is every golden case.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

ORDER_BYTES_MAX = 1 << 16
IMPORTED = (
    "secretweave.commands",
    "secretweave.config.files",
    "secretweave.outputs.redacted",
    "secretweave.outputs.secret",
    "secretweave.pipeline",
    "secretweave.report",
    "secretweave.stores.file",
)
"""What most runs load, with what they import; the rest is imported by the run that needs it."""


class Forking:
    def __init__(self, link: socket.socket, pool: ThreadPoolExecutor) -> None:
        self._link = link
        self._pool = pool

    def run(
        self, arguments: list[str], environ: Mapping[str, str], stdin: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        """One run of the command, in the working directory of the moment."""
        (source, feed), (out, into_out), (errors, into_errors) = (os.pipe() for _ in range(3))
        order = json.dumps([arguments, dict(environ), os.getcwd()]).encode()
        theirs = [source, into_out, into_errors]
        socket.send_fds(self._link, [order], theirs)
        for each in theirs:
            os.close(each)
        fed = self._pool.submit(_feed, os.fdopen(feed, "wb"), stdin)
        told = self._pool.submit(_drain, os.fdopen(errors, "rb"))
        written = _drain(os.fdopen(out, "rb"))
        fed.result()
        code = int(self._link.recv(ORDER_BYTES_MAX))
        return subprocess.CompletedProcess(arguments, code, written, told.result())


def _feed(pipe: BinaryIO, text: bytes) -> None:
    try:
        with pipe:
            pipe.write(text)
    except BrokenPipeError:
        # It ended without reading all, as `subprocess.run` allows too.
        return


def _drain(pipe: BinaryIO) -> bytes:
    with pipe:
        return pipe.read()


@contextmanager
def forking() -> Iterator[Forking]:
    with ExitStack() as held:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.enter_context(theirs)
        process = subprocess.Popen(
            [sys.executable, Path(__file__), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )
        held.callback(process.wait)
        # It ends when nobody holds the other end of its link.
        held.enter_context(ours)
        pool = held.enter_context(ThreadPoolExecutor(2))
        theirs.close()
        yield Forking(ours, pool)


def serve(link: socket.socket) -> None:
    """Forks for each order. Comes back in the process that is to end, by what SystemExit says or for good."""
    from importlib import import_module

    from secretweave import cli
    from secretweave.__main__ import main

    for name in IMPORTED:
        import_module(name)
    # What is here stays: else each child copies the memory of all of it, to look for garbage at its end.
    gc.freeze()
    while True:
        order, given, _, _ = socket.recv_fds(link, ORDER_BYTES_MAX, 3)
        if not order:
            return
        child = os.fork()
        if child == 0:
            link.close()
            for number, descriptor in enumerate(given):
                os.dup2(descriptor, number)
                os.close(descriptor)
            arguments, environ, folder = json.loads(order)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environ)
            sys.argv[1:] = arguments
            # Deadlines count from here.
            cli.STARTED = time.monotonic()
            main()
        for descriptor in given:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        link.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    # The folder of this file holds modules with the names of SDKs.
    sys.path.pop(0)
    serve(socket.socket(fileno=int(sys.argv[1])))
