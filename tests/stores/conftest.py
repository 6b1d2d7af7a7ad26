"""Servers that several stores' tests share."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.moto import Moto, running


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
