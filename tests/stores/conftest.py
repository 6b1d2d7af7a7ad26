"""Servers that several stores' tests share."""

from collections.abc import Iterator

import pytest

from tests.servers.moto import Moto, running


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    with running() as moto:
        yield moto
