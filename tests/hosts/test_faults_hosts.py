"""The stores whose servers are built programs meet each fault of tests/faults/table.py, through the real command."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults import adapters
from tests.faults.running import GOOD, Adapter, deny_one, interrupt, judge, meet, together
from tests.faults.table import PROMISES, STOPPING, Promise
from tests.servers.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=adapters.BUILT)
def adapter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Adapter]:
    folder = tmp_path_factory.mktemp("server")
    with adapters.BUILT[request.param](folder, authority) as started:
        yield started


@pytest.mark.parametrize("promise", PROMISES, ids=[promise.id for promise in PROMISES])
def test_a_fault_ends_as_promised(adapter: Adapter, promise: Promise, tmp_path: Path, authority: Authority):
    judge(meet(adapter, promise, tmp_path, authority), promise, adapter)


def test_one_denied_and_one_absent_secret_are_told_together(adapter: Adapter, tmp_path: Path, authority: Authority):
    deny_one(adapter, tmp_path, authority)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_a_run_that_waits_for_a_store_at_once(
    adapter: Adapter, tmp_path: Path, authority: Authority, number: signal.Signals, code: int
):
    ended, seconds = interrupt(adapter, tmp_path, authority, number)
    assert ended == code
    assert seconds < STOPPING


def test_the_stores_of_one_run_do_not_disturb_one_another(tmp_path: Path, authority: Authority):
    """Several times: their SDKs share packages, and are imported by threads, which meet otherwise each time.

    Kubernetes and Azure alone met worst: with nothing between them, both import `requests` at one time.
    """
    with ExitStack() as servers:
        started, stores = {}, adapters.STANDING | adapters.BUILT
        # Another Vault would find the first one's token in the environment.
        for name in (*adapters.STANDING, "vault", "kubernetes"):
            (tmp_path / name).mkdir()
            started[name] = servers.enter_context(stores[name](tmp_path / name, authority))
        for time in range(4):
            (tmp_path / f"run{time}").mkdir()
            names = ("kubernetes", "azurekv") if time % 2 else tuple(started)
            ran = together([(started[name], GOOD) for name in names], tmp_path / f"run{time}", authority)
            assert (ran.code, ran.err) == (0, ""), ran.err
