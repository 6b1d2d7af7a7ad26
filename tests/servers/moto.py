"""Moto's AWS on loopback, in a process of its own: https://docs.getmoto.org/en/latest/docs/server_mode.html."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers.proxy import Exchange

READY_SECONDS_MAX = 60
REGION = "eu-west-1"
ACCOUNT = "123456789012"


class Keys(NamedTuple):
    id: str
    secret: str
    token: str | None = None


ANY_KEYS = Keys("AKIAEXAMPLE", "example")
"""Good for everything, until `enforce`."""


class Changed(NamedTuple):
    """A fault of the proxy: moto's answer, changed on its way to what moto itself does not answer."""

    change: Callable[[dict[str, Any]], dict[str, Any]]
    """Of the JSON in it."""

    async def meet(self, exchange: Exchange) -> None:
        answer = await exchange.upstream()
        await exchange.send(answer._replace(body=json.dumps(self.change(json.loads(answer.body))).encode()))


class Moto:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._clients: dict[tuple[str, str, Keys], Any] = {}
        """A tenth of a second each to make."""

    def client(self, service: str, region: str = REGION, keys: Keys = ANY_KEYS) -> Any:
        """boto3's, for the test's own hands."""
        boto3 = pytest.importorskip("boto3")
        if (service, region, keys) not in self._clients:
            session = boto3.session.Session(keys.id, keys.secret, keys.token, region_name=region)
            self._clients[service, region, keys] = session.client(service, endpoint_url=self.url)
        return self._clients[service, region, keys]

    def reset(self) -> None:
        """Forgets all that it was told, and asks for no permission."""
        self._post("reset")
        self._post("reset-auth", b"inf")

    def enforce(self) -> None:
        """From now on keys must be real, signatures right, and IAM's policies count."""
        self._post("reset-auth", b"0")

    def user(self, *actions: str) -> Keys:
        """The keys of a new user who may do these."""
        iam = self.client("iam")
        name = f"reader-{len(iam.list_users()['Users'])}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="reader", PolicyDocument=policy(Action=list(actions)))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return Keys(made["AccessKeyId"], made["SecretAccessKey"])

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _post(self, what: str, body: bytes = b"") -> None:
        request = urllib.request.Request(f"{self.url}/moto-api/{what}", data=body, method="POST")
        request.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(request, timeout=30):
            pass


def policy(**statement: Any) -> str:
    whole = {"Effect": "Allow", "Resource": "*"} | statement
    return json.dumps({"Version": "2012-10-17", "Statement": [whole]})


@contextmanager
def running() -> Iterator[Moto]:
    pytest.importorskip("moto")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        moto = Moto(port)
        end = time.monotonic() + READY_SECONDS_MAX
        while not moto.answers():
            assert process.poll() is None, "moto's server did not start"
            assert time.monotonic() < end, "moto's server is not ready"
            time.sleep(0.1)
        yield moto
    finally:
        process.terminate()
        process.wait()


def seal(monkeypatch: pytest.MonkeyPatch, folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Gives the SDK an environment without anything of this machine's AWS, and with *variables*."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    settled = {
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(folder),
    }
    for name, value in {**settled, **(variables or {})}.items():
        monkeypatch.setenv(name, value)
