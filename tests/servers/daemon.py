"""A real daemon in a process of its own, and a client that tells what happens as the command does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from secretweave.argocd.daemon import client
from secretweave.errors import ConfigError, Faults, SecretweaveError

COMMAND = (sys.executable, "-m", "secretweave", "argocd", "serve")
CLIENT = """
import sys, time
from secretweave import cli, options
from secretweave.argocd.daemon import client
from secretweave.argocd.app import App
def work(request, load):
    path, project, namespace = sys.argv[1:]
    daemon = client.connect(path, time.monotonic())
    daemon.begin(App("web", project, namespace or None, "", "", ()))
    daemon.weave([("stdin", sys.stdin.buffer)], sys.stdout.buffer, cli.warn)
sys.exit(cli.run(options.Request("generate", ()), work))
"""
READY_SECONDS_MAX = 30


class Daemon(NamedTuple):
    path: str
    process: "subprocess.Popen[bytes]"
    log: Path
    clients: list[client.Client]
    """Closed with it."""

    def ask(
        self, stream: bytes, project: str = "shop", namespace: str = "default"
    ) -> "subprocess.CompletedProcess[bytes]":
        """What a client in a process of its own gives."""
        return subprocess.run(
            [sys.executable, "-c", CLIENT, self.path, project, namespace],
            input=stream,
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
            timeout=60,
        )

    def client(self) -> client.Client:
        found = client.connect(self.path, time.monotonic())
        assert found is not None, "nobody listens"
        self.clients.append(found)
        return found

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of its log, without their times."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        found = [{key: value for key, value in line.items() if key not in {"time", "seconds"}} for line in lines]
        return [line for line in found if event is None or line["event"] == event]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(READY_SECONDS_MAX)


@contextmanager
def daemon(
    folder: Path, config: Path, environ: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
) -> Iterator[Daemon]:
    """*folder* takes its socket and its log."""
    path, log = folder / "daemon" / "socket", folder / "daemon.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(config), "SECRETWEAVE_SOCKET": str(path)}
            | dict(environ or {}),
        ) as process,
    ):
        clients: list[client.Client] = []
        try:
            ends = time.monotonic() + READY_SECONDS_MAX
            while not is_up(str(path)):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.02)
            yield Daemon(str(path), process, log, clients)
        finally:
            for each in clients:
                each.close()
            process.kill()


def is_up(path: str) -> bool:
    try:
        client.ping(path)
    except (ConfigError, Faults):
        # It answers, with what is wrong with its configuration.
        return True
    except SecretweaveError:
        return False
    return True
