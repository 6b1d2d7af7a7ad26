"""Servers that several stores' tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.moto import Moto, running

HERE = Path(__file__).parent


SDKS = ("test_awssm.py", "test_awsssm.py", "test_azurekv.py", "test_gcpsm.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The contract runs on every interpreter, TLS and logins among it; the tables of answers do not."""
    for item in items:
        if item.path.name in SDKS and item.path.parent == HERE and "::TestContract::" not in item.nodeid:
            item.add_marker("sdk")


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    with running() as moto, pytest.MonkeyPatch.context() as patch:
        _read_once(patch)
        yield moto


def _read_once(patch: pytest.MonkeyPatch) -> None:
    """botocore reads its descriptions of AWS, megabytes of JSON, for each client anew: half of what a test takes."""
    loader = pytest.importorskip("botocore.loaders").JSONFileLoader
    read, known = loader.load_file, dict[str, Any]()

    def load_file(self: Any, path: str) -> Any:
        # What is not there stays so too: it looks into many folders for each.
        if path not in known:
            known[path] = read(self, path)
        return known[path]

    patch.setattr(loader, "load_file", load_file)
